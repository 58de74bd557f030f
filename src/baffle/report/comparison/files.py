"""The comparison for other programs: JSON with every run, and CSV with a line for each entry."""

from __future__ import annotations

import csv
import io
import json
from math import isfinite
from typing import Any

from baffle.report.comparison.entries import AT_END, COSTS, Comparison, Entry
from baffle.report.comparison.spread import Spread
from baffle.report.comparison.targets import reached
from baffle.report.runs import Run


def as_json(comparison: Comparison) -> str:
    """Return everything; what is not known is null."""
    told = {
        "targets": list(comparison.targets),
        "remarks": list(comparison.remarks),
        "experiments": [_entry(entry, comparison.targets) for entry in comparison.entries],
    }
    return json.dumps(told, indent=1, ensure_ascii=False) + "\n"


def as_csv(comparison: Comparison) -> str:
    """Return means and standard deviations, a line an entry; what is not known is empty."""
    rows = [_line(entry, comparison.targets) for entry in comparison.entries]
    text = io.StringIO()
    writer = csv.DictWriter(text, list(rows[0]) if rows else [], lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


def _entry(entry: Entry, targets: tuple[float, ...]) -> dict[str, Any]:
    return {
        "name": entry.name,
        "settings": dict(entry.settings),
        "seeds": [trial.seed for trial in entry.trials],
        "failed": [{"seed": trial.seed, "reason": trial.reason} for trial in entry.failed],
        "runs": [_run(t.seed, t.run, targets) for t in entry.trials if t.run is not None],
        "at_end": {measure.key: _spread(entry.at_end(measure)) for measure in AT_END},
        "to_target": [
            {"accuracy": target, "reached": len(entry.reached(target)), "of": len(entry.trials)}
            | {measure.key: _spread(entry.to_reach(target, measure)) for measure in COSTS}
            for target in targets
        ],
    }


def _run(seed: str, run: Run, targets: tuple[float, ...]) -> dict[str, Any]:
    found = [(target, reached(run.points, target)) for target in targets]
    return {
        "seed": seed,
        "digest": run.outcome.digest,
        **{measure.key: _known(measure.at_end(run.outcome)) for measure in AT_END},
        "to_target": [
            {"accuracy": target, "between": None if crossing is None else [crossing.before.round, crossing.after.round]}
            | {m.key: None if crossing is None else _known(m.at(crossing.at)) for m in COSTS}
            for target, crossing in found
        ],
    }


def _spread(spread: Spread) -> dict[str, float | int | None]:
    values = {"mean": spread.mean, "deviation": spread.deviation, "low": spread.low, "high": spread.high}
    return {"n": len(spread.values)} | {name: _known(value) for name, value in values.items()}


def _line(entry: Entry, targets: tuple[float, ...]) -> dict[str, Any]:
    line: dict[str, Any] = {"experiment": entry.name, "seeds": len(entry.trials), "failed": len(entry.failed)}
    for measure in AT_END:
        line |= _columns(measure.key, entry.at_end(measure))
    for target in targets:
        line[f"reached_{target:g}"] = len(entry.reached(target))
        for measure in COSTS:
            line |= _columns(f"{measure.key}_to_{target:g}", entry.to_reach(target, measure))
    return line


def _columns(name: str, spread: Spread) -> dict[str, float | None]:
    return {name: _known(spread.mean), f"{name}_deviation": _known(spread.deviation)}


def _known(value: float) -> float | None:
    return value if isfinite(value) else None
