"""Rademacher directions: every entry is −1 or +1."""

from __future__ import annotations

from typing import ClassVar

import msgspec
import numpy as np
from numpy.typing import NDArray

from baffle import bits
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

    def entries(self, key: Key, direction: int, start: int, stop: int) -> NDArray[np.int8]:
        """Return entries `start` to `stop` of a direction, int8 [stop − start]."""
        first = start // 8
        packed = np.frombuffer(bits.words(key, direction, first, (stop + 7) // 8), np.uint8)
        signs = np.unpackbits(packed, bitorder="little")[start - 8 * first : stop - 8 * first].view(np.int8)
        return 2 * signs - 1
