"""Which settings reach what on scikit-learn's digits: the reason for each default of `Baffle`.

    python benchmarks/defaults.py [mlp|lenet] [rounds] [seeds]

Every row differs from our defaults in what its name says. Accuracy of the averaged weights on the held-out fifth after
equal rounds of at most 3,200 forward passes over one sample a client, 10 IID clients: mean and range over the seeds, in
percent. Writes benchmarks/results/defaults-MODEL.json.
"""

from __future__ import annotations

import json
import platform
import sys
from pathlib import Path
from typing import Any

from baffle.assembly import assemble
from baffle.experiment import read

ROWS: dict[str, dict[str, Any]] = {
    "defaults": {},
    "paper's settings": {"algorithm": "paper", "forwards": 3200},
    "paper's, own directions": {"algorithm": "paper", "forwards": 3200, "groups": 10},
    "own directions": {"groups": 10},
    "100 forwards on 32 samples": {"batch": 32},
    "200 forwards on 16 samples": {"batch": 16},
    "400 forwards on 8 samples": {"batch": 8},
    "1600 forwards on 2 samples": {"batch": 2},
    "whole vector": {"blocks": "whole"},
    "equal prices": {"allocation": "equal"},
    "least variance": {"allocation": "variance"},
    "no orthogonal": {"orthogonal": False},
    "Gaussian": {"law": "gaussian"},
    "forward difference, 1e-3": {"estimator": "forward", "scale": 1e-3},
    "central difference, 1e-2": {"estimator": "central", "scale": 1e-2},
    "scale 1e-3": {"scale": 1e-3},
    "scale 3e-2": {"scale": 3e-2},
    "4 bits": {"bits": 4},
    "16 bits": {"bits": 16},
    "rate 1e-2": {"rate": 1e-2},
    "rate 4e-2": {"rate": 4e-2},
    "beta1 0.9": {"beta1": 0.9},
    "linear schedule": {"schedule": "linear"},
    "no clip": {"clip": 0.0},
    "no average": {"average": 0.0},
    "Dirichlet(0.3)": {"partition": "dirichlet"},
}


def main(model: str = "mlp", rounds: int = 200, seeds: int = 3) -> None:
    results: dict[str, list[float]] = {}
    print(f"{'digits, ' + model:28} mean   from     to   (accuracy in %, {rounds} rounds, {seeds} seeds)")
    for name, settings in ROWS.items():
        common = {"model": model, "rounds": rounds, "evaluate_every": rounds}
        results[name] = [accuracy(common | settings | {"seed": seed}) for seed in range(seeds)]
        values = results[name]
        print(f"{name:28} {sum(values) / len(values):5.1f}  {min(values):5.1f}  {max(values):5.1f}", flush=True)
    machine = {"python": platform.python_version(), "machine": platform.machine(), "system": platform.system()}
    path = Path(__file__).parent / "results" / f"defaults-{model}.json"
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps({"rounds": rounds, "machine": machine, "accuracy": results}, indent=1) + "\n")


def accuracy(settings: dict[str, Any]) -> float:
    experiment = read(settings)
    result = assemble(experiment).run(experiment.rounds)
    return round(100 * (result.accuracy or 0.0), 2)


if __name__ == "__main__":
    main(*sys.argv[1:2], *map(int, sys.argv[2:]))
