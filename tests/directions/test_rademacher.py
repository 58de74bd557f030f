import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from baffle import bits
from baffle.directions import Rademacher
from baffle.keys import Key

KEY = Key.root(11)
LAW = Rademacher()

A = 'root(0)/"run"/"round"/0/0/"directions"/0/0/0'
B = 'root(0)/"run"/"round"/41/1/"directions"/2/3/1'
GOLDEN = {
    (A, 0, 0): [1, 1, -1, 1, -1, -1, -1, 1, 1, -1, -1, -1],
    (A, 1, 0): [1, 1, -1, 1, 1, -1, 1, 1, -1, -1, -1, 1],
    (B, 0, 0): [-1, 1, 1, -1, -1, -1, 1, -1, 1, -1, 1, 1],
    (B, 99, 12345): [-1, -1, 1, 1, 1, 1, -1, 1, -1, -1, 1, -1],
}


def test_golden_directions_stay_and_are_the_documented_ones(golden, key_at):
    rows = [row for row in golden("Directions") if row[1] == "rademacher"]
    assert {(path, int(k), int(start)): [*map(int, z.split())] for path, _, k, start, z in rows} == GOLDEN
    for (path, direction, start), expected in GOLDEN.items():
        assert LAW.entries(key_at(path), direction, start, start + 12).tolist() == expected


def test_the_lowest_bit_comes_first(key_at):
    assert bits.words(key_at(A), 0, 0, 2) == bytes([0b10001011, 0b01010001])
    assert LAW.entries(key_at(A), 0, 0, 16).tolist() == [1, 1, -1, 1, -1, -1, -1, 1, 1, -1, -1, -1, 1, -1, 1, -1]


@given(st.integers(0, 2**64 - 1), st.integers(0, 300), st.integers(0, 300))
def test_a_slice_is_made_alone(direction, start, length):
    part = LAW.entries(KEY, direction, start, start + length)
    assert part.dtype == np.int8
    assert np.array_equal(part, LAW.entries(KEY, direction, 0, start + length)[start:])


def test_entries_are_signs_of_zero_mean():
    z = LAW.entries(KEY, 0, 0, 1_000_000)
    assert set(np.unique(z)) == {-1, 1}
    assert (LAW.deviation, LAW.peak) == (1.0, 1)
    assert abs(z.mean(dtype=np.float64)) <= 4 / 1000


@pytest.mark.parametrize("lag", [1, 2, 7, 8, 16, 128])
def test_entries_of_one_direction_are_uncorrelated(lag):
    z = LAW.entries(KEY, 1, 0, 1_000_000).astype(np.int64)
    products = z[lag:] * z[:-lag]
    assert abs(products.mean()) <= 4 / np.sqrt(products.size)


def test_directions_are_uncorrelated():
    z = np.stack([LAW.entries(KEY, k, 0, 100_000) for k in range(8)]).astype(np.float64)
    correlations = (z @ z.T / 100_000)[np.triu_indices(8, 1)]
    assert np.abs(correlations).max() <= 4 / np.sqrt(100_000)
