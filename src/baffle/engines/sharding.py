"""Probes shared among workers: which of them each evaluates, and how their losses are put together."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from heapq import heapify, heapreplace
from itertools import groupby
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from baffle.kernels import Kernels
from baffle.parameters import Block, Layout
from baffle.probes import Probes
from baffle.runtimes import Batch, BlockRuntime, Evaluation, Runtime, slices

UNIT = 128
"""A range of directions that begins at a multiple of it has the same losses by itself, for a runtime that does not tell
how many it evaluates together."""
_FINE = 8
"""Most ranges of one block that a worker is given on average: more even out no better and cost a call each."""


@dataclass(frozen=True, slots=True)
class Piece:
    """A range of one block's directions on the batches of some clients."""

    start: int
    """First client, by its place among the batches."""
    stop: int
    """Client after the last."""
    block: int
    first: int
    """First direction, a multiple of what the runtime evaluates together."""
    last: int
    """Direction after the last."""
    work: float
    """Forward equivalents of one sign."""


Task: TypeAlias = tuple[Sequence[Probes], Sequence[Batch]]
"""Blocks and batches of a sweep."""
Ask: TypeAlias = Callable[[Task, Sequence[Sequence[Piece]]], Sequence[Sequence[NDArray[np.float64]]]]
"""(task, pieces of each worker) -> what `losses_of` returns for each worker."""


@dataclass(frozen=True, slots=True)
class Spread:
    """A runtime whose probes are evaluated by workers, each by a runtime of its own, with the same bits."""

    runtime: Runtime
    """Evaluates here what is not a probe."""
    workers: int
    """≥ 1."""
    ask: Ask

    @property
    def layout(self) -> Layout:
        """Of the model's trainable parameters."""
        return self.runtime.layout

    @property
    def given(self) -> Mapping[str, NDArray[np.generic]]:
        """The model's own values of its trainable tensors, by name."""
        return self.runtime.given

    @property
    def precision(self) -> np.dtype[Any]:
        """In which losses are evaluated."""
        return self.runtime.precision

    def losses(self, points: Iterable[NDArray[np.floating]], batches: Sequence[Batch]) -> NDArray[np.float64]:
        """Return the mean loss at each of P points on each of C batches, float64 [P, C], evaluated here."""
        return self.runtime.losses(points, batches)

    def evaluate(self, parameters: NDArray[np.floating], batches: Iterable[Batch]) -> Evaluation:
        """Return the loss and accuracy of `parameters` [n] over all samples of `batches`, evaluated here."""
        return self.runtime.evaluate(parameters, batches)

    def costs(self, blocks: Sequence[Block], batch: Batch) -> tuple[float, ...]:
        """Return the share of a forward pass that a probe of each block costs, in (0, 1]."""
        return self.runtime.costs(blocks, batch) if isinstance(self.runtime, BlockRuntime) else (1.0,) * len(blocks)

    def sweep(self, blocks: Sequence[Probes], batches: Sequence[Batch]) -> list[NDArray[np.float64]]:
        """Return the mean loss at each block's probes on each of C batches, float64 [P, C] each."""
        cut = pieces(self.runtime, blocks, batches, self.workers)
        shares = [[cut[place] for place in share] for share in balanced([p.work for p in cut], self.workers)]
        losses = [np.empty((len(probes), len(batches))) for probes in blocks]
        for share, parts in zip(shares, self.ask((blocks, batches), shares), strict=True):
            for piece, part in zip(share, parts, strict=True):
                signs, begin = len(blocks[piece.block].signs), blocks[piece.block].directions.start
                rows = slice((piece.first - begin) * signs, (piece.last - begin) * signs)
                losses[piece.block][rows, piece.start : piece.stop] = part
        return losses


def pieces(runtime: Runtime, blocks: Sequence[Probes], batches: Sequence[Batch], workers: int) -> list[Piece]:
    """Return the probes of all blocks on all batches in pieces that `runtime` evaluates as it would all at once.

    Batches are cut where the runtime cuts them itself, directions where it begins a call.
    """
    chunk = getattr(runtime, "chunk", None) if isinstance(runtime, BlockRuntime) else None
    found: list[Piece] = []
    for some in slices(batches, chunk) if chunk else [slice(0, len(batches))]:
        samples = sum(len(targets) for _, targets in batches[some])
        for number, probes in enumerate(blocks):
            budget, unit = probes.directions, _unit(runtime, probes, batches[some])
            step = unit * -(-len(budget) // (unit * workers * _FINE))
            for first in range(budget.start, budget.stop, step):
                last = min(first + step, budget.stop)
                work = (last - first) * samples * probes.block.cost
                found.append(Piece(some.start, some.stop, number, first, last, work))
    return found


def _unit(runtime: Runtime, probes: Probes, batches: Sequence[Batch]) -> int:
    """Return a number of directions at whose multiples a range may begin."""
    if not isinstance(runtime, BlockRuntime):
        return 1
    told: Callable[[Probes, Sequence[Batch]], int] | None = getattr(runtime, "together", None)
    return UNIT if told is None else told(probes, batches)


def balanced(works: Sequence[float], workers: int) -> list[list[int]]:
    """Return the places of the items that each worker takes, ascending: the heaviest first, to whoever has least.

    At most a third more than the best there is for the busiest of them (Graham 1969).
    """
    taken: list[list[int]] = [[] for _ in range(workers)]
    loads = [(0.0, worker) for worker in range(workers)]
    heapify(loads)
    for place in sorted(range(len(works)), key=lambda place: -works[place]):
        load, worker = loads[0]
        taken[worker].append(place)
        heapreplace(loads, (load + works[place], worker))
    return [sorted(places) for places in taken]


def losses_of(runtime: Runtime, kernels: Kernels, task: Task, share: Sequence[Piece]) -> list[NDArray[np.float64]]:
    """Return the losses of each piece of a share, float64 [P, C]; what lies before a block is computed once a slice."""
    blocks, batches = task
    losses: list[NDArray[np.float64]] = []
    for (start, stop), some in groupby(share, lambda piece: (piece.start, piece.stop)):
        parts = [replace(blocks[p.block], first=p.first, stop=p.last, kernels=kernels) for p in some]
        if isinstance(runtime, BlockRuntime):
            losses += runtime.sweep(parts, batches[start:stop])
        else:
            losses += [runtime.losses(part, batches[start:stop]) for part in parts]
    return losses
