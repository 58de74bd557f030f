"""The server's side of a slot: reports in, requests out, shares in, the sum out. Pure: state goes in and comes out."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from baffle.errors import ReportError
from baffle.messages import encode
from baffle.secure.consent import refuse_false
from baffle.secure.derive import CHECK
from baffle.secure.epoch import Roster
from baffle.secure.messages import (
    SEALED,
    SIGNATURE,
    Answer,
    Closing,
    Consent,
    Deposit,
    Masked,
    Pledge,
    Request,
    Slot,
    ascending,
)
from baffle.secure.pledge import binding_of, checked, name_of, report_binding, transcript_of
from baffle.secure.recovery import recovered, refuse_forged
from baffle.secure.refusals import AbandonedError
from baffle.secure.ring import Ring, Words
from baffle.secure.shamir import SECRET


@dataclass(frozen=True, slots=True)
class Sums:
    """What the server learns of a slot, and nothing else."""

    slopes: NDArray[np.int64]
    """Σ_{i∈U} w_i q_i, int64 [K]."""
    weight: int
    """Σ_{i∈U} w_i."""
    reported: tuple[int, ...]
    """U, ascending."""


@dataclass(frozen=True, slots=True)
class Aggregation:
    """A slot in progress; `of` begins one."""

    roster: Roster
    slot: Slot
    ring: Ring
    count: int
    """Words of a report, K + 1."""
    subject: bytes
    """Of the plan and θ, 32 bytes: `subject_of`."""
    pledges: tuple[Pledge, ...]
    """Of the cohort, in its order."""
    reports: tuple[Masked, ...] = ()
    reported: tuple[int, ...] = ()
    """U, once no more reports are taken; empty before."""
    consents: tuple[Consent, ...] = ()
    answers: tuple[Answer, ...] = ()

    @classmethod
    def of(
        cls, roster: Roster, slot: Slot, ring: Ring, count: int, subject: bytes, pledges: Iterable[Pledge]
    ) -> Aggregation:
        """Return a slot that begins, for the cohort of those whose pledges these are.

        Raises:
            ReportError: the cohort is too small or too large for the ring, has a member twice, or a pledge is another
                slot's or roster's.
        """
        found = cls(roster, slot, ring, count, subject, tuple(sorted(pledges, key=lambda pledge: pledge.number)))
        ascending(found.cohort, "cohort")
        for pledge in found.pledges:
            if checked(roster, pledge).slot != slot:
                raise ReportError(f"the pledge of member {pledge.number} is for another slot")
        if not roster.terms.least <= len(found.pledges) <= ring.clients:
            raise ReportError(
                f"a cohort of {len(found.pledges)} where {roster.terms.least} to {ring.clients} are added up"
            )
        return found

    @property
    def cohort(self) -> tuple[int, ...]:
        """C, ascending."""
        return tuple(pledge.number for pledge in self.pledges)

    def report(self, masked: Masked) -> Aggregation:
        """Return the state with a member's masked report.

        Raises:
            ReportError: it is too late, a second one, a stranger's, for another slot, cohort or pledge, or has another
                length.
        """
        pledge = self._pledge(masked.number, masked.slot)
        if self.reported:
            raise ReportError(f"the report of member {masked.number} comes too late")
        if any(one.number == masked.number for one in self.reports):
            raise ReportError(f"a second report of member {masked.number}")
        if masked.binding != report_binding(self._binding(), name_of(pledge)):
            raise ReportError(
                f"the report of member {masked.number} was masked for another cohort, plan, model or pledge"
            )
        if len(masked.witnesses) != CHECK * (len(self.pledges) - 1):
            raise ReportError(f"the report of member {masked.number} has too few or too many witnesses")
        self.ring.unpack(masked.words, self.count)
        return replace(self, reports=(*self.reports, masked))

    def close(self) -> Aggregation:
        """Return the state in which no more reports are taken.

        Raises:
            AbandonedError: fewer have come than are ever added up; nobody was asked for anything, nothing is revealed.
        """
        if self.reported:
            return self
        found = tuple(sorted(masked.number for masked in self.reports))
        if len(found) < self.roster.terms.least:
            raise AbandonedError(f"{len(found)} reports where at least {self.roster.terms.least} are added up")
        return replace(self, reported=found)

    def closing(self) -> Closing:
        """Return what the members in U are to sign, once closed.

        Raises:
            ReportError: the slot is not closed.
        """
        self._refuse_open()
        return Closing(self.slot, self.roster.digest, self.reported)

    def consent(self, consent: Consent) -> Aggregation:
        """Return the state with a member's signature of U.

        Raises:
            ReportError: the slot is not closed, or the signature is of another slot or set, a stranger's, of a member
                whose report did not come, or a second one.
        """
        self._refuse_open()
        if consent.slot != self.slot or consent.number not in self.reported:
            raise ReportError(f"a signature of member {consent.number} does not belong to this slot")
        if any(one.number == consent.number for one in self.consents):
            raise ReportError(f"a second signature of member {consent.number}")
        refuse_false(self.roster, consent, transcript_of(self._binding(), self.reported))
        return replace(self, consents=(*self.consents, consent))

    @property
    def agreed(self) -> bool:
        """Whether so many members have signed U that shares can be asked for."""
        return bool(self.reported) and len(self.consents) >= self.roster.terms.threshold

    def request(self, holder: int) -> Request:
        """Return what to ask a member of the cohort, once agreed: those in U first, but late ones can answer as well.

        Raises:
            ReportError: the slot is not closed, too few have signed, or the member is not in the cohort.
        """
        self._pledge(holder, self.slot)
        self._refuse_open()
        if not self.agreed:
            raise ReportError(f"{len(self.consents)} signatures where {self.roster.terms.threshold} are needed")
        signed = sorted(self.consents, key=lambda one: one.number)[: self.roster.terms.threshold]
        return Request(
            self.slot,
            self.roster.digest,
            self.cohort,
            self.reported,
            self._deposits(holder),
            tuple(one.number for one in signed),
            b"".join(one.signature for one in signed),
        )

    def _deposits(self, holder: int) -> tuple[Deposit, ...]:
        """Return what the cohort's other members have left for a holder."""
        # A list of an owner's peers lacks the owner: the holder stands one place further on for owners behind it.
        rank, place = CHECK * self.cohort.index(holder), self.roster.place(holder)
        told, sealed = slice(2 * CHECK * place, 2 * CHECK * (place + 1)), SEALED * place
        witnesses = {
            masked.number: masked.witnesses[at : at + CHECK]
            for masked in self.reports
            for at in [rank - CHECK * (masked.number < holder)]
        }
        return tuple(
            Deposit(pledge.nonce, pledge.sealed[at : at + SEALED], pledge.shares_told[told], witnesses.get(i, b""))
            for pledge in self.pledges
            if (i := pledge.number) != holder
            for at in [sealed - SEALED * (i < holder)]
        )

    def answer(self, answer: Answer) -> Aggregation:
        """Return the state with a member's shares.

        Raises:
            ForgeryError: a share is not the one whose hash its owner told; names the member that sent it.
            ReportError: the slot is not closed, or the answer is a stranger's, of another slot or a second one, or has
                another form.
        """
        self._pledge(answer.number, answer.slot)
        self._refuse_open()
        if any(one.number == answer.number for one in self.answers):
            raise ReportError(f"a second answer of member {answer.number}")
        ascending(answer.unreadable, "list of unreadable deposits")
        given = [i for i in self.cohort if i not in answer.unreadable]
        if len(given) + len(answer.unreadable) != len(self.cohort) or len(answer.shares) != SECRET * len(given):
            raise ReportError(f"the answer of member {answer.number} has not one share for each member of the cohort")
        refuse_forged(self.roster, self.pledges, self.reported, answer)
        return replace(self, answers=(*self.answers, answer))

    def upload(self, member: int) -> int:
        """Return the bytes of a member's pledge, report, signature and answer, whether or not all were needed.

        Raises:
            ReportError: the member has not reported.
        """
        masked = next((one for one in self.reports if one.number == member), None)
        if masked is None:
            raise ReportError(f"no report of member {member}")
        answer = Answer(self.slot, member, (), bytes(SECRET * len(self.pledges)))
        consent = Consent(self.slot, member, bytes(SIGNATURE))
        return sum(len(encode(part)) for part in (self._pledge(member, self.slot), masked, consent, answer))

    @property
    def complaints(self) -> tuple[tuple[int, int], ...]:
        """(holder, owner) where a holder says that it can't read what an owner left: one of the two lies."""
        return tuple(sorted((one.number, i) for one in self.answers for i in one.unreadable))

    @property
    def enough(self) -> bool:
        """Whether the answers tell every secret that the sum needs."""
        withheld = Counter(i for answer in self.answers for i in answer.unreadable)
        most = max(withheld.values(), default=0)
        return bool(self.reported) and len(self.answers) - most >= self.roster.terms.threshold

    def sums(self) -> Sums:
        """Return the sums over U, exact.

            Σ_{i∈U} x_i = Σ_{i∈U} (y_i − PRG(b_i)) + Σ_{d∈D} (Σ_{i∈U, i>d} PRG(h_di) − Σ_{i∈U, i<d} PRG(h_di))   mod 2^m

        Costs |C| secrets of t multiplications in Python each, and |U| · (1 + |D|) masks.

        Raises:
            AbandonedError: too few answers, so far.
            ForgeryError: what the answers tell is not what a member had pledged; names it.
            ReportError: no reports within the rules have these sums.
        """
        if not self.enough:
            raise AbandonedError(f"{len(self.answers)} answers do not tell all secrets; {self._needed}")
        own, seeds = recovered(self.roster, self.pledges, self.reported, self.answers)
        total: Words = np.zeros(self.count, self.ring.word)
        for masked in self.reports:
            total += self.ring.unpack(masked.words, self.count)
            total -= self.ring.mask(own[masked.number], self.count)
        for gone, shared in seeds.items():
            for i in self.reported:
                mask = self.ring.mask(shared[i], self.count)
                # i added this where i < gone, and took it away where i > gone.
                total = total - mask if i < gone else total + mask
        slopes, weight = self.ring.read(total, len(self.reported))
        return Sums(slopes, weight, self.reported)

    @property
    def _needed(self) -> str:
        return f"{self.roster.terms.threshold} are needed for each member of the cohort"

    def _binding(self) -> bytes:
        return binding_of(self.roster.digest, self.slot, self.cohort, self.ring.bits, self.count, self.subject)

    def _refuse_open(self) -> None:
        if not self.reported:
            raise ReportError("reports are still taken")

    def _pledge(self, member: int, slot: Slot) -> Pledge:
        if slot != self.slot:
            raise ReportError(f"a message of member {member} is for another slot")
        for pledge in self.pledges:
            if pledge.number == member:
                return pledge
        raise ReportError(f"client {member} is not in the cohort")


__all__ = ["Aggregation", "Sums"]
