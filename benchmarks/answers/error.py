"""Question 10: how far an estimate is from the gradient, over √(n/K), through a run.

The digits' MLP is trained by our settings. At several rounds of that run, each of ten clients answers on 32 samples
that stay the same, with fresh directions each time; autograd on the 320 samples is the truth.
"""

# pyright: standard
from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from statistics import fmean, stdev
from typing import Any

import msgspec
import numpy as np
import torch
from torch import nn
from torch.func import functional_call
from torch.nn.functional import cross_entropy

from baffle import Baffle, CentralDifference, CentredDifference, ForwardDifference, Gaussian, server
from baffle.assembly import assemble
from baffle.client import Client
from baffle.engines import Local
from baffle.experiment import read
from baffle.keys import Key
from baffle.models.build import build
from baffle.optimizers import ExponentialAverage, Sgd
from baffle.server import State
from baffle.training import Training

ROUNDS = (0, 10, 30, 100, 200, 400)
TIMES, BATCH, CLIENTS = 10, 32, 10
WHOLE: dict[str, Any] = {"blocks": "whole", "orthogonal": False, "bits": 24, "batch": BATCH}
WAYS: dict[str, dict[str, Any]] = {
    "Gaussian, forward, σ = 1e-4": WHOLE | {"estimator": ForwardDifference(1e-4), "law": Gaussian()},
    "Rademacher, forward, σ = 1e-4": WHOLE | {"estimator": ForwardDifference(1e-4)},
    "Rademacher, forward, σ = 1e-3": WHOLE | {"estimator": ForwardDifference(1e-3)},
    "Rademacher, forward, σ = 1e-2": WHOLE | {"estimator": ForwardDifference(1e-2)},
    "Rademacher, central, σ = 1e-2": WHOLE | {"estimator": CentralDifference(1e-2)},
    "Rademacher, centred, σ = 1e-2": WHOLE | {"estimator": CentredDifference(1e-2)},
    "layers, centred, 8 bits": {"orthogonal": False, "batch": BATCH},
    "layers, orthogonal, centred, 8 bits": {"batch": BATCH},
}
DIRECTIONS = (50, 200, 800)
"""K; of layers, K forward passes over the batch, whatever share of them a layer gets."""


def answer(seeds: int) -> dict[str, Any]:
    """Return for every way and K the mean and the deviation of the ratio at each round, over seeds and repetitions."""
    trained = [Trained(seed) for seed in range(seeds)]
    rows: dict[str, Any] = {}
    for way, settings in WAYS.items():
        for k in DIRECTIONS:
            found = [[ratio for run in trained for ratio in run.ratios(mark, settings, k)] for mark in ROUNDS]
            rows[f"{way}, K = {k}"] = {
                "mean": [round(fmean(some), 4) for some in found],
                "deviation": [round(stdev(some), 4) for some in found],
            }
            print(f"10  {way:36} K = {k:3}  " + " ".join(f"{fmean(some):6.3f}" for some in found), flush=True)
    return {"rounds": ROUNDS, "weights": trained[0].size, "seeds": seeds, "times": TIMES, "rows": rows}


class Trained:
    """A run, where it stood after each of `ROUNDS`, the clients' batches and the gradients on them."""

    def __init__(self, seed: int) -> None:
        made = read({"seed": seed})
        self.key, self.run = Key.root(12195).fold(seed), assemble(made)
        self.header = self.run.header()
        self.size = self.header.federation.layout.size
        draw = np.random.default_rng(seed)
        self.batches = [share.draw(draw, BATCH) for share in self.run.shares]
        self.states = {state.round: state for state in self._states()}
        shape = self.batches[0][0].shape[1:]
        model = build("mlp", shape, 10, key=self.key)
        self.gradients = {mark: self._gradient(model, state.parameters) for mark, state in self.states.items()}

    def ratios(self, mark: int, settings: dict[str, Any], k: int) -> list[float]:
        """Return ‖ĝ − g‖/‖g‖ over √(n/K) of estimates with fresh directions, at the run's round `mark`."""
        gradient, norm = self.gradients[mark], math.sqrt(self.size / k) * np.linalg.norm(self.gradients[mark])
        return [float(np.linalg.norm(found - gradient) / norm) for found in self._estimates(mark, settings, k)]

    def _states(self) -> list[State]:
        state = self.header.start(self.run.runtime.given)
        found = [state]
        with closing(self.run.gathering()) as engine:
            Training(
                self.run.algorithm,
                self.header.federation,
                engine,
                self.run.kernels,
                lambda _: None,
                lambda new, _: found.append(new) if new.round in ROUNDS else None,
            ).run(state, ROUNDS[-1])
        return found

    def _gradient(self, model: nn.Module, parameters: np.ndarray) -> np.ndarray:
        """Return what autograd says, float64 [n]."""
        layout = self.header.federation.layout
        tensors = {
            name: torch.from_numpy(np.array(value)).requires_grad_()
            for name, value in layout.unflatten(parameters).items()
        }
        inputs, targets = (torch.from_numpy(np.concatenate(part)) for part in zip(*self.batches, strict=True))
        cross_entropy(functional_call(model, tensors, inputs), targets).backward()
        return np.concatenate([tensor.grad.numpy().ravel() for tensor in tensors.values()]).astype(np.float64)

    def _estimates(self, mark: int, settings: dict[str, Any], k: int) -> Iterator[np.ndarray]:
        """Yield estimates, each as θ − θ' of one SGD step of rate 1."""
        plain = {"clip": 0.0, "optimizer": Sgd(rate=1.0), "average": ExponentialAverage(decay=0.0)}
        estimator = settings.get("estimator", Baffle().estimator)
        forwards = (k * len(estimator.signs) + estimator.base) * BATCH
        algorithm = Baffle(**(plain | settings), forwards=forwards)
        there, whole = self.states[mark], "blocks" in settings
        state = replace(algorithm.start(there.parameters), squares=() if whole else there.squares)
        clients = [
            Client(number, 1, self.key.fold("client", number), lambda *_, own=own: own)
            for number, own in enumerate(self.batches)
        ]
        federation = self.header.federation
        costs = () if whole else federation.costs
        for time in range(TIMES):
            secret = self.key.fold("directions", mark, time).secret
            own = msgspec.structs.replace(federation, key=secret, costs=costs, most_samples=BATCH)
            plan = server.plan(algorithm, own, state)
            reports = Local(clients, self.run.runtime, self.run.kernels).gather(plan, state.parameters)
            moved = server.advance(algorithm, state, plan, reports, self.run.kernels).state
            yield state.parameters.astype(np.float64) - moved.parameters
