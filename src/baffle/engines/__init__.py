"""How plans reach clients and reports come back."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from baffle.engines.local import Local
from baffle.messages import Plan
from baffle.parameters import Vector
from baffle.server import Summed


class Engine(Protocol):
    """Carries a round; holds no method and decides nothing."""

    def present(self) -> Sequence[int] | None:
        """Return the numbers of the clients that can be asked, ascending; None is all. May wait for them."""
        ...

    def gather(self, plan: Plan, parameters: Vector) -> list[bytes] | Summed:
        """Return the encoded reports that came in for `plan`, given θ [n] at its version, or their sum alone."""
        ...

    def close(self) -> None:
        """Give back what a round needed."""
        ...


__all__ = ["Engine", "Local"]
