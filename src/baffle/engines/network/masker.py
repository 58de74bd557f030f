"""A client's part in secure sums: what it answers when it is asked, and what it forgets."""

from __future__ import annotations

import logging
import secrets
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime

from baffle.certificates import Signer
from baffle.client import Contribution
from baffle.engines.network.commitments import Book, Commitments, MemoryBook
from baffle.engines.network.covert import Confirm, Enrol, Meet, Told
from baffle.engines.network.dialogue import CHECK
from baffle.errors import ReportError
from baffle.keys import Key
from baffle.mechanisms.private import Randomised
from baffle.messages import Plan
from baffle.parameters import Vector
from baffle.secure import Candidate, Masked, Member, Pledge, Request, Ring, Roster, Slot, subject_of, usual_threshold

log = logging.getLogger("baffle")


@dataclass(slots=True, kw_only=True)
class Masker:
    """A client's secrets, in memory alone: one that is started again begins a new epoch, and never goes back.

    What it has given away is in a book, which outlives it.
    """

    number: int
    signer: Signer
    certificate: bytes
    """PEM, of the key that signs."""
    authority: bytes
    """`ca.pem`."""
    minimum: int = 2
    """Fewest reports in a sum that this client lets be opened, ≥ 2, whatever the server asks."""
    book: Book = field(default_factory=MemoryBook)
    """Of what was given away, by run."""
    random: Callable[[int], bytes] = secrets.token_bytes
    revoked: Callable[[bytes], bool] = lambda _: False
    """Whether a member's certificate, PEM, is revoked, as far as this client knows."""
    _run: bytes = b""
    _candidate: Candidate | None = field(default=None, repr=False)
    _member: Member | None = field(default=None, repr=False)
    _pledges: dict[Slot, Pledge] = field(default_factory=dict[Slot, Pledge], repr=False)
    _masked: dict[Slot, Masked] = field(default_factory=dict[Slot, Masked], repr=False)

    @property
    def epoch(self) -> bytes:
        """The name of the epoch that this client is a member of; empty without one."""
        return self._member.roster.digest[:CHECK] if self._member is not None else b""

    def enter(self, run: bytes) -> None:
        """Take note of the run that this client is in, by its name: of no other is anything answered."""
        if run != self._run:
            self._run, self._candidate, self._member = run, None, None
            self._pledges, self._masked = {}, {}

    def enrol(self, asked: Enrol) -> Told:
        """Return a signed key for an epoch, the same when it is asked again.

        Raises:
            ReportError: the epoch is of another run, or would open sums of fewer reports than this client admits.
        """
        terms = asked.terms
        if not self._run or terms.run != self._run:
            raise ReportError("an epoch of another run is asked for than this client is in")
        if terms.least < self.minimum:
            raise ReportError(f"sums of {terms.least} reports are asked for, and at least {self.minimum} are admitted")
        if self._candidate is None or self._candidate.terms != terms:
            self._candidate = Candidate.draw(self.number, terms, self.random)
        return Told(enrolment=self._candidate.enrolment(self.signer, self.certificate))

    def meet(self, met: Meet) -> Told:
        """Return a pledge in a new epoch.

        Raises:
            ReportError: a member's key is not under its signature, the epoch is not what this client enrolled for, or
                fewer than two thirds of its members could open a sum.
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
        needed, members = usual_threshold(len(roster.members)), len(roster.members)
        if roster.terms.threshold < needed:
            # Else a server that lies could choose half, and play two halves against each other with one colluder.
            told = f"{roster.terms.threshold} of {members} members could open a sum"
            raise ReportError(f"{told}, and no fewer than {needed} are admitted")
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

    def folded(self, key: Key) -> Key:
        """Return the key of batches and rounding in this epoch: a slot that is asked again in another has other ones.

        Raises:
            ReportError: this client is in no epoch.
        """
        roster = self._known().roster
        return key.fold("secure", self._run.hex(), roster.terms.epoch, roster.digest.hex())

    def mask(
        self, plan: Plan, parameters: Vector, cohort: tuple[int, ...], contribution: Callable[[], Contribution]
    ) -> Told:
        """Return the masked report on a plan, and the pledge for the next round.

        Args:
            plan: as it follows from this client's own state.
            parameters: θ [n] of that state.
            cohort: whose masks are to be in the sum.
            contribution: makes the report, at the first time that it is asked for.

        Raises:
            ReportError: nothing was pledged for the round, the cohort is too small or not the epoch's, a sum of this
                slot or a later one may be opened already, or one of fewer reports than its noise is made for.
        """
        member, slot = self._known(), Slot(plan.round, plan.attempt)
        if slot not in self._masked:
            self._given().refuse_masking(slot)
            _refuse_less_noise(plan, member.roster)
            own, subject = contribution(), subject_of(plan, parameters)
            self._member, masked = member.mask(slot, cohort, Ring.of(plan), own.integers, own.samples, subject)
            self._masked[slot] = masked
        return Told(masked=self._masked[slot], pledge=self._pledged(Slot(plan.round + 1, 0)))

    def confirm(self, asked: Confirm) -> Told:
        """Return this client's signature of whose reports came, once it is on record that their sum may be opened.

        Raises:
            ReportError: it is not about what was masked, or about too few reports, a second sum of the slot or of an
                earlier one may be opened, or that can't be recorded.
        """
        member, consent = self._known().confirm(asked.closing, self.signer)
        self._commit(member, consent.slot)
        return Told(consent=consent)

    def open(self, request: Request) -> Told:
        """Return this client's shares, once it is on record that the sum may be opened.

        Raises:
            ReportError: as `confirm`, or too few members have signed whose reports came.
        """
        member, answer = self._known().unmask(request)
        self._commit(member, answer.slot)
        return Told(answer=answer)

    def forget(self, before: int) -> None:
        """Drop the secrets of rounds that are done."""
        if self._member is not None and before > self._member.round:
            self._member = self._member.forget(before)
            self._pledges = {slot: pledge for slot, pledge in self._pledges.items() if slot.round >= before}
            self._masked = {slot: masked for slot, masked in self._masked.items() if slot.round >= before}

    def _commit(self, member: Member, slot: Slot) -> None:
        """Record that the sum which a member now agrees to may be opened, and let it have agreed."""
        before = self._given()
        after = before.opening(slot, member.transcript(slot))
        if after != before:
            self.book.commit(self._run.hex(), after)
        self._member = member

    def _given(self) -> Commitments:
        return self.book.commitments(self._run.hex())

    def _pledged(self, slot: Slot) -> Pledge:
        if slot not in self._pledges:
            self._member, self._pledges[slot] = self._known().pledge(slot, self.random)
        return self._pledges[slot]

    def _known(self) -> Member:
        if self._member is None:
            raise ReportError("this client is in no epoch")
        return self._member


def _refuse_less_noise(plan: Plan, roster: Roster) -> None:
    """Refuse an epoch in which a private run's sum could be opened of fewer reports than its account counts on.

    Where the noise of a sum is that of its reports together, a server that lies could begin an epoch of few members,
    whose sum has a part of the noise alone. Noise that the server adds is the same for a sum of any size.
    """
    carried = isinstance(plan.privacy, Randomised) or (plan.privacy is not None and plan.privacy.shares > 0)
    if carried and roster.terms.least < plan.quorum:
        told = f"sums of {roster.terms.least} reports are opened in this epoch"
        raise ReportError(f"{told}, and what the run promises counts on {plan.quorum} or more")
