"""A client's part in secure sums: what it answers when it is asked, and what it forgets."""

from __future__ import annotations

import logging
import secrets
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime

from baffle.certificates import Signer
from baffle.client import Contribution
from baffle.engines.network.covert import Enrol, Meet, Told
from baffle.engines.network.dialogue import CHECK
from baffle.errors import ReportError
from baffle.messages import Plan
from baffle.secure import Candidate, Masked, Member, Pledge, Request, Ring, Roster, Slot

log = logging.getLogger("baffle")


@dataclass(slots=True, kw_only=True)
class Masker:
    """A client's secrets, in memory alone: one that is started again begins a new epoch, and never goes back."""

    number: int
    signer: Signer
    certificate: bytes
    """PEM, of the key that signs."""
    authority: bytes
    """`ca.pem`."""
    minimum: int = 2
    """Fewest reports in a sum that this client lets be opened, ≥ 2, whatever the server asks."""
    random: Callable[[int], bytes] = secrets.token_bytes
    revoked: Callable[[bytes], bool] = lambda _: False
    """Whether a member's certificate, PEM, is revoked, as far as this client knows."""
    _candidate: Candidate | None = field(default=None, repr=False)
    _member: Member | None = field(default=None, repr=False)
    _pledges: dict[Slot, Pledge] = field(default_factory=dict[Slot, Pledge], repr=False)
    _masked: dict[Slot, Masked] = field(default_factory=dict[Slot, Masked], repr=False)

    @property
    def epoch(self) -> bytes:
        """The name of the epoch that this client is a member of; empty without one."""
        return self._member.roster.digest[:CHECK] if self._member is not None else b""

    def enrol(self, asked: Enrol) -> Told:
        """Return a signed key for an epoch, the same when it is asked again.

        Raises:
            ReportError: the epoch would open sums of fewer reports than this client admits.
        """
        terms = asked.terms
        if terms.least < self.minimum:
            raise ReportError(f"sums of {terms.least} reports are asked for, and at least {self.minimum} are admitted")
        if self._candidate is None or self._candidate.terms != terms:
            self._candidate = Candidate.draw(self.number, terms, self.random)
        return Told(enrolment=self._candidate.enrolment(self.signer, self.certificate))

    def meet(self, met: Meet) -> Told:
        """Return a pledge in a new epoch.

        Raises:
            ReportError: a member's key is not under its signature, or the epoch is not what this client enrolled for.
        """
        candidate = self._candidate
        if candidate is None:
            if self._member is not None:
                return self.pledge(met.slot)
            raise ReportError("an epoch begins for which no key was asked")
        roster = Roster.of(candidate.terms, met.enrolments, self.authority, datetime.now(UTC))
        for one in met.enrolments:
            if self.revoked(one.certificate):
                raise ReportError(f"client {one.number} is in the epoch, and its certificate is revoked")
        self._member = Member.of(candidate, roster)
        self._candidate = None
        self._pledges, self._masked = {}, {}
        log.info("secure sums of %d clients, opened for %d or more", len(roster.members), roster.terms.least)
        return self.pledge(met.slot)

    def pledge(self, slot: Slot) -> Told:
        """Return the pledge for a slot, the same when it is asked again.

        Raises:
            ReportError: the slot is past, or too far ahead.
        """
        return Told(pledge=self._pledged(slot))

    def mask(self, plan: Plan, cohort: tuple[int, ...], contribution: Callable[[], Contribution]) -> Told:
        """Return the masked report on a plan, and the pledge for the next round.

        Raises:
            ReportError: nothing was pledged for the round, or the cohort is too small or not the epoch's.
        """
        member, slot = self._known(), Slot(plan.round, plan.attempt)
        if slot not in self._masked:
            own = contribution()
            self._member, masked = member.mask(slot, cohort, Ring.of(plan), own.integers, own.samples)
            self._masked[slot] = masked
        return Told(masked=self._masked[slot], pledge=self._pledged(Slot(plan.round + 1, 0)))

    def open(self, request: Request) -> Told:
        """Return this client's shares.

        Raises:
            ReportError: the request is not about what was masked, or about too few reports.
        """
        self._member, answer = self._known().unmask(request)
        return Told(answer=answer)

    def forget(self, before: int) -> None:
        """Drop the secrets of rounds that are done."""
        if self._member is not None and before > self._member.round:
            self._member = self._member.forget(before)
            self._pledges = {slot: pledge for slot, pledge in self._pledges.items() if slot.round >= before}
            self._masked = {slot: masked for slot, masked in self._masked.items() if slot.round >= before}

    def _pledged(self, slot: Slot) -> Pledge:
        if slot not in self._pledges:
            self._member, self._pledges[slot] = self._known().pledge(slot, self.random)
        return self._pledges[slot]

    def _known(self) -> Member:
        if self._member is None:
            raise ReportError("this client is in no epoch")
        return self._member
