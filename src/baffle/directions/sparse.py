"""Sparse directions: a share of the entries is −1 or +1, the others are 0."""

from __future__ import annotations

import math
from typing import ClassVar

import msgspec
import numpy as np
from numpy.typing import NDArray

from baffle import bits, checks
from baffle.keys import Key


class Sparse(msgspec.Struct, frozen=True, tag_field="law", tag="sparse"):
    """Directions of independent entries: −1 and +1 with probability odds/256 each, 0 otherwise; a byte a weight.

    Divided by their deviation √(odds/128) they have zero mean, identity covariance, and a relative squared error of an
    estimate from K of them of (n − 2 + 128/odds)/K. For weights on a grid: with σ = deviation, a displaced weight moves
    by one step of the grid, up or down, and most stay. Entry i is −1 if byte i of the direction's stream is below
    `odds`, +1 if it is 256 − odds or more. Source: docs/noise.md, section 9.

    Raises:
        SettingsError: odds is not between 1 and 128.
    """

    odds: int = 16
    """Of each sign, in 256ths, 1 to 128; 128 has no zeros."""

    peak: ClassVar[int] = 1
    """Largest magnitude of an entry."""
    most: ClassVar[None] = None
    """Most directions, and most weights: any number."""

    def __post_init__(self) -> None:
        checks.within("odds", self.odds, 1, 128)

    @property
    def deviation(self) -> float:
        """Root mean square of an entry."""
        return math.sqrt(self.odds / 128.0)

    def entries(self, key: Key, direction: int, start: int, stop: int) -> NDArray[np.int8]:
        """Return entries `start` to `stop` of a direction, int8 [stop − start]."""
        drawn = np.frombuffer(bits.words(key, direction, start, stop), np.uint8)
        up, down = drawn >= 256 - self.odds, drawn < self.odds
        return up.view(np.int8) - down.view(np.int8)
