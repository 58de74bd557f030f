"""The hot loops compiled by numba."""

# pyright: standard
from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
from numba import njit
from numpy.typing import NDArray

from baffle import bits, checks
from baffle.directions import Gaussian, Law
from baffle.directions.gaussian import table
from baffle.errors import SettingsError
from baffle.keys import Key


@njit(cache=True, nogil=True)
def _displace_table(out, base, step, words, values):
    for i in range(out.size):
        out[i] = base[i] + step * out.dtype.type(values[words[i]])


@njit(cache=True, nogil=True)
def _displace_signs(out, base, step, packed):
    one = out.dtype.type(1)
    for byte in range(out.size >> 3):
        for bit in range(8):
            i = 8 * byte + bit
            sign = out.dtype.type(2 * ((packed[byte] >> bit) & 1)) - one
            out[i] = base[i] + step * sign
    for i in range(out.size & ~7, out.size):
        sign = out.dtype.type(2 * ((packed[i >> 3] >> (i & 7)) & 1)) - one
        out[i] = base[i] + step * sign


@njit(cache=True, nogil=True)
def _accumulate_table(total, weight, words, values):
    for i in range(total.size):
        total[i] += weight * values[words[i]]


@njit(cache=True, nogil=True)
def _accumulate_signs(total, weight, packed):
    for byte in range(total.size >> 3):
        for bit in range(8):
            total[8 * byte + bit] += weight * (2 * np.int64((packed[byte] >> bit) & 1) - 1)
    for i in range(total.size & ~7, total.size):
        total[i] += weight * (2 * np.int64((packed[i >> 3] >> (i & 7)) & 1) - 1)


@dataclass(frozen=True, slots=True)
class CompiledKernels:
    """numba: words are expanded and used in one pass, a slice at a time, slices shared among threads.

    The threads are Python's, not numba's own: those share OpenMP's settings with PyTorch, and a parallel loop of a few
    microseconds that waits for a busy core takes milliseconds.
    """

    threads: int = 1
    """Slices worked on at once, ≥ 1."""
    slice_size: int = 1 << 16
    """Weights a slice, a multiple of 8; a slice's arrays fit a core's cache."""

    def __post_init__(self) -> None:
        checks.at_least("threads", self.threads, 1)
        if self.slice_size < 8 or self.slice_size % 8:
            raise SettingsError("slice_size", self.slice_size, "must be a multiple of 8, at least 8")

    def displace(
        self, out: NDArray[np.floating], base: NDArray[np.floating], step: float, law: Law, key: Key, direction: int
    ) -> None:
        """Write base + step · z into `out` [m]."""
        factor = out.dtype.type(step)

        def work(part: slice) -> None:
            if isinstance(law, Gaussian):
                _displace_table(out[part], base[part], factor, _table_words(key, direction, part), table())
            else:
                _displace_signs(out[part], base[part], factor, _sign_bytes(key, direction, part))

        self._share(work, out.size)

    def accumulate(self, total: NDArray[np.int64], weights: NDArray[np.int64], law: Law, key: Key) -> None:
        """Add Σₖ weights[k] · zₖ to `total` [m]."""
        directions = np.flatnonzero(weights).tolist()

        def work(part: slice) -> None:
            for direction in directions:
                if isinstance(law, Gaussian):
                    words = _table_words(key, direction, part)
                    _accumulate_table(total[part], weights[direction], words, table())
                else:
                    _accumulate_signs(total[part], weights[direction], _sign_bytes(key, direction, part))

        self._share(work, total.size)

    def _share(self, work: Callable[[slice], None], size: int) -> None:
        parts = [slice(start, min(start + self.slice_size, size)) for start in range(0, size, self.slice_size)]
        if self.threads == 1 or len(parts) == 1:
            for part in parts:
                work(part)
            return
        with ThreadPoolExecutor(self.threads) as pool:
            for _ in pool.map(work, parts):
                pass


def _table_words(key: Key, direction: int, part: slice) -> NDArray[np.uint16]:
    return np.frombuffer(bits.words(key, direction, 2 * part.start, 2 * part.stop), "<u2")


def _sign_bytes(key: Key, direction: int, part: slice) -> NDArray[np.uint8]:
    return np.frombuffer(bits.words(key, direction, part.start // 8, (part.stop + 7) // 8), np.uint8)
