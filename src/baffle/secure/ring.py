"""Where masked reports live: integers modulo 2^m, wide enough that no sum wraps around."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from baffle import checks
from baffle.bits import keystream
from baffle.errors import ReportError, SettingsError
from baffle.mechanisms import MISSING
from baffle.messages import Plan
from baffle.packing import pack, packed_size, unpack
from baffle.secure.refusals import SpoiltError

Words = NDArray[np.unsignedinteger]
"""Elements of a ring, [N]; only their lowest m bits mean anything."""


@dataclass(frozen=True, slots=True)
class Ring:
    """Integers modulo 2^m for sums of n reports, with the least m for which no sum wraps.

        x_i = (w_i q_i1, ..., w_i q_iK, w_i),   |q_ik| ≤ L,   1 ≤ w_i ≤ W,   m = ⌊log₂(n W L)⌋ + 2

    Proof. Every entry of x_i is at most W·L in size (w_i as well, for L ≥ 1), so that a sum S over at most n reports
    has |S| ≤ n W L < 2^(m−1), where two's complement of m bits holds each number once: S mod 2^m tells S. With m − 1
    bits the largest is 2^(m−2) − 1 < n W L, which all n clients together reach. So 8-bit slopes (L = 127) of 200
    unweighted clients take 16 bits: 25,400 ≤ 32,767.

    A slope that is missing counts as 0, and nothing counts that it is missing: unlike in the open, where the others
    stand in for it, a sum that lacks a share ε of its weight is too small by ε, towards 0, which costs speed and never
    turns the estimate round. Remedy without another protocol: an entry more for each block, w_i · ρ_ib, with ρ_ib the
    share of the block's probes that client i has measured, in units of 1/L and rounded stochastically. It needs no
    more bits, and Σ w L / Σ w ρ_b scales the block up again: exact in the mean where probes fail at random.
    """

    clients: int
    """n, most reports of a sum, ≥ 1."""
    most_weight: int
    """W, ≥ 1: 1 where all weigh the same."""
    levels: int
    """L, the largest slope, ≥ 1."""
    bits: int = field(init=False, repr=False, compare=False)
    """Width m, 2 to 64."""
    word: np.dtype[np.unsignedinteger] = field(init=False, repr=False, compare=False)
    """The least machine word of m bits or more, little-endian; 2^m divides its modulus."""

    def __post_init__(self) -> None:
        for name in ("clients", "most_weight", "levels"):
            checks.at_least(name, getattr(self, name), 1)
        bits = self.most.bit_length() + 1
        if bits > 64:
            raise SettingsError("bits", bits, "of a masked sum; at most 64 are possible")
        size = next(size for size in (1, 2, 4, 8) if 8 * size >= bits)
        object.__setattr__(self, "bits", bits)
        object.__setattr__(self, "word", np.dtype(f"<u{size}"))

    @classmethod
    def of(cls, plan: Plan) -> Ring:
        """Return the ring of a round: noise that clients add is part of what they report."""
        reach = plan.privacy.reach if plan.privacy is not None else 0
        return cls(len(plan.cohort), plan.most_samples, plan.quantiser.levels + reach)

    @property
    def most(self) -> int:
        """The largest sum, n W L."""
        return self.clients * self.most_weight * self.levels

    def encode(self, integers: NDArray[np.int64], weight: int) -> Words:
        """Return x_i, [K + 1], of slopes `integers` [K], MISSING where there is none.

        Raises:
            SettingsError: a slope or the weight is out of range.
        """
        checks.within("weight", weight, 1, self.most_weight)
        values = np.where(integers == MISSING, 0, integers)
        if values.size and int(np.abs(values).max()) > self.levels:
            raise SettingsError("slope", int(np.abs(values).max()), f"must be at most {self.levels} in size")
        return np.append(values * weight, weight).astype(self.word)

    def mask(self, seed: bytes, count: int) -> Words:
        """Return PRG(seed), [count]: AES-128 in counter mode from 0, cut into words.

        A seed (16 bytes) is used once, for one slot.
        """
        return np.frombuffer(keystream(seed, 0, count * self.word.itemsize), self.word)

    def decode(self, words: Words) -> NDArray[np.int64]:
        """Return the sums, int64 [N], in [−2^(m−1), 2^(m−1))."""
        spare = np.int64(64 - self.bits)
        return (words.astype(np.uint64).view(np.int64) << spare) >> spare

    def pack(self, words: Words) -> bytes:
        """Return the lowest m bits of `words`, side by side."""
        if self.bits == 8 * self.word.itemsize:
            return words.tobytes()
        return pack(words.astype(np.uint64).view(np.int64), self.bits)

    def unpack(self, data: bytes, count: int) -> Words:
        """Return the `count` words that `pack` wrote.

        Raises:
            ReportError: the length is wrong or a spare bit is set.
        """
        if len(data) != packed_size(count, self.bits):
            raise ReportError(f"{len(data)} bytes of masked words where {packed_size(count, self.bits)} were due")
        if self.bits == 8 * self.word.itemsize:
            return np.frombuffer(data, self.word)
        return unpack(data, count, self.bits).astype(self.word)

    def read(self, words: Words, reports: int) -> tuple[NDArray[np.int64], int]:
        """Return the sums of slopes, int64 [K], and of weights, from Σ x_i over so many `reports`.

        Raises:
            SpoiltError: no reports within the rules have these sums; whose is at fault can't be told from them.
        """
        sums = self.decode(words)
        weight = int(sums[-1])
        largest = int(np.abs(sums[:-1]).max(initial=0))
        if not reports <= weight <= reports * self.most_weight or largest > weight * self.levels:
            raise SpoiltError(f"a masked report breaks the rules: weights of {reports} reports sum to {weight}")
        return sums[:-1], weight


__all__ = ["Ring", "Words"]
