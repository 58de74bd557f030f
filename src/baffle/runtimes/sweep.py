"""Losses at the probes of one block after another, with what lies before a block computed once."""

# pyright: standard
from __future__ import annotations

import logging
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from threading import Lock
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from baffle.messages import BlockPlan
from baffle.parameters import Layout
from baffle.probes import Probes
from baffle.runtimes.graph import Graph, Split, Trunk

TOGETHER = 128
"""Most probes in one call, a power of two."""
_FEW = 4
"""Probes below which calling one after another is as fast."""
log = logging.getLogger("baffle")

Job = tuple[int, int, int]
"""First direction, how many, and which sign."""
Finish = Callable[[], NDArray[np.float64]]
"""Waits for probes that have begun; without threads they begin only now."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Sweep:
    """Evaluates probes of blocks on a graph: prefixes once a batch, cheap suffixes many probes at a time."""

    graph: Graph
    layout: Layout
    places: Mapping[str, Tensor]
    """Where the weights of pruned tensors lie in them."""
    frozen: Mapping[str, Tensor]
    """Parameters that are not trained."""
    device: torch.device
    channels_last: bool
    losses: Callable[[Tensor, Tensor, list[int]], Tensor]
    """(outputs [P, S, ...], targets [S, ...], samples of each client) -> mean losses, float64 [P, C]."""
    threads: int
    """Calls at the same time, each on one processor thread."""
    operations: int
    """Floating-point operations that are worth a call: cheaper probes are evaluated several in one."""
    memory: int
    """Bytes of activations that probes evaluated together may take."""
    _alone: set[int] = field(default_factory=set)
    """Splits (by identity) that can't be vectorised."""
    _lock: Lock = field(default_factory=Lock)

    def __call__(
        self, blocks: Sequence[Probes], inputs: Tensor, targets: Tensor, sizes: list[int]
    ) -> list[NDArray[np.float64]]:
        """Return the mean loss at each block's probes on each client's run of samples, float64 [P, C] each.

        All blocks' probes are around the same θ.
        """
        parameters = self._tensors(torch.tensor(blocks[0].parameters, device=self.device)) | dict(self.frozen)
        with torch.inference_mode(), self._pool() as pool:
            trunk = Trunk(self.graph, parameters, inputs)
            found: list[NDArray[np.float64]] = []
            begun: list[Finish] = []
            for (
                probes
            ) in blocks:  # with threads, the next block's probes queue up behind this one's: none of them waits
                begun.append(self._block(probes, parameters, trunk, targets, sizes, pool))
                if pool is None or len(begun) > 1:
                    found.append(begun.pop(0)())
            return [*found, *(finish() for finish in begun)]

    def forward(self, parameters: Tensor, inputs: Sequence[Tensor]) -> list[Tensor]:
        """Return the outputs for each part of `inputs`."""
        given = self._tensors(parameters) | dict(self.frozen)
        split = self.graph.split(given)
        tensors = [given[name] for name in (*split.displaced, *split.kept)]

        def one(part: Tensor) -> Tensor:
            with torch.inference_mode():
                return split.run(*tensors, *Trunk(self.graph, given, part)(split.cut))

        with self._pool() as pool:
            return list(_each(pool, one, inputs))

    def _block(
        self,
        probes: Probes,
        parameters: Mapping[str, Tensor],
        trunk: Trunk,
        targets: Tensor,
        sizes: list[int],
        pool: ThreadPoolExecutor | None,
    ) -> Finish:
        """Begin a block's probes; return what waits for them and gives their losses [P, C]."""
        names = self.layout.within(probes.block.start, probes.block.stop)
        split = self.graph.split(names)
        rest = [parameters[name] for name in split.kept] + trunk(split.cut)
        span = slice(min(s.start for s in names.values()), max(s.stop for s in names.values()))
        together = self.together(probes.block, len(targets))
        starts = range(probes.directions.start, probes.directions.stop, together)

        def one(job: Job) -> Tensor:
            first, count, sign = job
            with torch.inference_mode():
                rows = torch.from_numpy(probes.rows(span, first, count, sign)).to(self.device)
                own = self._cut(rows, {name: names[name] for name in split.displaced}, span)
                outputs = self._outputs(split, own, rest, count, together == 1)
                return self.losses(outputs, targets, sizes).cpu()

        jobs = [
            (first, min(together, probes.directions.stop - first), sign) for first in starts for sign in probes.signs
        ]
        found = _each(pool, one, jobs)

        def finish() -> NDArray[np.float64]:
            losses = np.empty((len(probes.directions), len(probes.signs), len(sizes)))
            for (first, count, sign), some in zip(jobs, found, strict=True):
                begin = first - probes.directions.start
                losses[begin : begin + count, probes.signs.index(sign)] = some.numpy()
            return losses.reshape(-1, len(sizes))

        return finish

    def _outputs(self, split: Split, displaced: list[Tensor], rest: list[Any], count: int, alone: bool) -> Tensor:
        """Return the outputs [P, S, ...] for `count` probes, whose parameters are `displaced` [P, ...]."""
        if not displaced:  # the model does not use this block
            return split.run(*rest).expand(count, *[-1] * len(rest[-1].shape))
        if not alone and id(split) not in self._alone:
            dims = (0,) * len(displaced) + (None,) * len(rest)
            try:
                return torch.vmap(split.run, in_dims=dims)(*displaced, *rest)
            except Exception as error:  # operations of a user's own may not be vectorised
                with self._lock:
                    if id(split) not in self._alone:
                        log.warning("probes of %s are evaluated one by one: %s", ", ".join(split.displaced), error)
                    self._alone.add(id(split))
        outputs: list[Tensor] = []
        for probe in range(count):
            own = [self._laid_out(n, t[probe]) for n, t in zip(split.displaced, displaced, strict=True)]
            outputs.append(split.run(*own, *rest))
        return torch.stack(outputs)

    def together(self, block: BlockPlan, samples: int) -> int:
        """Return how many of a block's probes are evaluated in one call on so many samples: a power of two."""
        names = self.layout.within(block.start, block.stop)
        split, moved = self.graph.split(names), sum(own.stop - own.start for own in names.values())
        by_work = self.operations // (split.operations * samples)
        by_memory = self.memory // ((split.numbers * samples + moved) * 8)
        most = min(by_work, by_memory, TOGETHER)
        return 1 << (most.bit_length() - 1) if most >= _FEW else 1

    def laid_out(self, inputs: Tensor) -> Tensor:
        """Return samples as the graph is fastest with."""
        return channels_last(inputs) if self.channels_last else inputs

    def _tensors(self, flat: Tensor) -> dict[str, Tensor]:
        """Return the named tensors of θ."""
        span = slice(0, self.layout.size)
        slices = self.layout.slices()
        return {
            name: self._laid_out(name, tensor[0])
            for name, tensor in zip(slices, self._cut(flat[None], slices, span), strict=True)
        }

    def _cut(self, rows: Tensor, names: Mapping[str, slice], span: slice) -> list[Tensor]:
        """Return the named tensors [P, ...] of rows [P, m] that hold positions `span` of θ."""
        shapes = {tensor.name: tensor.shape for tensor in self.layout.tensors}
        own = {name: rows[:, s.start - span.start : s.stop - span.start] for name, s in names.items()}
        return [
            self._dense(name, weights, math.prod(shapes[name])).reshape(len(rows), *shapes[name])
            for name, weights in own.items()
        ]

    def _dense(self, name: str, weights: Tensor, size: int) -> Tensor:
        """Return all numbers [P, size] of a tensor with weights [P, m]: those that are pruned are zero."""
        if name not in self.places:
            return weights
        whole = weights.new_zeros(len(weights), size)
        whole[:, self.places[name]] = weights
        return whole

    def _laid_out(self, name: str, tensor: Tensor) -> Tensor:
        if self.channels_last and name in self.graph.kernels:
            return tensor.contiguous(memory_format=torch.channels_last)
        return tensor

    def _pool(self) -> AbstractContextManager[ThreadPoolExecutor | None]:
        if self.threads == 1 or self.device.type != "cpu":
            return nullcontext()
        return ThreadPoolExecutor(self.threads, initializer=torch.set_num_threads, initargs=(1,))


def channels_last(inputs: Tensor) -> Tensor:
    """Return images [S, channels, height, width] with a sample's channels side by side; anything else as it is.

    PyTorch takes images of one channel for either layout, and then computes in the other one: so strides are forced.
    """
    if inputs.ndim != 4:
        return inputs
    _, channels, height, width = inputs.shape
    strides = (height * width * channels, 1, width * channels, channels)
    return torch.empty_strided(inputs.shape, strides, dtype=inputs.dtype, device=inputs.device).copy_(inputs)


def _each(pool: ThreadPoolExecutor | None, work: Callable[[Any], Tensor], items: Iterable[Any]) -> Iterable[Tensor]:
    return map(work, items) if pool is None else pool.map(work, items)
