"""Bounding all slopes of a client together, and learning the bound without looking at anybody's slopes."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from baffle import checks
from baffle.errors import SettingsError


def norm(slopes: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the Euclidean norms [...] of `slopes` [..., K], what is not finite counted as 0; never overflows."""
    known = np.where(np.isfinite(slopes), slopes, 0.0)
    largest = np.abs(known).max(axis=-1, initial=0.0)
    scaled = known / np.where(largest > 0, largest, 1.0)[..., None]
    with np.errstate(over="ignore"):  # a norm beyond the largest float is ∞, and is clipped like any other
        return largest * np.sqrt((scaled * scaled).sum(axis=-1))


def clip_norm(slopes: NDArray[np.float64], bound: float) -> NDArray[np.float64]:
    """Return `slopes` [..., K] scaled down to a Euclidean norm of at most C = `bound`.

        s ← s · min(1, C / ‖s‖₂)

    The norm may exceed C by rounding, K · 2⁻⁵² of it at most. What is not finite becomes 0 and not MISSING: a gap in a
    report is data that no noise covers. Source: Abadi et al. 2016; of the vector of slopes, DP-AggZO.

    Raises:
        SettingsError: the bound is not a finite number above 0.
    """
    checks.positive("bound", bound)
    known = np.where(np.isfinite(slopes), slopes, 0.0)
    largest = np.maximum(np.abs(known).max(axis=-1, initial=0.0), bound)[..., None]
    scaled = known / largest  # at most 1, so that squares neither overflow nor lose a large vector's direction
    size = np.sqrt((scaled * scaled).sum(axis=-1, keepdims=True))
    target = bound / largest
    return np.where(size > target, scaled * (bound / np.where(size > 0, size, 1.0)), known)


@dataclass(frozen=True, slots=True)
class AdaptiveBound:
    """A bound C that follows a quantile of the clients' norms.

        C ← C · exp(−η_C (b̃ − γ)),   b̃ = (Σᵢ bᵢ + N(0, σ_b²)) / n,   bᵢ = 1 if ‖sᵢ‖ ≤ C, else 0

    The sum and not the bits is what may be seen. A client's bit, sent as b − ½, moves the sum by ½ at most, so beside
    slopes noised with multiplier z_Δ the round costs as much as one Gaussian query with multiplier z < z_Δ, where
    z⁻² = z_Δ⁻² + (2σ_b)⁻². That is for a client that is there or not; one that is replaced moves either sum twice as
    far, hence the same z for twice the sensitivity. Source: Andrew et al. 2021, algorithm 1 and theorem 1.
    """

    quantile: float = 0.5
    """γ, share of the clients that the bound should leave alone, in [0, 1]."""
    rate: float = 0.2
    """η_C, > 0."""
    deviation: float = 0.0
    """σ_b, of the noise on the sum of bits, ≥ 0; 0 protects no bit. The source suggests a 20th of the clients."""

    def __post_init__(self) -> None:
        checks.within("quantile", self.quantile, 0, 1)
        checks.positive("rate", self.rate)
        checks.at_least("deviation", self.deviation, 0)

    def inside(self, slopes: NDArray[np.float64], bound: float) -> NDArray[np.int64]:
        """Return b [...], 1 where the norm of `slopes` [..., K] is at most `bound`."""
        return (norm(slopes) <= bound).astype(np.int64)

    def __call__(self, bound: float, noised: float, clients: int) -> float:
        """Return the next bound.

        Args:
            bound: C, > 0.
            noised: Σ bᵢ with its noise of deviation σ_b already in it; it may lie outside [0, n].
            clients: n, how many bits were summed, ≥ 1; a number that is public.

        Raises:
            SettingsError: an argument is out of range, or the bound would leave the positive floats.
        """
        checks.positive("bound", bound)
        checks.at_least("clients", clients, 1)
        exponent = -self.rate * (noised / clients - self.quantile)
        if not (math.isfinite(exponent) and abs(exponent) < 700):
            raise SettingsError("rate", self.rate, f"would change the bound by a factor of e^{exponent:g} in a round")
        moved = bound * math.exp(exponent)
        checks.positive("bound", moved)
        return moved

    def slopes_multiplier(self, multiplier: float) -> float:
        """Return z_Δ, the noise multiplier that the slopes need for the whole round to cost that of `multiplier` z.

            z_Δ = (z⁻² − (2σ_b)⁻²)^(−½)

        Raises:
            SettingsError: σ_b ≤ z/2, so that the bits alone cost as much or more.
        """
        checks.positive("multiplier", multiplier)
        if 2 * self.deviation <= multiplier:
            raise SettingsError("deviation", self.deviation, f"must be above half the multiplier, {multiplier / 2:g}")
        return multiplier / math.sqrt(1 - (multiplier / (2 * self.deviation)) ** 2)
