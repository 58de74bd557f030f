"""Orthogonal directions: rows of a Hadamard matrix in random order, every column's sign drawn at random."""

from __future__ import annotations

from functools import cache, lru_cache
from typing import ClassVar

import msgspec
import numpy as np
from numpy.typing import NDArray

from baffle import bits, checks
from baffle.directions import signs
from baffle.errors import SettingsError
from baffle.keys import Key

LARGEST_ORDER = 24
"""Of a matrix whose order of rows is still a moderate array: 64 MiB."""

SIGNS, RANKS = 0, 1
"""Streams of a key: of the columns' signs, and of the words that rows are sorted by."""


class Orthogonal(msgspec.Struct, frozen=True, tag_field="law", tag="orthogonal"):
    """At most N = 2^order directions of signs, any two of them orthogonal over N weights.

        z_k[i] = d_i · H[r_k, N − 1 − i],   H[r, i] = (−1)^popcount(r & i)

    with d fair signs and r a random permutation of 0..N − 1. Zero mean, identity covariance; relative squared error of
    an estimate from K of them over n ≤ N weights (n − 1)/K · (N − K)/(N − 1), so K = N is exact. Two weights share
    d_i d_j in all directions, so their errors are not independent. Column 0 of H is constant, and slopes that are
    centred on their mean lose what lies along it: only n = N has a weight there, the last one. Source: Ailon &
    Chazelle 2009 for the randomised Hadamard transform; docs/noise.md, section 8.
    """

    order: int
    """log₂ N, 0 to 24; the smallest with 2^order > n serves a block of n weights best."""

    deviation: ClassVar[float] = 1.0
    """Root mean square of an entry."""
    peak: ClassVar[int] = 1
    """Largest magnitude of an entry."""

    def __post_init__(self) -> None:
        checks.within("order", self.order, 0, LARGEST_ORDER)

    @property
    def most(self) -> int:
        """N, most directions, and most weights."""
        return 1 << self.order

    def rows(self, key: Key, first: int, last: int) -> NDArray[np.uint32]:
        """Return r of directions `first` to `last`, uint32 [last − first].

        Raises:
            SettingsError: a direction is not below 2^order.
        """
        if last > self.most:
            raise SettingsError("direction", last - 1, f"must be below {self.most}, or the order above {self.order}")
        return _permutation(key, self.order)[first:last]

    def columns(self, key: Key, first: int, last: int) -> NDArray[np.uint8]:
        """Return the bits of d, bytes `first` to `last`, uint8."""
        return np.frombuffer(bits.words(key, SIGNS, first, last), np.uint8)

    def refuse_longer(self, size: int) -> None:
        """Raise SettingsError if a block of `size` weights has more than 2^order."""
        if size > self.most:
            raise SettingsError("order", self.order, f"is for at most {self.most} weights and these are {size}")

    def packed(self, key: Key, direction: int, start: int, stop: int) -> NDArray[np.uint8]:
        """Return the bits of entries `start` to `stop` of a direction: bytes ⌊start/8⌋ to ⌈stop/8⌉, uint8.

        Raises:
            SettingsError: the direction or an entry is not below 2^order.
        """
        return self.packed_many(key, direction, 1, start, stop)[0]

    def packed_many(self, key: Key, direction: int, count: int, start: int, stop: int) -> NDArray[np.uint8]:
        """Return what `packed` returns for `count` directions from `direction` on, a row each.

        Raises:
            SettingsError: a direction or an entry is not below 2^order.
        """
        self.refuse_longer(stop)
        first, last, word = start // 8, (stop + 7) // 8, start // 64
        flips = walsh(self.rows(key, direction, direction + count), word, (stop + 63) // 64).view(np.uint8)
        return self.columns(key, first, last) ^ flips[:, first - 8 * word : last - 8 * word]

    def entries(self, key: Key, direction: int, start: int, stop: int) -> NDArray[np.int8]:
        """Return entries `start` to `stop` of a direction, int8 [stop − start].

        Raises:
            SettingsError: the direction or an entry is not below 2^order.
        """
        return signs.expand(self.packed(key, direction, start, stop), start, stop)


@lru_cache(maxsize=8)
def _permutation(key: Key, order: int) -> NDArray[np.uint32]:
    """Return 0..N − 1 sorted by 32-bit words of the key, ties by index. Read-only."""
    ranks = np.frombuffer(bits.words(key, RANKS, 0, 4 << order), "<u4").astype(np.uint64)
    ranks <<= np.uint64(32)
    ranks |= np.arange(1 << order, dtype=np.uint64)  # no two alike: any sort gives this order
    ranks.sort()
    rows = ranks.astype(np.uint32)  # the low halves
    rows.flags.writeable = False
    return rows


@cache
def patterns() -> NDArray[np.uint64]:
    """Return popcount(r & i) mod 2 for r and i below 64 as bit i, lowest first, of word r, [64]. Read-only."""
    i = np.arange(64, dtype=np.uint32)
    words = np.packbits(parity(i[:, None] & i), axis=1, bitorder="little").view("<u8").ravel()
    words.flags.writeable = False
    return words


def walsh(rows: NDArray[np.uint32], first: int, last: int) -> NDArray[np.uint64]:
    """Return bits that are 1 where H[row, N − 1 − i] is −1, words `first` to `last` of 64, little-endian, for each row.

    The ones of row & (N − 1 − i) are those of row without those of row & i.
    """
    row = rows[:, None]
    odd = parity(np.arange(first, last, dtype=np.uint32) & (row >> np.uint32(6))) ^ parity(row)
    return (patterns()[row & np.uint32(63)] ^ (np.uint64(0) - odd.astype(np.uint64))).astype(
        "<u8", copy=False
    )  # 0 − 1 is 64 bits of 1


def parity(values: NDArray[np.uint32]) -> NDArray[np.uint32]:
    """Return popcount mod 2 of each value."""
    for shift in (16, 8, 4, 2, 1):
        values = values ^ (values >> np.uint32(shift))
    return values & np.uint32(1)
