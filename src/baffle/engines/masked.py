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
from baffle.engines.suspicion import Suspicion
from baffle.kernels import Kernels
from baffle.keys import BYTES, Key
from baffle.messages import Message, Plan, decode, encode
from baffle.parameters import Vector
from baffle.runtimes import Runtime
from baffle.secure import (
    AbandonedError,
    Aggregation,
    Candidate,
    GroupTesting,
    Member,
    Pledge,
    Ring,
    Roster,
    Slot,
    SpoiltError,
    Terms,
    subject_of,
    usual_threshold,
)
from baffle.secure.epoch import LONGEST
from baffle.server import Summed


@dataclass(slots=True)
class Masked:
    """Clients that mask their reports from each other's secrets, by `baffle.secure`, all of it in this process.

    Every message is encoded and decoded as on a wire. An epoch lasts until a group has strangers to it.
    """

    clients: Sequence[Client]
    """In the order of their numbers."""
    runtime: Runtime
    kernels: Kernels
    unavailable: float = 0.0
    """Chance that a client does not answer in a round, 0 to 1."""
    chance: Key | None = None
    """What decides who does not; needed if `unavailable` is above 0."""
    size: int = 0
    """Fewest clients of a group that is summed by itself; 0 sums a cohort's reports in one."""
    minimum: int = 2
    """Fewest reports of which the sum of a group is opened, ≥ 2; that of a whole cohort needs the plan's quorum."""
    random: Callable[[int], bytes] = secrets.token_bytes
    """Of keys, masks and shares."""
    _identities: _Identities = field(default_factory=lambda: _Identities(), repr=False)
    _epochs: list[_Epoch] = field(default_factory=list["_Epoch"], init=False, repr=False)
    """One for each group of the last attempt."""
    _begun: int = field(default=0, init=False, repr=False)
    """Epochs so far."""
    _suspicion: Suspicion | None = field(default=None, init=False, repr=False)

    def present(self) -> Sequence[int] | None:
        """Return the clients that can be asked, ascending: those that are not named as liars; None where that is all.

        Raises:
            StoppedError: to ask anybody would spend or wait in vain.
        """
        suspicion = self._suspects()
        suspicion.refuse_going_on()
        return [one.number for one in self.clients if one.number not in suspicion.found] if suspicion.found else None

    def gather(self, plan: Plan, parameters: Vector) -> Summed:
        """Return the sum of the clients that are there; nobody's where fewer are than a sum is opened of."""
        suspicion, subject = self._suspects(), subject_of(plan, parameters)
        groups = suspicion.groups(plan, [number for number in plan.cohort if number not in suspicion.found])
        self._epochs = [self._epoch(plan, group) for group in groups]
        asked = frozenset(number for group in groups for number in group)
        there = [one for one in present(plan, self.clients, self.unavailable, self.chance) if one.number in asked]
        servers = [epoch.pledged(plan, group, subject) for epoch, group in zip(self._epochs, groups, strict=True)]
        for one in contributions(plan, parameters, there, self.runtime, self.kernels):
            place = next(place for place, group in enumerate(groups) if one.client in group)
            servers[place] = self._epochs[place].reported(servers[place], one)
        sound: list[Summed] = []
        spoilt: list[tuple[int, ...]] = []
        for epoch, server in zip(self._epochs, servers, strict=True):
            try:
                sound.append(epoch.summed(server.close()))
            except AbandonedError:
                continue
            except SpoiltError:
                spoilt.append(server.close().reported)
        summed = suspicion.total(plan, sound, spoilt)
        if len(summed.uploads) < plan.quorum and (sound or spoilt):
            # Whoever has signed has no part in another sum of this round in this epoch.
            self._epochs = []
        return summed

    def close(self) -> None:
        """Forget all secrets."""
        self._epochs = []

    def _suspects(self) -> Suspicion:
        if self._suspicion is None:
            key = self.chance or Key(self.random(BYTES))
            self._suspicion = Suspicion(GroupTesting(key.fold("group testing")), self.size)
        return self._suspicion

    def _epoch(self, plan: Plan, group: tuple[int, ...]) -> _Epoch:
        """Return an epoch that has a group of the plan's cohort, a new one if need be."""
        for epoch in self._epochs:
            if epoch.serves(plan, group):
                return epoch
        self._begun += 1
        minimum = self.minimum if self.size else max(2, plan.quorum)
        terms = Terms(self.random(8), self._begun, plan.round, usual_threshold(len(group)), minimum)
        return _Epoch.of(terms, group, self._identities, self.random)


@dataclass(slots=True)
class _Epoch:
    """Clients that have each other's keys."""

    roster: Roster
    members: dict[int, Member] = field(repr=False)
    identities: _Identities = field(repr=False)
    random: Callable[[int], bytes] = field(repr=False)

    @classmethod
    def of(
        cls, terms: Terms, group: tuple[int, ...], identities: _Identities, random: Callable[[int], bytes]
    ) -> _Epoch:
        candidates = [Candidate.draw(number, terms, random) for number in group]
        pairs = [identities.of(number) for number in group]
        enrolments = [
            candidate.enrolment(Signer.read(pair.key), pair.certificate)
            for candidate, pair in zip(candidates, pairs, strict=True)
        ]
        roster = Roster.of(terms, enrolments, identities.authority.certificate, datetime.now(UTC))
        return cls(roster, {one.number: Member.of(one, roster) for one in candidates}, identities, random)

    def serves(self, plan: Plan, group: tuple[int, ...]) -> bool:
        """Return whether a group of a plan's cohort can be added up in it."""
        terms = self.roster.terms
        known = set(group) <= set(self.roster.members)
        return known and len(group) >= terms.least and plan.round <= terms.start + LONGEST - 1

    def pledged(self, plan: Plan, group: tuple[int, ...], subject: bytes) -> Aggregation:
        """Return a slot that begins."""
        slot = Slot(plan.round, plan.attempt)
        pledges: list[Pledge] = []
        for number in group:
            self.members[number], pledge = self.members[number].pledge(slot, self.random)
            pledges.append(_carried(pledge))
        return Aggregation.of(self.roster, slot, Ring.of(plan), plan.words + 1, subject, pledges)

    def reported(self, server: Aggregation, one: Contribution) -> Aggregation:
        """Return the state with a client's masked report."""
        self.members[one.client], masked = self.members[one.client].mask(
            server.slot, server.cohort, server.ring, one.integers, one.samples, server.subject
        )
        return server.report(_carried(masked))

    def summed(self, server: Aggregation) -> Summed:
        """Return the sum, by the signatures and shares of all that have reported.

        Raises:
            AbandonedError, SpoiltError: as `Aggregation.sums`.
        """
        for number in server.reported:
            signer = Signer.read(self.identities.of(number).key)
            self.members[number], consent = self.members[number].confirm(_carried(server.closing()), signer)
            server = server.consent(_carried(consent))
        for number in server.reported:
            self.members[number], answer = self.members[number].unmask(_carried(server.request(number)))
            server = server.answer(_carried(answer))
        sums = server.sums()
        self.members = {number: member.forget(server.slot.round + 1) for number, member in self.members.items()}
        return Summed(sums.slopes, sums.weight, {number: server.upload(number) for number in sums.reported})


def _carried(message: Message) -> Message:
    """Return what arrives of a message."""
    return decode(encode(message), type(message))


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
