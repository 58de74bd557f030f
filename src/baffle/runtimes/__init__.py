"""What executes a model's forward pass: losses at displaced parameters."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple, Protocol, TypeAlias, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from baffle.parameters import Block, Layout
from baffle.probes import Probes

Batch: TypeAlias = tuple[NDArray[Any], NDArray[Any]]
"""Inputs [B, ...] and targets [B, ...] of one client's mini-batch."""


class Evaluation(NamedTuple):
    """How good a model is on held-out data."""

    loss: float
    """Mean over samples."""
    accuracy: float
    """Share of samples whose largest output is the target's, 0 to 1; NaN where targets are not classes."""


class Runtime(Protocol):
    """A model, its loss, and a machine that evaluates them; holds no parameters of its own between calls."""

    @property
    def layout(self) -> Layout:
        """Of the model's trainable parameters."""
        ...

    @property
    def given(self) -> Mapping[str, NDArray[np.generic]]:
        """The model's own values of its trainable tensors, by name."""
        ...

    @property
    def precision(self) -> np.dtype[Any]:
        """In which losses are evaluated: float32 or float64."""
        ...

    def losses(self, points: Iterable[NDArray[np.floating]], batches: Sequence[Batch]) -> NDArray[np.float64]:
        """Return the mean loss at each of P points on each of C batches, float64 [P, C]; not finite where it is not.

        A point is a vector [n] that is valid until the next one is drawn. Dropout is off; samples do not mix.
        """
        ...

    def evaluate(self, parameters: NDArray[np.floating], batches: Iterable[Batch]) -> Evaluation:
        """Return the loss and accuracy of `parameters` [n] over all samples of `batches`."""
        ...


@runtime_checkable
class BlockRuntime(Protocol):
    """A runtime that does less than a whole forward pass for a probe of one block."""

    def sweep(self, blocks: Sequence[Probes], batches: Sequence[Batch]) -> list[NDArray[np.float64]]:
        """Return the mean loss at each block's probes on each of C batches, float64 [P, C] each; all around one θ."""
        ...

    def costs(self, blocks: Sequence[Block], batch: Batch) -> tuple[float, ...]:
        """Return the share of a forward pass that a probe of each block costs, in (0, 1].

        It depends on nothing but the model, the blocks and the samples' shape.
        """
        ...


def slices(batches: Sequence[Batch], most: int) -> list[slice]:
    """Return runs of whole batches of at most `most` samples together, or of one batch that is larger."""
    starts, samples = [0], 0
    for number, (_, targets) in enumerate(batches):
        if samples + len(targets) > most and number > starts[-1]:
            starts.append(number)
            samples = 0
        samples += len(targets)
    return [slice(start, stop) for start, stop in zip(starts, [*starts[1:], len(batches)], strict=True)]
