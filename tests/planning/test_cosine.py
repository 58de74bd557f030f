"""The cosine that is told, against estimates that were made."""

from __future__ import annotations

import math

import msgspec
import numpy as np
import pytest

from baffle import Baffle, CentredDifference, ForwardDifference, Sgd, Sparse, server
from baffle.directions import Gaussian, Orthogonal, Rademacher
from baffle.mechanisms import GaussianPrivacy, RandomisedPrivacy
from baffle.messages import BlockPlan
from baffle.optimizers import ExponentialAverage
from baffle.planning.cosine import expected_cosine, relative_error, slope_noise
from baffle.planning.trial import mean_squares, quiet
from federation import Layered, simulation

FORWARD = ForwardDifference()


@pytest.mark.parametrize(
    ("law", "budget", "error"),
    [
        (Gaussian(), 5, 13 / 5),
        (Rademacher(), 5, 11 / 5),
        (Sparse(32), 5, (12 - 2 + 4) / 5),
        (Orthogonal(4), 8, 11 / 8 * 8 / 15),
        (Orthogonal(4), 16, 0.0),
    ],
    ids=["gaussian", "rademacher", "sparse", "half of the orthogonal", "all of the orthogonal"],
)
def test_error_of_a_block(make_plan, law, budget, error) -> None:
    block = BlockPlan(0, 12, budget, 1.0, law)
    plan = make_plan(blocks=(block,), groups=1, estimator=FORWARD)
    assert relative_error(plan, block) == pytest.approx(error)
    assert relative_error(msgspec.structs.replace(plan, groups=3, steps=2), block) == pytest.approx(error / 6)
    assert relative_error(plan, block, noise=0.5) == pytest.approx(error + 0.5 * 12 / budget)


def test_centred_slopes_have_one_degree_of_freedom_less(make_plan) -> None:
    block = BlockPlan(0, 12, 5, 1.0, Rademacher())
    plan = make_plan(blocks=(block,), groups=1, estimator=CentredDifference())
    assert relative_error(plan, block) == 11 / 4


def test_cosine_weighs_blocks_by_their_part_of_the_gradient(make_plan) -> None:
    blocks = (BlockPlan(0, 12, 4, 1.0, Gaussian()), BlockPlan(12, 28, 16, 1.0, Orthogonal(4)))
    plan = make_plan(blocks=blocks, groups=1, estimator=FORWARD)
    assert expected_cosine(plan) == pytest.approx(1 / math.sqrt(1 + 0.5 * 13 / 4))
    assert expected_cosine(plan, (0.0, 1.0)) == 1.0
    assert expected_cosine(plan, (1.0, 0.0), apart=(2.0, 1.0)) == pytest.approx(1 / math.sqrt(1 + 2 * 13 / 4))


def test_cosine_of_the_whole_vector_is_the_papers(make_plan) -> None:
    plan = make_plan(blocks=(BlockPlan(0, 26_730, 100, 1.0, Gaussian()),), groups=1, estimator=FORWARD)
    assert expected_cosine(plan) == pytest.approx(math.sqrt(100 / (100 + 26_730 + 1)))


def test_rounding_of_many_clients_averages_out(make_plan) -> None:
    block = BlockPlan(0, 12, 4, 127.0, Gaussian())
    alone = make_plan(blocks=(block,), cohort=(0,), groups=1, quorum=1, bits=8)
    assert slope_noise(alone, block, 2.0) == pytest.approx(1 / 12)
    four = msgspec.structs.replace(alone, cohort=(0, 1, 2, 3))
    assert slope_noise(four, block, 2.0) == pytest.approx(1 / 48)
    assert slope_noise(four, block, 0.0) == 0.0


METHOD = Baffle(
    forwards=90,
    batch=5,
    allocation="equal",
    orthogonal=False,
    estimator=CentredDifference(1e-4),
    bits=16,
    spread=0,
    bound=4.0,
    clip=0.0,
    optimizer=Sgd(rate=1.0),
    average=ExponentialAverage(0),
)
METHODS = {
    "layers": METHOD,
    "whole": msgspec.structs.replace(METHOD, blocks="whole"),
    "gaussian": msgspec.structs.replace(METHOD, law=Gaussian()),
    "orthogonal": msgspec.structs.replace(METHOD, orthogonal=True),
    "coarse": msgspec.structs.replace(METHOD, bits=4, bound=2.0),
    "groups": msgspec.structs.replace(METHOD, groups=3),
}


def gradients(made, plan, parameters) -> np.ndarray:
    """Each client's gradient on its mini-batch [C, n], by central differences in float64."""
    steps = 1e-6 * np.eye(parameters.size)
    point = parameters.astype(np.float64)
    batches = [client.batch(plan, 0) for client in made.clients()]
    ahead, behind = (made.runtime.losses(point + sign * steps, batches) for sign in (1, -1))
    return ((ahead - behind) / 2e-6).T


@pytest.mark.parametrize("name", METHODS)
def test_cosine_is_what_estimates_have(name) -> None:
    method = METHODS[name]
    made = simulation(method, runtime=Layered())
    cosines, told = [], []
    for seed in range(120):
        federation = msgspec.structs.replace(made.header().federation, key=bytes([seed] * 32))
        state = made.header().start(made.runtime.given)
        plan = server.plan(method, federation, state)
        reports = made.gathering().gather(plan, state.parameters)
        outcome = server.advance(method, state, plan, reports, made.kernels)
        estimate = state.parameters.astype(np.float64) - outcome.state.parameters
        each = gradients(made, plan, state.parameters)
        gradient = each.mean(0)
        cosines.append(estimate @ gradient / np.linalg.norm(estimate) / np.linalg.norm(gradient))
        told.append(foreseen(plan, each, mean_squares(outcome.record)))
    assert np.mean(cosines) == pytest.approx(np.mean(told), rel=0.06)


def foreseen(plan, each: np.ndarray, seen: tuple[float, ...]) -> float:
    """The cosine by theory, from exact gradients; what rounding adds is measured against the slopes."""
    parts = [slice(block.start, block.stop) for block in plan.blocks]
    joint = [float((each.mean(0)[part] ** 2).sum()) for part in parts]
    single = [
        float((each[:, part] ** 2).sum(1).mean()) if plan.groups > 1 else own
        for part, own in zip(parts, joint, strict=True)
    ]
    noise = [slope_noise(plan, block, square) for block, square in zip(plan.blocks, single, strict=True)]
    assert len(seen) == len(parts)
    apart = [one / own for one, own in zip(single, joint, strict=True)]
    return expected_cosine(plan, [own / sum(joint) for own in joint], apart, noise)


def test_slopes_of_a_round_tell_the_gradients_size() -> None:
    method = msgspec.structs.replace(METHOD, forwards=3000)
    made = simulation(method, runtime=Layered())
    state = made.header().start(made.runtime.given)
    plan = server.plan(method, made.header().federation, state)
    reports = made.gathering().gather(plan, state.parameters)
    record = server.advance(method, state, plan, reports, made.kernels).record
    gradient = gradients(made, plan, state.parameters).mean(0)
    for block, square in zip(plan.blocks, mean_squares(record), strict=True):
        assert square == pytest.approx((gradient[block.start : block.stop] ** 2).sum(), rel=0.25)


PRIVATE = {
    "gaussian": GaussianPrivacy(multiplier=0.2, size=0.5),
    "little of it": GaussianPrivacy(multiplier=0.04, size=2.0),
    "randomised": RandomisedPrivacy(keep=0.4, extension=0.5, slopes=1000, size=0.5),
}


@pytest.mark.parametrize("name", PRIVATE)
def test_cosine_of_a_private_run_has_its_noise_in_it(name) -> None:
    """What is told follows from a second look without noise; cosines are those of estimates with it."""
    bits = 4 if name == "randomised" else 12
    method = msgspec.structs.replace(METHOD, forwards=300, bits=bits, spread=3.0, privacy=PRIVATE[name])
    made = simulation(method, runtime=Layered(), weight="equal")
    state = made.header().start(made.runtime.given)
    cosines, told, plain = [], [], []
    for seed in range(40):
        federation = msgspec.structs.replace(made.header().federation, key=bytes([seed] * 32))
        plan = server.plan(method, federation, state)
        noisy, silent = (
            server.advance(method, state, each, made.gathering().gather(each, state.parameters), made.kernels)
            for each in (plan, quiet(plan))
        )
        estimate = state.parameters.astype(np.float64) - noisy.state.parameters
        gradient = gradients(made, plan, state.parameters).mean(0)
        cosines.append(estimate @ gradient / np.linalg.norm(estimate) / np.linalg.norm(gradient))
        squares = mean_squares(silent.record)
        shares = [square / sum(squares) for square in squares]
        noise = [slope_noise(plan, block, square) for block, square in zip(plan.blocks, squares, strict=True)]
        told.append(expected_cosine(plan, shares, (), noise))
        plain.append(expected_cosine(plan, shares))
    assert np.mean(cosines) == pytest.approx(np.mean(told), rel=0.1)
    assert np.mean(told) < 0.95 * np.mean(plain)
