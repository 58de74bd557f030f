"""What is compared: experiments, each with the runs of its seeds, and the quantities by which."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from operator import attrgetter

from baffle.report.comparison.spread import Spread, mean
from baffle.report.comparison.targets import ROUND_FIGURES, Crossing, reached
from baffle.report.quantities import Quantity, count, duration, percent, size
from baffle.report.records import Point, Summary
from baffle.report.runs import Run


@dataclass(frozen=True, slots=True)
class Measure:
    """A quantity by which experiments are compared."""

    key: str
    """Its name in files, that of a field of `Summary`."""
    title: str
    best: str
    """What having the least (of an accuracy the most) of it is called."""
    show: Callable[[float], Quantity]

    def at_end(self, outcome: Summary) -> float:
        """Return what a finished run has."""
        return float(attrgetter(self.key)(outcome))

    def at(self, point: Point) -> float:
        """Return what a run had spent at a point of its curve."""
        return float(point.round if self.key == "rounds" else attrgetter(self.key)(point))


def _rounds(value: float) -> Quantity:
    """Return a number of rounds, with a tenth where a small one was interpolated."""
    if value < 100 and value != int(value):
        return Quantity(f"{value:.1f}", f"{value} rounds")
    return count(value, "rounds")


ACCURACY = Measure("accuracy", "Accuracy", "highest accuracy", percent)
COSTS = (
    Measure("rounds", "Rounds", "fewest rounds", _rounds),
    Measure("forward_equivalents", "Forwards", "fewest forwards", lambda value: count(value, "forward equivalents")),
    Measure("upload_bytes", "Upload", "least upload", size),
    Measure("download_bytes", "Download", "least download", size),
    Measure("seconds", "Time", "least time", duration),
)
MEMORY = Measure("peak_memory_bytes", "Peak memory", "least memory", size)
AT_END = (ACCURACY, *COSTS, MEMORY)
PER_CLIENT = ("forward_equivalents", "upload_bytes", "download_bytes")
"""Means over clients, which say nothing beside those of one place that has all data."""


@dataclass(frozen=True, slots=True)
class Trial:
    """An experiment with one seed."""

    seed: str
    run: Run | None
    reason: str = ""
    """Why there is no finished run."""


@dataclass(frozen=True, slots=True)
class Entry:
    """One experiment and its trials."""

    name: str
    settings: Mapping[str, str]
    """As text, without seed and folder."""
    trials: tuple[Trial, ...]

    @property
    def pooled(self) -> bool:
        """Whether all data are in one place, which does the work of all clients and is sent nothing in the count."""
        return self.settings.get("algorithm") == "centralised"

    @property
    def runs(self) -> tuple[Run, ...]:
        """Those that finished."""
        return tuple(trial.run for trial in self.trials if trial.run is not None)

    @property
    def failed(self) -> tuple[Trial, ...]:
        """Trials without a finished run."""
        return tuple(trial for trial in self.trials if trial.run is None)

    def at_end(self, measure: Measure) -> Spread:
        """Return a quantity of the runs that finished."""
        return Spread(tuple(measure.at_end(run.outcome) for run in self.runs))

    def reached(self, target: float) -> tuple[Crossing, ...]:
        """Return where the runs that reached an accuracy did so."""
        found = (reached(run.points, target) for run in self.runs)
        return tuple(crossing for crossing in found if crossing is not None)

    def always_reached(self, target: float) -> bool:
        """Return whether each trial reached an accuracy; one that failed did not."""
        return len(self.reached(target)) == len(self.trials)

    def to_reach(self, target: float, measure: Measure) -> Spread:
        """Return what an accuracy cost the runs that reached it."""
        return Spread(tuple(measure.at(crossing.at) for crossing in self.reached(target)))

    def bounds(self, target: float, measure: Measure) -> tuple[float, float]:
        """Return the least and the most that it can have cost them on average, by the evaluations before and after."""
        found = self.reached(target)
        return mean([measure.at(each.before) for each in found]), mean([measure.at(each.after) for each in found])


def rivals(entries: Sequence[Entry], target: float, measure: Measure) -> list[Entry]:
    """Return the entries whose cost of an accuracy can be held against one another: all seeds have reached it."""
    able = [entry for entry in entries if entry.trials and entry.always_reached(target)]
    return [entry for entry in able if not entry.pooled] if measure.key in PER_CLIENT else able


@dataclass(frozen=True, slots=True)
class Comparison:
    """Experiments beside one another."""

    entries: tuple[Entry, ...]
    targets: tuple[float, ...] = ()
    """Accuracies at which costs are compared; see `with_targets`."""
    remarks: tuple[str, ...] = ()
    """What a reader has to know of the comparison as a whole, a sentence each."""
    timed: bool = True
    """Whether the runs had the machine to themselves, so that their seconds can be compared."""


def chosen_target(entries: tuple[Entry, ...]) -> tuple[float, ...]:
    """Return the highest round figure that all runs reached, else the highest that those of one entry did, if any."""
    entries = tuple(entry for entry in entries if entry.runs)
    for enough in (all, any):
        for target in ROUND_FIGURES:
            if entries and enough(len(entry.reached(target)) == len(entry.runs) for entry in entries):
                return (target,)
    return ()


def differing(entries: tuple[Entry, ...]) -> tuple[str, ...]:
    """Return the settings that not all entries have alike, in the order they are met."""
    names = dict.fromkeys(name for entry in entries for name in entry.settings)
    return tuple(name for name in names if len({entry.settings.get(name) for entry in entries}) > 1)
