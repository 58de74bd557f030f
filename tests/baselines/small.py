"""A federation with a PyTorch model, small and quick: 4 clients of digits-like samples, an MLP of 83 weights."""

from __future__ import annotations

import json
from itertools import pairwise

import msgspec
import numpy as np
import torch
from torch import nn

from baffle import Baffle, ExponentialAverage
from baffle.baselines.baseline import Baseline
from baffle.data.samples import Arrays
from baffle.runtimes.torch import TorchRuntime
from baffle.simulation import Share, Simulation

FEATURES, HIDDEN, CLASSES = 6, 8, 3


def model() -> nn.Module:
    return nn.Sequential(nn.Linear(FEATURES, HIDDEN), nn.Tanh(), nn.Linear(HIDDEN, CLASSES))


def samples(count: int, seed: int) -> Arrays:
    """Return samples whose class is the largest of three of their features."""
    rng = np.random.default_rng(seed)
    inputs = rng.normal(size=(count, FEATURES)).astype(np.float32)
    return Arrays(f"samples {seed}", inputs, inputs[:, :CLASSES].argmax(1))


def federation(sizes=(12, 20, 9, 15), module: nn.Module | None = None, **settings: object) -> Simulation:
    data = samples(sum(sizes), 5)
    edges = np.cumsum([0, *sizes])
    runtime = {name: settings.pop(name) for name in ("precision", "chunk", "drawn", "pruned") if name in settings}
    defaults: dict[str, object] = {"seed": 3, "test": samples(40, 6), "evaluate_every": 2, "snapshot_every": 3}
    return Simulation(
        runtime=TorchRuntime(module or model(), device="cpu", **({"drawn": True} | runtime)),
        shares=[Share(data, np.arange(a, b)) for a, b in pairwise(edges)],
        algorithm=Baffle(),
        **(defaults | settings),
    )


def run(method, rounds: int, **settings: object):
    places = {name: settings.pop(name) for name in ("out", "resume", "progress") if name in settings}
    return Baseline(method, federation(**settings)).run(rounds, **places)


def rows(folder) -> list[dict]:
    """Return the curve, without what depends on the clock."""
    found = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [{name: value for name, value in row.items() if name != "seconds"} for row in found]


def last(method, rounds: int, **settings: object) -> np.ndarray:
    """Return the last weights: those that are averaged with decay 0."""
    plain = msgspec.structs.replace(method, average=ExponentialAverage(decay=0.0))
    return run(plain, rounds, **settings).parameters


def loss_of(vector: torch.Tensor, inputs: np.ndarray, targets: np.ndarray) -> torch.Tensor:
    """Return the mean cross-entropy at a flat vector, in plain PyTorch."""
    first, rest = vector[: FEATURES * HIDDEN].view(HIDDEN, FEATURES), vector[FEATURES * HIDDEN :]
    second = rest[HIDDEN : HIDDEN + HIDDEN * CLASSES].view(CLASSES, HIDDEN)
    hidden = torch.tanh(nn.functional.linear(torch.from_numpy(inputs), first, rest[:HIDDEN]))
    logits = nn.functional.linear(hidden, second, rest[HIDDEN + HIDDEN * CLASSES :])
    return nn.functional.cross_entropy(logits.double(), torch.from_numpy(targets))
