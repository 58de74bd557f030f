"""Gaussian directions from a fixed table of integers."""

from __future__ import annotations

import math
from functools import cache
from statistics import NormalDist
from typing import ClassVar

import msgspec
import numpy as np
from numpy.typing import NDArray

from baffle import bits
from baffle.keys import Key

UNIT = 4096
"""Table units in one standard deviation of the continuous law."""

SUM_OF_SQUARES = 1_099_488_447_576
"""Σ z² over the table's 65,536 entries."""


@cache
def table() -> NDArray[np.int16]:
    """Return the table, int16 [65536]: entry i is round(4096 · Φ⁻¹((i + ½)/65536)), antisymmetric. Read-only."""
    quantile = NormalDist().inv_cdf
    upper = np.array([round(UNIT * quantile((i + 0.5) / 65536)) for i in range(32768, 65536)], np.int16)
    values = np.concatenate([-upper[::-1], upper])
    values.flags.writeable = False
    return values


class Gaussian(msgspec.Struct, frozen=True, tag_field="law", tag="gaussian"):
    """Directions of independent normals, sixteen bits a weight, rounded to a 4096th of a standard deviation.

    Zero mean; the covariance is the identity once divided by `deviation`; relative squared error of an estimate from K
    of them (n + 1)/K. Entry i is the table's value at the little-endian 16-bit word i of the direction's stream; the
    largest is 4.32 standard deviations. Source: Stein 1981 for the identity; docs/noise.md, section 4.
    """

    deviation: ClassVar[float] = math.sqrt(SUM_OF_SQUARES / 65536)
    """Root mean square of an entry, in table units: exact but for the rounding of the square root."""
    peak: ClassVar[int] = 17715
    """Largest magnitude of an entry, in table units."""
    most: ClassVar[None] = None
    """Most directions, and most weights: any number."""

    def entries(self, key: Key, direction: int, start: int, stop: int) -> NDArray[np.int16]:
        """Return entries `start` to `stop` of a direction, int16 [stop − start]."""
        return table().take(np.frombuffer(bits.words(key, direction, 2 * start, 2 * stop), "<u2"))
