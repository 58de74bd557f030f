"""What a plan asks a client to do to its slopes so that little can be told from them, and what a run sets for that."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING, Annotated, TypeAlias

import msgspec
import numpy as np
from msgspec import Meta
from numpy.typing import NDArray

from baffle import checks
from baffle.mechanisms.clip import clip
from baffle.mechanisms.clip_norm import AdaptiveBound, clip_norm, norm
from baffle.mechanisms.discrete_gaussian import DiscreteGaussian
from baffle.mechanisms.quantise import ROUNDING, Quantiser
from baffle.mechanisms.rqm import RandomisedQuantiser

if TYPE_CHECKING:
    from baffle.accounting import Mechanism

Floats: TypeAlias = NDArray[np.float64]
Integers: TypeAlias = NDArray[np.int64]
Bytes: TypeAlias = Callable[[int], bytes]
"""So many bytes that nobody can predict: `secrets.token_bytes`."""

SMOOTH = 4.0
"""Least variance of a share: below it, sums of shares are not like one draw."""
MOST_SHARES = 1_000
"""Clients for which the difference between a sum of shares and one draw is accounted for."""
REACH = 12.0
"""Deviations to which a share is limited, so that sums can't wrap; a draw beyond them has probability 4e-33."""
MOST_SLOPES = 1 << 28
"""K for which it is."""


class Noised(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True, tag="noised"):
    """A round's slopes are bounded in norm, and Gaussian noise in whole numbers is added to their sums."""

    size: Annotated[float, Meta(gt=0, lt=1e30)]
    """Largest root mean square of a client's slopes in a step: C = size · √K."""
    variance: Annotated[float, Meta(ge=0.25, lt=1e30)]
    """σ² of the noise on each sum, in quanta; at least, if it is shared."""
    shares: Annotated[int, Meta(ge=0, le=MOST_SHARES)]
    """Clients whose shares add up to it, ≥ 1; 0 leaves it to the server."""
    counts: bool
    """Whether one more integer tells if the slopes were within the bound: ±the largest level."""

    def step(self, slopes: Floats, bounds: Floats, quantiser: Quantiser, uniforms: Floats, _: Bytes) -> Integers:
        """Return integers of the shape of `slopes` [C, K], none of them missing."""
        whole = clip_norm(slopes, self.size * math.sqrt(slopes.shape[-1]))
        return quantiser(clip(whole, bounds), bounds, uniforms)

    def inside(self, slopes: Floats) -> NDArray[np.bool_]:
        """Return whether the norms of `slopes` [C, K] are within the bound, [C]."""
        return norm(slopes) <= self.size * math.sqrt(slopes.shape[-1])

    def share(self, count: int, randomness: Bytes) -> Integers:
        """Return what a client adds to its integers, [count]; zeros where the noise is the server's."""
        if not self.shares:
            return np.zeros(count, np.int64)
        drawn = DiscreteGaussian(self.variance / self.shares)(count, randomness)
        return np.clip(drawn, -self.reach, self.reach)

    @property
    def reach(self) -> int:
        """The largest share."""
        return math.ceil(REACH * math.sqrt(self.variance / self.shares)) if self.shares else 0

    def most(self, clients: int) -> int:
        """Return what noise adds to a sum of `clients` at most; the server's with a chance of 1e-42 for more."""
        return clients * self.reach if self.shares else math.ceil(14 * math.sqrt(self.variance))

    def spread(self, clients: float, _: int) -> float:
        """Return the variance of a sum of `clients` integers, in quanta²: of noise, and of rounding."""
        return self.variance * (clients / self.shares if self.shares else 1.0) + clients * ROUNDING

    def noise(self, count: int, randomness: Bytes) -> Integers:
        """Return what the server adds to a group's sums, [count]; zeros where the clients have done it."""
        if self.shares:
            return np.zeros(count, np.int64)
        return DiscreteGaussian(self.variance)(count, randomness)


class Randomised(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True, tag="randomised"):
    """A round's slopes are rounded to random levels; a plan's bounds are where the levels end, X = c + Δ."""

    keep: Annotated[float, Meta(gt=0, lt=1)]
    """q."""
    extension: Annotated[float, Meta(gt=0, lt=1e30)]
    """Δ/c."""

    @property
    def counts(self) -> bool:
        """False: norms are not counted."""
        return False

    @property
    def shares(self) -> int:
        """0: nothing is added."""
        return 0

    @property
    def reach(self) -> int:
        """0."""
        return 0

    def step(self, slopes: Floats, bounds: Floats, quantiser: Quantiser, _: Floats, randomness: Bytes) -> Integers:
        """Return integers of the shape of `slopes` [C, K]: indices, counted from the middle level."""
        mechanism = RandomisedQuantiser(2 * quantiser.levels + 1, self.keep, self.extension)
        shape = (*slopes.shape, 2 * quantiser.levels)
        words = np.frombuffer(randomness(8 * math.prod(shape)), "<u8").reshape(shape)
        uniforms = (words >> np.uint64(11)).astype(np.float64) * 2.0**-53
        indices = mechanism(slopes, bounds / (1 + self.extension), uniforms)
        centred: Integers = (indices - quantiser.levels).astype(np.int64)
        return centred

    def inside(self, slopes: Floats) -> NDArray[np.bool_]:
        """Return True for each client: nothing is counted."""
        return np.full(len(slopes), True)

    def share(self, count: int, _: Bytes) -> Integers:
        """Return zeros: the rounding is the noise."""
        return np.zeros(count, np.int64)

    def most(self, _: int) -> int:
        """Return 0."""
        return 0

    def spread(self, clients: float, levels: int) -> float:
        """Return the variance of a sum of `clients` integers for slopes near 0, in quanta²."""
        odds = RandomisedQuantiser(2 * levels + 1, self.keep, self.extension).probabilities(np.zeros(1))[0]
        return clients * float(odds @ np.arange(-levels, levels + 1) ** 2)

    def noise(self, count: int, _: Bytes) -> Integers:
        """Return zeros."""
        return np.zeros(count, np.int64)


Protection: TypeAlias = Noised | Randomised
"""What a plan may ask for."""


class GaussianPrivacy(msgspec.Struct, frozen=True, kw_only=True, tag_field="mechanism", tag="gaussian"):
    """Slopes of norm C at most, and a Gaussian of z times what a client can move on every sum.

        s ← s · min(1, C/‖s‖),   C = size · √K,   a round costs D_α = 2α/z²

    In whole numbers: rounding may add √K quanta to a client's norm, which σ covers, so that the cost is exact.
    Neighbours differ in all data of one client. Source: Kairouz, Liu & Steinke 2021; for slopes, Tang et al. 2024.

    Raises:
        SettingsError: a field is out of its range.
    """

    multiplier: float
    """z, > 0."""
    size: float = 1.0
    """Largest root mean square of a client's slopes, > 0; the first one's if it adapts."""
    quantile: float = 0.0
    """Share of the clients that the bound should leave alone, in [0, 1); 0 keeps it as it is."""
    rate: float = 0.2
    """η_C at which it adapts, > 0."""
    shares: int = 0
    """Honest clients of every round that counts, whose noise adds up; 0 lets the server add it."""

    def __post_init__(self) -> None:
        for name in ("multiplier", "size", "rate"):
            checks.positive(name, getattr(self, name))
        checks.below_one("quantile", self.quantile)
        checks.at_least("shares", self.shares, 0)

    def bound(self, size: float, slopes: int, spread: float) -> float:
        """Return the largest slope that is reported, of `slopes` K of a step: `spread` times their bound's mean."""
        return size * min(math.sqrt(slopes), spread or math.inf)

    def protection(self, size: float, slopes: int, steps: int, spread: float, levels: int) -> Noised:
        """Return what a plan asks for.

        σ = z · √((L C/c + √(HK))² + [L²]),   the last where norms are counted as well
        """
        count = slopes * steps
        quanta = levels * size * math.sqrt(count) / self.bound(size, slopes, spread)
        moved = math.hypot(quanta + math.sqrt(count), levels if self.quantile else 0.0)
        variance = max((self.multiplier * moved) ** 2, SMOOTH * max(self.shares, 1))
        return Noised(size, variance, self.shares, self.quantile > 0)

    def adapted(self, size: float, inside: float, clients: int) -> float:
        """Return the next bound, given the noised number of `clients` whose slopes were within this one."""
        if not self.quantile:
            return size
        return AdaptiveBound(self.quantile, self.rate)(size, min(max(inside, 0.0), float(clients)), clients)

    def account(self, levels: int) -> Mechanism:
        """Return what a round costs a client, whatever K and the levels are."""
        from baffle.accounting import Curve

        del levels
        unlike = DiscreteGaussian(SMOOTH).inflation(MOST_SHARES) * MOST_SLOPES if self.shares else 0.0
        return Curve(lambda orders: 2 * np.asarray(orders, np.float64) / self.multiplier**2 + unlike)


class RandomisedPrivacy(msgspec.Struct, frozen=True, kw_only=True, tag_field="mechanism", tag="rqm"):
    """Every slope bounded by itself and rounded to random levels (Youn et al. 2023); K slopes cost K times as much.

    Raises:
        SettingsError: a field is out of its range.
    """

    keep: float
    """q, above 0 and below 1."""
    extension: float
    """Δ/c, > 0."""
    slopes: int
    """Most slopes of a client's report."""
    size: float = 1.0
    """Root mean square that slopes are expected to have, > 0: c is `spread` times it."""
    summed: int = 0
    """Honest clients of every sum, of which alone the server sees anything; 0 where it sees reports."""
    shares: int = 0

    def __post_init__(self) -> None:
        for name in ("keep", "extension", "size"):
            checks.positive(name, getattr(self, name))
        checks.at_least("slopes", self.slopes, 1)
        checks.at_least("summed", self.summed, 0)

    def bound(self, size: float, slopes: int, spread: float) -> float:
        """Return X, where the levels end."""
        return (1 + self.extension) * size * min(math.sqrt(slopes), spread or math.inf)

    def protection(self, size: float, slopes: int, steps: int, spread: float, levels: int) -> Randomised:
        """Return what a plan asks for.

        Raises:
            SettingsError: more slopes than the account has.
        """
        del size, spread, levels
        checks.within("slopes", slopes * steps, 1, self.slopes)
        return Randomised(self.keep, self.extension)

    def adapted(self, size: float, inside: float, clients: int) -> float:
        """Return the bound as it is."""
        del inside, clients
        return size

    def account(self, levels: int) -> Mechanism:
        """Return what a round costs a client, with slopes from −levels to levels."""
        from baffle.accounting import Curve

        made = RandomisedQuantiser(2 * levels + 1, self.keep, self.extension)
        return Curve(lambda orders: self.slopes * made.summed(orders, max(1, self.summed)))


Privacy: TypeAlias = GaussianPrivacy | RandomisedPrivacy
"""What a method may be given."""
