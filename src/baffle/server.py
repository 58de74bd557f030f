"""The server's half of a round: what to ask, and what to make of the answers. Pure: state goes in and comes out."""

from __future__ import annotations

import math
import secrets
from collections.abc import Callable, Iterable, Sequence
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
from baffle.mechanisms import Privacy, Protection, RandomisedPrivacy
from baffle.memory import Memory
from baffle.messages import PROTOCOL, Aggregate, BlockPlan, Plan, Report, Round, decode
from baffle.parameters import Layout, Vector, digest
from baffle.reconstruction import reconstruct

MOST_CLIENTS = 1 << 20
"""Most clients of a federation: a bound on what its plans can make anybody allocate."""


class Federation(msgspec.Struct, frozen=True, kw_only=True):
    """What a run is about besides its method: the model, the clients, and the run's secret.

    Raises:
        SettingsError: a field is out of its range.
    """

    key: bytes
    """The run's secret, 32 bytes; every direction and cohort follows from it."""
    layout: Layout
    clients: int
    """How many there are, numbered from 0; 1 to `MOST_CLIENTS`."""
    participation: float = 1.0
    """Share of the clients asked in a round, in (0, 1]; at least one is."""
    quorum: float = 0.5
    """Share of the cohort that must answer, in (0, 1]; a round with fewer is tried again with a new key."""
    most_samples: int = 1
    """Largest weight of a report: samples of the largest client, or 1 when all weigh the same."""
    costs: tuple[float, ...] = ()
    """Share of a forward pass that a probe of each of the method's blocks runs, in (0, 1]; empty where it is always
    the whole."""
    secure: bool = False
    """Whether the server learns sums of reports alone."""
    minimum: int = 2
    """Fewest reports of which a secure sum is opened, ≥ 2."""
    sum_size: int = 0
    """Fewest clients of a group whose reports are summed by themselves, ≥ 3; 0 sums a cohort's reports in one."""

    def __post_init__(self) -> None:
        Key(self.key)
        checks.within("clients", self.clients, 1, MOST_CLIENTS)
        checks.at_least("minimum", self.minimum, 2)
        if self.secure and self.cohort_size < self.minimum:
            rule = f"must be at most {self.cohort_size}, the clients asked in a round: a sum of fewer is never opened"
            raise SettingsError("minimum", self.minimum, rule)
        self._refuse_groups()
        checks.at_least("most_samples", self.most_samples, 1)
        for cost in self.costs:
            if not 0 < cost <= 1:
                raise SettingsError("costs", cost, "must be above 0 and at most 1")
        for name, share in (("participation", self.participation), ("quorum", self.quorum)):
            if not 0 < share <= 1:
                raise SettingsError(name, share, "must be above 0 and at most 1")

    def _refuse_groups(self) -> None:
        if not self.sum_size:
            return
        if not self.secure:
            raise SettingsError("sum_size", self.sum_size, "must be 0 where sums are not secure")
        checks.within("sum_size", self.sum_size, max(3, self.minimum), self.cohort_size)

    @property
    def cohort_size(self) -> int:
        """Clients asked in a round."""
        return max(1, round(self.participation * self.clients))

    @property
    def least(self) -> int:
        """Fewest reports that close a round; of a cohort that is summed in one, two thirds of it or more."""
        least = max(1, math.ceil(self.quorum * self.cohort_size))
        if not self.secure:
            return least
        return max(least, self.sum_size or max(self.minimum, -(-2 * self.cohort_size // 3)))


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
    size: float = 0.0
    """Of a client's slopes, the largest root mean square in a private run; 0 in another."""


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

    @property
    def privacy(self) -> Privacy | None:
        """What hides a client's data in the sums, or nothing."""
        ...

    def protection(self, state: State, blocks: Sequence[BlockPlan]) -> Protection | None:
        """Return what a plan with these blocks asks clients to do to their slopes."""
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
    _refuse_unprotected(method, federation)
    key = _round_key(federation, state.round, state.attempt)
    cohort = cohort_of(federation, state.round, state.attempt, present)
    blocks = method.blocks_of(federation, state)
    made = Plan(
        protocol=PROTOCOL,
        round=state.round,
        attempt=state.attempt,
        key=key.fold("directions").secret,
        cohort=cohort,
        quorum=federation.least if _strict(method, federation) else min(federation.least, len(cohort)),
        groups=method.groups_of(len(cohort)),
        steps=method.local_steps,
        rate=method.local_rate,
        batch=method.batch_of(federation),
        most_samples=federation.most_samples,
        bits=method.bits,
        estimator=method.estimator,
        blocks=blocks,
        privacy=method.protection(state, blocks),
    )
    made.refuse_overflow()
    return made


def _strict(method: Method, federation: Federation) -> bool:
    """Return whether a round with few reports must not count, however few clients are there."""
    return federation.secure or (method.privacy is not None and method.privacy.shares > 0)


def _refuse_unprotected(method: Method, federation: Federation) -> None:
    """Raise SettingsError where sums would not be what their protection is accounted for."""
    if federation.secure and method.groups_of(federation.cohort_size) > 1:
        raise SettingsError("groups", method.groups_of(federation.cohort_size), "must be 1 where sums are secure")
    if method.privacy is None:
        return
    if federation.sum_size and (method.privacy.shares or isinstance(method.privacy, RandomisedPrivacy)):
        rule = "must be 0 with mechanism = 'shares' or 'rqm', whose account counts on one sum of the whole cohort"
        raise SettingsError("sum_size", federation.sum_size, rule)
    if federation.most_samples > 1:
        raise SettingsError("weight", "samples", "must be 'equal' in a private run: a heavy client would show")
    if method.privacy.shares > federation.least or (method.privacy.shares and not federation.secure):
        raise SettingsError("shares", method.privacy.shares, f"must be at most {federation.least}, of secure sums")


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


@dataclass(frozen=True, slots=True)
class Summed:
    """A round of which the server has seen the sum alone."""

    integers: NDArray[np.int64]
    """Σ_c w_c q_c, [`plan.words`]; of no meaning where nobody is in it."""
    weight: int
    """Σ_c w_c."""
    uploads: dict[int, int]
    """Bytes from each client that is in the sum; empty where the round was abandoned."""
    left_out: tuple[tuple[int, str], ...] = ()
    """Clients that are not in it for another reason than no answer."""


def nobody(left_out: tuple[tuple[int, str], ...] = ()) -> Summed:
    """Return what is known of a round that was abandoned: nothing."""
    return Summed(np.zeros(0, np.int64), 0, {}, left_out)


def advance(
    method: Method,
    state: State,
    plan: Plan,
    reports: Iterable[bytes] | Summed,
    kernels: Kernels,
    randomness: Callable[[int], bytes] = secrets.token_bytes,
) -> Outcome:
    """Return the state after a round whose encoded `reports` came in, in whatever order, or whose sum.

    Reports that do not fit are left out with their reason. Below the quorum nothing changes but the attempt's number.

    Args:
        method: the algorithm.
        state: before the round.
        plan: the round's.
        reports: of its clients.
        kernels: for reconstruction.
        randomness: so many bytes for noise that protects: nobody may predict them.

    Raises:
        DivergenceError: θ would leave the finite numbers; the state that was passed in is the last good one.
    """
    summed, left_out = (reports, list(reports.left_out)) if isinstance(reports, Summed) else _added(plan, reports)
    clients = tuple(sorted(summed.uploads))
    uploads = tuple(summed.uploads[client] for client in clients)
    missing = tuple((client, "no answer") for client in plan.cohort if client not in summed.uploads)
    named = {client for client, _ in left_out}
    left_out += [(client, reason) for client, reason in missing if client not in named]
    record = Round(plan, clients, uploads, tuple(sorted(left_out, key=str)), None, None)
    if len(clients) < plan.quorum:
        return Outcome(replace(state, attempt=state.attempt + 1), record)
    aggregate = _aggregate(plan, summed, randomness)
    moved = apply(method, state, plan, aggregate, kernels)
    own = digest(moved.parameters)
    average = own if moved.average is moved.parameters else digest(moved.average)
    return Outcome(moved, msgspec.structs.replace(record, aggregate=aggregate, digest=own, average=average))


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
        moved,
        round=state.round + 1,
        attempt=0,
        squares=_squares(plan, sums, aggregate.weight, state.squares),
        size=_size(method, state.size, plan, aggregate),
    )


@dataclass(frozen=True, slots=True)
class _Answer:
    integers: NDArray[np.int64]
    samples: int
    group: int
    size: int
    inside: int


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
            answer = _Answer(report.integers(plan), report.samples, plan.group(client), len(data), report.inside(plan))
            if client in answers:
                raise ReportError("a second report of the round")
            answers[client] = answer
        except ReportError as error:
            left_out.append((client, str(error)))
    return answers, left_out


def _added(plan: Plan, reports: Iterable[bytes]) -> tuple[Summed, list[tuple[int | None, str]]]:
    """Return Σ over the reports that count, group by group, and the others with their reasons."""
    answers, left_out = _sort(plan, reports)
    sums = np.zeros(plan.shape, np.int64)
    inside = [0] * plan.groups
    for group in range(plan.groups):
        own = [answer for answer in answers.values() if answer.group == group]
        if own:
            weights = np.array([answer.samples for answer in own])
            sums[group] = weighted_mean(np.stack([answer.integers for answer in own]), weights, plan.places)
            inside[group] = sum(answer.inside for answer in own)
    words = np.append(sums.ravel(), inside) if plan.privacy is not None and plan.privacy.counts else sums.ravel()
    weight = sum(answer.samples for answer in answers.values())
    return Summed(words, weight, {client: answer.size for client, answer in answers.items()}), left_out


def _aggregate(plan: Plan, summed: Summed, randomness: Callable[[int], bytes]) -> Aggregate:
    """Return the sums as precise as a report, with what noise is the server's to add."""
    words = summed.integers
    if plan.privacy is not None:
        words = words + plan.privacy.noise(words.size, randomness)
    slopes = math.prod(plan.shape)
    inside = tuple(words[slopes:].tolist())
    return Aggregate.of(summed.weight, words[:slopes].reshape(plan.shape), plan.bits, inside)


def _size(method: Method, size: float, plan: Plan, aggregate: Aggregate) -> float:
    """Return the bound of the next round's slopes."""
    if method.privacy is None or not aggregate.inside:
        return size
    # Each client counts as ±L.
    inside = (sum(aggregate.inside) / plan.quantiser.levels + aggregate.weight) / 2
    return method.privacy.adapted(size, inside, aggregate.weight)


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
