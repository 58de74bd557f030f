"""What crosses the wire and reaches the disk in a run, counted on messages of the sizes that it will send."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from functools import cache, lru_cache
from itertools import groupby
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from baffle import server
from baffle.engines.presence import present
from baffle.header import Header
from baffle.ledger import DIGEST, MAGIC
from baffle.messages import PROTOCOL, Aggregate, BlockPlan, Intent, Plan, Report, Round, encode
from baffle.packing import packed_size
from baffle.planning.amount import Amount
from baffle.planning.budgets import Budgets, block_bytes, budgets, state_with
from baffle.secure import Ring, Slot
from baffle.secure.sizes import upload
from baffle.simulation import Secure, Simulation
from baffle.tally import drawn
from baffle.training import ATTEMPTS

_FRAME = 8 + DIGEST
"""Bytes of a ledger's frame around its record."""
LEAST, EXPECTED, MOST = range(3)


class Counts(msgspec.Struct, frozen=True):
    """Of a whole run; a client's are means over all clients, as in a run's summary.

    Forwards and upload are exact where budgets are fixed; the download is where, besides, every round's sums need all
    the bits that they may take: their range is from 2 bits to all, and all are expected. It is assumed that losses are
    finite and the run does not diverge.
    """

    forwards: Amount
    upload: Amount
    download: Amount
    received: Amount
    """Bytes that the server receives from all clients."""
    sent: Amount
    """Bytes that it sends to all of them."""
    ledger: Amount
    """Bytes of the ledger's file."""
    round_forwards: Amount
    """Of one client that answers, in a round; of all clients on average, as some hold fewer samples than a batch."""
    round_upload: Amount
    """Bytes of the largest report."""
    round_download: Amount
    """Bytes of the largest plan and aggregate."""
    answered: int
    """Reports that count, of all rounds and clients."""
    attempts: int
    """Tries at all rounds."""
    stops: int | None
    """The round in which the run ends before its time; None if it does not."""
    spent: bool
    """Whether it ends because too few clients have budget of privacy left, and not for want of reports."""


@dataclass(slots=True)
class _Sums:
    """What comes together, at least, as expected and at most."""

    forwards: NDArray[np.float64]
    upload: NDArray[np.int64]
    download: NDArray[np.int64]
    ledger: NDArray[np.int64]
    largest: NDArray[np.float64] = field(default_factory=lambda: np.zeros((3, 3)))
    """Of one client and round: forwards of a mean client, most bytes up, most bytes down."""
    answered: int = 0
    attempts: int = 0
    rounds: int = 0
    """That closed."""


@dataclass(frozen=True, slots=True)
class _Sizes:
    """A round's at least, as expected or at most."""

    blocks: int
    """Bytes of the plan's blocks."""
    directions: int
    forwards: float
    bits: int
    """Of the sums."""
    inside: int
    """A sum that tells how many clients' slopes were within their bound; 0 where none does."""


Expected = Callable[[int], tuple[BlockPlan, ...]]
"""A round's number -> the blocks that are expected."""


def count(simulation: Simulation, header: Header, rounds: int, expected: Expected) -> Counts:
    """Return what `rounds` rounds of a simulation cost, with `expected` blocks within the bounds that always hold.

    Cohorts and who answers are drawn as the run draws them.

    Raises:
        SettingsError: such a round can't be planned.
    """
    algorithm, federation = header.algorithm, header.federation
    bounds = budgets(algorithm, federation)
    ends = _ends(header, bounds)
    clients, start = federation.clients, len(MAGIC) + _FRAME + len(encode(header))
    shape = (3, clients)
    sums = _Sums(np.zeros(shape), np.zeros(shape, np.int64), np.zeros(shape, np.int64), np.full(3, start))
    fixed = algorithm.blocks_of(federation, state_with(algorithm)) if bounds.fixed else None
    tried = 0

    @cache
    def sizes(blocks: tuple[BlockPlan, ...]) -> _Sizes:
        return _sizes_of(blocks, header)

    def tries() -> Iterator[tuple[Plan, tuple[int, ...], _Sizes]]:
        for plan, answered in attempts(simulation, header, rounds):
            counted = () if federation.secure and len(answered) < plan.quorum else answered
            yield plan, counted, sizes(fixed or expected(plan.round))

    for _, alike in groupby(tries(), _bytes_follow_from):
        times, (plan, counted, own) = deque(enumerate(alike, 1), maxlen=1).pop()
        _add(sums, header, simulation.secure, plan, counted, (ends[0], own, ends[1]), times)
        tried = plan.attempt + 1 if len(counted) < plan.quorum else 0
    stops = sums.rounds if sums.rounds < rounds else None
    return _counts(sums, stops, spent=stops is not None and tried < ATTEMPTS)


def _bytes_follow_from(tried: tuple[Plan, tuple[int, ...], _Sizes]) -> tuple[Any, ...]:
    """Return what the bytes of an attempt follow from: alike in most rounds, if all take part in all."""
    plan, counted, own = tried
    return plan.round.bit_length(), plan.attempt, plan.cohort, counted, own


def attempts(simulation: Simulation, header: Header, rounds: int) -> Iterator[tuple[Plan, tuple[int, ...]]]:
    """Yield every plan of a run, with the first round's blocks, and the clients that answer it, ascending.

    It ends early with a round that is tried too often, or where too few clients have budget of privacy left.
    """
    federation, clients = header.federation, simulation.clients()
    chance = simulation.key.fold("unavailable")
    first = server.plan(header.algorithm, federation, state_with(header.algorithm))
    number = attempt = 0
    asked = np.zeros(federation.clients, np.int64)
    while number < rounds and attempt < ATTEMPTS:
        there = header.budget.allowed(asked, None) if header.budget is not None else None
        if there is not None and len(there) < federation.least:
            return
        cohort = server.cohort_of(federation, number, attempt, there)
        if header.budget is not None:
            asked[list(cohort)] += 1
        groups = header.algorithm.groups_of(len(cohort))
        plan = msgspec.structs.replace(first, round=number, attempt=attempt, cohort=cohort, groups=groups)
        answered = tuple(client.number for client in present(plan, clients, simulation.unavailable, chance))
        yield plan, answered
        number, attempt = (number + 1, 0) if len(answered) >= plan.quorum else (number, attempt + 1)


def _ends(header: Header, bounds: Budgets) -> tuple[_Sizes, _Sizes]:
    """Return what a round has at least and at most."""
    algorithm = header.algorithm
    low, high = block_bytes(algorithm, header.federation, bounds)
    if bounds.fixed:  # counted on the plan itself, free of rounding
        exact = _sizes_of(algorithm.blocks_of(header.federation, state_with(algorithm)), header)
        return replace(exact, bits=2, inside=0), replace(exact, inside=_inside(header)[1])
    (least, most), (few, many) = bounds.directions, bounds.forwards
    return _Sizes(low, least, few, 2, 0), _Sizes(high, most, many, algorithm.bits, _inside(header)[1])


def _inside(header: Header) -> tuple[int, int]:
    """Return a likely sum of what clients say of their norms, each ±L, and the largest with its noise; or zeros."""
    plan = server.plan(header.algorithm, header.federation, state_with(header.algorithm))
    if plan.privacy is None or not plan.privacy.counts:
        return 0, 0
    whole = plan.quantiser.levels * len(plan.cohort)
    return whole // 2, whole + plan.privacy.most(len(plan.cohort))


def _sizes_of(blocks: tuple[BlockPlan, ...], header: Header) -> _Sizes:
    """Return what a round with these blocks has."""
    algorithm, federation = header.algorithm, header.federation
    plan = msgspec.structs.replace(server.plan(algorithm, federation, state_with(algorithm)), blocks=blocks)
    return _Sizes(
        sum(len(encode(block)) for block in blocks), plan.directions, plan.forwards, algorithm.bits, _inside(header)[0]
    )


def _add(
    sums: _Sums,
    header: Header,
    secure: Secure,
    plan: Plan,
    answered: tuple[int, ...],
    rows: tuple[_Sizes, ...],
    times: int,
) -> None:
    """Count one attempt, and others like it."""
    sums.attempts += times
    sums.rounds += times * (len(answered) >= plan.quorum)
    sums.answered += times * len(answered)
    envelope = len(encode(plan)) - sum(len(encode(block)) for block in plan.blocks)
    closed = len(answered) >= plan.quorum
    weights = header.samples if header.federation.most_samples > 1 else (1,) * header.federation.clients
    fill = drawn(np.array(header.samples, np.int64), plan.batch)
    done: dict[_Sizes, tuple[int, tuple[int, ...], int, int]] = {}
    for end, sizes in enumerate(rows):
        if sizes not in done:
            done[sizes] = _messages(header, secure, plan, answered, weights, sizes, envelope, closed)
        planned, uploads, aggregate, record = done[sizes]
        sums.forwards[end, list(answered)] += times * sizes.forwards * fill[list(answered)]
        sums.upload[end, list(answered)] += times * np.array(uploads, np.int64)
        sums.download[end, list(plan.cohort)] += times * planned
        sums.download[end] += times * aggregate
        sums.ledger[end] += times * record
        largest = (sizes.forwards * fill.mean(), max(uploads, default=0), planned + aggregate)
        sums.largest[:, end] = np.maximum(sums.largest[:, end], largest)


def _messages(
    header: Header,
    secure: Secure,
    plan: Plan,
    answered: tuple[int, ...],
    weights: tuple[int, ...],
    sizes: _Sizes,
    envelope: int,
    closed: bool,
) -> tuple[int, tuple[int, ...], int, int]:
    """Return the bytes of an attempt's plan, of its reports, of the aggregate (0 without one), and in the ledger."""
    words = plan.words + plan.steps * (sizes.directions - plan.directions)
    members = _members(len(plan.cohort), header.federation.sum_size)
    uploads = _uploads(secure, plan, answered, weights, words, members)
    weight = sum(weights[client] for client in answered)
    integers = packed_size(plan.groups * plan.steps * sizes.directions, sizes.bits)
    inside = (sizes.inside,) * plan.groups if words > plan.steps * sizes.directions else ()
    aggregate = _aggregate(weight, sizes.bits, integers, inside) if closed else 0
    missing = tuple((client, "no answer") for client in plan.cohort if client not in answered)
    spent = 0.5 if header.budget is not None else None  # any number takes as many bytes
    told = header.initial if closed else None  # any digest takes as many bytes
    record = Round(plan, answered, uploads, missing, None, told, spent, told)
    intent = _FRAME + len(encode(Intent.of(plan))) if header.guarded else 0
    planned = envelope + sizes.blocks
    other = len(encode(record)) - len(encode(plan)) - closed  # nothing in place of an aggregate takes a byte
    return planned, uploads, aggregate, intent + _FRAME + other + planned + aggregate


def _uploads(
    secure: Secure, plan: Plan, answered: tuple[int, ...], weights: tuple[int, ...], words: int, members: int
) -> tuple[int, ...]:
    """Return the bytes of each report; of masks, with what finishing a sum of so many members needs."""
    slopes = packed_size(words, plan.bits)
    match secure:
        case "none":
            return tuple(_report(plan.round, plan.attempt, one, weights[one], slopes) for one in answered)
        case "ideal":
            return (slopes,) * len(answered)
        case "masks":
            slot, ring = Slot(plan.round, plan.attempt), Ring.of(plan)
            return tuple(upload(slot, one, members, ring, words + 1) for one in answered)


def _members(cohort: int, size: int) -> int:
    """Return how many clients the largest group has whose reports are summed by themselves; `size` 0 is all of them."""
    return -(-cohort // max(1, cohort // size)) if size else cohort


@lru_cache(maxsize=1 << 16)
def _report(number: int, attempt: int, client: int, samples: int, slopes: int) -> int:
    return len(encode(Report(PROTOCOL, number, attempt, client, samples, bytes(slopes))))


@lru_cache(maxsize=1 << 12)
def _aggregate(weight: int, bits: int, integers: int, inside: tuple[int, ...]) -> int:
    return len(encode(Aggregate(weight, bits, bytes(integers), 0, inside)))


def _counts(sums: _Sums, stops: int | None, *, spent: bool) -> Counts:
    forwards, upload, download = sums.largest
    return Counts(
        forwards=_amount(sums.forwards.mean(axis=1)),
        upload=_amount(sums.upload.mean(axis=1)),
        download=_amount(sums.download.mean(axis=1)),
        received=_amount(sums.upload.sum(axis=1)),
        sent=_amount(sums.download.sum(axis=1)),
        ledger=_amount(sums.ledger),
        round_forwards=_amount(forwards),
        round_upload=_amount(upload),
        round_download=_amount(download),
        answered=sums.answered,
        attempts=sums.attempts,
        stops=stops,
        spent=spent,
    )


def _amount(ends: NDArray[Any]) -> Amount:
    return Amount(float(ends[LEAST]), float(ends[EXPECTED]), float(ends[MOST]))
