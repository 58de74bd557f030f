"""The points at which a client evaluates the loss."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from baffle.kernels import Kernels
from baffle.keys import Key
from baffle.messages import BlockPlan


@dataclass(frozen=True, slots=True)
class Probes:
    """Displaced copies θ + sign · σ z of the parameters, a block's directions one after another.

    Iterating gives float [n] vectors, direction by direction and within it sign by sign. They share one buffer: each is
    valid until the next is asked for. A runtime that can do better than whole vectors reads the fields instead.
    """

    parameters: NDArray[np.floating]
    """θ [n], in the precision in which losses are evaluated."""
    block: BlockPlan
    key: Key
    """Of the block's directions in this group and step."""
    scale: float
    """σ, in parameter units."""
    signs: tuple[int, ...]
    kernels: Kernels
    first: int = 0
    """First direction, 0 or more."""
    stop: int = -1
    """Direction after the last; −1 stands for the block's budget."""

    @property
    def directions(self) -> range:
        """Which of the block's directions these are."""
        return range(self.first, self.block.budget if self.stop < 0 else self.stop)

    def part(self, first: int, stop: int) -> Probes:
        """Return the probes of directions `first` to `stop` alone."""
        return replace(self, first=first, stop=stop)

    @property
    def step(self) -> float:
        """What an integer entry of a direction moves a parameter by, as rounded to the parameters' precision."""
        return float(self.parameters.dtype.type(self.scale / self.block.law.deviation))

    @property
    def effective_scale(self) -> float:
        """σ as it comes out after that rounding: what losses are divided by."""
        return self.step * self.block.law.deviation

    def rows(self, span: slice, first: int, count: int, sign: int) -> NDArray[np.floating]:
        """Return positions `span` of θ at `count` probes from direction `first` on [count, m].

        The block lies within `span`.
        """
        block = slice(self.block.start, self.block.stop)
        moved = np.empty((count, block.stop - block.start), self.parameters.dtype)
        self.kernels.displace_many(moved, self.parameters[block], sign * self.step, self.block.law, self.key, first)
        if block == span:
            return moved
        whole = np.repeat(self.parameters[None, span], count, axis=0)
        whole[:, block.start - span.start : block.stop - span.start] = moved
        return whole

    def __len__(self) -> int:
        return len(self.directions) * len(self.signs)

    def __iter__(self) -> Iterator[NDArray[np.floating]]:
        point = self.parameters.copy()
        inside = slice(self.block.start, self.block.stop)
        for direction in self.directions:
            for sign in self.signs:
                self.kernels.displace(
                    point[inside], self.parameters[inside], sign * self.step, self.block.law, self.key, direction
                )
                yield point
