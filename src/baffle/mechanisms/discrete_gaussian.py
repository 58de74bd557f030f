"""Gaussian noise in whole numbers, each client adding a share of it before sums are made in a ring."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from baffle import checks
from baffle.errors import SettingsError

Bytes: TypeAlias = Callable[[int], bytes]
"""(how many) -> random bytes: os.urandom, or a seeded Random's `randbytes` where a test must repeat."""

LEAST, MOST = Fraction(1, 4), 1 << 100
"""Of σ²: below, the bound on sums has no proof; above, draws would leave int64."""


@dataclass(frozen=True, slots=True)
class DiscreteGaussian:
    """The discrete Gaussian N_ℤ(0, σ²), one client's share of the noise on a sum.

        P(x) ∝ exp(−x² / 2σ²),   x whole

    Sampled exactly, in integers: no float has a say in what is drawn. That is why it was chosen over Skellam noise,
    whose law is closed under sums but whose Poisson draws are made with floats in NumPy; the exact ways that were known
    here cost time in proportion to the variance. The price is τ, by which a sum of n shares differs from N_ℤ(0, nσ²):
    for σ ≥ 2 less than 1e-15 for any n up to 10⁴. Sources: Canonne, Kamath & Steinke 2020, algorithms 1 to 3;
    Kairouz, Liu & Steinke 2021.
    """

    variance: Fraction | float
    """σ² of one share, in squared quanta, a rational from ¼ to 2¹⁰⁰ (a float is one); no smaller than its variance."""

    def __post_init__(self) -> None:
        if not LEAST <= self.variance <= MOST:
            raise SettingsError("variance", self.variance, "must be between 1/4 and 2^100")

    def __call__(self, shape: int | tuple[int, ...], randomness: Bytes) -> NDArray[np.int64]:
        """Return independent draws of that shape.

        Some tens of microseconds each; how long a draw takes tells a little of its size to who can time it.
        """
        count = math.prod(shape) if isinstance(shape, tuple) else shape
        draws = [_gaussian(Fraction(self.variance), randomness) for _ in range(count)]
        return np.array(draws, np.int64).reshape(shape)

    def probabilities(self, reach: int) -> NDArray[np.float64]:
        """Return P(−reach) … P(reach), relative error 1e-14."""
        whole = max(reach, math.ceil(40 * math.sqrt(self.variance)))
        weights = np.exp(-(np.arange(-whole, whole + 1.0) ** 2) / (2 * float(self.variance)))
        return weights[whole - reach : whole + reach + 1] / weights.sum()

    def inflation(self, shares: int) -> float:
        """Return τ, bounding |ln| of the ratio of a sum of `shares` shares to N_ℤ(0, shares · σ²).

        τ = 10 Σ_{k=1}^{n−1} exp(−2π²σ² k/(k + 1))
        """
        counts = np.arange(1.0, shares)
        return 10 * float(np.exp(-2 * math.pi**2 * float(self.variance) * counts / (counts + 1)).sum())

    def divergence(self, order: float, distance: float, slopes: int, clients: int, failing: int = 0) -> float:
        """Return a bound on D_α of the noised sum of K slopes, α = `order`, when d of n clients add no noise.

            s = Δ₂ / √(n − d)σ
            D_α ≤ min{ α s²/2 + τK,   α/2 (s + √K τ)² },   τ of n − d shares

        ∞ if nobody is left to add any. Who fails may drop out, send no noise, or send what it likes as long as that
        does not depend on the honest clients' shares. A ring changes nothing: reducing a sum is after the fact. Source:
        Kairouz, Liu & Steinke 2021, proposition 14 (its form with Δ₁ is left out: this is safe without).

        Args:
            order: α, > 1.
            distance: Δ₂, how far one client moves the sum of integers, Euclidean; see `moved`.
            slopes: K.
            clients: n, in the sum.
            failing: d, 0 to n.
        """
        checks.at_least("slopes", slopes, 1)
        checks.at_least("clients", clients, 1)
        checks.within("failing", failing, 0, clients)
        shares = clients - failing
        if shares == 0:
            return math.inf
        scale, tau = distance / math.sqrt(shares * self.variance), self.inflation(shares)
        return min(order * scale**2 / 2 + tau * slopes, order / 2 * (scale + math.sqrt(slopes) * tau) ** 2)

    def wrapping(self, largest: int, slopes: int, clients: int, bits: int) -> float:
        """Return a bound on the probability that any of K sums leaves a ring of 2^`bits`, each |q| ≤ `largest`.

            2K exp(−t² / 2nσ²),   t = 2^(bits − 1) − 1 − n · largest

        A sum that wraps is wrong, not less private. Source: N_ℤ is subgaussian (Canonne et al. 2020, fact 18).
        """
        room = (1 << (bits - 1)) - 1 - clients * largest
        if room <= 0:
            return 1.0
        return min(1.0, 2 * slopes * math.exp(-(room**2) / (2 * clients * float(self.variance))))


def moved(bound: float, slopes: int, *, replaced: bool = True) -> float:
    """Return Δ₂, how far a client whose slopes have norm ≤ `bound` quanta moves a sum of their roundings.

    Rounding to a neighbour moves each of K slopes by less than 1, so a client's integers have norm ≤ bound + √K; a
    client that is replaced by another moves a sum twice that, one that is left out once.
    """
    checks.at_least("bound", bound, 0)
    checks.at_least("slopes", slopes, 1)
    return (2 if replaced else 1) * (bound + math.sqrt(slopes))


def into_ring(integers: NDArray[np.int64], bits: int) -> NDArray[np.int64]:
    """Return `integers` modulo 2^`bits`, 2 to 62, in [0, 2^bits)."""
    checks.within("bits", bits, 2, 62)
    return integers & ((1 << bits) - 1)


def out_of_ring(sums: NDArray[np.int64], bits: int) -> NDArray[np.int64]:
    """Return sums, reduced here modulo 2^`bits`, as integers in [−2^(bits − 1), 2^(bits − 1))."""
    half = 1 << (bits - 1)
    return into_ring(sums + half, bits) - half


def _below(limit: int, randomness: Bytes) -> int:
    """Return a whole number in [0, limit), each equally likely."""
    bits = (limit - 1).bit_length()
    size = (bits + 7) // 8
    while True:
        value = int.from_bytes(randomness(size), "little") >> (8 * size - bits)
        if value < limit:
            return value


def _exp_coin(top: int, bottom: int, randomness: Bytes) -> bool:
    """Return True with probability exp(−γ), γ = top/bottom ≥ 0: coins of γ/1, γ/2, … first fail at an odd number."""
    while top > bottom:
        if not _exp_coin(1, 1, randomness):
            return False
        top -= bottom
    tosses = 1
    while _below(bottom * tosses, randomness) < top:
        tosses += 1
    return tosses % 2 == 1


def _laplace(scale: int, randomness: Bytes) -> int:
    """Return a whole number x with probability ∝ exp(−|x|/scale)."""
    while True:
        rest = _below(scale, randomness)
        if not _exp_coin(rest, scale, randomness):
            continue
        size = rest
        while _exp_coin(1, 1, randomness):
            size += scale
        negative = _below(2, randomness) == 1
        if size or not negative:
            return -size if negative else size


def _gaussian(variance: Fraction, randomness: Bytes) -> int:
    """Return a draw of N_ℤ(0, variance): a draw of the discrete Laplace law, taken or thrown back."""
    top, bottom = variance.numerator, variance.denominator
    scale = math.isqrt(top // bottom) + 1
    while True:
        drawn = _laplace(scale, randomness)
        # (|y| − σ²/t)² / 2σ², with σ² = top/bottom
        away = abs(drawn) * scale * bottom - top
        if _exp_coin(away * away, 2 * top * bottom * scale * scale, randomness):
            return drawn
