"""The server's part in secure sums: who is asked for what until a round's sum can be opened."""

from __future__ import annotations

import logging
import secrets
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime

from baffle.engines.network.covert import Enrol, Meet, Open, Told, Vow
from baffle.engines.network.dialogue import CHECK
from baffle.errors import ReportError
from baffle.messages import Plan
from baffle.secure import (
    AbandonedError,
    Aggregation,
    Answer,
    Enrolment,
    ForgeryError,
    Pledge,
    Ring,
    Roster,
    Slot,
    Terms,
    checked,
    consistent,
    usual_threshold,
)
from baffle.secure.epoch import LONGEST, refuse_unsigned
from baffle.server import Summed, nobody

log = logging.getLogger("baffle")

RESTS = 64
"""Most rounds for which a client that did not enrol is left alone: asking costs the others a deadline."""
ENROL, PLEDGE, REPORT, ANSWER, DONE = range(5)
"""What a round waits for, one after another."""


@dataclass(slots=True)
class Epoch:
    """Clients that have each other's keys, or will."""

    terms: Terms
    asked: tuple[int, ...] = ()
    """Clients that were asked to enrol."""
    enrolments: dict[int, Enrolment] = field(default_factory=dict[int, Enrolment])
    roster: Roster | None = None
    pledges: dict[Slot, dict[int, Pledge]] = field(default_factory=dict[Slot, dict[int, Pledge]])

    @property
    def name(self) -> bytes:
        """What its members say that they are in; empty before the roster is there."""
        return self.roster.digest[:CHECK] if self.roster is not None else b""

    def serves(self, plan: Plan, epochs: Mapping[int, bytes], without: Collection[int]) -> bool:
        """Return whether a plan's cohort can be added up in it, given in which epoch each client says it is."""
        if self.roster is None or plan.round > self.terms.start + LONGEST - 1:
            return False
        own = [number for number in plan.cohort if epochs.get(number) == self.name]
        strangers = [number for number in plan.cohort if number not in own and number not in without]
        return not strangers and len(own) >= self.terms.least and not set(own) & set(without)

    def pledge(self, pledge: Pledge) -> None:
        """Keep a pledge.

        Raises:
            ReportError: it is not of this epoch.
        """
        if self.roster is None:
            raise ReportError("a pledge before the epoch has begun")
        self.pledges.setdefault(checked(self.roster, pledge).slot, {})[pledge.number] = pledge

    def forget(self, before: int) -> None:
        """Drop pledges of rounds that are done."""
        self.pledges = {slot: made for slot, made in self.pledges.items() if slot.round >= before}


@dataclass(slots=True)
class Gathering:
    """One attempt at a round with a secure sum, until it is opened or abandoned."""

    plan: Plan
    epoch: Epoch
    authority: bytes
    asked: tuple[int, ...]
    """Clients of the cohort that may take part."""
    liars: set[int] = field(default_factory=set[int])
    """The run's, to which this attempt adds."""
    stage: int = ENROL
    aggregation: Aggregation | None = None

    @property
    def slot(self) -> Slot:
        """Round and attempt."""
        return Slot(self.plan.round, self.plan.attempt)

    def missing(self) -> list[int]:
        """Return the clients that the stage waits for."""
        return [number for number in self.asked if self._owes(number)]

    def _owes(self, number: int) -> bool:
        match self.stage:
            case 0:
                return number not in self.epoch.enrolments
            case 1:
                return number not in self.epoch.pledges.get(self.slot, {})
            case 2:
                return number in self._sum().cohort and all(m.number != number for m in self._sum().reports)
            case 3:
                answered = any(one.number == number for one in self._sum().answers)
                return number in self._sum().reported and not answered and not self._sum().enough
            case _:
                return False

    def ask(self, number: int, epoch: bytes) -> Enrol | Meet | Vow | Open | tuple[int, ...] | None:
        """Return what a client is asked for now; the cohort of masks where that is its report; None is nothing.

        Args:
            number: the client's.
            epoch: in which it says it is.
        """
        if number not in self.asked or not self._owes(number):
            return None
        match self.stage:
            case 0:
                return Enrol(self.epoch.terms)
            case 1:
                known = epoch == self.epoch.name
                return Vow(self.slot) if known else Meet(tuple(self.epoch.enrolments.values()), self.slot)
            case 2:
                return self._sum().cohort
            case _:
                return Open(self._sum().request(number))

    def reports(self, number: int, told: Told) -> bool:
        """Return whether what a client says has the report that this attempt waits for: not one that comes again."""
        return told.masked is not None and self.stage == REPORT and told.masked.slot == self.slot and self._owes(number)

    def take(self, number: int, told: Told) -> None:
        """Take what a client says.

        Raises:
            ForgeryError: it contradicts what a client has said before; names it.
            ReportError: it does not belong here.
        """
        parts = [part for part in (told.enrolment, told.pledge, told.masked, told.answer) if part is not None]
        if any(part.number != number for part in parts):
            raise ReportError(f"client {number} speaks for another in secure sums")
        if told.enrolment is not None and self.stage == ENROL and number in self.asked:
            refuse_unsigned(self.epoch.terms, told.enrolment, self.authority, datetime.now(UTC))
            self.epoch.enrolments[number] = told.enrolment
        if told.pledge is not None and (self.stage == PLEDGE or told.pledge.slot.round > self.plan.round):
            self.epoch.pledge(told.pledge)
        if told.masked is not None and self.reports(number, told):
            self.aggregation = self._sum().report(told.masked)
        if told.answer is not None and self.stage == ANSWER and told.answer.slot == self.slot and self._owes(number):
            self._answered(told.answer)

    def drop(self, number: int) -> None:
        """Go on without a client that is no longer admitted; what it said before others were asked is forgotten."""
        self.asked = tuple(one for one in self.asked if one != number)
        if self.stage == ENROL:
            self.epoch.enrolments.pop(number, None)
        if self.stage == PLEDGE:
            self.epoch.pledges.get(self.slot, {}).pop(number, None)
        if self.stage == REPORT:
            reports = tuple(one for one in self._sum().reports if one.number != number)
            self.aggregation = replace(self._sum(), reports=reports)

    def next(self) -> None:
        """Go to the next stage with what has come.

        Raises:
            AbandonedError: too little has come.
            ReportError: what has come does not go together.
        """
        match self.stage:
            case 0:
                self.epoch.roster = self._roster()
            case 1:
                self.aggregation = self._pledged()
            case 2:
                self.aggregation = self._sum().close()
            case _:
                if not self._sum().enough:
                    raise AbandonedError(f"{len(self._sum().answers)} answers are too few to open the sum")
        self.stage += 1

    def summed(self) -> Summed:
        """Return the sum; takes a while.

        Raises:
            ForgeryError, ReportError: as `Aggregation.sums`.
        """
        for holder, owner in self._sum().complaints:
            log.warning("client %d can't read what client %d left for it: one of the two lies", holder, owner)
        found = self._sum().sums()
        self.epoch.forget(self.plan.round + 1)
        return Summed(found.slopes, found.weight, {number: self._sum().upload(number) for number in found.reported})

    def _answered(self, answer: Answer) -> None:
        try:
            self.aggregation = self._sum().answer(answer)
        except ForgeryError as error:
            self.liars.update(error.members)
            raise

    def _roster(self) -> Roster:
        enrolled = self.epoch.enrolments.values()
        if len(self.epoch.enrolments) < self.epoch.terms.least:
            raise AbandonedError(f"{len(self.epoch.enrolments)} clients have enrolled for secure sums")
        return Roster.of(self.epoch.terms, enrolled, self.authority, datetime.now(UTC))

    def _pledged(self) -> Aggregation:
        roster = self.epoch.roster
        if roster is None:
            raise AbandonedError("the epoch has not begun")
        made = self.epoch.pledges.get(self.slot, {})
        cohort, disputes = consistent(roster, {number: made[number] for number in self.asked if number in made})
        for one, other in disputes:
            log.warning("clients %d and %d say different things of the key they share: one of them lies", one, other)
        if len(cohort) < roster.terms.least:
            raise AbandonedError(f"{len(cohort)} clients have pledged for round {self.plan.round}")
        pledges = [made[number] for number in cohort]
        return Aggregation.of(roster, self.slot, Ring.of(self.plan), self.plan.words + 1, pledges)

    def _sum(self) -> Aggregation:
        if self.aggregation is None:
            raise ReportError("no reports are taken yet")
        return self.aggregation


@dataclass(slots=True)
class Convener:
    """What lasts from round to round: the epoch, and who has lied."""

    run: bytes
    """The run's public name."""
    authority: bytes
    """`ca.pem`: secure sums need signed keys."""
    epoch: Epoch | None = None
    liars: set[int] = field(default_factory=set[int])
    absent: dict[int, tuple[int, int]] = field(default_factory=dict[int, tuple[int, int]])
    """Clients that did not enrol: how often, and until which round they are left alone."""

    def begin(self, plan: Plan, epochs: Mapping[int, bytes]) -> Gathering:
        """Return an attempt that begins, in a new epoch if need be.

        Args:
            plan: what is asked.
            epochs: in which epoch each client says it is.
        """
        asked = self._asked(plan)
        epoch, without = self.epoch, set(plan.cohort) - set(asked)
        if epoch is None or not epoch.serves(plan, epochs, without):
            threshold, minimum = usual_threshold(len(asked)), max(2, plan.quorum)
            terms = Terms(self.run, secrets.randbits(62), plan.round, threshold, minimum)
            self.epoch = epoch = Epoch(terms, asked)
            return Gathering(plan, epoch, self.authority, asked, self.liars)
        return Gathering(plan, epoch, self.authority, asked, self.liars, PLEDGE)

    def _asked(self, plan: Plan) -> tuple[int, ...]:
        """Return the clients of the cohort that may take part: without those that rest, where the others are enough."""
        self._note_absent(plan.round)
        honest = tuple(number for number in plan.cohort if number not in self.liars)
        eager = tuple(number for number in honest if self.absent.get(number, (0, 0))[1] <= plan.round)
        return eager if len(eager) >= plan.quorum else honest

    def _note_absent(self, now: int) -> None:
        """Take note, once, of who did not enrol for the epoch."""
        asked, enrolled = (self.epoch.asked, self.epoch.enrolments) if self.epoch is not None else ((), {})
        for number in asked:
            times = self.absent.pop(number, (0, 0))[0] + 1
            if number not in enrolled:
                self.absent[number] = (times, now + min(2**times, RESTS))
        if self.epoch is not None:
            self.epoch.asked = ()

    def drop(self, number: int) -> None:
        """Begin a new epoch, without a client that is no longer admitted, before the next attempt."""
        roster = self.epoch.roster if self.epoch is not None else None
        if roster is not None and number in roster.members:
            self.epoch = None

    def abandoned(self, gathering: Gathering, error: ReportError) -> Summed:
        """Return what becomes of an attempt that can't be finished, and keep away from those who have lied."""
        log.warning("round %d, attempt %d: %s", gathering.plan.round, gathering.plan.attempt, error)
        if isinstance(error, ForgeryError):
            self.liars.update(error.members)
            return nobody(tuple((number, str(error)) for number in error.members))
        return nobody()
