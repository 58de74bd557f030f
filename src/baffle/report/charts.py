"""What the pictures show: series of points and the axes they are drawn against. Nothing here draws."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from operator import attrgetter

from baffle.report.palette import Stroke, stroke
from baffle.report.quantities import Quantity, count, duration, percent, plain, size
from baffle.report.records import Point
from baffle.report.runs import Run

_DECADES = 100.0
_NAMED = 8


@dataclass(frozen=True, slots=True)
class Axis:
    """One quantity that a picture has along an edge."""

    title: str
    """What words call it."""
    label: str
    """What the axis says, with the unit."""
    read: Callable[[Point], float]
    show: Callable[[float], Quantity]
    unit: str = ""
    """What tick labels carry: %, B, k (thousands and millions by letter) or nothing."""


ROUND = Axis("rounds", "Round", attrgetter("round"), lambda value: count(value, "rounds"), "k")
FORWARDS = Axis(
    "forward equivalents",
    "Forward equivalents per client",
    attrgetter("forward_equivalents"),
    lambda value: count(value, "forward equivalents"),
    "k",
)
UPLOAD = Axis("upload", "Upload per client (bytes)", attrgetter("upload_bytes"), size, "B")
DOWNLOAD = Axis("download", "Download per client (bytes)", attrgetter("download_bytes"), size, "B")
SECONDS = Axis("time", "Seconds", attrgetter("seconds"), duration, "k")
ABSCISSAE = (ROUND, FORWARDS, UPLOAD)

ACCURACY = Axis("accuracy", "Accuracy (%)", attrgetter("accuracy"), percent, "%")
_LOSS = Axis("loss", "Loss", attrgetter("loss"), plain)


@dataclass(frozen=True, slots=True)
class Series:
    """One line: a run's points and where its height comes from."""

    name: str
    stroke: Stroke
    points: tuple[Point, ...]
    read: Callable[[Point], float]
    band: tuple[tuple[float, float], ...] = ()
    """Lowest and highest height at each point, where the line is a mean of several."""


@dataclass(frozen=True, slots=True)
class Chart:
    """Panels: the same series against each of `abscissae`."""

    name: str
    """The picture's file name, without its ending."""
    height: Axis
    series: tuple[Series, ...]
    abscissae: tuple[Axis, ...] = ABSCISSAE
    levels: tuple[float, ...] = ()
    """Heights that a thin line marks across each panel."""

    def is_log_x(self, axis: Axis) -> bool:
        """Return whether the runs' final values on `axis` lie more than two decades apart."""
        return _spans_decades([axis.read(line.points[-1]) for line in self.series])

    def is_log_y(self) -> bool:
        """Return whether a loss moves by more than two decades; an accuracy has a linear axis always."""
        heights = [line.read(point) for line in self.series for point in line.points]
        return not self.height.unit and min(heights, default=0) > 0 and _spans_decades(heights)

    def describe(self, axis: Axis) -> str:
        """Return one panel in words: where each series ends."""
        ends = [self._end(line, axis) for line in self.series[:_NAMED]]
        rest = len(self.series) - _NAMED
        more = [f"and {rest} more, see the table of runs"] if rest > 0 else []
        return f"{self.height.title} against {axis.title}. " + "; ".join(ends + more) + "."

    def _end(self, line: Series, axis: Axis) -> str:
        last = line.points[-1]
        return f"{line.name}: {self.height.show(line.read(last)).text} at {axis.show(axis.read(last)).text}"


def accuracy_chart(runs: Sequence[Run]) -> Chart:
    """Return the runs' accuracy; a run alone has that of its plain weights beside that of its averaged ones."""
    series = _series(runs, ACCURACY)
    if len(runs) == 1:
        thin = replace(series[0].stroke, dashes=(1.5, 1.5), width=1.0)
        plain_weights = replace(series[0], name="plain weights", stroke=thin, read=attrgetter("accuracy_last"))
        series = (replace(series[0], name="averaged weights"), plain_weights)
    return Chart("accuracy", ACCURACY, series)


def loss_chart(runs: Sequence[Run]) -> Chart:
    """Return the runs' loss."""
    return Chart("loss", _LOSS, _series(runs, _LOSS))


def _series(runs: Sequence[Run], axis: Axis) -> tuple[Series, ...]:
    return tuple(Series(run.name, stroke(index), run.points, axis.read) for index, run in enumerate(runs))


def _spans_decades(values: Sequence[float]) -> bool:
    positive = [value for value in values if value > 0 and math.isfinite(value)]
    return bool(positive) and max(positive) > _DECADES * min(positive)
