"""The randomised quantisation mechanism: rounding that protects by itself, with no noise added."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from baffle import checks
from baffle.errors import SettingsError

Floats: TypeAlias = NDArray[np.float64]

STOPS = 12
"""Numbers of blanket answers at which a sum is evaluated; more make the bound closer, never safer."""


@dataclass(frozen=True, slots=True)
class RandomisedQuantiser:
    """Rounding of slopes in ±c to one of two neighbours among levels of which a random part is left out.

        B(i) = −X + 2iX/(m − 1),   X = c + Δ,   i = 0 … m − 1
        B(0) and B(m − 1) are kept; every other level with probability q, by itself
        send b with probability (x − B(a))/(B(b) − B(a)), else a,   a, b the kept neighbours of x

    Slopes are measured in their bound, so c is 1 here and Δ a multiple of it. E B(index) = x exactly, for every q.
    Every index has a positive probability whatever x is, so a single answer is protected, and the more so the larger Δ
    and the smaller q. ⌈log₂ m⌉ bits a slope. With uniforms of 53 bits every probability is off by a relative
    m · 2⁻⁵² (1/min(q, 1 − q) + 1/Δ) at most. Source: Youn, Hu, Ziani & Abernethy 2023, algorithm 2.
    """

    levels: int
    """m, 2 to 256."""
    keep: float
    """q, above 0 and below 1."""
    extension: float
    """Δ/c, > 0: how far the levels reach beyond the bound."""

    def __post_init__(self) -> None:
        checks.within("levels", self.levels, 2, 256)
        if not 0 < self.keep < 1:
            raise SettingsError("keep", self.keep, "must be above 0 and below 1: all levels or none protect nobody")
        checks.positive("extension", self.extension)
        if not self.probabilities(np.array([-1.0, 1.0])).min() > 1e-300:
            raise SettingsError(
                "keep", self.keep, f"makes some of {self.levels} indices too rare to be told from never"
            )

    def __call__(self, slopes: Floats, bounds: Floats, uniforms: Floats) -> NDArray[np.int64]:
        """Return indices of the shape of `slopes` [..., K], 0 to m − 1.

        Args:
            slopes: limited to ±bounds here; what is not finite is taken for 0, since a gap would not be protected.
            bounds: c, [K].
            uniforms: [..., K, m − 1] in [0, 1), from randomness that nobody else knows: the first m − 2 of a slope
                decide which levels are kept, the last one which neighbour is sent.
        """
        inner = np.arange(1, self.levels - 1)
        known = np.where(np.isfinite(slopes), slopes, 0.0)
        place = self._places(np.clip(known, -bounds, bounds) / bounds)
        cell = self._cells(place)
        kept, below = uniforms[..., :-1] < self.keep, inner <= cell[..., None]
        low: NDArray[np.int64] = np.where(kept & below, inner, 0).max(axis=-1, initial=0)
        last = self.levels - 1
        high: NDArray[np.int64] = np.where(kept & ~below, inner, last).min(axis=-1, initial=last)
        up = uniforms[..., -1] < (place - low) / (high - low)
        indices: NDArray[np.int64] = np.where(up, high, low)
        return indices

    def draw(self, slopes: Floats, bounds: Floats, generator: np.random.Generator) -> NDArray[np.int64]:
        """Return indices as a call does, with uniforms from `generator`."""
        return self(slopes, bounds, generator.random((*slopes.shape, self.levels - 1)))

    def slopes(self, sums: NDArray[np.int64], bounds: Floats, clients: int = 1) -> Floats:
        """Return the mean slopes [..., K] that sums of `clients` indices stand for; unbiased."""
        return bounds * ((1 + self.extension) * (2 * sums / (clients * (self.levels - 1)) - 1))

    def probabilities(self, inputs: Floats) -> Floats:
        """Return P(index i), [..., m], of `inputs` x/c [...] in [−1, 1]: a sum of positive terms over all kept pairs.

        P(a, b kept neighbours) = q^[a > 0] (1 − q)^(j − a) · q^[b < m − 1] (1 − q)^(b − j − 1),   a ≤ j < b
        """
        index = np.arange(self.levels)
        found = np.zeros((*inputs.shape, self.levels))
        places = self._places(inputs)
        cells = self._cells(places)
        for at in np.ndindex(inputs.shape):
            place, cell = places[at], int(cells[at])
            low, high = index[: cell + 1, None], index[cell + 1 :]
            left = np.where(low > 0, self.keep, 1.0) * (1 - self.keep) ** (cell - low)
            right = np.where(high < self.levels - 1, self.keep, 1.0) * (1 - self.keep) ** (high - cell - 1)
            both = left * right / (high - low)
            found[at][: cell + 1] = (both * (high - place)).sum(axis=1)
            found[at][cell + 1 :] = (both * (place - low)).sum(axis=0)
        return found

    @property
    def corners(self) -> Floats:
        """The inputs x/c that a worst case has to be looked for among: ±1 and every level between them, ascending.

        Between two of them P is linear in x, and ΣPᵅQ¹⁻ᵅ is convex in P and Q together: it is largest at corners. It is
        not always largest at ±1 itself: for m = 8, q = 0.42, Δ = 5c the divergence of order 32 is 3 % larger elsewhere.
        """
        reach = 1 + self.extension
        levels = reach * (2 * np.arange(self.levels) / (self.levels - 1) - 1)
        return np.concatenate([[-1.0], levels[np.abs(levels) < 1], [1.0]])

    def divergence(self, order: float, first: float = 1.0, second: float = -1.0, others: Sequence[float] = ()) -> float:
        """Return D_α, α = `order` > 1, between the sums of indices when one client's x/c is `first` or `second`.

            D_α(P‖Q) = ln Σ Pᵅ Q¹⁻ᵅ / (α − 1)

        Exact for the inputs given, by convolution in logarithms, in which no tail is lost: to a relative 1e-9 where it
        is above 1e-6. With n others O(n² m²).

        Args:
            order: α, > 1.
            first: x/c of the client in P.
            second: x/c of the client in Q.
            others: x/c of the other clients in the sum, known to the adversary; none is what one client sends.
        """
        return float(self.divergences([order], first, second, others)[0])

    def divergences(
        self, orders: Sequence[float], first: float = 1.0, second: float = -1.0, others: Sequence[float] = ()
    ) -> Floats:
        """Return D_α as `divergence` does, for every α in `orders`."""
        rest = np.zeros(1)
        for spread in np.log(self.probabilities(np.asarray(others, np.float64))):
            rest = _convolved(rest, spread)
        one, two = (_convolved(rest, np.log(self.probabilities(np.array(x)))) for x in (first, second))
        return np.array([float(_log_moment(order, one, two)) / (order - 1) for order in orders])

    def local(self, orders: Sequence[float]) -> Floats:
        """Return the largest D_α of one client's index over all pairs of inputs, for every α in `orders`; exact.

        Holds against whoever sees every answer. A report of K slopes costs K times as much, T rounds T times.
        """
        return self.summed(orders, 1)

    def summed(self, orders: Sequence[float], clients: int) -> Floats:
        """Return a bound on D_α of a sum of `clients` indices, whatever the others' inputs, for every α in `orders`.

        The part of P that does not depend on x, u(i) = min over x of P(i), β = Σ u, is what a client answers with
        probability β without looking at its slope. Even if the adversary knows who did not, what is left to hide in
        is a sum of Binomial(n − 1, β) draws of u/β, and ΣPᵅQ¹⁻ᵅ is averaged over that number. Never above `local`,
        which it equals for n = 1; not tight. `clients` counts the honest ones: who tells its index hides nobody. For a
        sum of which the adversary sees nothing else. Source: the privacy blanket of Balle, Bell, Gascón & Nissim 2019.
        """
        checks.at_least("clients", clients, 1)
        spreads = self.probabilities(self.corners)
        common = spreads.min(axis=0)
        share = float(common.sum())
        blanket = np.log(common) - math.log(share)
        stops, weights = _binomial(clients - 1, share)
        moments = np.full((len(stops), len(orders)), -math.inf)
        crowd = np.zeros(1)
        for number, stop in enumerate(stops):
            while crowd.size < stop * (self.levels - 1) + 1:
                crowd = _convolved(crowd, blanket)
            rows = np.stack([_convolved(crowd, np.log(spread)) for spread in spreads])
            for column, order in enumerate(orders):
                moments[number, column] = max(float(_log_moment(order, rows, row).max()) for row in rows)
        return _log_sum(moments.T + weights) / (np.asarray(orders, np.float64) - 1)

    def _places(self, inputs: Floats) -> Floats:
        """Return where on the axis of indices x/c stands, 0 to m − 1; beyond ±1 it is limited."""
        limited = np.clip(inputs, -1.0, 1.0)
        return (limited + (1 + self.extension)) * ((self.levels - 1) / (2 * (1 + self.extension)))

    def _cells(self, places: Floats) -> NDArray[np.int64]:
        """Return j, the level at or below each place."""
        return np.clip(np.floor(places), 0, self.levels - 2).astype(np.int64)


def _log_sum(terms: Floats) -> Floats:
    """Return ln Σ eᵗ over the last axis."""
    peak = terms.max(axis=-1, keepdims=True)
    return np.log(np.exp(terms - peak).sum(axis=-1)) + peak[..., 0]


def _log_moment(order: float, first: Floats, second: Floats) -> Floats:
    """Return ln Σ Pᵅ Q¹⁻ᵅ from logarithms [..., L]; rounding can't make it negative."""
    return np.maximum(_log_sum(order * first + (1 - order) * second), 0.0)


def _convolved(first: Floats, second: Floats) -> Floats:
    """Return the logarithms of the law of a sum of two indices from those of each."""
    out = np.full(first.size + second.size - 1, -math.inf)
    for shift, value in enumerate(second):
        part = out[shift : shift + first.size]
        np.logaddexp(part, first + value, out=part)
    return out


def _binomial(trials: int, share: float) -> tuple[list[int], Floats]:
    """Return numbers from 0 to `trials`, ascending, and the logarithms of how likely each is the last one reached.

    Counting what lies between two numbers as the lower one is safe: a larger crowd hides better.
    """
    middle, spread = trials * share, math.sqrt(trials * share * (1 - share))
    marks = np.linspace(middle - 6 * spread, middle + 2 * spread, STOPS)
    stops = sorted({0, *(int(mark) for mark in marks if 0 < mark <= trials)})
    count = np.arange(trials + 1)
    factorials = np.array([math.lgamma(number + 1) for number in range(trials + 1)])
    chosen = factorials[-1] - factorials - factorials[::-1]
    logs = chosen + count * math.log(share) + (trials - count) * math.log1p(-min(share, 1 - 1e-16))
    return stops, np.array([_log_sum(part) for part in np.split(logs, stops[1:])])
