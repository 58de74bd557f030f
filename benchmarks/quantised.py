"""What of a displacement survives rounding to int8 weights, and what slopes measured through the rounding are worth.

    python benchmarks/quantised.py [--quick]

A LeNet is trained on scikit-learn's digits by backpropagation, and its kernels and matrices put on a grid of 255 steps,
the largest weight of each at 127. For each law and σ, in weights and in steps of the grid:

- moved: the share of weights whose rounded value changes, for weights that lie on the grid, as a client's do that was
  given int8, and for weights anywhere between, as a server keeps them that trains them.
- step: what a weight moves by in the mean square after rounding, as a share of σ: 1 is right.
- slopes: the correlation of central slopes through the rounding with the exact derivatives along the same directions,
  for weights between; the same without rounding beside it.

Writes benchmarks/results/quantised.json, but nothing with --quick.
"""

from __future__ import annotations

import argparse
import json
import math
from pathlib import Path
from typing import Any

import machine
import numpy as np
import torch
from torch import nn

from baffle.data import load_digits
from baffle.directions import Gaussian, Law, Rademacher, Sparse
from baffle.keys import Key
from baffle.models.lenet import lenet
from baffle.runtimes.torch import TorchRuntime

SCALES = (1e-4, 3e-4, 1e-3, 3e-3, 1e-2, 3e-2)
ODDS = (2, 16, 128)
SAMPLES, STEPS = 256, 127


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="few directions, nothing written")
    given = parser.parse_args()
    directions = 20 if given.quick else 200
    model, batch = trained()
    runtime = TorchRuntime(model, device="cpu", precision="float64")
    theta = runtime.layout.flatten(runtime.given).astype(np.float64)
    grid = steps(runtime, theta)
    gradient = derivative(model, batch, runtime)
    rng = np.random.default_rng(0)
    between = np.where(grid > 0, theta + grid * rng.uniform(-0.5, 0.5, theta.size), theta)
    print(machine.told())
    print(
        f"\n{'law':14} {'σ':>8} {'in steps':>9} {'moved, on grid':>15} {'moved, between':>15} {'step':>6} "
        f"{'slopes, rounded':>16} {'exact':>6}"
    )
    rows: list[dict[str, Any]] = []
    for law, sigma in cases():
        row = measured(runtime, batch, law, sigma, theta, between, grid, gradient, directions)
        rows.append(row)
        print(
            f"{row['law']:14} {row['sigma']:8.1e} {row['steps']:9.2f} {row['on grid']:15.2%} {row['between']:15.2%} "
            f"{row['step']:6.2f} {row['rounded']:16.3f} {row['exact']:6.3f}"
        )
    if not given.quick:
        path = Path(__file__).parent / "results" / "quantised.json"
        path.write_text(json.dumps({"machine": machine.describe(), "rows": rows}, indent=1) + "\n")


def trained() -> tuple[nn.Module, tuple[np.ndarray, np.ndarray]]:
    """Return a LeNet that knows digits, and samples to measure slopes on."""
    split = load_digits(Key.root(0))
    inputs, targets = split.train.take(np.arange(len(split.train)))
    torch.manual_seed(0)
    model = lenet(1, 10)
    adam = torch.optim.Adam(model.parameters(), 2e-3)
    for _ in range(15):
        for part in torch.randperm(len(targets)).split(64):
            adam.zero_grad()
            loss = nn.functional.cross_entropy(model(torch.tensor(inputs[part])), torch.tensor(targets[part]))
            loss.backward()
            adam.step()
    held, labels = split.test.take(np.arange(len(split.test)))
    with torch.no_grad():
        right = (model(torch.tensor(held)).argmax(1) == torch.tensor(labels)).float().mean()
    print(f"LeNet on digits, accuracy {right:.1%}")
    return model, (inputs[:SAMPLES], targets[:SAMPLES])


def steps(runtime: TorchRuntime, theta: np.ndarray) -> np.ndarray:
    """Return the step of each weight's grid [n]; 0 for biases, which stay float."""
    grid = np.zeros(theta.size)
    for tensor, place in zip(runtime.layout.tensors, runtime.layout.slices().values(), strict=True):
        if len(tensor.shape) > 1:
            grid[place] = np.abs(theta[place]).max() / STEPS
    return grid


def derivative(model: nn.Module, batch: tuple[np.ndarray, np.ndarray], runtime: TorchRuntime) -> np.ndarray:
    """Return the gradient [n], float64."""
    model = model.double()
    model.zero_grad(set_to_none=True)
    nn.functional.cross_entropy(model(torch.tensor(batch[0]).double()), torch.tensor(batch[1])).backward()
    named = dict(model.named_parameters())
    return np.concatenate([named[tensor.name].grad.numpy().ravel() for tensor in runtime.layout.tensors])


def cases() -> list[tuple[Law, float]]:
    """Return laws with the σ to try; a sparse one's entries are single steps, so it has no σ of its own."""
    some: list[tuple[Law, float]] = [(law, sigma) for law in (Gaussian(), Rademacher()) for sigma in SCALES]
    return some + [(Sparse(odds), 0.0) for odds in ODDS]


def measured(
    runtime: TorchRuntime,
    batch: tuple[np.ndarray, np.ndarray],
    law: Law,
    sigma: float,
    theta: np.ndarray,
    between: np.ndarray,
    grid: np.ndarray,
    gradient: np.ndarray,
    directions: int,
) -> dict[str, Any]:
    """Return one row."""
    weights = grid > 0
    on_grid = rounded(theta, grid)
    moves = np.where(weights, grid if isinstance(law, Sparse) else sigma / law.deviation, 0.0)
    shares, sizes, through, exact, true = [], [], [], [], []
    for direction in range(directions):
        step = moves * law.entries(Key.root(1), direction, 0, theta.size)
        there = rounded(between + step, grid)
        shares.append(
            [np.mean((rounded(point + step, grid) != rounded(point, grid))[weights]) for point in (on_grid, between)]
        )
        sizes.append(np.mean(((there - rounded(between, grid))[weights]) ** 2))
        points = [there, rounded(between - step, grid), theta + step, theta - step]
        losses = runtime.losses([point.copy() for point in points], [batch])[:, 0]
        through.append(losses[0] - losses[1])
        exact.append(losses[2] - losses[3])
        true.append(2 * gradient @ step)
    asked = math.sqrt(float(np.mean(moves[weights] ** 2)) * law.deviation**2)
    return {
        "law": type(law).__name__ + (f" {law.odds}/256" if isinstance(law, Sparse) else ""),
        "sigma": asked,
        "steps": asked / float(np.sqrt(np.mean(grid[weights] ** 2))),
        "on grid": float(np.mean([share[0] for share in shares])),
        "between": float(np.mean([share[1] for share in shares])),
        "step": float(np.sqrt(np.mean(sizes))) / asked,
        "rounded": float(np.corrcoef(through, true)[0, 1]),
        "exact": float(np.corrcoef(exact, true)[0, 1]),
    }


def rounded(point: np.ndarray, grid: np.ndarray) -> np.ndarray:
    """Return weights [n] on their grid; those without one as they are."""
    safe = np.where(grid > 0, grid, 1.0)
    return np.where(grid > 0, safe * np.floor(point / safe + 0.5), point)


if __name__ == "__main__":
    main()
