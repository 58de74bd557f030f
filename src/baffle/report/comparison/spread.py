"""One quantity over several seeds."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from baffle.report.quantities import Quantity
from baffle.report.records import UNKNOWN


def mean(values: Sequence[float]) -> float:
    """Return the mean; NaN of none."""
    return statistics.fmean(values) if values else UNKNOWN


@dataclass(frozen=True, slots=True)
class Spread:
    """A quantity's values, one a seed; without any, or with one that is not known, all is NaN."""

    values: tuple[float, ...]

    @property
    def mean(self) -> float:
        """Their mean."""
        return mean(self.values)

    @property
    def deviation(self) -> float:
        """The sample standard deviation, √(Σ(x − x̄)² / (n − 1)); NaN for fewer than two values."""
        if len(self.values) < 2:
            return UNKNOWN
        middle = self.mean
        return (sum((value - middle) ** 2 for value in self.values) / (len(self.values) - 1)) ** 0.5

    @property
    def low(self) -> float:
        """The least."""
        return min(self.values, default=UNKNOWN)

    @property
    def high(self) -> float:
        """The largest."""
        return max(self.values, default=UNKNOWN)

    def about(self, show: Callable[[float], Quantity]) -> str:
        """Return what stands beside the mean: the standard deviation, of two values the range.

        Nothing for one value, and nothing where all are alike to a reader.
        """
        low, high = show(self.low).text, show(self.high).text
        if len(self.values) < 2 or low == high:
            return ""
        if len(self.values) == 2:
            return f"{low} to {high}"
        return f"± {show(self.deviation).text}"

    def text(self, show: Callable[[float], Quantity]) -> str:
        """Return mean and spread in a line."""
        middle, about = show(self.mean).text, self.about(show)
        return f"{middle} ({about})" if len(self.values) == 2 and about else f"{middle} {about}".strip()
