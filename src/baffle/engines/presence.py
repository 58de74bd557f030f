"""Who answers a simulated round."""

from __future__ import annotations

from collections.abc import Sequence

from baffle.client import Client
from baffle.keys import Key
from baffle.messages import Plan


def present(plan: Plan, clients: Sequence[Client], unavailable: float, chance: Key | None) -> list[Client]:
    """Return the clients of the plan's cohort that are there.

    Args:
        plan: what is asked.
        clients: of the federation, in the order of their numbers.
        unavailable: chance that a client does not answer in a round, 0 to 1.
        chance: what decides who does not; needed if `unavailable` is above 0.
    """
    cohort = [clients[number] for number in plan.cohort]
    if not unavailable or chance is None:
        return cohort
    draws = chance.fold(plan.round, plan.attempt).generator().random(len(cohort))
    return [client for client, draw in zip(cohort, draws, strict=True) if draw >= unavailable]
