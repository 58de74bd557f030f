"""One contract over all kernels: the same bits as a naive loop over `law.entries`, however the work is cut."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from baffle import kernels
from baffle.directions import Gaussian, Orthogonal, Rademacher, Sparse
from baffle.errors import SettingsError
from baffle.kernels import PlainKernels, fastest
from baffle.kernels.compiled import CompiledKernels
from baffle.keys import Key

KERNELS = [
    PlainKernels(),
    PlainKernels(slice_size=8),
    PlainKernels(slice_size=64),
    CompiledKernels(),
    CompiledKernels(room=16),
    CompiledKernels(threads=3, room=64),
]
LAWS = [Gaussian(), Rademacher(), Orthogonal(8), Sparse(40)]
SIZES = st.integers(1, 150)
KEY = Key.root(21)
WEIGHTS = st.lists(st.one_of(st.just(0), st.integers(-(2**40), 2**40)), min_size=1, max_size=20)


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


def below(law, direction):
    return direction if law.most is None else direction % law.most


@pytest.mark.parametrize("precision", [np.float32, np.float64])
@pytest.mark.parametrize("law", LAWS, ids=repr)
@pytest.mark.parametrize("some", KERNELS, ids=repr)
@given(size=SIZES, direction=st.integers(0, 2**64 - 1), step=st.floats(-1.0, 1.0), seed=st.integers(0, 99))
@settings(max_examples=15)
def test_displaced_copies_are_the_naive_ones_to_the_bit(some, law, precision, size, direction, step, seed):
    direction = below(law, direction)
    base = np.random.default_rng(seed).normal(size=size).astype(precision)
    out = np.full(size, np.nan, precision)
    some.displace(out, base, step, law, KEY, direction)
    assert np.array_equal(bits_of(out), bits_of(naive_displaced(base, step, law, direction)))


@pytest.mark.parametrize("precision", [np.float32, np.float64])
@pytest.mark.parametrize("law", LAWS, ids=repr)
@pytest.mark.parametrize("some", KERNELS, ids=repr)
@given(size=SIZES, count=st.integers(1, 40), first=st.integers(0, 200))
@settings(max_examples=10)
def test_many_displaced_copies_are_those_made_one_by_one(some, law, precision, size, count, first):
    base = np.random.default_rng(size).normal(size=size).astype(precision)
    out, one = np.full((count, size), np.nan, precision), np.empty(size, precision)
    some.displace_many(out, base, 0.3, law, KEY, first)
    for row, direction in zip(out, range(first, first + count), strict=True):
        some.displace(one, base, 0.3, law, KEY, direction)
        assert np.array_equal(bits_of(row), bits_of(one))


@pytest.mark.parametrize("law", LAWS, ids=repr)
@pytest.mark.parametrize("some", KERNELS, ids=repr)
@given(size=SIZES, weights=WEIGHTS, before=st.integers(-(2**50), 2**50))
@settings(max_examples=15)
def test_sums_are_exact_and_added_to_what_was_there(some, law, size, weights, before):
    total = np.full(size, before, np.int64)
    expected = naive_sums(total, weights, law)
    some.accumulate(total, np.array(weights, np.int64), law, KEY)
    assert total.tolist() == expected


@pytest.mark.parametrize("law", [Gaussian(), Rademacher(), Orthogonal(17), Sparse()], ids=repr)
@pytest.mark.parametrize(
    "some",
    [
        PlainKernels(slice_size=10_008),
        CompiledKernels(),
        CompiledKernels(threads=2, room=1 << 12),
        CompiledKernels(threads=8, room=1 << 10),
        CompiledKernels(threads=2),
    ],
    ids=repr,
)
def test_threads_and_slices_do_not_show_in_the_bits(some, law):
    size = 70_001
    weights = np.random.default_rng(5).integers(-(2**30), 2**30, 9)
    base = np.random.default_rng(6).normal(size=size).astype(np.float32)
    total, copies = np.zeros(size, np.int64), np.empty((5, size), np.float32)
    some.accumulate(total, weights, law, KEY)
    some.displace_many(copies, base, 1e-4, law, KEY, 3)
    entries = [law.entries(KEY, k, 0, size).astype(np.int64) for k in range(9)]
    assert np.array_equal(total, sum(int(w) * z for w, z in zip(weights, entries, strict=True)))
    for copy, z in zip(copies, entries[3:8], strict=True):
        assert np.array_equal(bits_of(copy), bits_of(base + np.float32(1e-4) * z.astype(np.float32)))


@pytest.mark.parametrize("law", LAWS, ids=repr)
@pytest.mark.parametrize("some", KERNELS, ids=repr)
def test_a_part_of_a_vector_is_displaced_and_the_rest_left_alone(some, law):
    base, point = np.arange(20, dtype=np.float32), np.full(20, -1, np.float32)
    base.flags.writeable = False
    some.displace(point[3:14], base[3:14], 0.5, law, KEY, 0)
    assert np.array_equal(point[3:14], naive_displaced(base[3:14], 0.5, law, 0))
    assert (point[[0, 1, 2, 14, 15, 16, 17, 18, 19]] == -1).all()


@pytest.mark.parametrize("law", LAWS, ids=repr)
@pytest.mark.parametrize("some", [PlainKernels(), CompiledKernels()], ids=repr)
def test_columns_of_a_matrix_are_displaced_and_the_rest_left_alone(some, law):
    base, points = np.arange(13, dtype=np.float32), np.full((3, 20), -1, np.float32)
    some.displace_many(points[:, 4:17], base, 0.5, law, KEY, 2)
    for row, direction in zip(points, (2, 3, 4), strict=True):
        assert np.array_equal(row[4:17], naive_displaced(base, 0.5, law, direction))
    assert (points[:, [0, 1, 2, 3, 17, 18, 19]] == -1).all()


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


@pytest.mark.parametrize("law", [Rademacher(), Orthogonal(4), Sparse(128)], ids=repr)
@pytest.mark.parametrize("directions", [1, 2, 7, 8, 9, 16])
@pytest.mark.parametrize("some", KERNELS, ids=repr)
def test_sums_reach_the_end_of_int64(some, directions, law):
    total = np.zeros(9, np.int64)
    weights = np.full(directions, (2**63 - 1) // directions)
    weights[1::2] *= -1
    expected = naive_sums(total, weights.tolist(), law)
    some.accumulate(total, weights, law, KEY)
    assert total.tolist() == expected


@pytest.mark.parametrize("some", KERNELS, ids=repr)
def test_gaussian_sums_reach_the_end_of_int64(some):
    total, law = np.zeros(5000, np.int64), Gaussian()
    weights = np.array([(2**63 - 1) // law.peak // 2, -(2**63 - 1) // law.peak // 2])
    expected = naive_sums(total, weights.tolist(), law)
    some.accumulate(total, weights, law, KEY)
    assert total.tolist() == expected
    assert max(expected) > 2**62


@pytest.mark.parametrize("some", KERNELS, ids=repr)
def test_directions_that_an_orthogonal_law_lacks_are_refused(some):
    law, total, long = Orthogonal(4), np.zeros(9, np.int64), np.zeros(17, np.float32)
    with pytest.raises(SettingsError, match="direction = 16: must be below 16"):
        some.displace_many(np.empty((3, 9), np.float32), long[:9], 0.1, law, KEY, 14)
    with pytest.raises(SettingsError, match="direction = 16: must be below 16"):
        some.accumulate(total, np.ones(17, np.int64), law, KEY)
    with pytest.raises(SettingsError, match="at most 16 weights and these are 17"):
        some.displace(long.copy(), long, 0.1, law, KEY, 0)
    for directions in (1, 16):
        with pytest.raises(SettingsError, match="at most 16 weights and these are 17"):
            some.accumulate(np.zeros(17, np.int64), np.ones(directions, np.int64), law, KEY)


@pytest.mark.parametrize("room", [0, 8, 24])
def test_a_room_of_no_whole_blocks_is_refused(room):
    with pytest.raises(SettingsError, match=f"room = {room}: must be a multiple of 16"):
        CompiledKernels(room=room)


@pytest.mark.parametrize("size", [0, 4, 12])
def test_a_slice_of_no_whole_bytes_is_refused(size):
    with pytest.raises(SettingsError, match=f"slice_size = {size}: must be a multiple of 8"):
        PlainKernels(slice_size=size)


def test_the_fastest_is_the_compiled_one_where_numba_is(monkeypatch):
    assert isinstance(fastest(), CompiledKernels)
    monkeypatch.setattr(kernels, "find_spec", lambda _: None)
    assert isinstance(fastest(), PlainKernels)
