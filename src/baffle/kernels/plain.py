"""The hot loops in NumPy."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from baffle.directions import Gaussian, Law, Orthogonal, Rademacher, Sparse
from baffle.directions.signs import octets
from baffle.errors import SettingsError
from baffle.kernels import hadamard
from baffle.keys import Key

TRANSFORM = 0.3
"""Cost of an entry in one step of a transform, in entries of directions added up."""


@dataclass(frozen=True, slots=True)
class PlainKernels:
    """NumPy, one core, a slice at a time: a direction is never held whole."""

    slice_size: int = 1 << 16
    """Weights a slice, a multiple of 8; a slice's arrays fit a core's caches."""

    def __post_init__(self) -> None:
        if self.slice_size < 8 or self.slice_size % 8:
            raise SettingsError("slice_size", self.slice_size, "must be a multiple of 8, at least 8")

    def displace(
        self, out: NDArray[np.floating], base: NDArray[np.floating], step: float, law: Law, key: Key, direction: int
    ) -> None:
        """Write base + step · z into `out` [m]."""
        self.displace_many(out[None], base, step, law, key, direction)

    def displace_many(
        self, out: NDArray[np.floating], base: NDArray[np.floating], step: float, law: Law, key: Key, first: int
    ) -> None:
        """Write base + step · zₖ into row k − `first` of `out` [directions, m]."""
        factor = out.dtype.type(step)
        if not isinstance(law, Gaussian | Sparse):
            self._displace_signs(out, base, factor, law, key, first)
            return
        for direction, point in enumerate(out, first):
            for part in self._slices(base.size):
                here = point[part]
                np.multiply(law.entries(key, direction, part.start, part.stop), factor, here, dtype=out.dtype)
                here += base[part]

    def _displace_signs(
        self,
        out: NDArray[np.floating],
        base: NDArray[np.floating],
        factor: np.floating,
        law: Orthogonal | Rademacher,
        key: Key,
        first: int,
    ) -> None:
        """Displace as many copies at a time as leave room in a slice: a small block's cost is mostly that of calls."""
        moves = octets() * factor  # what each byte of signs moves eight weights by
        for part in self._slices(base.size):
            width = part.stop - part.start
            count = max(1, self.slice_size // width)
            for row in range(0, len(out), count):
                here = out[row : row + count, part]
                packed = law.packed_many(key, first + row, len(here), part.start, part.stop)
                moved = moves.take(packed, axis=0, mode="clip").reshape(len(here), -1)
                np.add(base[part], moved[:, :width], here)

    def accumulate(self, total: NDArray[np.int64], weights: NDArray[np.int64], law: Law, key: Key) -> None:
        """Add Σₖ weights[k] · zₖ to `total` [m]."""
        if isinstance(law, Orthogonal) and hadamard.pays(law, weights.size, total.size, TRANSFORM):
            hadamard.accumulate(total, weights, law, key, hadamard.transform)
            return
        products = np.empty(min(self.slice_size, total.size), np.int64)
        for part in self._slices(total.size):
            here = products[: part.stop - part.start]
            for direction in np.flatnonzero(weights).tolist():
                entries = law.entries(key, direction, part.start, part.stop)
                # Without a type, NumPy before 2 multiplies in that of the entries where the weight fits, and wraps.
                np.multiply(entries, weights[direction], here, dtype=np.int64)
                total[part] += here

    def _slices(self, size: int) -> Iterator[slice]:
        for start in range(0, size, self.slice_size):
            yield slice(start, min(start + self.slice_size, size))
