"""Mean curves over seeds, with all seeds' range as a band."""

from __future__ import annotations

from collections.abc import Sequence

from baffle.report.charts import ACCURACY, DOWNLOAD, FORWARDS, ROUND, SECONDS, UPLOAD, Chart, Series
from baffle.report.comparison.entries import Comparison, Entry
from baffle.report.comparison.spread import Spread
from baffle.report.palette import stroke
from baffle.report.records import Point
from baffle.report.runs import Run

_ABSCISSAE = (ROUND, FORWARDS, UPLOAD, DOWNLOAD, SECONDS)
_FIELDS = ("accuracy", "forward_equivalents", "upload_bytes", "download_bytes", "seconds")


def accuracy_chart(comparison: Comparison) -> Chart:
    """Return the entries' accuracy against each cost; an entry without a finished run has no line."""
    series = [_series(index, entry) for index, entry in enumerate(comparison.entries) if entry.runs]
    return Chart("accuracy", ACCURACY, tuple(series), _ABSCISSAE, comparison.targets)


def _series(index: int, entry: Entry) -> Series:
    columns = _aligned(entry.runs)
    band = tuple((spread.low, spread.high) for spread in (_accuracy(column) for column in columns))
    points = tuple(_mean(column) for column in columns)
    return Series(entry.name, stroke(index), points, ACCURACY.read, band if len(entry.runs) > 1 else ())


def _aligned(runs: Sequence[Run]) -> list[tuple[Point, ...]]:
    """Return the points of all runs at each round that all of them evaluated."""
    tables = [{point.round: point for point in run.points} for run in runs]
    rounds = sorted(set(tables[0]).intersection(*tables[1:]))
    return [tuple(table[done] for table in tables) for done in rounds]


def _accuracy(column: Sequence[Point]) -> Spread:
    return Spread(tuple(point.accuracy for point in column))


def _mean(column: Sequence[Point]) -> Point:
    means = {name: Spread(tuple(getattr(point, name) for point in column)).mean for name in _FIELDS}
    return Point(column[0].round, **means)
