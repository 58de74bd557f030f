"""The comparison's tables as plain text, for a terminal and for a page alike."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from baffle.report.comparison.entries import ACCURACY, AT_END, COSTS, Comparison, Entry, Measure, rivals
from baffle.report.comparison.spread import Spread


@dataclass(frozen=True, slots=True)
class Cell:
    """A number in short, what stands beside it, and every seed's own."""

    text: str
    about: str = ""
    exact: str = ""
    best: bool = False


@dataclass(frozen=True, slots=True)
class Row:
    """An entry's line."""

    entry: int
    """Its index."""
    cells: tuple[Cell, ...]
    note: str = ""
    """Stands in place of the cells that are left out."""


@dataclass(frozen=True, slots=True)
class Listing:
    """A table: a row an entry."""

    title: str
    columns: tuple[str, ...]
    rows: tuple[Row, ...]


def listings(comparison: Comparison) -> tuple[Listing, ...]:
    """Return the table of outcomes, then one for each target."""
    return (_outcomes(comparison), *(_costs(comparison, target) for target in comparison.targets))


def _outcomes(comparison: Comparison) -> Listing:
    entries = comparison.entries
    rows: list[Row] = []
    for index, entry in enumerate(entries):
        seeds = Cell(_seeds(entry), exact=", ".join(f"seed {trial.seed}" for trial in entry.trials))
        if entry.runs:
            cells = [_at_end(entries, entry, measure) for measure in AT_END]
            rows.append(Row(index, (seeds, *cells)))
        else:
            rows.append(Row(index, (seeds,), "no run finished"))
    return Listing("At the end", ("Seeds", *(measure.title for measure in AT_END)), tuple(rows))


def _seeds(entry: Entry) -> str:
    total = len(entry.trials)
    return f"{len(entry.runs)} of {total}" if entry.failed else str(total)


def _at_end(entries: Sequence[Entry], entry: Entry, measure: Measure) -> Cell:
    """Return a quantity at the end; of accuracies alone one is best: costs are of runs that ended elsewhere."""
    spread = entry.at_end(measure)
    whole = [other for other in entries if other.runs and not other.failed]
    highest = max((other.at_end(measure).mean for other in whole), default=0.0)
    best = measure is ACCURACY and len(entries) > 1 and entry in whole and spread.mean == highest
    return _cell(spread, measure, best=best)


def _costs(comparison: Comparison, target: float) -> Listing:
    fair = {measure.key: rivals(comparison.entries, target, measure) for measure in COSTS}
    least = {m.key: min((entry.to_reach(target, m).mean for entry in fair[m.key]), default=-1.0) for m in COSTS}
    rows: list[Row] = []
    for index, entry in enumerate(comparison.entries):
        reached = Cell(f"{len(entry.reached(target))} of {len(entry.trials)}")
        if not entry.reached(target):
            rows.append(Row(index, (reached,), _not_reached(entry)))
            continue
        spreads = [(entry.to_reach(target, measure), measure) for measure in COSTS]
        rated = {key: len(able) > 1 and entry in able for key, able in fair.items()}
        cells = [
            _cell(s, m, best=rated[m.key] and _rates(comparison, m) and _alike(m, s.mean, least[m.key]))
            for s, m in spreads
        ]
        rows.append(Row(index, (reached, *cells)))
    title = f"To {100 * target:.4g} % accuracy"
    return Listing(title, ("Seeds", *(measure.title for measure in COSTS)), tuple(rows))


def _alike(measure: Measure, one: float, other: float) -> bool:
    """Return whether two numbers are the same as far as they are shown."""
    return measure.show(one).text == measure.show(other).text


def _rates(comparison: Comparison, measure: Measure) -> bool:
    return comparison.timed or measure.key != "seconds"


def _not_reached(entry: Entry) -> str:
    if not entry.runs:
        return "no run finished"
    return f"not reached in {max(run.outcome.rounds for run in entry.runs):,} rounds"


def _cell(spread: Spread, measure: Measure, *, best: bool) -> Cell:
    exact = "; ".join(measure.show(value).exact for value in spread.values)
    return Cell(measure.show(spread.mean).text, spread.about(measure.show), exact, best)
