"""The hot loops in NumPy."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from baffle.directions import Law
from baffle.keys import Key


@dataclass(frozen=True, slots=True)
class PlainKernels:
    """NumPy, one core, a slice at a time: a direction is never held whole."""

    slice_size: int = 1 << 15
    """Weights a slice; 32,768 keep a slice's arrays in a core's second-level cache."""

    def displace(
        self, out: NDArray[np.floating], base: NDArray[np.floating], step: float, law: Law, key: Key, direction: int
    ) -> None:
        """Write base + step · z into `out` [m]."""
        factor = out.dtype.type(step)
        for start in range(0, out.size, self.slice_size):
            part = slice(start, min(start + self.slice_size, out.size))
            np.multiply(law.entries(key, direction, part.start, part.stop), factor, out=out[part], dtype=out.dtype)
            out[part] += base[part]

    def accumulate(self, total: NDArray[np.int64], weights: NDArray[np.int64], law: Law, key: Key) -> None:
        """Add Σₖ weights[k] · zₖ to `total` [m]."""
        for start in range(0, total.size, self.slice_size):
            part = slice(start, min(start + self.slice_size, total.size))
            for direction in np.flatnonzero(weights):
                entries = law.entries(key, int(direction), part.start, part.stop)
                total[part] += np.multiply(entries, weights[direction], dtype=np.int64)
