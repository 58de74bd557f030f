"""The loop: plan, gather, advance, record."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass

from baffle import server
from baffle.engines import Engine
from baffle.errors import DivergenceError
from baffle.kernels import Kernels
from baffle.messages import Round
from baffle.server import Federation, Method, State

ATTEMPTS = 20
"""Tries at one round before a run gives up."""


@dataclass(frozen=True, slots=True)
class Training:
    """What a run does, apart from where it has got to."""

    method: Method
    federation: Federation
    engine: Engine
    kernels: Kernels
    record: Callable[[Round], None]
    """Puts a round on disk; the round counts once it returns."""
    watch: Callable[[State, Round], None]
    """Is shown each new state and the record that led to it."""
    attempts: int = ATTEMPTS
    """Tries at one round before the run gives up."""

    def run(self, state: State, rounds: int) -> State:
        """Return the state after `rounds` rounds in all.

        Raises:
            DivergenceError: θ would leave the finite numbers, or a round never meets its quorum; those before are kept.
        """
        while state.round < rounds:
            plan = server.plan(self.method, self.federation, state, self.engine.present())
            reports = self.engine.gather(plan, state.parameters)
            outcome = server.advance(self.method, state, plan, reports, self.kernels)
            self.record(outcome.record)
            state = outcome.state
            self.watch(state, outcome.record)
            if state.attempt >= self.attempts:
                raise DivergenceError(_why(outcome.record, state.attempt))
        return state


def _why(record: Round, attempts: int) -> str:
    reasons = Counter(reason for _, reason in record.left_out)
    told = ", ".join(f"{reason} ({count} times)" for reason, count in reasons.most_common(3))
    return (
        f"round {record.plan.round} was tried {attempts} times and never had {record.plan.quorum} reports "
        f"of {len(record.plan.cohort)} clients: {told}"
    )
