"""A whole federation in one process."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from baffle.client import Client, answers
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

    def gather(self, plan: Plan, parameters: Vector) -> list[bytes]:
        """Return the encoded reports of the clients that are there."""
        present = [self.clients[number] for number in plan.cohort]
        if self.unavailable and self.chance is not None:
            draws = self.chance.fold(plan.round, plan.attempt).generator().random(len(present))
            present = [client for client, draw in zip(present, draws, strict=True) if draw >= self.unavailable]
        return [encode(report) for report in answers(plan, parameters, present, self.runtime, self.kernels)]
