"""A federation in one process whose reports somebody trusted adds up."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from baffle.client import Client, contributions
from baffle.engines.presence import present
from baffle.kernels import Kernels
from baffle.keys import Key
from baffle.mechanisms import MISSING
from baffle.messages import Plan, report_size
from baffle.parameters import Vector
from baffle.runtimes import Runtime
from baffle.server import Summed, nobody


@dataclass(frozen=True, slots=True)
class Trusted:
    """Clients whose contributions somebody trusted adds up: what secure sums come to, without their cost.

    For simulations: bytes are counted as those of reports in the open.
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

    def gather(self, plan: Plan, parameters: Vector) -> Summed:
        """Return the sum of the clients that are there, or nobody's below the quorum."""
        there = present(plan, self.clients, self.unavailable, self.chance)
        found = contributions(plan, parameters, there, self.runtime, self.kernels)
        if len(found) < plan.quorum:
            return nobody()
        total = np.zeros(plan.words, np.int64)
        for one in found:
            total += one.samples * np.where(one.integers == MISSING, 0, one.integers)
        return Summed(total, sum(one.samples for one in found), {one.client: report_size(plan) for one in found})

    def close(self) -> None:
        """Do nothing: there is nothing to give back."""
