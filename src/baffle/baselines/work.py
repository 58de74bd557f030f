"""What a client of a baseline is given in a round, and what a baseline decides."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol, TypeAlias, runtime_checkable

import numpy as np

from baffle.baselines.costs import Traffic
from baffle.kernels import Kernels
from baffle.keys import Key
from baffle.optimizers import ExponentialAverage, Optimizer
from baffle.parameters import Vector
from baffle.runtimes import Batch, Runtime

if TYPE_CHECKING:
    from baffle.simulation import Share

Gradient: TypeAlias = Callable[[Vector, Batch], Vector]
"""(θ [n], batch) -> the gradient of the batch's mean loss, float32 [n]."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Work:
    """One client's part of a round."""

    parameters: Vector
    """θ [n], as the server has it."""
    share: Share
    """The client's samples."""
    runtime: Runtime
    gradient: Gradient
    kernels: Kernels
    shared: Key
    """Of this attempt at the round, the same for all clients."""
    private: Key
    """The client's own, of the whole run."""
    round: int
    attempt: int

    def key(self, name: str, *path: int) -> Key:
        """Return the client's key of something in this attempt at the round."""
        return self.private.fold(name, self.round, self.attempt, *path)

    def batch(self, step: int, size: int) -> Batch:
        """Return the mini-batch of a local step: the one that a client of Baffle draws there."""
        return self.share.draw(self.key("batch", step).generator(), size)

    def epoch(self, number: int, size: int) -> Iterator[Batch]:
        """Yield all samples once, in a random order, in batches of `size` and what is left."""
        order = self.key("epoch", number).generator().permutation(self.share.indices)
        for first in range(0, order.size, size):
            yield self.share.data.take(order[first : first + size])


class Method(Protocol):
    """What a baseline decides; everything else of a round is the same for all."""

    @property
    def optimizer(self) -> Optimizer:
        """What the server does with the mean of the answers."""
        ...

    @property
    def average(self) -> ExponentialAverage:
        """Of the weights, for evaluation."""
        ...

    @property
    def anneal(self) -> int:
        """Rounds over which the server's rate falls linearly to a fiftieth; 0 keeps it."""
        ...

    def answer(self, work: Work) -> Vector:
        """Return what a client uploads, float32 [m]; the server takes the weighted mean over clients."""
        ...

    def forwards(self, samples: int) -> float:
        """Return the forward equivalents of a round for a client that holds so many samples."""
        ...

    def traffic(self, weights: int) -> Traffic:
        """Return the bytes of a round for a client, with a model of n = `weights`."""
        ...


@runtime_checkable
class Differentiating(Protocol):
    """A method whose clients backpropagate."""

    @property
    def checkpointing(self) -> bool:
        """Whether activations are computed a second time rather than kept."""
        ...


@runtime_checkable
class Rebuilding(Protocol):
    """A method whose answers are no vectors of n: the server rebuilds one from their mean."""

    def rebuild(self, mean: Vector, weights: int, shared: Key, kernels: Kernels) -> Vector:
        """Return the estimate of the gradient [n] that the mean answer [m] stands for."""
        ...


def weighted_mean(answers: list[Vector], weights: list[int]) -> Vector:
    """Return Σ w a / Σ w, float32: summed in float64 in the clients' order."""
    total = np.zeros(answers[0].size)
    for answer, weight in zip(answers, weights, strict=True):
        total += weight * answer.astype(np.float64)
    return (total / sum(weights)).astype(np.float32)
