"""A federation in one process whose server sees sums alone."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime

from baffle import certificates
from baffle.certificates import Pair, Signer
from baffle.client import Client, Contribution, contributions
from baffle.engines.presence import present
from baffle.kernels import Kernels
from baffle.keys import Key
from baffle.messages import Message, Plan, decode, encode
from baffle.parameters import Vector
from baffle.runtimes import Runtime
from baffle.secure import (
    AbandonedError,
    Aggregation,
    Candidate,
    Member,
    Pledge,
    Ring,
    Roster,
    Slot,
    Terms,
    subject_of,
    usual_threshold,
)
from baffle.secure.epoch import LONGEST
from baffle.server import Summed, nobody


@dataclass(slots=True)
class Masked:
    """Clients that mask their reports from each other's secrets, by `baffle.secure`, all of it in this process.

    Every message is encoded and decoded as on a wire. An epoch lasts until a cohort has strangers to it.
    """

    clients: Sequence[Client]
    """In the order of their numbers."""
    runtime: Runtime
    kernels: Kernels
    unavailable: float = 0.0
    """Chance that a client does not answer in a round, 0 to 1."""
    chance: Key | None = None
    """What decides who does not; needed if `unavailable` is above 0."""
    random: Callable[[int], bytes] = secrets.token_bytes
    """Of keys, masks and shares."""
    _identities: _Identities = field(default_factory=lambda: _Identities(), repr=False)
    _roster: Roster | None = field(default=None, init=False, repr=False)
    _members: dict[int, Member] = field(default_factory=dict[int, Member], init=False, repr=False)
    _epochs: int = field(default=0, init=False, repr=False)

    def present(self) -> None:
        """Return None: all clients can be asked."""

    def gather(self, plan: Plan, parameters: Vector) -> Summed:
        """Return the sum of the clients that are there; nobody's where fewer are than a sum is opened of."""
        server = self._pledged(self._epoch(plan), plan, subject_of(plan, parameters))
        there = present(plan, self.clients, self.unavailable, self.chance)
        for one in contributions(plan, parameters, there, self.runtime, self.kernels):
            server = self._reported(server, one)
        try:
            server = self._opened(server.close())
        except AbandonedError:
            return nobody()
        sums = server.sums()
        self._members = {number: member.forget(plan.round + 1) for number, member in self._members.items()}
        return Summed(sums.slopes, sums.weight, {number: server.upload(number) for number in sums.reported})

    def close(self) -> None:
        """Forget all secrets."""
        self._roster, self._members = None, {}

    def _epoch(self, plan: Plan) -> Roster:
        """Return the roster of an epoch that has the plan's cohort, a new one if need be."""
        roster = self._roster
        if roster is not None and _serves(roster, plan):
            return roster
        self._epochs += 1
        minimum = max(2, plan.quorum)
        terms = Terms(self.random(8), self._epochs, plan.round, usual_threshold(len(plan.cohort)), minimum)
        candidates = [Candidate.draw(number, terms, self.random) for number in plan.cohort]
        pairs = [self._identities.of(number) for number in plan.cohort]
        enrolments = [
            candidate.enrolment(Signer.read(pair.key), pair.certificate)
            for candidate, pair in zip(candidates, pairs, strict=True)
        ]
        found = Roster.of(terms, enrolments, self._identities.authority.certificate, datetime.now(UTC))
        self._roster, self._members = found, {one.number: Member.of(one, found) for one in candidates}
        return found

    def _pledged(self, roster: Roster, plan: Plan, subject: bytes) -> Aggregation:
        slot = Slot(plan.round, plan.attempt)
        pledges: list[Pledge] = []
        for number in plan.cohort:
            self._members[number], pledge = self._members[number].pledge(slot, self.random)
            pledges.append(_carried(pledge))
        return Aggregation.of(roster, slot, Ring.of(plan), plan.words + 1, subject, pledges)

    def _reported(self, server: Aggregation, one: Contribution) -> Aggregation:
        self._members[one.client], masked = self._members[one.client].mask(
            server.slot, server.cohort, server.ring, one.integers, one.samples, server.subject
        )
        return server.report(_carried(masked))

    def _opened(self, server: Aggregation) -> Aggregation:
        """Return the state with the answers of all that have reported."""
        for number in server.reported:
            signer = Signer.read(self._identities.of(number).key)
            self._members[number], consent = self._members[number].confirm(_carried(server.closing()), signer)
            server = server.consent(_carried(consent))
        for number in server.reported:
            self._members[number], answer = self._members[number].unmask(_carried(server.request(number)))
            server = server.answer(_carried(answer))
        return server


def _carried(message: Message) -> Message:
    """Return what arrives of a message."""
    return decode(encode(message), type(message))


def _serves(roster: Roster, plan: Plan) -> bool:
    """Return whether a plan's cohort can be added up in an epoch."""
    terms = roster.terms
    known = set(plan.cohort) <= set(roster.members)
    return known and len(plan.cohort) >= terms.least and plan.round <= terms.start + LONGEST - 1


class _Identities:
    """An authority and signing keys for the clients of a simulation, made when they are first needed."""

    def __init__(self) -> None:
        self._authority: Pair | None = None
        self._pairs: dict[int, Pair] = {}

    @property
    def authority(self) -> Pair:
        """The simulation's own."""
        if self._authority is None:
            self._authority = certificates.authority("simulation", 3650, datetime.now(UTC))
        return self._authority

    def of(self, number: int) -> Pair:
        """Return a client's."""
        if number not in self._pairs:
            self._pairs[number] = certificates.signing(self.authority, number, 3000, datetime.now(UTC))
        return self._pairs[number]
