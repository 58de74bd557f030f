"""What rounds cost in differential privacy, and what noise or how many rounds a target leaves.

All of it goes through Rényi divergences of one round, added up over rounds, so a round may depend on what earlier ones
gave. What is protected is all of a client's data: neighbours are runs in which one client's data differ. A guarantee
holds against whoever sees what the mechanism's divergence is of, and only if each round's noise is fresh and secret.

Baffle draws a cohort of fixed size, without replacement, anew each round, and **names it in the plan and the ledger**.
Who can read either knows who took part, and a client that is known to have taken part is not hidden by the draw. So the
default is None: no amplification, every client in every round. `Drawn` is what the draw is worth against somebody who
sees neither plan, ledger nor traffic; `Poisson` is not how Baffle draws and is here to compare with published figures.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from types import ModuleType
from typing import Protocol, TypeAlias

import numpy as np
from numpy.typing import NDArray

from baffle import checks, extras
from baffle.errors import SettingsError

Floats: TypeAlias = NDArray[np.float64]

MOST_ROUNDS = 1 << 40
"""Where counting affordable rounds ends."""

PRECISION = 1e-6
"""Relative, of a noise multiplier that is searched for; what is returned is never too small."""


@dataclass(frozen=True, slots=True)
class Poisson:
    """Every client takes part with probability q, by itself; neighbours: one client is there or not."""

    probability: float
    """q, above 0 and at most 1."""

    def __post_init__(self) -> None:
        if not 0 < self.probability <= 1:
            raise SettingsError("probability", self.probability, "must be above 0 and at most 1")


@dataclass(frozen=True, slots=True)
class Drawn:
    """A secret cohort of fixed size without replacement; neighbours: one client's data are replaced by other data."""

    cohort: int
    """Clients of a round, ≥ 1."""
    clients: int
    """All of them, ≥ `cohort`."""

    def __post_init__(self) -> None:
        checks.within("cohort", self.cohort, 1, self.clients)


Sampling: TypeAlias = Poisson | Drawn | None
"""How clients come to take part; None is everyone, in every round, and what is safe when cohorts are known."""


class Mechanism(Protocol):
    """One round of something that protects."""

    def divergences(self, orders: Sequence[float]) -> Floats:
        """Return an upper bound on D_α between a round's outputs for neighbours, for every α > 1 in `orders`."""
        ...


@dataclass(frozen=True, slots=True)
class Gaussian:
    """A sum to which one Gaussian draw is added, of deviation z · C where every client's vector has norm ≤ C.

        D_α = α (Δ/C)² / 2z²   without sampling

    Δ = C where neighbours have one client more or less, 2C where one client's data are replaced, as `Drawn` always
    means. With sampling, dp_accounting's bounds (Mironov et al. 2019 for `Poisson`, Wang et al. 2019 for `Drawn`).
    """

    multiplier: float
    """z, > 0."""
    sampling: Sampling = None
    replaced: bool = True
    """Whether neighbours have one client's data replaced (the safe reading), or left out."""

    def __post_init__(self) -> None:
        checks.positive("multiplier", self.multiplier)
        if isinstance(self.sampling, Poisson) and self.replaced:
            raise SettingsError(
                "replaced", self.replaced, "must be false with Poisson sampling: a client is there or not"
            )
        if isinstance(self.sampling, Drawn) and not self.replaced:
            raise SettingsError("replaced", self.replaced, "must be true with cohorts of a fixed size")

    def divergences(self, orders: Sequence[float]) -> Floats:
        """Return D_α for every α in `orders`."""
        library = _library()
        event = library.GaussianDpEvent(self.multiplier / (2 if self.replaced else 1))
        relation = library.NeighboringRelation.ADD_OR_REMOVE_ONE
        match self.sampling:
            case Poisson(probability):
                event = library.PoissonSampledDpEvent(probability, event)
            case Drawn(cohort, clients):
                event = library.SampledWithoutReplacementDpEvent(clients, cohort, event)
                relation = library.NeighboringRelation.REPLACE_ONE
            case None:
                pass
        return library.rdp.RdpAccountant(list(orders), relation).compose(event).rdp


@dataclass(frozen=True, slots=True)
class Curve:
    """A mechanism known by its divergences; with a secret cohort they are amplified, for whole orders alone.

        D'_α ≤ ln(1 + γ² C(α,2) min{4(e^{D_2} − 1), 2 e^{D_2}} + Σ_{j=3}^α 2 γʲ C(α,j) e^{(j−1) D_j}) / (α − 1)

    γ = cohort/clients. Never more than D_α itself. Source: Wang, Balle & Kasiviswanathan 2019, theorem 9, without its
    last refinement for mechanisms whose D_∞ is small.
    """

    curve: Callable[[Sequence[float]], Floats]
    """(orders) -> D_α of a round, for one client's data replaced; ∞ where there is no bound."""
    sampling: Drawn | None = None

    def divergences(self, orders: Sequence[float]) -> Floats:
        """Return D_α for every α in `orders`; where it is amplified, orders above 256 have no bound."""
        if self.sampling is None:
            return self.curve(orders)
        share = self.sampling.cohort / self.sampling.clients
        whole = self.curve([float(order) for order in range(2, 257)])
        plain = self.curve(orders)
        found = [_amplified(int(a), share, whole) if a == int(a) and a <= 256 else math.inf for a in orders]
        return np.minimum(plain, found)


@dataclass(frozen=True, slots=True)
class Several:
    """Mechanisms of one round together, such as slopes and the bits that adapt their bound: divergences add.

    Without sampling alone: parts that share a cohort are not drawn independently, and amplified divergences don't add.
    """

    parts: tuple[Mechanism, ...]

    def __post_init__(self) -> None:
        if any(getattr(part, "sampling", None) is not None for part in self.parts):
            raise SettingsError("parts", self.parts, "must have no sampling of their own: they share a cohort")

    def divergences(self, orders: Sequence[float]) -> Floats:
        """Return the sum of D_α over all parts, for every α in `orders`."""
        return np.sum([part.divergences(orders) for part in self.parts], axis=0)


class Spending:
    """ε of a mechanism after any number of rounds, its divergences computed once.

    Raises:
        SettingsError: δ outside (0, 1).
        MissingExtraError: dp_accounting is not installed.
    """

    def __init__(self, mechanism: Mechanism, delta: float) -> None:
        _check(1, delta)
        self._delta, self._orders = delta, _orders()
        self._costs = mechanism.divergences(self._orders)

    def after(self, rounds: int) -> float:
        """Return ε after so many rounds, 0 for none."""
        return _spent(self._orders, self._costs, rounds, self._delta) if rounds else 0.0


def epsilon(mechanism: Mechanism, rounds: int, delta: float) -> float:
    """Return ε of (ε, δ)-differential privacy after T = `rounds` rounds.

        ε = min over α of  T D_α + ln(1 − 1/α) − ln(δ α)/(α − 1)

    An upper bound: the best of dp_accounting's orders, from 1.1 to 1024. ∞ where no order has a bound. An attempt that
    is tried again counts as a round if its reports were seen. Source: Canonne, Kamath & Steinke 2020, proposition 12.

    Raises:
        SettingsError: rounds < 1, or δ outside (0, 1).
        MissingExtraError: dp_accounting is not installed.
    """
    _check(rounds, delta)
    orders = _orders()
    return _spent(orders, mechanism.divergences(orders), rounds, delta)


def affordable_rounds(mechanism: Mechanism, budget: float, delta: float) -> int:
    """Return the most rounds whose ε stays within `budget`; 2⁴⁰ stands for that many or more.

    Raises:
        SettingsError: not even one round does, or an argument is out of range.
        MissingExtraError: dp_accounting is not installed.
    """
    checks.positive("epsilon", budget)
    _check(1, delta)
    orders = _orders()
    costs = mechanism.divergences(orders)
    one = _spent(orders, costs, 1, delta)
    if one > budget:
        raise SettingsError(
            "epsilon", budget, f"does not pay for a single round, which costs {one:.4g} at δ = {delta:g}"
        )
    low, high = 1, MOST_ROUNDS
    if _spent(orders, costs, high, delta) <= budget:
        return high
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if _spent(orders, costs, middle, delta) <= budget else (low, middle)
    return low


def least_noise(
    make: Callable[[float], Mechanism],
    budget: float,
    delta: float,
    rounds: int,
    *,
    low: float = 1e-2,
    high: float = 1e6,
    precision: float = PRECISION,
) -> float:
    """Return the smallest noise between `low` and `high` for which T rounds cost at most `budget` ε, by bisection.

    At most `precision` of itself above the exact one, never below it.

    Args:
        make: noise -> mechanism, such as `Gaussian`; more noise has to cost less.
        budget: ε, > 0.
        delta: δ, in (0, 1).
        rounds: T, ≥ 1.
        low: least noise to consider, > 0.
        high: most noise to consider, > `low`.
        precision: relative, > 0.

    Raises:
        SettingsError: even the most noise costs more, or an argument is out of range.
        MissingExtraError: dp_accounting is not installed.
    """
    checks.positive("epsilon", budget)
    checks.positive("low", low)
    checks.positive("high", high)
    if high <= low:
        raise SettingsError("high", high, f"must be above low = {low:g}")
    checks.positive("precision", precision)
    least = epsilon(make(high), rounds, delta)
    if least > budget:
        raise SettingsError(
            "epsilon",
            budget,
            f"can't be reached in {rounds} rounds: noise {high:g} still costs {least:.4g} at δ = {delta:g}",
        )
    if epsilon(make(low), rounds, delta) <= budget:
        return low
    while high / low > 1 + precision:
        middle = math.sqrt(low * high)
        low, high = (low, middle) if epsilon(make(middle), rounds, delta) <= budget else (middle, high)
    return high


def _amplified(order: int, share: float, curve: Floats) -> float:
    """Return the bound of theorem 9 at a whole order, from D_2, D_3, … in `curve`; sums are made in logarithms."""
    second = float(curve[0])
    if not math.isfinite(float(curve[: order - 1].sum())):
        return math.inf
    gain = math.log(min(4 * math.expm1(second), 2 * math.exp(second))) if 0 < second < 700 else math.log(2) + second
    terms = [0.0, 2 * math.log(share) + math.log(math.comb(order, 2)) + (gain if second > 0 else -math.inf)]
    terms += [
        math.log(2) + j * math.log(share) + math.log(math.comb(order, j)) + (j - 1) * float(curve[j - 2])
        for j in range(3, order + 1)
    ]
    return float(np.logaddexp.reduce(terms)) / (order - 1)


def _check(rounds: int, delta: float) -> None:
    checks.at_least("rounds", rounds, 1)
    if not 0 < delta < 1:
        raise SettingsError("delta", delta, "must be above 0 and below 1")


def _spent(orders: Sequence[float], costs: Floats, rounds: int, delta: float) -> float:
    found, _ = _library().rdp.compute_epsilon(orders, rounds * costs, delta)
    return float(found)


def _orders() -> list[float]:
    return [float(order) for order in _library().rdp.RdpAccountant().orders]


def _library() -> ModuleType:
    return extras.require("dp_accounting", "private")
