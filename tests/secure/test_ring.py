"""The ring: as narrow as can be, exact at the edge; masks; and that a masked report is noise."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from baffle.bits import keystream
from baffle.errors import ReportError, SettingsError
from baffle.secure import Ring, Slot
from secured import Round, epoch

sizes = st.tuples(st.integers(1, 1000), st.integers(1, 10**6), st.integers(1, (1 << 31) - 1))


@pytest.mark.parametrize(
    ("ring", "bits"),
    [
        (Ring(200, 1, 127), 16),
        (Ring(258, 1, 127), 16),
        (Ring(259, 1, 127), 17),
        (Ring(1, 1, 1), 2),
        (Ring(1, 1, 127), 8),
        (Ring(2, 1, 127), 9),
        (Ring(1 << 31, 1, (1 << 31) - 1), 63),
        (Ring(1, 1, (1 << 63) - 1), 64),
    ],
)
def test_widths(ring, bits) -> None:
    assert ring.bits == bits


def test_a_sum_that_needs_more_than_64_bits_is_refused() -> None:
    with pytest.raises(SettingsError, match="at most 64"):
        Ring(1, 1, 1 << 63)


@given(sizes)
def test_the_largest_sums_are_exact_and_one_bit_less_would_wrap(size) -> None:
    n, weight, levels = size
    ring = Ring(n, weight, levels)
    for sign in (1, -1):
        one = ring.encode(np.array([sign * levels]), weight)
        total = one * ring.word.type(n)
        slopes, found = ring.read(total, n)
        assert (int(slopes[0]), found) == (sign * ring.most, n * weight)
    narrow = 1 << (ring.bits - 1)
    assert (ring.most + narrow // 2) % narrow - narrow // 2 != ring.most


@given(sizes, st.integers(0, 2**32), st.integers(0, 40))
def test_words_survive_the_wire(size, seed, count) -> None:
    ring = Ring(*size)
    words = np.random.default_rng(seed).integers(0, 1 << 63, count, np.uint64).astype(ring.word)
    kept = words & ring.word.type((1 << ring.bits) - 1)
    data = ring.pack(words)
    assert len(data) == -(-count * ring.bits // 8)
    np.testing.assert_array_equal(ring.unpack(data, count) & ring.word.type((1 << ring.bits) - 1), kept)
    with pytest.raises(ReportError, match="were due"):
        ring.unpack(data + b"\0", count)


def test_a_mask_is_the_key_stream() -> None:
    ring = Ring(3, 1, 127)
    seed = bytes(range(16))
    assert ring.mask(seed, 5).tobytes() == keystream(seed, 0, 5 * ring.word.itemsize)


@pytest.mark.parametrize(
    ("slope", "weight", "words"),
    [
        (128, 1, "slope = 128: must be at most 127 in size"),
        (-128, 1, "slope = 128: must be at most 127 in size"),
        (1, 0, "weight = 0: must be between 1 and 2"),
        (1, 3, "weight = 3: must be between 1 and 2"),
    ],
)
def test_values_out_of_range_are_refused(slope, weight, words) -> None:
    with pytest.raises(SettingsError, match=f"^{words}$"):
        Ring(3, 2, 127).encode(np.array([slope]), weight)


def chi_square(words: np.ndarray) -> float:
    """Return the p-value of uniform high and low bytes, the smaller of both."""
    stats = pytest.importorskip("scipy.stats")
    return min(stats.chisquare(np.bincount(part, minlength=256)).pvalue for part in (words & 255, words >> 8))


def test_a_masked_report_is_uniform() -> None:
    _, members = epoch(3)
    ring = Ring(200, 1, 127)
    assert ring.bits == 16
    round_ = Round.begin(members, Slot(0, 0), ring, 10**6 + 1)
    slopes = np.full(10**6, 5)
    masked = ring.unpack(round_.mask(10, slopes).words, 10**6 + 1).astype(np.int64)
    assert chi_square(masked) > 0.001
    # What a mask of other than fresh, full words would show: a stream used twice, or one of bytes.
    mask = ring.mask(bytes(16), 10**6).astype(np.int64)
    assert chi_square((mask * 2) % 65536) < 1e-9
    assert chi_square((slopes + (mask & 255)) % 65536) < 1e-9
