"""The estimate that comes out of a whole round, against autograd."""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np
import pytest
import torch
from torch import nn

from baffle import (
    Baffle,
    CentralDifference,
    CentredDifference,
    ForwardDifference,
    Gaussian,
    Rademacher,
    Sgd,
    Sparse,
    server,
)
from baffle.client import Client
from baffle.engines import Local
from baffle.kernels import PlainKernels
from baffle.keys import Key
from baffle.models.lenet import lenet
from baffle.optimizers import ExponentialAverage
from baffle.runtimes.torch import TorchRuntime, cross_entropy

KEY = Key.root(2301)


def smooth_mlp() -> nn.Module:
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 24), nn.Tanh(), nn.Linear(24, 10))


@pytest.fixture
def batch() -> tuple[np.ndarray, np.ndarray]:
    draw = np.random.default_rng(12195)
    return draw.random((4, 1, 8, 8), np.float32), draw.integers(0, 10, 4)


def runtime_of(model: nn.Module, precision: str = "float32") -> TorchRuntime:
    return TorchRuntime(model, drawn=True, precision=precision, device="cpu")


def autograd(model: nn.Module, runtime: TorchRuntime, parameters: np.ndarray, batch) -> np.ndarray:
    tensors = {
        name: torch.from_numpy(np.array(value)).requires_grad_()
        for name, value in runtime.layout.unflatten(parameters).items()
    }
    outputs = torch.func.functional_call(model, tensors, torch.from_numpy(batch[0]))
    cross_entropy(outputs, torch.from_numpy(batch[1])).mean().backward()
    return np.concatenate([tensor.grad.numpy().ravel() for tensor in tensors.values()]).astype(np.float64)


def estimates(
    runtime: TorchRuntime, parameters: np.ndarray, batch, count: int, *, clients: int = 1, **method
) -> Iterator[np.ndarray]:
    """Yield gradient estimates of whole rounds with fresh directions, each as θ − θ' of one SGD step of rate 1."""
    fixed = {"batch": 1, "orthogonal": False, "clip": 0, "bits": 24, "spread": 0}  # a forward is a probe
    algorithm = Baffle(**(fixed | {"optimizer": Sgd(rate=1.0), "average": ExponentialAverage(0)} | method))
    everyone = [Client(c, 1, KEY.fold("client", c), lambda _generator, _size: batch) for c in range(clients)]
    engine = Local(everyone, runtime, PlainKernels())
    for number in range(count):
        federation = server.Federation(key=KEY.fold(number).secret, layout=runtime.layout, clients=clients)
        state = algorithm.start(parameters)
        plan = server.plan(algorithm, federation, state)
        moved = server.advance(algorithm, state, plan, engine.gather(plan, parameters), PlainKernels()).state
        yield parameters.astype(np.float64) - moved.parameters


def paper_lenet() -> nn.Module:
    return lenet(1, 10)


@pytest.mark.parametrize(
    ("build", "n", "directions", "count"),
    [
        (paper_lenet, 26_730, 50, 48),
        (paper_lenet, 26_730, 500, 10),
        (smooth_mlp, 1_810, 50, 40),
        (smooth_mlp, 1_810, 500, 20),
    ],
)
def test_cosine_with_the_gradient_is_as_predicted(batch, build, n: int, directions: int, count: int) -> None:
    model = build()
    runtime = runtime_of(model)
    assert runtime.layout.size == n
    parameters = runtime.layout.initial(KEY)
    gradient = autograd(model, runtime, parameters, batch)
    method = {"forwards": directions, "estimator": CentredDifference(1e-3), "law": Gaussian(), "blocks": "whole"}
    cosines = [
        estimate @ gradient / np.linalg.norm(estimate) / np.linalg.norm(gradient)
        for estimate in estimates(runtime, parameters, batch, count, **method)
    ]
    assert np.mean(cosines) == pytest.approx(math.sqrt(directions / (directions + n + 1)), rel=0.05)


@pytest.mark.parametrize("law", [Gaussian(), Rademacher(), Sparse(32)], ids=["gaussian", "rademacher", "sparse"])
@pytest.mark.parametrize(
    "estimator",
    [ForwardDifference(1e-4), CentralDifference(1e-3), CentredDifference(1e-3)],
    ids=["forward", "central", "centred"],
)
@pytest.mark.parametrize("blocks", ["whole", "layers"])
def test_estimate_is_unbiased(batch, law, estimator, blocks) -> None:
    model = smooth_mlp()
    runtime = runtime_of(model)
    parameters = runtime.layout.initial(KEY)
    gradient = autograd(model, runtime, parameters, batch)
    method = {"forwards": 40, "estimator": estimator, "law": law, "blocks": blocks}
    found = np.stack(list(estimates(runtime, parameters, batch, 60, **method)))
    probes = np.random.default_rng(3).choice([-1.0, 1.0], (8, gradient.size))
    probes[0] = gradient / np.linalg.norm(gradient)
    seen = (found - gradient) @ probes.T
    errors = np.abs(seen.mean(0)) / (seen.std(0, ddof=1) / math.sqrt(len(seen)))
    assert errors.max() < 4


def test_central_differences_bias_falls_as_the_square_of_the_scale(batch) -> None:
    model = smooth_mlp().double()
    runtime = runtime_of(model, "float64")
    parameters = runtime.layout.initial(KEY)
    inputs = (batch[0].astype(np.float64), batch[1])
    exact = autograd(model, runtime, parameters.astype(np.float64), inputs)
    truth = projected(exact, 64)
    biases = []
    for scale in (0.04, 0.02, 0.01):
        method = {"forwards": 128, "estimator": CentralDifference(scale), "law": Rademacher(), "blocks": "whole"}
        found = next(estimates(runtime, parameters, inputs, 1, **method))
        biases.append(np.linalg.norm(found - truth))
    assert biases[0] / biases[1] == pytest.approx(4, rel=0.1)
    assert biases[1] / biases[2] == pytest.approx(4, rel=0.2)


def projected(gradient: np.ndarray, directions: int) -> np.ndarray:
    """Return what the first round's estimate would be if slopes were exact: the gradient on the same directions."""
    key = Key(KEY.fold(0).secret).fold("round", 0, 0).fold("directions").fold(0, 0, 0)
    z = np.stack([Rademacher().entries(key, k, 0, gradient.size) for k in range(directions)]).astype(np.float64)
    return z.T @ (z @ gradient) / directions


def test_own_directions_have_as_many_times_less_variance_as_there_are_clients(batch) -> None:
    model = smooth_mlp()
    runtime = runtime_of(model)
    parameters = runtime.layout.initial(KEY)
    gradient = autograd(model, runtime, parameters, batch)
    method = {"forwards": 20, "estimator": CentredDifference(1e-3), "blocks": "whole", "clients": 8}

    def squared_error(groups: int) -> float:
        found = estimates(runtime, parameters, batch, 30, groups=groups, **method)
        return float(np.mean([np.sum((estimate - gradient) ** 2) for estimate in found]))

    shared, halves, own = squared_error(1), squared_error(2), squared_error(8)
    assert shared / own == pytest.approx(8, rel=0.15)
    assert shared / halves == pytest.approx(2, rel=0.15)
    assert shared / np.sum(gradient**2) == pytest.approx(gradient.size / 20, rel=0.15)
