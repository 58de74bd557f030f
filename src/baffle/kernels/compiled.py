"""The hot loops compiled by numba, over several cores."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numba import njit, prange
from numpy.typing import NDArray

from baffle import bits
from baffle.directions import Gaussian, Law
from baffle.directions.gaussian import table
from baffle.keys import Key


@njit(cache=True, parallel=True)
def _displace_table(out, base, step, words, values):
    for i in prange(out.size):
        out[i] = base[i] + step * out.dtype.type(values[words[i]])


@njit(cache=True, parallel=True)
def _displace_signs(out, base, step, packed):
    for i in prange(out.size):
        out[i] = base[i] + step if (packed[i >> 3] >> (i & 7)) & 1 else base[i] - step


@njit(cache=True, parallel=True)
def _accumulate_table(total, weights, words, values):
    for i in prange(total.size):
        added = np.int64(0)
        for k in range(weights.size):
            added += weights[k] * values[words[k, i]]
        total[i] += added


@njit(cache=True, parallel=True)
def _accumulate_signs(total, weights, packed):
    for i in prange(total.size):
        added = np.int64(0)
        for k in range(weights.size):
            added += weights[k] if (packed[k, i >> 3] >> (i & 7)) & 1 else -weights[k]
        total[i] += added


@dataclass(frozen=True, slots=True)
class CompiledKernels:
    """numba: words are drawn for a tile of weights and directions, then expanded and used in one pass."""

    tile_bytes: int = 1 << 22
    """Memory of a tile of words, bytes."""

    def displace(
        self, out: NDArray[np.floating], base: NDArray[np.floating], step: float, law: Law, key: Key, direction: int
    ) -> None:
        """Write base + step · z into `out` [m]."""
        factor = out.dtype.type(step)
        if isinstance(law, Gaussian):
            words = np.frombuffer(bits.words(key, direction, 0, 2 * out.size), "<u2")
            _displace_table(out, base, factor, words, table())
        else:
            packed = np.frombuffer(bits.words(key, direction, 0, (out.size + 7) // 8), np.uint8)
            _displace_signs(out, base, factor, packed)

    def accumulate(self, total: NDArray[np.int64], weights: NDArray[np.int64], law: Law, key: Key) -> None:
        """Add Σₖ weights[k] · zₖ to `total` [m]."""
        gaussian = isinstance(law, Gaussian)
        length = 2 * total.size if gaussian else (total.size + 7) // 8
        tile = max(1, self.tile_bytes // length)
        for first in range(0, weights.size, tile):
            some = weights[first : first + tile]
            drawn = b"".join(bits.words(key, first + k, 0, length) for k in range(some.size))
            if gaussian:
                _accumulate_table(total, some, np.frombuffer(drawn, "<u2").reshape(some.size, -1), table())
            else:
                _accumulate_signs(total, some, np.frombuffer(drawn, np.uint8).reshape(some.size, -1))
