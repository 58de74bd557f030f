"""What leaving pruned weights out of the directions is worth.

    python benchmarks/pruned.py [--quick]

The paper's LeNet, 32×32, with 5 % of its kernels and matrices left, drawn at random. K directions of signs over all n
weights, pruned ones included, against K over the n_live that are there: cosine of the estimate with the gradient of the
same weights, by central differences in float64. Theory: √(K/(K + n)), so the gain is nearly √(n/n_live). Writes
benchmarks/results/pruned.json, but nothing with --quick.
"""

from __future__ import annotations

import argparse
import json
import math
from pathlib import Path
from statistics import fmean
from typing import Any

import machine
import numpy as np
import torch
from torch import nn

from baffle.directions import Rademacher
from baffle.kernels import fastest
from baffle.keys import Key
from baffle.messages import BlockPlan
from baffle.models.lenet import lenet
from baffle.probes import Probes
from baffle.runtimes.torch import TorchRuntime

DENSITY, DIRECTIONS, SAMPLES, SIGMA = 0.05, 50, 16, 1e-4
GOAL = 0.15


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="two seeds, nothing written")
    seeds = range(2 if parser.parse_args().quick else 10)
    print(machine.told())
    rows = [pair(seed) for seed in seeds]
    means = {name: fmean(row[name]["cosine"] for row in rows) for name in ("all", "live")}
    sizes = {name: fmean(row[name]["weights"] for row in rows) for name in means}
    gain, theory = means["live"] / means["all"], math.sqrt(sizes["all"] / sizes["live"])
    for name, mean in means.items():
        expected = math.sqrt(DIRECTIONS / (DIRECTIONS + sizes[name]))
        print(f"{name:5} {sizes[name]:8.0f} weights, K = {DIRECTIONS}: cosine {mean:.4f} (theory {expected:.4f})")
    zeros = sum(row["live"]["moved zeros"] for row in rows)
    print(f"gain {gain:.2f}, √(n/n_live) {theory:.2f}; pruned weights that a probe moved: {zeros}")
    met = "reached" if abs(gain / theory - 1) <= GOAL and not zeros else "MISSED "
    print(f"{met}  gain over √(n/n_live): {gain / theory:.3f} (goal: within {GOAL:.0%} of 1)")
    if len(seeds) > 2:
        path = Path(__file__).parent / "results" / "pruned.json"
        found = {"gain": gain, "root of n over n_live": theory, "rows": rows}
        path.write_text(json.dumps({"machine": machine.describe(), **found}, indent=1) + "\n")


def pair(seed: int) -> dict[str, Any]:
    """Return a row for either vector."""
    torch.manual_seed(seed)
    model = lenet(1, 10)
    with torch.no_grad():
        for weights in model.parameters():
            if weights.ndim > 1:
                weights *= torch.rand_like(weights) < DENSITY
    inputs, targets = torch.randn(SAMPLES, 1, 32, 32), torch.randint(0, 10, (SAMPLES,))
    return {name: measured(model, inputs, targets, seed, pruned=name == "live") for name in ("all", "live")}


def measured(model: nn.Module, inputs: torch.Tensor, targets: torch.Tensor, seed: int, *, pruned: bool) -> Any:
    """Return the cosine of an estimate with the gradient, and how many zeros a displaced copy has lost."""
    runtime = TorchRuntime(model, device="cpu", precision="float64", pruned=pruned)
    point = runtime.layout.flatten(runtime.given).astype(np.float64)
    block = BlockPlan(0, point.size, DIRECTIONS, 1.0, Rademacher())
    probes = Probes(point, block, Key.root(seed), SIGMA, (1, -1), fastest())
    losses = runtime.sweep([probes], [(inputs.numpy(), targets.numpy())])[0].reshape(DIRECTIONS, 2)
    slopes = (losses[:, 0] - losses[:, 1]) / (2 * SIGMA)
    drawn = np.stack([block.law.entries(probes.key, k, 0, point.size) for k in range(DIRECTIONS)]).astype(np.float64)
    estimate, gradient = slopes @ drawn, derivative(model, inputs, targets, runtime)
    there = runtime.layout.unflatten(point + drawn[0])
    moved = sum(int(np.count_nonzero(there[name][own == 0])) for name, own in runtime.given.items() if own.ndim > 1)
    cosine = float(estimate @ gradient / np.linalg.norm(estimate) / np.linalg.norm(gradient))
    return {"weights": point.size, "cosine": cosine, "moved zeros": moved}


def derivative(model: nn.Module, inputs: torch.Tensor, targets: torch.Tensor, runtime: TorchRuntime) -> np.ndarray:
    """Return the gradient of the trained weights, float64 [n]."""
    model.zero_grad(set_to_none=True)
    nn.functional.cross_entropy(model(inputs), targets).backward()
    named = {name: weights.grad.numpy().ravel() for name, weights in model.named_parameters()}
    return np.concatenate([named[t.name][t.places()] for t in runtime.layout.tensors]).astype(np.float64)


if __name__ == "__main__":
    main()
