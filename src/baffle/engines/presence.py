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
    if not unavailable or chance is None:
        return [clients[number] for number in plan.cohort]
    return [clients[number] for number in there(plan.cohort, unavailable, chance.fold(plan.round, plan.attempt))]


def there(cohort: Sequence[int], unavailable: float, chance: Key) -> list[int]:
    """Return the numbers in `cohort` that answer an attempt at a round, whose own key `chance` is."""
    draws = chance.generator().random(len(cohort))
    return [number for number, draw in zip(cohort, draws, strict=True) if draw >= unavailable]
