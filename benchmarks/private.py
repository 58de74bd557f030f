"""Accuracy against ε on digits: Gaussian noise and randomised quantisation, at equal bits.

    python benchmarks/private.py [--seeds N] [--rounds N] [--figure]

700 clients of two samples each, a mini-batch of one, every client in every round; δ = 1e-5; what is protected is all
that a client holds. Gaussian noise is the server's; randomised quantisation is accounted for in sums of which the
server sees nothing else. Results are added to benchmarks/results/private.json one by one, and what is there is not
run again; `--figure` draws docs/images/private.png from them.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

from machine import describe

from baffle.assembly import simulation_of
from baffle.experiment import read

RESULTS = Path(__file__).parent / "results" / "private.json"
PICTURE = Path(__file__).parent.parent / "docs" / "images" / "private.png"
EPSILONS = (1.0, 2.0, 4.0, 8.0)
COMMON: dict[str, Any] = {
    "clients": 700,
    "batch": 1,
    "forwards": 100,
    "weight": "equal",
    "allocation": "equal",
    "average": 0.9,
    "slope_size": 0.5,
}
WAYS: dict[str, dict[str, Any]] = {
    "Gaussian, 8 bits": {"mechanism": "gaussian", "bits": 8},
    "Gaussian, 4 bits": {"mechanism": "gaussian", "bits": 4},
    "randomised quantisation, 4 bits": {"mechanism": "rqm", "bits": 4, "secure": "ideal"},
}
OPEN: dict[str, dict[str, Any]] = {"nothing hidden, 8 bits": {"bits": 8}, "nothing hidden, 4 bits": {"bits": 4}}
_OPEN_COMMON = {name: value for name, value in COMMON.items() if name != "slope_size"}


def accuracy(settings: dict[str, Any], seed: int, rounds: int) -> dict[str, Any]:
    """Return what came of one run."""
    made = read(settings | {"seed": seed, "rounds": rounds, "evaluate_every": rounds})
    result = simulation_of(made).run(rounds)
    assert result.accuracy is not None
    return {"accuracy": result.accuracy, "epsilon": result.epsilon, "rounds": result.rounds}


def runs(rounds: int) -> dict[str, dict[str, Any]]:
    """Return the settings of every run by name."""
    found = {name: _OPEN_COMMON | way for name, way in OPEN.items()}
    for name, way in WAYS.items():
        found |= {f"{name}, ε = {epsilon:g}": COMMON | way | {"epsilon": epsilon} for epsilon in reversed(EPSILONS)}
    return {f"{name}, {rounds} rounds": settings for name, settings in found.items()}


def told(values: list[dict[str, Any]]) -> str:
    """Return mean and spread of accuracies, in %."""
    percent = [100 * value["accuracy"] for value in values]
    return f"{fmean(percent):5.1f}" + (f" ± {stdev(percent):.1f}" if len(percent) > 1 else "")


def draw(table: dict[str, list[dict[str, Any]]], rounds: int) -> None:
    """Draw accuracy against ε."""
    import matplotlib as mpl

    mpl.use("agg")
    from matplotlib import pyplot as plt

    figure, axes = plt.subplots(figsize=(7, 4.2), layout="constrained")
    for name in WAYS:
        found = [(e, table[key]) for e in EPSILONS if (key := f"{name}, ε = {e:g}, {rounds} rounds") in table]
        means = [100 * fmean(run["accuracy"] for run in values) for _, values in found]
        spreads = [stdev([100 * run["accuracy"] for run in values]) if len(values) > 1 else 0.0 for _, values in found]
        axes.errorbar([e for e, _ in found], means, yerr=spreads, marker="o", capsize=3, label=name)
    for name, style in zip(OPEN, ("--", ":"), strict=True):
        if values := table.get(f"{name}, {rounds} rounds"):
            level = 100 * fmean(run["accuracy"] for run in values)
            axes.axhline(level, color="0.4", linestyle=style, linewidth=1, label=f"{name}: {level:.1f} %")
    axes.set_xscale("log", base=2)
    axes.set_xticks(EPSILONS, [f"{e:g}" for e in EPSILONS])
    axes.set_xlabel("ε of a client, δ = 1e-5")
    axes.set_ylabel("accuracy on held-out digits, %")
    axes.set_ylim(0, 100)
    axes.grid(alpha=0.25)
    axes.legend(frameon=False, fontsize=9)
    figure.savefig(PICTURE, dpi=110)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--rounds", type=int, default=60)
    parser.add_argument("--figure", action="store_true", help="draw what is there, and run nothing")
    given = parser.parse_args()
    results: dict[str, Any] = json.loads(RESULTS.read_text()) if RESULTS.exists() else {"table": {}}
    if given.figure:
        draw(results["table"], given.rounds)
        return
    for seed in range(given.seeds):
        for name, settings in runs(given.rounds).items():
            values = results["table"].setdefault(name, [])
            if len(values) <= seed:
                values.append(accuracy(settings, seed, given.rounds))
                results |= {"machine": describe(), "settings": COMMON}
                RESULTS.write_text(json.dumps(results, indent=1, ensure_ascii=False) + "\n")
                print(f"{name:52} {told(values)}", flush=True)
    draw(results["table"], given.rounds)


if __name__ == "__main__":
    main()
