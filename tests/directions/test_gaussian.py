import hashlib
from statistics import NormalDist

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from baffle import bits
from baffle.directions import Gaussian
from baffle.directions.gaussian import SUM_OF_SQUARES, UNIT, table
from baffle.keys import Key

KEY = Key.root(12)
LAW = Gaussian()
TABLE = table().astype(np.int64)

A = 'root(0)/"run"/"round"/0/0/"directions"/0/0/0'
B = 'root(0)/"run"/"round"/41/1/"directions"/2/3/1'
GOLDEN = {
    (A, 0, 0): [-1932, 4098, 6742, -2644, -5157, 930, -2153, -3390, -6957, 8072, 4664, 2936],
    (A, 1, 0): [-936, 2405, -1345, 3825, -274, -600, -762, -4419, 455, 5427, 603, 245],
    (B, 0, 0): [2627, -4192, 1567, 1175, 2913, -7055, 8529, -2433, 4939, -760, 4477, -1694],
    (B, 99, 12345): [1817, -260, 1437, 2282, -392, -4839, -5356, 1520, 1756, 2903, 3603, 4922],
}


def test_golden_directions_stay_and_are_the_documented_ones(golden, key_at):
    rows = [row for row in golden("Directions") if row[1] == "gaussian"]
    assert {(path, int(k), int(start)): [*map(int, z.split())] for path, _, k, start, z in rows} == GOLDEN
    for (path, direction, start), expected in GOLDEN.items():
        assert LAW.entries(key_at(path), direction, start, start + 12).tolist() == expected


def test_the_table_has_the_published_digest():
    digest = hashlib.sha256(table().astype("<i2").tobytes()).hexdigest()
    assert digest == "1ea009ce409dac97d6bd609266910f809c5fb912f78e16bd89145b08174d6fc5"


def test_the_table_is_antisymmetric_and_never_falls():
    assert np.array_equal(TABLE, -TABLE[::-1])
    assert (np.diff(TABLE) >= 0).all()
    assert np.flatnonzero(TABLE == 0).tolist() == [32765, 32766, 32767, 32768, 32769, 32770]


def test_the_deviation_is_that_of_the_table():
    assert (TABLE**2).sum() == SUM_OF_SQUARES == 1_099_488_447_576
    assert float.fromhex("0x1.fffe9e4bddd37p+11") == LAW.deviation
    assert LAW.deviation == pytest.approx(TABLE.std(), rel=1e-14)


def test_the_peak_is_the_largest_magnitude():
    assert np.abs(TABLE).max() == LAW.peak == 17715
    assert pytest.approx(4.32, abs=0.005) == LAW.peak / LAW.deviation


def test_no_entry_is_near_a_rounding_tie():
    exact = np.array([UNIT * NormalDist().inv_cdf((i + 0.5) / 65536) for i in range(32768, 65536)])
    distance = np.abs(exact - np.floor(exact) - 0.5)
    assert distance.min() >= 1.7e-5
    assert (distance / exact).min() >= 6e-9  # what docs/noise.md asks of another language's quantile


def test_the_table_cannot_be_written_to():
    with pytest.raises(ValueError, match="read-only"):
        table()[0] = 0


def test_words_are_little_endian(key_at):
    assert bits.words(key_at(A), 0, 0, 4) == b"\x8b\x51\x6b\xd7"
    assert LAW.entries(key_at(A), 0, 0, 2).tolist() == [TABLE[0x518B], TABLE[0xD76B]]
    assert TABLE[0x518B] != TABLE[0x8B51]


@given(st.integers(0, 2**64 - 1), st.integers(0, 100), st.integers(0, 100))
def test_a_slice_is_made_alone(direction, start, length):
    part = LAW.entries(KEY, direction, start, start + length)
    assert part.dtype == np.int16
    assert np.array_equal(part, LAW.entries(KEY, direction, 0, start + length)[start:])


def test_entries_have_a_normals_moments():
    n = 1_000_000
    z = LAW.entries(KEY, 0, 0, n) / LAW.deviation
    for power, mean, variance in ((1, 0, 1), (2, 1, 2), (3, 0, 15), (4, 3, 96)):
        assert abs((z**power).mean() - mean) <= 4 * np.sqrt(variance / n)


@pytest.mark.parametrize("lag", [1, 2, 8, 128])
def test_entries_of_one_direction_are_uncorrelated(lag):
    z = LAW.entries(KEY, 1, 0, 1_000_000) / LAW.deviation
    products = z[lag:] * z[:-lag]
    assert abs(products.mean()) <= 4 / np.sqrt(products.size)


def test_directions_are_uncorrelated():
    z = np.stack([LAW.entries(KEY, k, 0, 100_000) for k in range(8)]) / LAW.deviation
    correlations = (z @ z.T / 100_000)[np.triu_indices(8, 1)]
    assert np.abs(correlations).max() <= 4 / np.sqrt(100_000)
