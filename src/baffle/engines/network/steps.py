"""Keeping in step: the rounds that count, small enough to send each client, and a state moved by them."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from itertools import islice

import numpy as np

from baffle import server
from baffle.engines.network.dialogue import CHECK, MOST, PART, Call, Step, check_of
from baffle.errors import BaffleError, ReportError, SettingsError
from baffle.header import Header
from baffle.kernels import Kernels
from baffle.messages import Plan, Round, encode, report_size
from baffle.parameters import digest
from baffle.server import State


class OutOfStepError(BaffleError):
    """A state is not what the server's is at the same version."""


def bitmap(numbers: Iterable[int], clients: int) -> bytes:
    """Return a bit for each of `clients`, lowest first, set for `numbers`; empty where that is all of them."""
    flags = np.zeros(clients, np.uint8)
    flags[list(numbers)] = 1
    return b"" if flags.all() else np.packbits(flags, bitorder="little").tobytes()


def numbers_of(flags: bytes, clients: int) -> Sequence[int]:
    """Return the numbers whose bits are set, ascending; all of them for an empty bitmap.

    Raises:
        ReportError: the length is not that of so many clients.
    """
    if not flags:
        return range(clients)
    if len(flags) != -(-clients // 8):
        raise ReportError(f"{len(flags)} bytes are no bitmap of {clients} clients")
    return np.flatnonzero(np.unpackbits(np.frombuffer(flags, np.uint8), count=clients, bitorder="little")).tolist()


def step_of(record: Round, clients: int) -> Step:
    """Return what a client that is in step needs of a record that counts."""
    if record.aggregate is None or record.digest is None:
        raise ValueError("a round without an aggregate is no step")
    plan = record.plan
    check = bytes.fromhex(record.digest)[:CHECK]
    return Step(plan.round, plan.attempt, bitmap(plan.cohort, clients), record.aggregate, check)


def plan_of(header: Header, state: State, attempt: int, cohort: bytes) -> Plan:
    """Return the plan of an attempt at the round that follows `state`: what the server has made of the same."""
    present = numbers_of(cohort, header.federation.clients)
    return server.plan(header.algorithm, header.federation, replace(state, attempt=attempt), present)


def follow(header: Header, state: State, step: Step, kernels: Kernels, answered: Plan | None = None) -> State:
    """Return the state after a step.

    Args:
        header: the run's.
        state: before it.
        step: what the server made of the round.
        kernels: for reconstruction.
        answered: the plan of an attempt at this round, if one is at hand: it need not be made again.

    Raises:
        OutOfStepError: the step is of another round, or leads to another θ than the server's.
    """
    if step.round != state.round:
        raise OutOfStepError(f"round {step.round} where {state.round} follows")
    try:
        plan = answered
        if plan is None or not _is_of(plan, step, header.federation.clients):
            plan = plan_of(header, state, step.attempt, step.cohort)
        moved = server.apply(header.algorithm, state, plan, step.aggregate, kernels)
    except (ReportError, SettingsError) as error:
        raise OutOfStepError(str(error)) from None
    if bytes.fromhex(digest(moved.parameters))[:CHECK] != step.check:
        raise OutOfStepError(f"round {step.round} leads to another model than the server's")
    return moved


def _is_of(plan: Plan, step: Step, clients: int) -> bool:
    """Return whether the plan, made from the same state, is the one of the step."""
    asked = (step.round, step.attempt, step.cohort)
    return (plan.round, plan.attempt, bitmap(plan.cohort, clients)) == asked


def asked(header: Header, state: State, call: Call) -> Plan:
    """Return the plan that a call means.

    Raises:
        OutOfStepError: the call is of another round, or the server's plan is another one.
    """
    if call.round != state.round:
        raise OutOfStepError(f"round {call.round} is asked where {state.round} follows")
    try:
        plan = plan_of(header, state, call.attempt, call.cohort)
        refuse_large(plan)
    except (ReportError, SettingsError) as error:
        raise OutOfStepError(str(error)) from None
    if check_of(encode(plan)) != call.check:
        raise OutOfStepError(f"round {call.round} is planned in another way than the server's")
    return plan


def refuse_large(plan: Plan) -> None:
    """Raise ReportError where a plan's report would be larger than a message, before anything is made for it."""
    if (size := report_size(plan)) > MOST:
        raise ReportError(f"{size} bytes of slopes are asked, and a message has at most {MOST}")


def refuse_other_state(header: Header, state: State) -> None:
    """Raise OutOfStepError unless a state that came from elsewhere is of the kind that the run's own are."""
    own = header.algorithm.optimizer.init(header.federation.layout.size)
    blocks = len(header.federation.layout.blocks(header.algorithm.blocks))
    found, due = ({name: (array.shape, array.dtype) for name, array in of.items()} for of in (state.memory, own))
    if found != due or len(state.squares) not in (0, blocks):
        raise OutOfStepError("a snapshot's state is not one of this run's method")


@dataclass(slots=True)
class Window:
    """The latest steps, as many as are cheaper to send than a snapshot."""

    most_bytes: int
    """Beyond it, steps go that the newest snapshot makes needless."""
    _steps: deque[tuple[Step, int]] = field(default_factory=deque[tuple[Step, int]], repr=False)
    _bytes: int = 0

    def append(self, step: Step) -> None:
        """Add the step after the last."""
        size = len(encode(step))
        self._steps.append((step, size))
        self._bytes += size

    def trim(self, snapshot: int) -> None:
        """Drop the oldest steps, but none that leads on from `snapshot`, a version."""
        while self._steps and self._bytes > self.most_bytes and self._steps[0][0].round < snapshot:
            self._bytes -= self._steps.popleft()[1]

    def reaches(self, version: int) -> bool:
        """Return whether the window leads on from a version, cheaply enough."""
        return bool(self._steps) and self._steps[0][0].round <= version

    def since(self, version: int) -> tuple[Step, ...]:
        """Return steps from a version on that the window reaches, as many as fit a message."""
        found: list[Step] = []
        total = 0
        start = version - self._steps[0][0].round if self._steps else 0
        for step, size in islice(self._steps, start, None):
            total += size
            if found and total > PART:
                break
            found.append(step)
        return tuple(found)
