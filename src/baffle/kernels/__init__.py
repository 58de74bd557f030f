"""The two loops that touch every weight of every direction: displacing a copy, and adding up what came back."""

from __future__ import annotations

from importlib.util import find_spec
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from baffle.directions import Law
from baffle.kernels.plain import PlainKernels
from baffle.keys import Key
from baffle.processors import cores


class Kernels(Protocol):
    """Two implementations give the same bits: sums are of integers, displacements round product and sum once each."""

    def displace(
        self, out: NDArray[np.floating], base: NDArray[np.floating], step: float, law: Law, key: Key, direction: int
    ) -> None:
        """Write base + step · z into `out` [m], in the arrays' own type, z being the law's integers.

        Raises:
            SettingsError: the law has no such direction, or none so long.
        """
        ...

    def displace_many(
        self, out: NDArray[np.floating], base: NDArray[np.floating], step: float, law: Law, key: Key, first: int
    ) -> None:
        """Write what `displace` writes for directions `first`, `first` + 1, ... into the rows of `out` [k, m]."""
        ...

    def accumulate(self, total: NDArray[np.int64], weights: NDArray[np.int64], law: Law, key: Key) -> None:
        """Add Σₖ weights[k] · zₖ to `total` [m]; the caller has made sure that nothing overflows.

        Raises:
            SettingsError: the law has no such direction, or none so long.
        """
        ...


def fastest() -> Kernels:
    """Return the compiled loops where numba is installed, NumPy's otherwise."""
    if find_spec("numba") is None:
        return PlainKernels()
    from baffle.kernels.compiled import CompiledKernels

    return CompiledKernels(threads=cores())


__all__ = ["Kernels", "PlainKernels", "fastest"]
