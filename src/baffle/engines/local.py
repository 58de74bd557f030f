"""A whole federation in one process."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from baffle.client import Client, answers
from baffle.engines.presence import present
from baffle.kernels import Kernels
from baffle.keys import Key
from baffle.messages import Plan, encode
from baffle.parameters import Vector
from baffle.runtimes import Runtime


@dataclass(frozen=True, slots=True)
class Local:
    """Clients that are called one after another, or together where they share directions.

    Reports are encoded and decoded as on a wire, so what is counted and refused is what would be.
    """

    clients: Sequence[Client]
    """In the order of their numbers."""
    runtime: Runtime
    kernels: Kernels
    unavailable: float = 0.0
    """Chance that a client does not answer in a round, 0 to 1."""
    chance: Key | None = None
    """What decides who does not; needed if `unavailable` is above 0."""

    def present(self) -> None:
        """Return None: all clients can be asked."""

    def gather(self, plan: Plan, parameters: Vector) -> list[bytes]:
        """Return the encoded reports of the clients that are there."""
        there = present(plan, self.clients, self.unavailable, self.chance)
        return [encode(report) for report in answers(plan, parameters, there, self.runtime, self.kernels)]

    def close(self) -> None:
        """Do nothing: there is nothing to give back."""
