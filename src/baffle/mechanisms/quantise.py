"""Slopes as small integers."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from baffle import checks

MISSING = np.iinfo(np.int64).min
"""Stands for a slope that could not be measured."""
ROUNDING = 1 / 6
"""Variance of rounding in quanta² where every fraction is as likely: the mean of f(1 − f)."""


@dataclass(frozen=True, slots=True)
class Quantiser:
    """Unbiased rounding of slopes in ±c to b-bit integers.

        q = ⌊ s/c · (2ᵇ⁻¹ − 1) + u ⌋,   u uniform in [0, 1)

    E q = s/c · (2ᵇ⁻¹ − 1) exactly; variance at most ¼. The one code left over, −2ᵇ⁻¹, is what a missing slope has on
    the wire. Source: stochastic rounding as in Alistarh et al. 2017 (QSGD).
    """

    bits: int
    """b, 2 to 32."""

    def __post_init__(self) -> None:
        checks.within("bits", self.bits, 2, 32)

    @property
    def levels(self) -> int:
        """The largest magnitude, 2ᵇ⁻¹ − 1."""
        return (1 << (self.bits - 1)) - 1

    def __call__(
        self, slopes: NDArray[np.float64], bounds: NDArray[np.float64], uniforms: NDArray[np.float64]
    ) -> NDArray[np.int64]:
        """Return integers of the shape of `slopes` [..., K], given `bounds` c [K] and uniforms of that shape.

        A slope that is not finite becomes MISSING; one beyond its bound is expected to have been clipped.
        """
        present = np.isfinite(slopes)
        scaled = np.floor(np.where(present, slopes, 0.0) / bounds * self.levels + uniforms)
        limited = np.clip(scaled, -self.levels, self.levels).astype(np.int64)
        return np.where(present, limited, MISSING)

    def slopes(self, integers: NDArray[np.int64], bounds: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return the slopes that `integers` [..., K] stand for; NaN where MISSING."""
        return np.where(integers == MISSING, np.nan, integers * (bounds / self.levels))
