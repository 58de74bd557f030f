"""Accuracy against forward equivalents on MNIST: what blocks, orthogonal directions and estimators are worth.

    BAFFLE_MNIST=DIR python benchmarks/accuracy.py [ways|goal] [--rounds N] [--seeds N] [--size PIXELS]

DIR has MNIST's IDX files. The paper's LeNet, 10 IID clients, 3,200 forward equivalents a client and round. `ways`
has every way of displacing with every estimator; `goal` has the paper's settings and ours, the forward equivalents to
90 % and their ratio. Runs are kept in runs/accuracy and go on where they were when the script is started again. Writes
benchmarks/results/accuracy.json, with what was there before for other arguments.
"""

from __future__ import annotations

import argparse
import json
import os
from itertools import pairwise
from pathlib import Path
from statistics import fmean
from typing import Any

from machine import describe

from baffle.assembly import assemble
from baffle.experiment import Experiment, read

RESULTS = Path(__file__).parent / "results" / "accuracy.json"
RUNS = Path("runs/accuracy")
PAPER: dict[str, Any] = {"algorithm": "paper", "forwards": 3232}
OURS: dict[str, Any] = {"rate": 4e-2, "beta1": 0.5}
WHOLE: dict[str, Any] = {"blocks": "whole", "orthogonal": False}
WAYS: dict[str, dict[str, Any]] = {
    "whole vector, shared": WHOLE,
    "whole vector, own": WHOLE | {"groups": 10},
    "blocks": {"orthogonal": False},
    "blocks, orthogonal": {},
}
ESTIMATORS = {"forward": 1e-3, "central": 1e-2, "centred": 1e-2}
TARGET = 0.9


def experiment(settings: dict[str, Any], seed: int, rounds: int, every: int, size: int) -> Experiment:
    common = {"dataset": "mnist", "data_dir": os.environ["BAFFLE_MNIST"], "model": "lenet", "image_size": size}
    return read(common | {"rounds": rounds, "evaluate_every": every, "seed": seed} | settings)


def curve(name: str, made: Experiment) -> list[dict[str, float]]:
    """Return the accuracy of the averaged weights at every evaluation, from a run that is kept and taken up again."""
    folder = RUNS / name
    if not (folder / "summary.json").exists():
        settings = {field: getattr(made, field) for field in made.__struct_fields__}
        assemble(made).run(made.rounds, out=folder, resume=(folder / "settings.toml").exists(), settings=settings)
    rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [{key: row[key] for key in ("round", "accuracy", "forward_equivalents", "upload_bytes")} for row in rows]


def to_target(rows: list[dict[str, float]], target: float = TARGET, axis: str = "forward_equivalents") -> float | None:
    """Return how much of `axis`, a client's forwards or whatever, it took until accuracy first reached the target."""
    for before, after in pairwise(rows):
        if after["accuracy"] >= target:
            share = (target - before["accuracy"]) / (after["accuracy"] - before["accuracy"])
            return before[axis] + share * (after[axis] - before[axis])
    return None


def ways(rounds: int, seeds: int, size: int) -> dict[str, Any]:
    """Every way of displacing with every estimator, at equal forward equivalents."""
    table: dict[str, Any] = {}
    for way, settings in WAYS.items():
        for estimator, scale in ESTIMATORS.items():
            chosen = OURS | settings | {"estimator": estimator, "scale": scale}
            label = f"{way}, {estimator}"
            table[label] = [
                curve(f"{label}, {size}, {rounds}, {seed}", experiment(chosen, seed, rounds, rounds // 4, size))
                for seed in range(seeds)
            ]
            marks = [fmean(run[mark]["accuracy"] for run in table[label]) for mark in (2, 4)]
            print(f"{label:36} {100 * marks[0]:5.1f}  {100 * marks[1]:5.1f}", flush=True)
    return table


def goal(rounds: int, seeds: int, size: int) -> dict[str, Any]:
    """The paper's settings and ours, and how much less ours need to reach the target."""
    table: dict[str, Any] = {}
    for label, settings in (("ours", OURS), ("paper's settings", PAPER)):
        runs = [
            curve(f"{label}, {size}, {seed}", experiment(settings, seed, rounds, 20, size)) for seed in range(seeds)
        ]
        table[label] = {"runs": runs, "forwards_to_90": [to_target(run) for run in runs]}
        told = [
            f"{cost:,.0f}" if cost else f"not in {runs[0][-1]['forward_equivalents']:,.0f}"
            for cost in table[label]["forwards_to_90"]
        ]
        print(
            f"{label:18} to 90 %: {told}  at the end: {[round(100 * run[-1]['accuracy'], 1) for run in runs]}",
            flush=True,
        )
    return table


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("part", choices=("ways", "goal"), default="goal", nargs="?")
    parser.add_argument("--rounds", type=int, default=800)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--size", type=int, default=14, help="side of the images, in pixels")
    given = parser.parse_args()
    if "BAFFLE_MNIST" not in os.environ:
        parser.exit(0, "skipped: BAFFLE_MNIST names no folder of MNIST's IDX files\n")
    table = (ways if given.part == "ways" else goal)(given.rounds, given.seeds, given.size)
    results = json.loads(RESULTS.read_text()) if RESULTS.exists() else {}
    results[f"{given.part}, {given.size} pixels, {given.rounds} rounds"] = {"machine": describe(), "table": table}
    RESULTS.write_text(json.dumps(results, indent=1) + "\n")


if __name__ == "__main__":
    main()
