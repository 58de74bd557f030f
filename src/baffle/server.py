"""The server's half of a round: what to ask, and what to make of the answers. Pure: state goes in and comes out."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

import msgspec
import numpy as np
from numpy.typing import NDArray

from baffle import checks
from baffle.aggregators import weighted_mean
from baffle.errors import DivergenceError, ReportError, SettingsError
from baffle.estimators import Estimator
from baffle.kernels import Kernels
from baffle.keys import Key
from baffle.memory import Memory
from baffle.messages import PROTOCOL, Aggregate, BlockPlan, Plan, Report, Round, decode
from baffle.parameters import Layout, Vector, digest
from baffle.reconstruction import reconstruct


class Federation(msgspec.Struct, frozen=True, kw_only=True):
    """What a run is about besides its method: the model, the clients, and the run's secret.

    Raises:
        SettingsError: a field is out of its range.
    """

    key: bytes
    """The run's secret, 32 bytes; every direction and cohort follows from it."""
    layout: Layout
    clients: int
    """How many there are, numbered from 0; ≥ 1."""
    participation: float = 1.0
    """Share of the clients asked in a round, in (0, 1]; at least one is."""
    quorum: float = 0.5
    """Share of the cohort that must answer, in (0, 1]; a round with fewer is tried again with a new key."""
    most_samples: int = 1
    """Largest weight of a report: samples of the largest client, or 1 when all weigh the same."""
    costs: tuple[float, ...] = ()
    """Share of a forward pass that a probe of each of the method's blocks runs, in (0, 1]; empty where it is always
    the whole."""

    def __post_init__(self) -> None:
        Key(self.key)
        checks.at_least("clients", self.clients, 1)
        checks.at_least("most_samples", self.most_samples, 1)
        for cost in self.costs:
            if not 0 < cost <= 1:
                raise SettingsError("costs", cost, "must be above 0 and at most 1")
        for name, share in (("participation", self.participation), ("quorum", self.quorum)):
            if not 0 < share <= 1:
                raise SettingsError(name, share, "must be above 0 and at most 1")

    @property
    def cohort_size(self) -> int:
        """Clients asked in a round."""
        return max(1, round(self.participation * self.clients))

    @property
    def least(self) -> int:
        """Fewest reports that close a round."""
        return max(1, math.ceil(self.quorum * self.cohort_size))


@dataclass(frozen=True, slots=True)
class State:
    """All that survives a round: the same on the server and on every client that keeps in step."""

    parameters: Vector
    """θ, [n]."""
    average: Vector
    """Exponential average of θ, [n]."""
    memory: Memory
    """The optimizer's."""
    round: int = 0
    """Rounds done; the version of θ."""
    attempt: int = 0
    """Failed attempts at the next round."""
    squares: tuple[float, ...] = ()
    """Recent mean square of each block's averaged slopes, which estimates ‖g_b‖²; empty before the first round."""


class Method(Protocol):
    """What an algorithm decides; everything else of a round is the same for all."""

    @property
    def estimator(self) -> Estimator:
        """How slopes are measured."""
        ...

    @property
    def bits(self) -> int:
        """Of a slope."""
        ...

    @property
    def local_steps(self) -> int:
        """H."""
        ...

    @property
    def local_rate(self) -> float:
        """η of the clients' own steps."""
        ...

    def groups_of(self, cohort: int) -> int:
        """Return G for a cohort of that many clients."""
        ...

    def batch_of(self, federation: Federation) -> int:
        """Return how many samples a client's mini-batch has."""
        ...

    def blocks_of(self, federation: Federation, state: State) -> tuple[BlockPlan, ...]:
        """Return the blocks with their budgets, laws, bounds and costs."""
        ...

    def update(self, state: State, gradient: Vector) -> State:
        """Return the state with θ, average and memory after one step along an estimate [n]."""
        ...


@dataclass(frozen=True, slots=True)
class Outcome:
    """A round as it came out: the new state and the ledger's record of it."""

    state: State
    record: Round


def plan(method: Method, federation: Federation, state: State, present: Sequence[int] | None = None) -> Plan:
    """Return what the next round asks of whom. Deterministic: equal arguments, equal plan.

    Args:
        method: the algorithm.
        federation: the run's.
        state: after the round before.
        present: numbers of the clients that can be asked, ascending; None is all of them.

    Raises:
        SettingsError: the sums of such a round could overflow, or a block would get too few probes.
    """
    key = _round_key(federation, state.round, state.attempt)
    cohort = cohort_of(federation, state.round, state.attempt, present)
    made = Plan(
        protocol=PROTOCOL,
        round=state.round,
        attempt=state.attempt,
        key=key.fold("directions").secret,
        cohort=cohort,
        quorum=min(federation.least, len(cohort)),
        groups=method.groups_of(len(cohort)),
        steps=method.local_steps,
        rate=method.local_rate,
        batch=method.batch_of(federation),
        most_samples=federation.most_samples,
        bits=method.bits,
        estimator=method.estimator,
        blocks=method.blocks_of(federation, state),
    )
    made.refuse_overflow()
    return made


def cohort_of(
    federation: Federation, number: int, attempt: int, present: Sequence[int] | None = None
) -> tuple[int, ...]:
    """Return the clients that an attempt at round `number` asks, ascending, drawn from `present`; None is all."""
    size = federation.cohort_size
    if present is None:
        present = range(federation.clients)
    if len(present) <= size:
        return tuple(present)
    generator = _round_key(federation, number, attempt).fold("cohort").generator()
    drawn: list[int] = generator.choice(len(present), size, replace=False).tolist()
    return tuple(sorted(present[place] for place in drawn))


def _round_key(federation: Federation, number: int, attempt: int) -> Key:
    return Key(federation.key).fold("round", number, attempt)


def advance(method: Method, state: State, plan: Plan, reports: Iterable[bytes], kernels: Kernels) -> Outcome:
    """Return the state after a round whose encoded `reports` came in, in whatever order.

    Reports that do not fit are left out with their reason. Below the quorum nothing changes but the attempt's number.

    Raises:
        DivergenceError: θ would leave the finite numbers; the state that was passed in is the last good one.
    """
    answers, left_out = _sort(plan, reports)
    clients = tuple(sorted(answers))
    uploads = tuple(answers[client].size for client in clients)
    missing = tuple((client, "no answer") for client in plan.cohort if client not in answers)
    named = {client for client, _ in left_out}
    left_out += [(client, reason) for client, reason in missing if client not in named]
    record = Round(plan, clients, uploads, tuple(sorted(left_out, key=str)), None, None)
    if len(clients) < plan.quorum:
        return Outcome(replace(state, attempt=state.attempt + 1), record)
    aggregate = _aggregate(plan, [answers[client] for client in clients])
    moved = apply(method, state, plan, aggregate, kernels)
    record = msgspec.structs.replace(record, aggregate=aggregate, digest=digest(moved.parameters))
    return Outcome(moved, record)


def apply(method: Method, state: State, plan: Plan, aggregate: Aggregate, kernels: Kernels) -> State:
    """Return the state after a round with this aggregate: what the server does, and everyone who replays a ledger.

    Raises:
        DivergenceError: θ would leave the finite numbers.
        ReportError: the aggregate does not fit the plan, or the plan the model.
    """
    plan.refuse_other_model(state.parameters.size)
    sums = aggregate.integers(plan)
    with np.errstate(over="ignore", invalid="ignore"):  # caught below, in words
        gradient = reconstruct(plan, sums, aggregate.weight, state.parameters.size, kernels)
        moved = method.update(state, gradient)
    if not np.isfinite(moved.parameters).all():
        raise DivergenceError(
            f"round {state.round} would make a weight infinite; the model of the round before is kept. "
            "A smaller rate, a larger budget or gradient clipping usually helps"
        )
    return replace(
        moved, round=state.round + 1, attempt=0, squares=_squares(plan, sums, aggregate.weight, state.squares)
    )


@dataclass(frozen=True, slots=True)
class _Answer:
    integers: NDArray[np.int64]
    samples: int
    group: int
    size: int


def _sort(plan: Plan, reports: Iterable[bytes]) -> tuple[dict[int, _Answer], list[tuple[int | None, str]]]:
    """Return the reports that count by client, and the others with their reasons.

    Sorted first, so that the order of arrival decides nothing: not even which of two reports of one client counts.
    """
    answers: dict[int, _Answer] = {}
    left_out: list[tuple[int | None, str]] = []
    for data in sorted(reports):
        client = None
        try:
            report = decode(data, Report)
            client = report.client
            answer = _Answer(report.integers(plan), report.samples, plan.group(client), len(data))
            if client in answers:
                raise ReportError("a second report of the round")
            answers[client] = answer
        except ReportError as error:
            left_out.append((client, str(error)))
    return answers, left_out


def _aggregate(plan: Plan, answers: list[_Answer]) -> Aggregate:
    """Return Σ over all reports, group by group, as precise as a report. Groups weigh what their samples weigh."""
    sums = np.zeros(plan.shape, np.int64)
    groups: dict[int, list[_Answer]] = {}
    for answer in answers:
        groups.setdefault(answer.group, []).append(answer)
    for group, own in groups.items():
        weights = np.array([answer.samples for answer in own])
        sums[group] = weighted_mean(np.stack([answer.integers for answer in own]), weights, plan.places)
    return Aggregate.of(sum(answer.samples for answer in answers), sums, plan.bits)


def _squares(plan: Plan, sums: NDArray[np.int64], weight: int, before: tuple[float, ...]) -> tuple[float, ...]:
    """Return each block's mean square slope: at once when it rises, by a tenth a round when it falls.

    Integers are squared and added exactly, so that a plan made from this is the same on every machine.
    """
    unit = plan.groups / (plan.quantiser.levels * weight)
    squares: list[float] = []
    first = 0
    for number, block in enumerate(plan.blocks):
        part = sums[:, :, first : first + block.budget].ravel().tolist()
        root = math.sqrt(sum(value * value for value in part) / len(part))
        size = root * unit * block.bound
        now = size * size
        old = before[number] if before else now
        squares.append(now if now > old else old + 0.1 * (now - old))
        first += block.budget
    return tuple(squares)
