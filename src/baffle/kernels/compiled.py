"""The hot loops compiled by numba."""

# pyright: standard
from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from baffle import checks
from baffle.directions import Gaussian, Law, Orthogonal, Rademacher, Sparse
from baffle.directions.gaussian import table
from baffle.directions.orthogonal import SIGNS, patterns
from baffle.directions.signs import octets
from baffle.errors import SettingsError
from baffle.kernels import hadamard, loops, streams
from baffle.kernels.plain import PlainKernels
from baffle.kernels.sharing import share
from baffle.keys import Key

WORTH = 1 << 18
"""Entries from which on other threads are asked to help: handing work over costs tens of microseconds."""

TRANSFORM = 4.0
"""Cost of an entry in one step of a transform, in entries of directions added up."""

Piece: TypeAlias = tuple[int, int, int, int]
"""Rows and columns of a matrix of entries, a direction a row: first row, rows, first column, the one after the last."""


@dataclass(frozen=True, slots=True)
class CompiledKernels:
    """numba: words are made and expanded a piece at a time, pieces shared among threads."""

    threads: int = 1
    """Pieces worked on at once, ≥ 1."""
    room: int = 1 << 19
    """Bytes of random words a piece, a multiple of 16; more of them cost fewer calls, and memory twice."""

    def __post_init__(self) -> None:
        checks.at_least("threads", self.threads, 1)
        if self.room < 16 or self.room % 16:
            raise SettingsError("room", self.room, "must be a multiple of 16, at least 16")

    def displace(
        self, out: NDArray[np.floating], base: NDArray[np.floating], step: float, law: Law, key: Key, direction: int
    ) -> None:
        """Write base + step · z into `out` [m]."""
        self.displace_many(out[None], base, step, law, key, direction)

    def displace_many(
        self, out: NDArray[np.floating], base: NDArray[np.floating], step: float, law: Law, key: Key, first: int
    ) -> None:
        """Write base + step · zₖ into row k − `first` of `out` [directions, m]; fastest where `out` is contiguous."""
        if isinstance(law, Sparse):
            PlainKernels().displace_many(out, base, step, law, key, first)
            return
        factor = out.dtype.type(step)

        def work(piece: Piece) -> None:
            row, rows, start, stop = piece
            if isinstance(law, Gaussian):
                words, stride = _words(key, first + row, rows, start, stop)
                loops.displace_table(out, base, factor, words, stride, table(), row, rows, start, stop)
            else:
                packed, stride = _packed(law, key, first + row, rows, start, stop)
                loops.displace_signs(out, base, factor, packed, stride, _octets(), row, rows, start, stop)

        pieces = [piece for column in self._pieces(law, *out.shape, together=1) for piece in column]
        share(work, pieces, self.threads if out.size >= WORTH else 1)

    def accumulate(self, total: NDArray[np.int64], weights: NDArray[np.int64], law: Law, key: Key) -> None:
        """Add Σₖ weights[k] · zₖ to `total` [m]."""
        if isinstance(law, Sparse):
            PlainKernels().accumulate(total, weights, law, key)
            return
        if isinstance(law, Orthogonal) and hadamard.pays(law, weights.size, total.size, TRANSFORM):
            hadamard.accumulate(total, weights, law, key, loops.transform)
            return

        def work(column: list[Piece]) -> None:
            for row, rows, start, stop in column:
                here = weights[row : row + rows]
                if isinstance(law, Gaussian):
                    words, stride = _words(key, row, rows, start, stop)
                    loops.accumulate_table(total, here, words, stride, table(), start, stop)
                else:
                    packed, stride = _packed(law, key, row, rows, start, stop)
                    loops.accumulate_signs(total, here, packed, stride, _octets(), start, stop)

        columns = self._pieces(law, weights.size, total.size, together=8)
        share(work, columns, self.threads if weights.size * total.size >= WORTH else 1)

    def _pieces(self, law: Law, directions: int, size: int, together: int) -> list[list[Piece]]:
        """Return the pieces of each run of columns, as wide as leaves room for `together` directions."""
        entries, unit = (self.room // 2, 8) if isinstance(law, Gaussian) else (self.room * 8, 128)
        if directions * (size + unit) < min(entries, WORTH):
            return [[(0, directions, 0, size)]]
        width = max(unit, entries // min(directions, together) // unit * unit)
        if self.threads > 1 and directions * size >= WORTH:
            width = min(width, -(-size // (unit * self.threads)) * unit)
        width = min(width, size)
        rows = max(1, entries // (-(-width // unit) * unit))
        if together < rows < directions:
            rows -= rows % together
        return [
            [(row, min(rows, directions - row), start, min(start + width, size)) for row in range(0, directions, rows)]
            for start in range(0, size, width)
        ]


@cache
def _octets() -> NDArray[np.uint64]:
    return octets().view(np.uint64).ravel()


def _words(key: Key, first: int, rows: int, start: int, stop: int) -> tuple[NDArray[np.uint16], int]:
    """Return the words of a piece of table entries, and how far apart its rows are."""
    made, blocks = streams.of(key), (stop - start + 7) >> 3
    made.fill(first, rows, start >> 3, blocks)
    return made.words, 8 * blocks


def _packed(
    law: Orthogonal | Rademacher, key: Key, first: int, rows: int, start: int, stop: int
) -> tuple[NDArray[np.uint8], int]:
    """Return the bits of a piece of signs, and how far apart its rows are in bytes."""
    made, block, blocks = streams.of(key), start >> 7, (stop - start + 127) >> 7
    if isinstance(law, Rademacher):
        made.fill(first, rows, block, blocks)
        return made.octets, 16 * blocks
    law.refuse_longer(stop)
    order, packed = law.rows(key, first, first + rows), np.empty(2 * rows * blocks, np.uint64)
    made.fill(SIGNS, 1, block, blocks)
    loops.flip(packed, made.octets.view(np.uint64), order, patterns(), 2 * block, 2 * blocks)
    return packed.view(np.uint8), 16 * blocks
