"""Samples as anybody's arrays: any inputs, any targets."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from baffle.errors import DataError


class Samples(Protocol):
    """What can be trained on or measured with."""

    def __len__(self) -> int: ...

    def take(self, indices: NDArray[np.integer], /) -> tuple[NDArray[Any], NDArray[Any]]:
        """Return the inputs [B, ...] and targets [B, ...] at `indices`."""
        ...


@dataclass(frozen=True, slots=True, eq=False)
class Arrays:
    """N samples; floating ones must be finite, whole ones (tokens, classes) are passed on as they are.

    Raises:
        DataError: there is no sample, the lengths differ, or a number is not finite.
    """

    name: str
    """Whose they are, for error messages."""
    inputs: NDArray[Any]
    """[N, ...]; a structured array [N] for a model that takes several."""
    targets: NDArray[Any]
    """[N, ...]."""

    def __post_init__(self) -> None:
        for part in ("inputs", "targets"):
            array = np.asarray(getattr(self, part))
            object.__setattr__(self, part, array)
            fields = [array[name] for name in array.dtype.names or ()] or [array]
            if array.ndim == 0 or any(field.dtype.kind not in "buif" for field in fields):
                raise DataError(f"{self.name}: {part} must be an array of numbers, one row a sample")
            if any(field.dtype.kind == "f" and not np.isfinite(field).all() for field in fields):
                raise DataError(f"{self.name}: {part} hold a NaN or an infinity")
        if len(self.inputs) != len(self.targets):
            raise DataError(f"{self.name}: {len(self.inputs)} inputs and {len(self.targets)} targets")
        if len(self.inputs) == 0:
            raise DataError(f"{self.name} has no samples")

    def __len__(self) -> int:
        return len(self.inputs)

    def take(self, indices: NDArray[np.integer], /) -> tuple[NDArray[Any], NDArray[Any]]:
        """Return the inputs [B, ...] and targets [B, ...] at `indices`."""
        return self.inputs[indices], self.targets[indices]
