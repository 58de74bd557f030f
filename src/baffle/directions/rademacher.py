"""Rademacher directions: every entry is −1 or +1."""

from __future__ import annotations

from typing import ClassVar

import msgspec
import numpy as np
from numpy.typing import NDArray

from baffle import bits
from baffle.directions import signs
from baffle.keys import Key


class Rademacher(msgspec.Struct, frozen=True, tag_field="law", tag="rademacher"):
    """Directions of independent fair signs, one bit a weight.

    Zero mean, identity covariance, every direction of the same length √n; relative squared error of an estimate from
    K of them (n − 1)/K. Entry i is 2b − 1 with b bit i mod 8 (lowest first) of byte ⌊i/8⌋ of the direction's stream.
    Source: Spall 1992 for signs in place of normals; docs/noise.md, section 3.
    """

    deviation: ClassVar[float] = 1.0
    """Root mean square of an entry."""
    peak: ClassVar[int] = 1
    """Largest magnitude of an entry."""
    most: ClassVar[None] = None
    """Most directions, and most weights: any number."""

    def packed(self, key: Key, direction: int, start: int, stop: int) -> NDArray[np.uint8]:
        """Return the bits of entries `start` to `stop` of a direction: bytes ⌊start/8⌋ to ⌈stop/8⌉, uint8."""
        return np.frombuffer(bits.words(key, direction, start // 8, (stop + 7) // 8), np.uint8)

    def packed_many(self, key: Key, direction: int, count: int, start: int, stop: int) -> NDArray[np.uint8]:
        """Return what `packed` returns for `count` directions from `direction` on, a row each."""
        return bits.words_many(key, direction, count, start // 8, (stop + 7) // 8)

    def entries(self, key: Key, direction: int, start: int, stop: int) -> NDArray[np.int8]:
        """Return entries `start` to `stop` of a direction, int8 [stop − start]."""
        return signs.expand(self.packed(key, direction, start, stop), start, stop)
