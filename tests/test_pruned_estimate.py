"""What pruning is for: an estimate of the gradient whose error counts only the weights that are left."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import pytest

from baffle import Baffle, CentredDifference, Gaussian, Rademacher, Sgd, server
from baffle.client import Client
from baffle.engines import Local
from baffle.kernels import PlainKernels
from baffle.keys import Key
from baffle.optimizers import ExponentialAverage
from baffle.parameters import Layout, Tensor, mask_of
from baffle.runtimes import Batch, Evaluation

KEY = Key.root(65)
SHAPES = {"1.weight": (16, 1, 5, 5), "2.weight": (32, 16, 5, 5), "3.weight": (10, 32)}
"""A small LeNet's."""
DENSITY = 0.05
DIRECTIONS = 60


@dataclass(frozen=True)
class Slope:
    """L(θ) = g · θ over the dense tensors: the gradient is known, whichever weights there are."""

    layout: Layout
    gradient: np.ndarray
    """Of all weights, pruned ones included."""
    precision = np.dtype(np.float64)

    @property
    def given(self) -> dict[str, np.ndarray]:
        return {}

    def losses(self, points: Iterable[np.ndarray], batches: Sequence[Batch]) -> np.ndarray:
        dense = (np.concatenate([t.ravel() for t in self.layout.unflatten(point).values()]) for point in points)
        return np.array([[self.gradient @ point] * len(batches) for point in dense])

    def evaluate(self, parameters: np.ndarray, batches: Iterable[Batch]) -> Evaluation:
        raise NotImplementedError


def layouts() -> tuple[Layout, Layout, np.ndarray]:
    """Return the layout of all weights, that of the live ones, and where those lie among all."""
    rng = np.random.default_rng(6)
    masks = {name: rng.random(shape) < DENSITY for name, shape in SHAPES.items()}
    dense = Layout(tuple(Tensor(name, shape) for name, shape in SHAPES.items()))
    pruned = Layout(tuple(Tensor(n, s, live=mask_of(masks[n].astype(float))) for n, s in SHAPES.items()))
    return dense, pruned, np.flatnonzero(np.concatenate([mask.ravel() for mask in masks.values()]))


def cosines(layout: Layout, gradient: np.ndarray, live: np.ndarray, law, count: int) -> list[float]:
    """Return cosines of whole rounds' estimates with the gradient, over the live weights."""
    runtime, found = Slope(layout, gradient), []
    batch = np.zeros((1, 1)), np.zeros(1)
    method = Baffle(
        forwards=DIRECTIONS,
        batch=1,
        blocks="whole",
        orthogonal=False,
        law=law,
        estimator=CentredDifference(1.0),
        clip=0.0,
        bits=24,
        bound=100.0,
        optimizer=Sgd(rate=1.0),
        average=ExponentialAverage(0.0),
    )
    engine = Local([Client(0, 1, KEY, lambda *_: batch)], runtime, PlainKernels())
    state = method.start(np.zeros(layout.size, np.float32))
    own = np.zeros(gradient.size)
    for number in range(count):
        world = server.Federation(key=KEY.fold(number).secret, layout=layout, clients=1)
        plan = server.plan(method, world, state)
        moved = server.advance(method, state, plan, engine.gather(plan, state.parameters), PlainKernels()).state
        own[:] = np.concatenate([t.ravel() for t in layout.unflatten(-moved.parameters).values()])
        estimate, truth = own[live], gradient[live]
        found.append(float(estimate @ truth / np.linalg.norm(estimate) / np.linalg.norm(truth)))
    return found


@pytest.mark.parametrize("law", [Rademacher(), Gaussian()], ids=repr)
def test_at_a_twentieth_of_the_weights_the_cosine_is_better_by_the_root_of_twenty(law) -> None:
    """√(n/n_live), within 15 %; its mean's standard error over these rounds is a fifth of that.

    Weights that are pruned have a gradient, too: displaced along with the others, they are noise to them.
    """
    dense, pruned, live = layouts()
    gradient = np.random.default_rng(7).normal(size=dense.size)
    gradient /= np.linalg.norm(gradient)
    n, left = dense.size, pruned.size
    assert left == live.size == pytest.approx(DENSITY * n, rel=0.1)
    at_all = cosines(dense, gradient, live, law, 300)
    at_live = cosines(pruned, gradient, live, law, 60)
    assert np.mean(at_live) == pytest.approx(math.sqrt(DIRECTIONS / (DIRECTIONS + left)), rel=0.05)
    # Small cosines: √(K/(K + n)) is √(K/n), and the comparison is of cosines as they are.
    ratio = np.mean(at_live) / np.mean(at_all)
    predicted = math.sqrt((DIRECTIONS + n) / (DIRECTIONS + left))
    errors = [np.std(some) / np.mean(some) / math.sqrt(len(some)) for some in (at_all, at_live)]
    assert math.hypot(*errors) < 0.05
    assert ratio == pytest.approx(predicted, rel=0.15)
    assert predicted == pytest.approx(math.sqrt(n / left), rel=0.05)
