"""One contract over all kernels: the same bits as a naive loop over `law.entries`, however the work is cut."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from baffle import kernels
from baffle.directions import Gaussian, Rademacher
from baffle.kernels import PlainKernels, fastest
from baffle.kernels.compiled import CompiledKernels
from baffle.keys import Key

KERNELS = [
    PlainKernels(),
    PlainKernels(slice_size=1),
    PlainKernels(slice_size=7),
    PlainKernels(slice_size=64),
    CompiledKernels(),
    CompiledKernels(slice_size=8),
    CompiledKernels(threads=3, slice_size=64),
]
LAWS = [Gaussian(), Rademacher()]
SIZES = st.integers(1, 150)
KEY = Key.root(21)
WEIGHTS = st.lists(st.one_of(st.just(0), st.integers(-(2**40), 2**40)), min_size=1, max_size=6)


def bits_of(array):
    return array.view(np.uint32 if array.dtype == np.float32 else np.uint64)


def naive_displaced(base, step, law, direction):
    kind = base.dtype.type
    entries = law.entries(KEY, direction, 0, base.size)
    return np.array([x + kind(step) * kind(z) for x, z in zip(base, entries, strict=True)], kind)


def naive_sums(total, weights, law):
    sums = total.tolist()
    for direction, weight in enumerate(weights):
        for i, z in enumerate(law.entries(KEY, direction, 0, total.size).tolist()):
            sums[i] += weight * z
    return sums


@pytest.mark.parametrize("precision", [np.float32, np.float64])
@pytest.mark.parametrize("law", LAWS, ids=repr)
@pytest.mark.parametrize("some", KERNELS, ids=repr)
@given(size=SIZES, direction=st.integers(0, 2**63), step=st.floats(-1.0, 1.0), seed=st.integers(0, 99))
@settings(max_examples=15)
def test_displaced_copies_are_the_naive_ones_to_the_bit(some, law, precision, size, direction, step, seed):
    base = np.random.default_rng(seed).normal(size=size).astype(precision)
    out = np.full(size, np.nan, precision)
    some.displace(out, base, step, law, KEY, direction)
    assert np.array_equal(bits_of(out), bits_of(naive_displaced(base, step, law, direction)))


@pytest.mark.parametrize("law", LAWS, ids=repr)
@pytest.mark.parametrize("some", KERNELS, ids=repr)
@given(size=SIZES, weights=WEIGHTS, before=st.integers(-(2**50), 2**50))
@settings(max_examples=15)
def test_sums_are_exact_and_added_to_what_was_there(some, law, size, weights, before):
    total = np.full(size, before, np.int64)
    expected = naive_sums(total, weights, law)
    some.accumulate(total, np.array(weights, np.int64), law, KEY)
    assert total.tolist() == expected


@pytest.mark.parametrize("law", LAWS, ids=repr)
@pytest.mark.parametrize(
    "some",
    [
        PlainKernels(slice_size=10_007),
        CompiledKernels(),
        CompiledKernels(threads=2, slice_size=1 << 12),
        CompiledKernels(threads=8, slice_size=1 << 10),
    ],
    ids=repr,
)
def test_threads_and_slices_do_not_show_in_the_bits(some, law):
    size = 70_001
    weights = np.random.default_rng(5).integers(-(2**30), 2**30, 9)
    base = np.random.default_rng(6).normal(size=size).astype(np.float32)
    total, copy = np.zeros(size, np.int64), np.empty(size, np.float32)
    some.accumulate(total, weights, law, KEY)
    some.displace(copy, base, 1e-4, law, KEY, 3)
    entries = [law.entries(KEY, k, 0, size).astype(np.int64) for k in range(9)]
    assert np.array_equal(total, sum(int(w) * z for w, z in zip(weights, entries, strict=True)))
    assert np.array_equal(bits_of(copy), bits_of(base + np.float32(1e-4) * entries[3].astype(np.float32)))


@pytest.mark.parametrize("law", LAWS, ids=repr)
@pytest.mark.parametrize("some", KERNELS, ids=repr)
def test_a_part_of_a_vector_is_displaced_and_the_rest_left_alone(some, law):
    base, point = np.arange(20, dtype=np.float32), np.full(20, -1, np.float32)
    base.flags.writeable = False
    some.displace(point[3:14], base[3:14], 0.5, law, KEY, 0)
    assert np.array_equal(point[3:14], naive_displaced(base[3:14], 0.5, law, 0))
    assert (point[[0, 1, 2, 14, 15, 16, 17, 18, 19]] == -1).all()


@pytest.mark.parametrize("some", KERNELS, ids=repr)
def test_a_fused_multiply_add_would_show(some):
    law, step = Gaussian(), float(np.float32(1 / 3))
    entries = law.entries(KEY, 0, 0, 4000)
    factors = np.float32(step) * entries.astype(np.float32)
    exact = step * entries.astype(np.float64)
    assert (factors != exact).any()
    out = np.empty(4000, np.float32)
    some.displace(out, -factors, step, law, KEY, 0)
    assert not out.any()


@pytest.mark.parametrize("some", KERNELS, ids=repr)
def test_sums_reach_the_end_of_int64(some):
    total, law = np.zeros(9, np.int64), Rademacher()
    some.accumulate(total, np.array([2**63 - 1], np.int64), law, KEY)
    assert total.tolist() == [(2**63 - 1) * z for z in law.entries(KEY, 0, 0, 9).tolist()]


def test_the_fastest_is_the_compiled_one_where_numba_is(monkeypatch):
    assert isinstance(fastest(), CompiledKernels)
    monkeypatch.setattr(kernels, "find_spec", lambda _: None)
    assert isinstance(fastest(), PlainKernels)
