"""Experiments for tests of comparisons: runs written as files, with curves and costs that are known."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence

from baffle.report.comparison import Entry, Trial
from baffle.report.runs import read_runs


def curve(*accuracies: float) -> list[float]:
    """Return the accuracies after 0, 10, 20, ... rounds."""
    return list(accuracies)


def entry(
    make_run,
    name: str,
    curves: Sequence[Sequence[float]],
    *,
    cost: float = 101.0,
    failed: str = "",
    settings: Mapping[str, str] | None = None,
    memory: int | None = 400_000_000,
) -> Entry:
    """Return an experiment whose seeds have these curves, and, with `failed`, one more that did not finish."""
    trials = [
        Trial(str(seed), _run(make_run, f"{name}-{seed}", made, cost, memory)) for seed, made in enumerate(curves)
    ]
    if failed:
        trials.append(Trial(str(len(curves)), None, failed))
    return Entry(name, settings or {"dataset": "digits"}, tuple(trials))


def _run(make_run, name: str, accuracies: Sequence[float], cost: float, memory: int | None):
    rows = [
        {
            "round": done,
            "accuracy": accuracy,
            "forward_equivalents": cost * done,
            "upload_bytes": 228.0 * done,
            "download_bytes": 510.0 * done,
            "seconds": 0.32 * done,
        }
        for done, accuracy in zip(range(0, 10 * len(accuracies), 10), accuracies, strict=True)
    ]
    folder = make_run(name, metrics="".join(json.dumps(row) + "\n" for row in rows))
    last = {key: value for key, value in rows[-1].items() if key != "round"}
    told = last | {"rounds": rows[-1]["round"], "peak_memory_bytes": memory, "digest": "c0ffee"}
    (folder / "summary.json").write_text(json.dumps(told))
    return read_runs([folder])[0]
