from __future__ import annotations

from dataclasses import replace

import msgspec
import numpy as np
import pytest

from baffle import CentralDifference, CentredDifference, ForwardDifference, Gaussian, Rademacher, Sgd, Sparse
from baffle.client import Client, answer, answers
from baffle.errors import ReportError
from baffle.mechanisms import MISSING
from baffle.messages import Plan, Report, decode, encode
from federation import FEATURES, FIRST, KERNELS, METHOD, SECOND, Layered, Network, Watched, play, simulation

ESTIMATORS = [ForwardDifference(scale=1e-3), CentralDifference(scale=1e-2), CentredDifference(scale=1e-2)]


def with_(method=METHOD, **changes):
    return msgspec.structs.replace(method, **changes)


def naive_slopes(plan: Plan, group: int, step: int, theta: np.ndarray, batch, runtime: Network) -> np.ndarray:
    """The formulas of the estimators' docstrings, a probe at a time."""
    scale, kind = plan.estimator.scale, type(plan.estimator)
    slopes = []
    for number, block in enumerate(plan.blocks):
        key, part = plan.stream(group, step, number), slice(block.start, block.stop)
        plus, minus = [], []
        for direction in range(block.budget):
            z = block.law.entries(key, direction, 0, block.stop - block.start).astype(np.float64)
            for sign, losses in ((1.0, plus), (-1.0, minus)):
                point = theta.astype(np.float64)
                point[part] += sign * (scale / block.law.deviation) * z
                losses.append(runtime.loss(point, batch))
        plus, minus = np.array(plus), np.array(minus)
        unit = scale / block.law.deviation * block.law.deviation
        if kind is ForwardDifference:
            slopes.append((plus - runtime.loss(theta.astype(np.float64), batch)) / unit)
        elif kind is CentralDifference:
            slopes.append((plus - minus) / (2 * unit))
        else:
            slopes.append(block.budget / (block.budget - 1) * (plus - plus.sum() / block.budget) / unit)
    return np.concatenate(slopes)


def naive_integers(plan: Plan, theta: np.ndarray, client: Client, runtime: Network) -> np.ndarray:
    """H local steps, each in float64 but for θ, which is float32."""
    levels, bounds = 2 ** (plan.bits - 1) - 1, plan.bounds
    group, taken = plan.group(client.number), []
    for step in range(plan.steps):
        slopes = naive_slopes(plan, group, step, theta, client.batch(plan, step), runtime)
        slopes = np.minimum(np.maximum(slopes, -bounds), bounds)
        q = np.floor(slopes / bounds * levels + client.uniforms(plan, step))
        q = np.clip(q, -levels, levels).astype(np.int64)
        taken.append(q)
        gradient, first = np.zeros(theta.size, np.float64), 0
        for number, block in enumerate(plan.blocks):
            for k in range(block.budget):
                z = block.law.entries(plan.stream(group, step, number), k, 0, block.stop - block.start)
                gradient[block.start : block.stop] += int(q[first + k]) * z.astype(np.float64)
            gradient[block.start : block.stop] *= block.bound / (levels * block.law.deviation * block.budget)
            first += block.budget
        theta = theta - np.float32(plan.rate) * gradient.astype(np.float32)
    return np.stack(taken)


@pytest.mark.parametrize("estimator", ESTIMATORS, ids=lambda e: type(e).__name__)
@pytest.mark.parametrize("law", [Rademacher(), Gaussian(), Sparse(40)], ids=["rademacher", "gaussian", "sparse"])
@pytest.mark.parametrize(
    ("steps", "groups", "blocks"), [(1, 1, "layers"), (1, 2, "whole"), (3, 1, "layers"), (3, 3, "whole")]
)
def test_a_report_is_what_a_naive_loop_over_probes_gives(estimator, law, steps, groups, blocks) -> None:
    method = with_(estimator=estimator, law=law, local_steps=steps, groups=groups, forwards=150, blocks=blocks, bits=16)
    made = simulation(method)
    played = play(made)
    for client, data in zip(made.clients(), played.reports, strict=True):
        report = decode(data, Report)
        expected = naive_integers(played.plan, played.state.parameters, client, made.runtime)
        np.testing.assert_array_equal(report.integers(played.plan), expected)
        assert np.abs(expected).max() > 50  # slopes are there: the claim is not 0 = 0


@pytest.mark.parametrize("steps", [1, 3])
@pytest.mark.parametrize("groups", [1, 2, 5])
@pytest.mark.parametrize("kind", ["mlp", "conv"])
def test_clients_together_answer_as_one_by_one_bit_for_bit_in_float64(kind, groups, steps) -> None:
    torch = pytest.importorskip("torch")
    from torch import nn

    torch.set_num_threads(1)

    from baffle.runtimes.torch import TorchRuntime

    torch.manual_seed(0)
    if kind == "mlp":
        model = nn.Sequential(nn.Linear(FEATURES, 16), nn.Hardswish(), nn.Linear(16, 3))
    else:
        model = nn.Sequential(
            nn.Unflatten(1, (1, 2, 2)), nn.Conv2d(1, 4, 3, padding=1), nn.ReLU(), nn.Flatten(), nn.Linear(16, 3)
        )
    runtime = TorchRuntime(model, device="cpu", precision="float64", drawn=True)
    method = with_(forwards=120, groups=groups, local_steps=steps, bits=32, estimator=CentralDifference(scale=1e-3))
    made = simulation(method, (12, 9, 4, 12, 1), runtime=runtime)
    played = play(made)
    clients = made.clients()
    alone = [encode(answer(played.plan, played.state.parameters, client, runtime, made.kernels)) for client in clients]
    assert played.reports == alone
    assert len(set(alone)) == len(clients)


def test_clients_are_answered_for_in_order_whatever_order_they_are_asked_in() -> None:
    made = simulation(with_(groups=2), (12, 12, 12, 12))
    played = play(made)
    backwards = answers(played.plan, played.state.parameters, made.clients()[::-1], made.runtime, KERNELS)
    assert [encode(report) for report in backwards] == played.reports
    assert [report.client for report in backwards] == [0, 1, 2, 3]


@pytest.mark.parametrize("estimator", ESTIMATORS, ids=lambda e: type(e).__name__)
@pytest.mark.parametrize("steps", [1, 3])
def test_a_client_evaluates_exactly_the_points_that_the_plan_announces(estimator, steps) -> None:
    made = simulation(
        with_(estimator=estimator, local_steps=steps, forwards=155, blocks="whole"), runtime=Watched(Network())
    )
    played = play(made)
    made.runtime.seen.clear()
    answer(played.plan, played.state.parameters, made.clients()[0], made.runtime, KERNELS)
    passes = sum(len(points) * len(targets) for points, ((_, targets),) in made.runtime.seen)
    assert passes == played.plan.forwards
    assert passes <= 155
    # What is left over is less than one more direction for every step.
    assert 155 - passes < 5 * steps * (1 + len(estimator.signs))


@pytest.mark.parametrize("estimator", ESTIMATORS, ids=lambda e: type(e).__name__)
@pytest.mark.parametrize(
    ("steps", "changes"),
    [
        (1, {}),
        (3, {"forwards": 200}),
        (1, {"blocks": "whole"}),
        (1, {"blocks": ("second.*",)}),
        (2, {"blocks": ("*.bias", "second.weight"), "forwards": 333, "batch": 7}),
        (1, {"forwards": 3200, "batch": 0, "allocation": "adaptive", "orthogonal": True}),
    ],
    ids=str,
)
def test_the_forwards_of_a_plan_are_those_that_are_counted_where_prefixes_are_shared(estimator, steps, changes) -> None:
    made = simulation(with_(estimator=estimator, local_steps=steps, **changes), (400, 400), runtime=Layered())
    played = play(made)
    made.runtime.work.clear()
    answer(played.plan, played.state.parameters, made.clients()[0], made.runtime, KERNELS)
    passes = sum(made.runtime.work) / (FIRST + SECOND)
    assert played.plan.forwards == pytest.approx(passes, rel=1e-12)
    assert passes <= made.algorithm.forwards * (1 + 1e-12)


@pytest.mark.parametrize("estimator", ESTIMATORS, ids=lambda e: type(e).__name__)
@pytest.mark.parametrize("steps", [1, 3])
def test_a_runtime_that_shares_prefixes_answers_as_one_that_does_not(estimator, steps) -> None:
    method = with_(estimator=estimator, local_steps=steps, forwards=240, groups=2, orthogonal=True, bits=32)
    made = simulation(method, runtime=Layered())
    played = play(made)
    assert {block.cost for block in played.plan.blocks} == {1.0, SECOND / (FIRST + SECOND)}
    made.runtime.work.clear()
    whole = answers(played.plan, played.state.parameters, made.clients(), Network(), KERNELS)
    assert [encode(report) for report in whole] == played.reports
    assert made.runtime.work == []


def test_a_runtime_that_shares_prefixes_is_asked_for_all_blocks_of_a_step_at_once() -> None:
    asked = []

    class Asked(Layered):
        def losses(self, points, batches):
            asked.append("losses")
            return super().losses(points, batches)

        def sweep(self, blocks, batches):
            asked.append(([probes.block for probes in blocks], len(batches)))
            return super().sweep(blocks, batches)

    made = simulation(with_(estimator=ForwardDifference(), forwards=200, groups=2), runtime=Asked())
    played = play(made)
    blocks = list(played.plan.blocks)
    # Tried with a whole pass, then the base and the probes of groups of two clients and of one.
    assert asked == ["losses", (blocks, 2), "losses", (blocks, 1)]


def test_one_mini_batch_serves_all_probes_of_a_step_and_no_other_step() -> None:
    made = simulation(with_(local_steps=3, forwards=120), runtime=Watched(Network()))
    played = play(made)
    made.runtime.seen.clear()
    client = made.clients()[0]
    answer(played.plan, played.state.parameters, client, made.runtime, KERNELS)
    calls = [batches[0][0] for _, batches in made.runtime.seen]
    assert len(calls) == 6  # two blocks, three steps
    for step in range(3):
        np.testing.assert_array_equal(calls[2 * step], calls[2 * step + 1])
        np.testing.assert_array_equal(calls[2 * step], client.batch(played.plan, step)[0])
    assert not np.array_equal(calls[0], calls[2])
    assert not np.array_equal(calls[2], calls[4])


def test_batches_and_rounding_are_new_in_every_round_attempt_and_step_and_private() -> None:
    made = simulation()
    plan = play(made).plan
    clients = made.clients()
    plans = [plan, msgspec.structs.replace(plan, round=1), msgspec.structs.replace(plan, attempt=1)]
    drawn = [client.uniforms(one, step).tobytes() for client in clients for one in plans for step in (0, 1)]
    assert len(set(drawn)) == len(drawn)
    assert clients[0].uniforms(plan, 0).min() >= 0
    assert clients[0].uniforms(plan, 0).max() < 1
    rows = [client.batch(one, step)[0].tobytes() for client in clients for one in plans for step in (0, 1)]
    assert len(set(rows)) == len(rows)


def test_a_batch_holds_no_sample_twice_and_all_where_there_are_fewer() -> None:
    made = simulation(with_(batch=5), (12, 3))
    plan = play(made).plan
    large, small = made.clients()
    assert len(np.unique(large.batch(plan, 0)[0], axis=0)) == 5
    np.testing.assert_array_equal(np.sort(small.batch(plan, 0)[0], axis=0), np.sort(made.shares[1].data.inputs, axis=0))


@pytest.mark.parametrize("bits", range(2, 33))
def test_a_report_costs_its_integers_and_a_few_bytes(bits) -> None:
    for groups, forwards in ((1, 40), (3, 505)):
        played = play(simulation(with_(bits=bits, groups=groups, forwards=forwards)))
        for data in played.reports:
            assert len(data) <= played.plan.directions * bits / 8 + 64
            assert len(data) >= played.plan.directions * bits / 8


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_a_probe_without_a_finite_loss_is_missing_and_alone_so(value) -> None:
    method = with_(estimator=ForwardDifference(scale=1e-2), forwards=65)
    clean = play(simulation(method))

    def spoil(losses):
        losses = losses.copy()
        if len(losses) > 1:  # not the base pass
            losses[2] = value
        return losses

    made = simulation(method, runtime=Watched(Network(), spoil))
    report = answer(clean.plan, clean.state.parameters, made.clients()[0], made.runtime, KERNELS)
    whole = answer(clean.plan, clean.state.parameters, made.clients()[0], Network(), KERNELS)
    got, expected = report.integers(clean.plan)[0], whole.integers(clean.plan)[0]
    assert np.flatnonzero(got == MISSING).tolist() == [2, 8]  # third probe of either block of six
    np.testing.assert_array_equal(np.delete(got, [2, 8]), np.delete(expected, [2, 8]))


def test_a_base_loss_that_is_not_finite_leaves_nothing_to_report() -> None:
    method = with_(estimator=ForwardDifference(scale=1e-2), forwards=65)
    made = simulation(method, runtime=Watched(Network(), lambda losses: losses * (np.nan if len(losses) == 1 else 1)))
    played = play(made)
    report = answer(played.plan, played.state.parameters, made.clients()[0], made.runtime, KERNELS)
    with pytest.raises(ReportError, match="no probe had a finite loss"):
        report.integers(played.plan)


def test_local_steps_go_on_over_missing_probes_with_those_that_are_there() -> None:
    def spoil(losses):
        losses = losses.copy()
        losses[0] = np.nan
        return losses

    made = simulation(with_(local_steps=2, forwards=120), runtime=Watched(Network(), spoil))
    played = play(made)
    integers = answer(played.plan, played.state.parameters, made.clients()[0], made.runtime, KERNELS).integers(
        played.plan
    )
    assert (integers == MISSING).sum() == 4  # one of each block and step
    assert np.isfinite(made.runtime.seen[-1][0][0]).all()  # θ of the second step


def test_a_plan_for_another_model_is_refused() -> None:
    made = simulation()
    played = play(made)
    client = made.clients()[0]
    with pytest.raises(ReportError, match="parameter 26 of a model of 20"):
        answer(played.plan, played.state.parameters[:20], client, made.runtime, KERNELS)


def test_a_plan_whose_blocks_are_out_of_order_or_outside_the_model_is_refused() -> None:
    made = simulation()
    played = play(made)
    first, second = played.plan.blocks
    huge = msgspec.structs.replace(first, start=1000, stop=1012)
    client = made.clients()[0]
    for blocks, words in (
        ((huge, second), "the plan's blocks are empty, overlap, or are not in ascending order"),
        ((second, huge), "the plan displaces parameter 1011 of a model of 27"),
    ):
        fields = msgspec.structs.asdict(played.plan) | {"blocks": blocks}
        data = msgspec.msgpack.encode(list(fields.values()))  # as it would come over a wire
        with pytest.raises(ReportError, match=f"^{words}$"):
            answer(decode(data, Plan), played.state.parameters, client, made.runtime, KERNELS)


def test_a_client_that_was_not_asked_does_not_answer() -> None:
    made = simulation(sizes=(12,) * 4, participation=0.5)
    played = play(made)
    absent = next(client for client in made.clients() if client.number not in played.plan.cohort)
    with pytest.raises(ReportError, match=f"client {absent.number} is not in the cohort of round 0"):
        answer(played.plan, played.state.parameters, absent, made.runtime, KERNELS)


def test_the_parameters_given_are_not_changed() -> None:
    made = simulation(with_(local_steps=3, forwards=120, optimizer=Sgd(rate=0.1)))
    played = play(made)
    before = played.state.parameters.copy()
    made.gathering().gather(played.plan, played.state.parameters)
    np.testing.assert_array_equal(played.state.parameters, before)


def test_slopes_are_clipped_to_the_bound_and_reach_it() -> None:
    method = with_(bound=1e-3, bits=8)
    made = simulation(method)
    played = play(made)
    integers = answer(played.plan, played.state.parameters, made.clients()[0], made.runtime, KERNELS)
    assert set(np.abs(integers.integers(played.plan)).ravel().tolist()) == {127}


def test_rounding_is_unbiased_over_clients_that_hold_the_same_data() -> None:
    """400 clients hold one and the same sample: the mean of their integers is the slope to a few hundredths."""
    made = simulation(with_(bits=4, bound=2.0), (1,) * 400)
    same = made.shares[0]
    made = replace(made, shares=[same] * 400)
    played = play(made)
    plan = played.plan
    integers = np.stack([decode(data, Report).integers(plan)[0] for data in played.reports])
    slopes = naive_slopes(plan, 0, 0, played.state.parameters, made.clients()[0].batch(plan, 0), Network())
    scaled = slopes / plan.bounds * 7
    # A mean of 400 has a standard deviation of at most 0.5 / 20; five of them.
    assert np.abs(integers.mean(0) - scaled).max() < 5 * 0.5 / 20
    assert len(np.unique(integers, axis=0)) > 1
