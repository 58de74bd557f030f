"""When a run reached an accuracy."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from math import isfinite

from baffle.report.records import Point

ROUND_FIGURES = (0.99, 0.98, 0.97, 0.95, 0.9, 0.85, 0.8, 0.7, 0.6, 0.5, 0.4, 0.3, 0.2)
_COSTS = ("forward_equivalents", "upload_bytes", "download_bytes", "seconds")


@dataclass(frozen=True, slots=True)
class Crossing:
    """Where a run first had an accuracy: surely after one evaluation and by the next."""

    at: Point
    """Between them by a straight line; its round is then a fraction."""
    before: Point
    """The last evaluation below the accuracy; the first of the run where that has it at once."""
    after: Point
    """The first with the accuracy."""

    @property
    def rough(self) -> bool:
        """Whether its round is known to no better than a factor of two."""
        return 2 * self.before.round < self.after.round and self.after.round > 1


def reached(points: Sequence[Point], accuracy: float) -> Crossing | None:
    """Return where a run first had `accuracy`, between two evaluations interpolated linearly; None if it never had.

        x = x₀ + (x₁ − x₀) (a − a₀) / (a₁ − a₀)

    for its round (then a fraction) and each cost x, a₀ < a ≤ a₁ the accuracies of the evaluations around it.
    Evaluations whose accuracy is not known are passed over. Limits: of a curve that swings it is the first moment,
    hence early.
    """
    known = [point for point in points if isfinite(point.accuracy)]
    if known and known[0].accuracy >= accuracy:
        return Crossing(known[0], known[0], known[0])
    for before, after in pairwise(known):
        if after.accuracy >= accuracy:
            return Crossing(_between(before, after, accuracy), before, after)
    return None


def _between(before: Point, after: Point, accuracy: float) -> Point:
    share = (accuracy - before.accuracy) / (after.accuracy - before.accuracy)
    costs = {name: _mix(getattr(before, name), getattr(after, name), share) for name in _COSTS}
    return Point(_mix(before.round, after.round, share), accuracy=accuracy, **costs)


def _mix(low: float, high: float, share: float) -> float:
    return low + (high - low) * share
