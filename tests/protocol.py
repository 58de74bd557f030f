"""A server that does whatever it likes with clients that keep to the rules, and an account of what it then knows.

Clients are the real ones (`Masker`, with `Member` and `Commitments` in it) and so are all messages. What is modelled is
what the server can compute: which secrets it has t shares of, and which sums of reports are bare when all masks that it
can make are taken off. Used by `tests/secure/test_protocol.py` and `benchmarks/protocol_model.py`.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import dataclass, field
from fractions import Fraction
from functools import cache
from random import Random
from unittest.mock import patch

import numpy as np
from msgspec.structs import replace

from baffle.client import Contribution
from baffle.directions import Rademacher
from baffle.engines.network.commitments import Commitments, MemoryBook
from baffle.engines.network.covert import Confirm, Enrol, Meet
from baffle.engines.network.masker import Masker
from baffle.errors import ReportError
from baffle.estimators import CentredDifference
from baffle.messages import PROTOCOL, BlockPlan, Plan
from baffle.secure import (
    Closing,
    Enrolment,
    Masked,
    Pledge,
    Request,
    Ring,
    Roster,
    Slot,
    Terms,
    subject_of,
    usual_threshold,
)
from baffle.secure import epoch as epochs
from baffle.secure.consent import consent_to
from baffle.secure.messages import Deposit
from baffle.secure.pledge import binding_of, transcript_of
from secured import CA, NOW, RUN, signer, signing

SLOTS = tuple(Slot(number, attempt) for number in range(3) for attempt in range(2))
PLAN = Plan(
    PROTOCOL,
    0,
    0,
    bytes(32),
    tuple(range(7)),
    2,
    1,
    1,
    0.1,
    1,
    1,
    8,
    CentredDifference(scale=0.1),
    (BlockPlan(0, 4, 1, 1.0, Rademacher(), 1.0),),
)
MODELS = (np.zeros(4, np.float32), np.ones(4, np.float32))
RING = Ring.of(PLAN)


@dataclass(frozen=True)
class Rules:
    """Which of the rules clients keep to; without one of them the model must find what it is there for."""

    book: bool = True
    """They remember over epochs and restarts what they let be opened."""
    folded: bool = True
    """Their batches and rounding follow from the epoch."""
    signed: bool = True
    """They tell no share before t have signed the same."""


class BrokenError(AssertionError):
    """A promise of the protocol does not hold."""


class NoBook(MemoryBook):
    def commitments(self, run: str) -> Commitments:
        return Commitments()


@cache
def _signatory(certificate: bytes, authority: bytes) -> epochs.Signatory:
    return _read(certificate, authority, NOW)


_read = epochs.Signatory.read


@contextmanager
def cheap(rules: Rules) -> Iterator[None]:
    """Look at each certificate once; and, where there is no such rule, at no signature of what came."""

    with (
        patch.object(epochs, "Signatory", Remembered),
        patch("baffle.engines.network.masker.datetime", Clock),
        nullcontext() if rules.signed else patch("baffle.secure.member.refuse_unsigned", _anything),
    ):
        yield


class Remembered:
    @staticmethod
    def read(certificate: bytes, authority: bytes, _: object) -> epochs.Signatory:
        return _signatory(certificate, authority)


class Clock:
    @staticmethod
    def now(_: object) -> object:
        return NOW


def _anything(*_: object) -> None:
    """Let every request pass."""


@dataclass
class Sums:
    """Sums over the same integers that the server knows: may one of these be solved for?"""

    rows: list[dict[object, Fraction]] = field(default_factory=list)
    """In reduced echelon form; a row's first key is its pivot, which no other row has."""

    def add(self, members: frozenset[object]) -> None:
        row = {name: Fraction(1) for name in members}
        for other in self.rows:
            pivot = next(iter(other))
            if pivot in row:
                _subtract(row, other, row[pivot])
        if not row:
            return
        pivot = next(iter(row))
        row = {pivot: Fraction(1)} | {name: value / row[pivot] for name, value in row.items() if name != pivot}
        for other in self.rows:
            if pivot in other:
                _subtract(other, row, other[pivot])
        self.rows.append(row)

    def solved(self) -> list[object]:
        """Return whatever is known by itself: e_j is a combination of the rows if and only if it is one of them."""
        return [next(iter(row)) for row in self.rows if len(row) == 1]


def _subtract(row: dict[object, Fraction], other: dict[object, Fraction], times: Fraction) -> None:
    for name, value in other.items():
        row[name] = row.get(name, Fraction(0)) - times * value
        if not row[name]:
            del row[name]


@dataclass
class Seen:
    """What the server has of one slot in one epoch, that is of one roster."""

    roster: Roster
    pledges: dict[int, Pledge] = field(default_factory=dict)
    reports: dict[int, tuple[Masked, tuple[int, ...], int]] = field(default_factory=dict)
    """By member, with the cohort and the model for which it was masked."""
    signatures: dict[bytes, dict[int, bytes]] = field(default_factory=lambda: defaultdict(dict))
    """By transcript."""
    shares: dict[tuple[int, bool], set[int]] = field(default_factory=lambda: defaultdict(set))
    """Who has told a share, by owner and whether it was of b."""
    opened: set[bytes] = field(default_factory=set)
    """Transcripts for which honest members told shares."""


@dataclass
class World:
    """Clients 0 to n − 1, of which some do what the server likes."""

    clients: int
    colluders: frozenset[int]
    rules: Rules = Rules()
    maskers: list[Masker] = field(default_factory=list)
    books: list[MemoryBook] = field(default_factory=list)
    enrolled: dict[int, dict[int, Enrolment]] = field(default_factory=dict)
    """Of the terms of an epoch's number, by client."""
    terms: dict[int, Terms] = field(default_factory=dict)
    seen: dict[tuple[bytes, Slot], Seen] = field(default_factory=dict)
    forgot: set[int] = field(default_factory=set)
    """Whose folders were deleted."""
    agreed: dict[tuple[int, Slot], set[bytes]] = field(default_factory=lambda: defaultdict(set))
    """Transcripts that a client has let be opened."""

    def __post_init__(self) -> None:
        for number in range(self.clients):
            self.books.append(MemoryBook() if self.rules.book else NoBook())
            self.maskers.append(self._started(number))

    def _started(self, number: int) -> Masker:
        pair = signing(number)
        masker = Masker(
            number=number,
            signer=signer(number),
            certificate=pair.certificate,
            authority=CA.certificate,
            book=self.books[number],
        )
        masker.enter(RUN)
        return masker

    @property
    def honest(self) -> list[int]:
        return [number for number in range(self.clients) if number not in self.colluders]

    # What the server may do at any time. Whoever refuses raises ReportError; the driver goes on.

    def restart(self, number: int) -> None:
        """A client's process ends and another begins, with its folder."""
        self.maskers[number] = self._started(number)

    def wipe(self, number: int) -> None:
        """A client's folder is deleted."""
        self.books[number].runs.clear()
        self.forgot.add(number)
        self.restart(number)

    def enrol(self, among: Sequence[int], low: bool = False, start: int = 0) -> int:
        """Ask for keys for an epoch; return its number."""
        threshold = len(among) // 2 + 1 if low else usual_threshold(len(among))
        number = len(self.terms)
        self.terms[number] = Terms(RUN, number, start, max(2, threshold), 2)
        self.enrolled[number] = {}
        for client in among:
            with suppress(ReportError):
                self.ask_key(number, client)
        return number

    def ask_key(self, epoch: int, client: int) -> None:
        told = self.maskers[client].enrol(Enrol(self.terms[epoch])).enrolment
        self.enrolled[epoch][client] = told

    def meet(self, epoch: int, client: int, slot: Slot, without: Sequence[int] = ()) -> None:
        """Tell a client who is in its epoch, in truth or not."""
        shown = tuple(one for number, one in sorted(self.enrolled[epoch].items()) if number not in without)
        self._pledged(client, self.maskers[client].meet(Meet(shown, slot)).pledge)

    def vow(self, client: int, slot: Slot) -> None:
        self._pledged(client, self.maskers[client].pledge(slot).pledge)

    def _pledged(self, client: int, pledge: Pledge) -> None:
        member = self.maskers[client]._member
        seen = self.seen.setdefault((pledge.digest, pledge.slot), Seen(member.roster))
        seen.pledges[client] = pledge

    def mask(self, client: int, slot: Slot, cohort: Sequence[int], model: int = 0) -> None:
        """Ask a client for its report, for a cohort and at a model of the server's choice."""
        plan = replace(PLAN, round=slot.round, attempt=slot.attempt)
        own = Contribution(client, 1, np.zeros(plan.words, np.int64))
        told = self.maskers[client].mask(plan, MODELS[model], tuple(sorted(cohort)), lambda: own)
        roster = self.maskers[client]._member.roster
        seen = self.seen[roster.digest, slot]
        seen.reports.setdefault(client, (told.masked, tuple(sorted(cohort)), model))
        self._pledged(client, told.pledge)

    def confirm(self, client: int, slot: Slot, reported: Sequence[int]) -> None:
        masker = self.maskers[client]
        if masker._member is None:
            return
        digest = masker._member.roster.digest
        consent = masker.confirm(Confirm(Closing(slot, digest, tuple(sorted(reported))))).consent
        transcript = masker._member.transcript(slot)
        self.seen[digest, slot].signatures[transcript][client] = consent.signature
        self.agreed[client, slot].add(transcript)

    def open(self, client: int, slot: Slot, reported: Sequence[int]) -> None:
        """Ask a client for its shares, with all that the server has."""
        masker = self.maskers[client]
        if masker._member is None or (seen := self.seen.get((masker._member.roster.digest, slot))) is None:
            return
        _, cohort, model = seen.reports.get(client, (None, seen.roster.members, 0))
        reported = tuple(sorted(reported))
        subject = subject_of(replace(PLAN, round=slot.round, attempt=slot.attempt), MODELS[model])
        binding = binding_of(seen.roster.digest, slot, cohort, RING.bits, PLAN.words + 1, subject)
        transcript = transcript_of(binding, reported)
        signatures = seen.signatures[transcript] | {
            number: consent_to(transcript, slot, number, signer(number)).signature
            for number in self.colluders & set(reported)
        }
        signers = tuple(sorted(signatures))
        deposits = tuple(self._deposit(seen, owner, client) for owner in cohort if owner != client)
        whole = b"".join(signatures[number] for number in signers)
        request = Request(slot, seen.roster.digest, cohort, reported, deposits, signers, whole)
        answer = masker.open(request).answer
        self.agreed[client, slot].add(transcript)
        if client not in self.colluders:
            seen.opened.add(transcript)
            for owner in cohort:
                if owner not in answer.unreadable:
                    seen.shares[owner, owner in reported].add(client)

    def _deposit(self, seen: Seen, owner: int, holder: int) -> Deposit:
        pledge = seen.pledges.get(owner)
        if pledge is None or holder not in seen.roster.members:
            return Deposit(bytes(12), bytes(48), bytes(16), b"")
        rank, place = seen.roster.others(owner).index(holder), seen.roster.place(holder)
        masked, cohort, _ = seen.reports.get(owner, (None, (), 0))
        witness = b""
        if masked is not None and holder in cohort:
            at = 8 * [number for number in cohort if number != owner].index(holder)
            witness = masked.witnesses[at : at + 8]
        sealed, told = pledge.sealed[48 * rank : 48 * rank + 48], pledge.shares_told[16 * place : 16 * place + 16]
        return Deposit(pledge.nonce, sealed, told, witness)

    def forget(self, client: int, before: int) -> None:
        """Show a client that rounds are done."""
        self.maskers[client].forget(before)

    def round(
        self,
        epoch: int,
        slot: Slot,
        *,
        reporting: Sequence[int],
        asked: Sequence[int],
        anew: bool = False,
    ) -> None:
        """Do what a server does that follows the protocol, with these reporting and these asked for shares."""
        members = sorted(self.enrolled[epoch])
        for act in (
            *[lambda i=i: self.meet(epoch, i, slot) for i in members if anew],
            *[lambda i=i: self.vow(i, slot) for i in members],
            *[lambda i=i: self.mask(i, slot, members) for i in reporting if i in members],
        ):
            with suppress(ReportError):
                act()
        for act in (self.confirm, self.open):
            for client in asked:
                with suppress(ReportError):
                    act(client, slot, [i for i in reporting if i in members])

    # What may not be.

    def check(self) -> None:
        """Raise BrokenError where the server knows what it must not."""
        sums: dict[Slot, Sums] = defaultdict(Sums)
        for (digest, slot), seen in self.seen.items():
            for crowd in self.refused(slot, seen) if self.promised(seen) else ():
                sums[slot].add(frozenset((number, digest if self.rules.folded else b"") for number in crowd))
        for slot, found in sums.items():
            if alone := found.solved():
                raise BrokenError(f"{slot}: the report of client {alone[0][0]} can be solved for")
        for (client, slot), transcripts in self.agreed.items():
            kept = self.rules.book and client not in self.forgot | self.colluders
            if kept and len(transcripts) > 1:
                raise BrokenError(f"{slot}: client {client} let {len(transcripts)} sums be opened")

    def promised(self, seen: Seen) -> bool:
        """Return whether anything is promised against so many colluders among the members of an epoch."""
        threshold, members = seen.roster.terms.threshold, set(seen.roster.members)
        working = len(self.colluders & members)
        return working < 2 * threshold - len(members) and threshold - working >= 2

    def refused(self, slot: Slot, seen: Seen) -> list[set[int]]:
        """Return the sums that are known of a slot in an epoch; raise BrokenError where one must not be."""
        least = seen.roster.terms.threshold - len(self.colluders & set(seen.roster.members))
        if len(seen.opened) > 1:
            raise BrokenError(f"{slot}: {len(seen.opened)} sets of reports were opened in one epoch")
        crowds = self.bare(seen)
        for crowd in crowds:
            if len(crowd) < least:
                raise BrokenError(f"{slot}: the sum of {sorted(crowd)} is known, and {least} are promised")
            if len({seen.reports[number][1:] for number in crowd}) > 1:
                raise BrokenError(f"{slot}: reports on different questions are in one sum")
        if len(crowds) > 1:
            raise BrokenError(f"{slot}: {len(crowds)} sums are known in one epoch")
        return crowds

    def known(self, seen: Seen, owner: int, own: bool) -> bool:
        """Return whether the server has a member's b (`own`), or its escrow and with it its seeds."""
        holders = seen.shares[owner, own] | (self.colluders & set(seen.roster.members))
        return owner in self.colluders or len(holders) >= seen.roster.terms.threshold

    def bare(self, seen: Seen) -> list[set[int]]:
        """Return the least sets of honest members whose sum the server can compute.

        A member's report has its own mask, which goes where b is known, and one with each other member of the cohort
        that it was shown; where the two are honest and neither's escrow is known, that goes only in the sum of both.
        """
        reports = {i: cohort for i, (_, cohort, _) in seen.reports.items() if i not in self.colluders}
        sealed = {i for i in seen.roster.members if not self.known(seen, i, own=False)}
        partners = {i: {j for j in cohort if j != i and {i, j} <= sealed} for i, cohort in reports.items()}
        found: list[set[int]] = []
        left = set(reports)
        while left:
            crowd, edge = set(), {left.pop()}
            while edge:
                number = edge.pop()
                crowd.add(number)
                edge |= partners.get(number, set()) - crowd
            left -= crowd
            mutual = all(j in partners and i in partners[j] for i in crowd & set(partners) for j in partners[i])
            if crowd <= set(reports) and mutual and all(self.known(seen, i, own=True) for i in crowd):
                found.append(crowd)
        return found


ACTS = ("round", "again", "enrol", "meet", "vow", "mask", "confirm", "open", "forget", "restart", "wipe")
WEIGHTS = (6, 4, 3, 5, 5, 8, 10, 10, 1, 1, 0.3)


def step(world: World, random: Random) -> str:
    """Do one thing at random; return what."""
    act = random.choices(ACTS, WEIGHTS)[0]
    client, slot = random.randrange(world.clients), random.choice(SLOTS)
    everybody = list(range(world.clients))
    with suppress(ReportError):
        _do(world, random, act, client, slot, everybody)
    return act


def _most(random: Random, members: Sequence[int]) -> list[int]:
    """Return all of these or all but one, mostly."""
    gone = random.sample(members, min(len(members), random.choices((0, 1, 2), (5, 4, 1))[0]))
    return [number for number in members if number not in gone]


def _do(world: World, random: Random, act: str, client: int, slot: Slot, everybody: list[int]) -> None:  # noqa: C901
    latest = max(world.enrolled, default=None)
    if act in ("round", "again") or latest is None:
        if latest is None or act == "again" or random.random() < 0.3:
            latest, anew = world.enrol(_most(random, everybody), random.random() < 0.1), True
        else:
            anew = False
        reporting = _most(random, sorted(world.enrolled[latest]))
        world.round(latest, slot, reporting=reporting, asked=_most(random, everybody), anew=anew)
        return
    epoch = random.choice(list(world.enrolled)) if random.random() < 0.2 else latest
    members = sorted(world.enrolled[epoch])
    match act:
        case "enrol":
            world.enrol(_most(random, everybody), random.random() < 0.1)
        case "meet":
            without = random.sample(members, 1) if members and random.random() < 0.1 else ()
            world.meet(epoch, client, slot, [i for i in without if i != client])
        case "vow":
            world.vow(client, slot)
        case "mask":
            cohort = members if random.random() < 0.8 else _most(random, members)
            world.mask(client, slot, cohort, int(random.random() < 0.1))
        case "confirm":
            world.confirm(client, slot, _most(random, members))
        case "open":
            world.open(client, slot, _most(random, members))
        case "forget":
            world.forget(client, random.randrange(3))
        case "restart":
            world.restart(client)
        case _:
            world.wipe(client)


def drawn_world(random: Random, rules: Rules) -> World:
    """Return 4 to 7 clients, up to t − 1 of whom work with the server: mostly as many as the promises are for."""
    clients = random.randint(4, 7)
    threshold = usual_threshold(clients)
    most = random.choice((0, 0, min(2 * threshold - clients - 1, threshold - 2), threshold - 1))
    return World(clients, frozenset(random.sample(range(clients), random.randint(0, most))), rules)


def play(steps: int, seed: int, rules: Rules = Rules(), length: int = 60) -> tuple[dict[str, int], int]:
    """Take so many steps, in worlds of `length` each; return how often each was done, and how many sums were opened.

    Raises:
        BrokenError: a promise does not hold; says which, and after how many steps.
    """
    random, done, opened = Random(seed), defaultdict(int), 0
    with cheap(rules):
        for at in range(steps):
            if at % length == 0:
                world = drawn_world(random, rules)
            done[step(world, random)] += 1
            try:
                world.check()
            except BrokenError as error:
                raise BrokenError(f"after {at + 1} steps: {error}") from None
            if at % length == length - 1:
                opened += sum(len(world.bare(seen)) for seen in world.seen.values())
    return dict(done), opened
