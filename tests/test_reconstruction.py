from itertools import permutations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from baffle import Baffle, ExponentialAverage, Gaussian, Rademacher, Sgd, Sparse
from baffle.directions import Orthogonal
from baffle.kernels import PlainKernels
from baffle.kernels.compiled import CompiledKernels
from baffle.keys import Key
from baffle.mechanisms import MISSING, Quantiser
from baffle.messages import BlockPlan, Report, encode
from baffle.parameters import Layout, Tensor
from baffle.reconstruction import local_gradient, reconstruct
from baffle.server import Federation, advance, plan

KERNELS = [PlainKernels(), PlainKernels(slice_size=8), CompiledKernels(), CompiledKernels(threads=2, room=16)]
SIZE = 14


def naive(made, sums, weight, size):
    """ĝ by a loop over `law.entries` in float64."""
    gradient = np.zeros(size)
    levels = 2 ** (made.bits - 1) - 1
    column = 0
    for number, block in enumerate(made.blocks):
        for k in range(block.budget):
            for group in range(made.groups):
                for step in range(made.steps):
                    key = Key(made.key).fold(group, step, number)
                    z = block.law.entries(key, k, 0, block.stop - block.start) / block.law.deviation
                    slope = block.bound * float(sums[group, step, column]) / levels / weight
                    gradient[block.start : block.stop] += slope * z / (block.budget * made.steps)
            column += 1
    return gradient


def random_sums(made, seed=0, weight=100):
    reach = weight * (2 ** (made.bits - 1) - 1)
    return np.random.default_rng(seed).integers(-reach, reach, made.shape, endpoint=True)


@pytest.mark.parametrize("some", KERNELS, ids=repr)
@pytest.mark.parametrize(
    "changes",
    [
        *({}, {"steps": 3}, {"groups": 1}, {"bits": 2}, {"bits": 16, "groups": 3}),
        {"blocks": (BlockPlan(0, 5, 8, 16.0, Orthogonal(3)), BlockPlan(5, 12, 5, 2.0, Orthogonal(4))), "steps": 2},
    ],
    ids=str,
)
def test_the_estimate_is_the_naive_float64_sum_rounded_to_float32(make_plan, some, changes):
    made = make_plan(**changes)
    sums = random_sums(made)
    estimate = reconstruct(made, sums, 100, SIZE, some)
    expected = naive(made, sums, 100, SIZE)
    assert estimate.dtype == np.float32
    tolerance = 2**-24 * np.abs(expected) + 1e-12 * np.abs(expected).max()
    assert (np.abs(estimate - expected) <= tolerance).all()


@pytest.mark.parametrize("some", KERNELS[1:], ids=repr)
def test_kernels_do_not_show_in_the_bits(make_plan, some):
    block = BlockPlan(2, 1000, 9, 3.7, Gaussian())
    signs, rows = BlockPlan(1000, 2001, 5, 0.3, Rademacher()), BlockPlan(2001, 2301, 300, 0.7, Orthogonal(9))
    made = make_plan(blocks=(block, signs, rows), steps=2)
    sums = random_sums(made)
    first = reconstruct(made, sums, 77, 2301, KERNELS[0])
    assert np.array_equal(first.view(np.uint32), reconstruct(made, sums, 77, 2301, some).view(np.uint32))


@pytest.mark.parametrize("some", KERNELS, ids=repr)
@pytest.mark.parametrize("size", [1, 5, 8, 100, 128])
def test_exact_slopes_along_all_orthogonal_directions_give_the_gradient_back(make_plan, some, size):
    law = Orthogonal((size - 1).bit_length())
    gradient = np.random.default_rng(size).normal(size=size)
    block = BlockPlan(2, 2 + size, law.most, 2.0 * np.abs(gradient).sum(), law)
    made = make_plan(blocks=(block,), groups=1, bits=32, cohort=(0,))
    slopes = np.array([law.entries(made.stream(0, 0, 0), k, 0, size) @ gradient for k in range(law.most)])
    integers = Quantiser(32)(slopes, made.bounds, np.full(law.most, 0.5))
    estimate = reconstruct(made, integers[None, None], 1, size + 2, some)
    # A slope's rounding is half of bound/(2³¹ − 1), and float32 has 24 bits.
    assert estimate[:2].tolist() == [0, 0]
    assert np.abs(estimate[2:] - gradient).max() <= block.bound / 2**32 + 2**-24 * np.abs(gradient).max()


def test_by_hand(make_plan):
    block = BlockPlan(1, 3, 2, 6.0, Rademacher())
    made = make_plan(blocks=(block,), groups=1, bits=3, cohort=(0,))  # 3 levels
    z = np.array([Rademacher().entries(Key(made.key).fold(0, 0, 0), k, 0, 2) for k in range(2)], np.float64)
    # 6/(3 · 2 directions · weight 4) is ¼
    estimate = reconstruct(made, np.array([[[8, -4]]]), 4, 4, KERNELS[0])
    assert estimate.tolist() == [0.0, *(0.25 * (8 * z[0] - 4 * z[1])).tolist(), 0.0]


def test_parameters_outside_every_block_get_0(make_plan):
    blocks = (BlockPlan(2, 4, 2, 1.0, Gaussian()), BlockPlan(7, 9, 2, 1.0, Rademacher()))
    sums = 2 ** np.arange(8).reshape(2, 1, 4)  # powers of two, so that signs can't cancel
    estimate = reconstruct(make_plan(blocks=blocks), sums, 2, 11, KERNELS[0])
    assert np.flatnonzero(estimate).tolist() == [2, 3, 7, 8]


def test_local_steps_are_averaged(make_plan):
    made = make_plan(steps=2, groups=1)
    sums = random_sums(made, weight=1)
    local = [local_gradient(made, 0, step, sums[0, step], SIZE, KERNELS[0]).astype(np.float64) for step in range(2)]
    together = reconstruct(made, sums, 1, SIZE, KERNELS[0])
    assert together == pytest.approx((local[0] + local[1]) / 2, rel=1e-6, abs=1e-7)
    assert not np.allclose(local[0], local[1])


def test_one_client_and_one_step_give_its_local_gradient(make_plan):
    made = make_plan(groups=1)
    sums = random_sums(made, weight=1)
    local = local_gradient(made, 0, 0, sums[0, 0], SIZE, KERNELS[0])
    assert np.array_equal(local, reconstruct(made, sums, 1, SIZE, KERNELS[0]))


@given(seed=st.integers(0, 1000), factor=st.integers(2, 50))
@settings(max_examples=20)
def test_only_sums_over_weight_count(make_plan, seed, factor):
    made = make_plan()
    sums = random_sums(made, seed)
    scaled = reconstruct(made, sums * factor, 100 * factor, SIZE, KERNELS[0])
    assert scaled == pytest.approx(reconstruct(made, sums, 100, SIZE, KERNELS[0]), rel=1e-6)


@pytest.mark.parametrize(("law", "excess"), [(Rademacher(), -1), (Gaussian(), 1), (Sparse(32), 2)], ids=repr)
def test_the_relative_squared_error_is_n_over_k(make_plan, law, excess):
    n, budget, rounds = 24, 6, 400
    gradient = np.random.default_rng(0).normal(size=n)
    gradient /= np.linalg.norm(gradient)
    block, errors, estimates = BlockPlan(0, n, budget, 8.0, law), [], []
    for number in range(rounds):
        made = make_plan(key=Key.root(number).secret, blocks=(block,), groups=1, bits=24, cohort=(0,))
        key = made.stream(0, 0, 0)
        z = np.array([law.entries(key, k, 0, n) for k in range(budget)]) / law.deviation
        integers = Quantiser(24)(z @ gradient, made.bounds, np.full(budget, 0.5))
        estimates.append(reconstruct(made, integers[None, None], 1, n, KERNELS[0]))
        errors.append(((estimates[-1] - gradient) ** 2).sum())
    standard_error = np.std(errors) / np.sqrt(rounds)
    assert abs(np.mean(errors) - (n + excess) / budget) <= 4 * standard_error
    assert standard_error < 0.05 * n / budget
    bias = np.mean(estimates, axis=0) - gradient
    assert (np.abs(bias) <= 4.5 * np.std(estimates, axis=0) / np.sqrt(rounds)).all()


LAYOUT = Layout((Tensor("a.weight", (3, 3)), Tensor("b.weight", (5,))))


def one_round(groups=1, clients=3, kernels=KERNELS[0], steps=1, bits=8):
    """Return (plan, advance): a round that takes θ = 0 to −ĝ."""
    sgd, last = Sgd(rate=1.0), ExponentialAverage(decay=0.0)
    method = Baffle(
        forwards=10 * steps,
        batch=1,
        bits=bits,
        orthogonal=False,
        groups=groups,
        local_steps=steps,
        optimizer=sgd,
        average=last,
        clip=0.0,
        law=Gaussian(),
    )
    federation = Federation(key=Key.root(6).secret, layout=LAYOUT, clients=clients, most_samples=9)
    state = method.start(np.zeros(LAYOUT.size, np.float32))
    made = plan(method, federation, state)
    return made, lambda reports: advance(method, state, made, reports, kernels)


def reports_of(made, missing=0.2):
    generator = np.random.default_rng(9)
    integers = generator.integers(-127, 127, (len(made.cohort), made.steps, made.directions), endpoint=True)
    integers = np.where(generator.random(integers.shape) < missing, MISSING, integers)
    return integers, [encode(Report.of(made, c, 1 + 4 * c, own)) for c, own in zip(made.cohort, integers, strict=True)]


@pytest.mark.parametrize("some", KERNELS, ids=repr)
@pytest.mark.parametrize("groups", [1, 2, 3])
def test_the_order_of_reports_does_not_show_in_the_bits(groups, some):
    made, close = one_round(groups, steps=2)
    _, reports = reports_of(made)
    first = close(reports)
    other = one_round(groups, steps=2, kernels=some)[1]
    for order in permutations(reports):
        outcome = other(order)
        assert outcome.record == first.record
        assert outcome.state.parameters.tobytes() == first.state.parameters.tobytes()
    assert np.abs(first.state.parameters).max() > 0


def test_groups_weigh_what_their_samples_weigh():
    made, close = one_round(groups=3, bits=16)  # wide enough that no sum is rounded
    integers, reports = reports_of(made, missing=0.0)
    weights = np.array([1, 5, 9])
    own = [local_gradient(made, g, 0, integers[g, 0], LAYOUT.size, KERNELS[0]).astype(np.float64) for g in range(3)]
    expected = -(weights[:, None] * own).sum(axis=0) / weights.sum()
    assert close(reports).state.parameters == pytest.approx(expected, rel=1e-5, abs=1e-6)


def test_clients_that_share_directions_are_averaged_by_their_samples():
    made, close = one_round(groups=1, bits=16)
    integers, reports = reports_of(made, missing=0.0)
    weights = np.array([1, 5, 9])
    own = [local_gradient(made, 0, 0, integers[c, 0], LAYOUT.size, KERNELS[0]).astype(np.float64) for c in range(3)]
    expected = -(weights[:, None] * own).sum(axis=0) / weights.sum()
    assert close(reports).state.parameters == pytest.approx(expected, rel=1e-5, abs=1e-6)
