"""What tables and figures read off committed curves."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise
from statistics import fmean, stdev
from typing import Any

from accuracy import to_target

Run = Mapping[str, Sequence[float]]


def rows_of(run: Run) -> list[dict[str, float]]:
    """Return a curve of columns as rows."""
    return [dict(zip(run, values, strict=True)) for values in zip(*run.values(), strict=True)]


def reached(run: Run, target: float, axis: str) -> float | None:
    """Return how much of `axis` it took until accuracy first reached `target`, or None if it never did."""
    return to_target(rows_of(run), target, axis)


def at(run: Run, axis: str, amount: float, height: str = "accuracy", within: float = 0.0) -> float | None:
    """Return the accuracy at `amount` of `axis`, between evaluations on a line.

    None past the run's end, or the last accuracy if the run ends a share `within` before.
    """
    for before, after in pairwise(rows_of(run)):
        if before[axis] <= amount <= after[axis]:
            share = (amount - before[axis]) / (after[axis] - before[axis])
            return before[height] + share * (after[height] - before[height])
    return run[height][-1] if amount * (1 - within) <= run[axis][-1] < amount else None


def runs_of(row: Mapping[str, Any]) -> list[Run]:
    """Return a row's runs, in the order of their seeds."""
    return [row["runs"][seed] for seed in sorted(row["runs"], key=int)]


def ends(row: Mapping[str, Any], height: str = "accuracy") -> list[float]:
    """Return every run's last accuracy."""
    return [run[height][-1] for run in runs_of(row)]


def percent(values: Sequence[float]) -> str:
    """Return shares as percent: the mean ± the sample's standard deviation, or the one value."""
    return spread([100 * value for value in values], ".1f")


def spread(values: Sequence[float | None], form: str) -> str:
    """Return the mean ± the sample's standard deviation; the one value; or that not every run has one."""
    there = [value for value in values if value is not None]
    if len(there) < len(values) or not there:
        return f"{len(there)} of {len(values)} runs" if len(values) > 1 and there else "not reached"
    return f"{fmean(there):{form}} ± {stdev(there):{form}}" if len(there) > 1 else f"{there[0]:{form}}"
