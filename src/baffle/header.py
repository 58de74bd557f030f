"""What a run is to be understood by: its method, its federation and where θ begins."""

from __future__ import annotations

from collections.abc import Mapping

import msgspec
import numpy as np
from numpy.typing import NDArray

from baffle import bits
from baffle.algorithms import Baffle
from baffle.budget import Budget
from baffle.errors import LedgerError, ModelError
from baffle.keys import Key
from baffle.parameters import Vector, digest
from baffle.server import Federation, State

_TOLD = 60
"""Characters of two values that a sentence still has room for."""


class Header(msgspec.Struct, frozen=True, kw_only=True):
    """The ledger's record 0: all that the others are to be understood by."""

    noise: int = bits.VERSION
    """Version of docs/noise.md."""
    algorithm: Baffle
    federation: Federation
    samples: tuple[int, ...]
    """Of each client."""
    initial: str
    """Digest of θ₀."""
    budget: Budget | None = None
    """Of privacy, which no client's data exceed; None where nothing is promised."""

    @property
    def guarded(self) -> bool:
        """Whether an attempt that is asked for counts whatever becomes of it: a budget is kept, or sums are secure."""
        return self.budget is not None or self.federation.secure

    def start(self, given: Mapping[str, NDArray[np.generic]] | None) -> State:
        """Return the state before the first round.

        Raises:
            LedgerError: θ₀ has another digest than the header says, or can't be made without `given` tensors.
        """
        try:
            parameters = initial_parameters(self.federation, given)
        except ModelError as error:
            raise LedgerError(0, f"θ₀ can't be made: {error}") from None
        if digest(parameters) != self.initial:
            raise LedgerError(0, f"θ₀ has digest {digest(parameters)}, the header says {self.initial}")
        return self.algorithm.start(parameters)


def difference(found: object, own: object, at: str = "") -> str:
    """Return in words what is the first that differs between two headers: `algorithm.forwards was 3200 and is 100`."""
    if isinstance(found, msgspec.Struct) and type(found) is type(own):
        name = next(name for name in found.__struct_fields__ if getattr(found, name) != getattr(own, name))
        return difference(getattr(found, name), getattr(own, name), f"{at}.{name}" if at else name)
    told = f"{found!r} and is {own!r}"
    return (
        f"{at} was {told}" if isinstance(found, bool | int | float | str) and len(told) < _TOLD else f"{at} is another"
    )


def initial_parameters(federation: Federation, given: Mapping[str, NDArray[np.generic]] | None) -> Vector:
    """Return θ₀ [n]."""
    return federation.layout.initial(Key(federation.key).fold("initial"), given)
