"""The loop: plan, gather, advance, record."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass

import msgspec

from baffle import server
from baffle.budget import Account
from baffle.engines import Engine
from baffle.errors import DivergenceError
from baffle.kernels import Kernels
from baffle.messages import Plan, Round
from baffle.server import Federation, Method, State

log = logging.getLogger("baffle")
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
    account: Account | None = None
    """Of privacy; the attempts so far are in it, `intend` counts the others."""
    intend: Callable[[Plan], None] | None = None
    """Puts on disk, and counts, that a plan is about to be sent; None where no budget and no secure sums need it."""

    def run(self, state: State, rounds: int) -> State:
        """Return the state after `rounds` rounds in all, or fewer where too few clients have budget left.

        Raises:
            DivergenceError: θ would leave the finite numbers, or a round never meets its quorum; those before are kept.
        """
        while state.round < rounds:
            present = self.engine.present()
            if self.account is not None:
                present = self.account.allowed(present)
                if present is not None and len(present) < self.federation.least:
                    log.warning(
                        "%d clients have privacy budget left: the run ends in round %d", len(present), state.round
                    )
                    break
            plan = server.plan(self.method, self.federation, state, present)
            if self.intend is not None:
                self.intend(plan)
            reports = self.engine.gather(plan, state.parameters)
            outcome = server.advance(self.method, state, plan, reports, self.kernels)
            record = outcome.record
            if self.account is not None:
                record = msgspec.structs.replace(record, epsilon=self.account.spent)
            self.record(record)
            state = outcome.state
            self.watch(state, record)
            if state.attempt >= self.attempts:
                raise DivergenceError(_why(record, state.attempt))
        return state


def _why(record: Round, attempts: int) -> str:
    reasons = Counter(reason for _, reason in record.left_out)
    told = ", ".join(f"{reason} ({count} times)" for reason, count in reasons.most_common(3))
    return (
        f"round {record.plan.round} was tried {attempts} times and never had {record.plan.quorum} reports "
        f"of {len(record.plan.cohort)} clients: {told}"
    )
