"""The server's part in secure sums: who is asked for what until a round's sum can be opened."""

from __future__ import annotations

import logging
import secrets
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from enum import IntEnum

from baffle.engines.network.covert import Confirm, Enrol, Meet, Open, Told, Vow
from baffle.engines.network.dialogue import CHECK
from baffle.engines.suspicion import Suspicion
from baffle.errors import ReportError
from baffle.messages import Plan
from baffle.parameters import Vector
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
    SpoiltError,
    Terms,
    checked,
    consistent,
    subject_of,
    usual_threshold,
)
from baffle.secure.epoch import LONGEST, signatory_of
from baffle.server import Summed

log = logging.getLogger("baffle")

RESTS = 64
"""Most rounds for which a client that did not enrol is left alone: asking costs the others a deadline."""


class Stage(IntEnum):
    """What an attempt waits for, one after another."""

    ENROL = 0
    """Keys for an epoch."""
    PLEDGE = 1
    """Secrets for the slot, sealed."""
    REPORT = 2
    """Masked reports."""
    CONFIRM = 3
    """Signatures of whose reports came."""
    ANSWER = 4
    """Shares, which open the sum."""
    DONE = 5


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

    def serves(self, plan: Plan, group: Collection[int], epochs: Mapping[int, bytes]) -> bool:
        """Return whether a group of a plan's cohort can be added up in it, given in which epoch each client says it is.

        Not where others of the cohort are in it, who are not asked: it would wait for answers that nobody gives.
        """
        if self.roster is None or plan.round > self.terms.start + LONGEST - 1:
            return False
        own = {number for number in plan.cohort if epochs.get(number) == self.name}
        return own == set(group) and len(own) >= self.terms.least

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
    """One secure sum of an attempt at a round, until it is opened or abandoned."""

    plan: Plan
    epoch: Epoch
    authority: bytes
    asked: tuple[int, ...]
    """Clients whose reports are added up."""
    subject: bytes
    """Of the plan and θ."""
    liars: set[int] = field(default_factory=set[int])
    """The run's, to which this attempt adds."""
    stage: Stage = Stage.ENROL
    aggregation: Aggregation | None = None

    @property
    def slot(self) -> Slot:
        """Round and attempt."""
        return Slot(self.plan.round, self.plan.attempt)

    def missing(self) -> list[int]:
        """Return the clients that the stage waits for."""
        owing = self._owing()
        return [number for number in self.asked if number in owing]

    def _owing(self) -> Collection[int]:
        """Return who has not yet sent what the stage waits for; nobody once there is enough."""
        match self.stage:
            case Stage.ENROL:
                return set(self.asked) - set(self.epoch.enrolments)
            case Stage.PLEDGE:
                return set(self.asked) - set(self.epoch.pledges.get(self.slot, {}))
            case Stage.REPORT:
                return set(self._sum().cohort).difference(one.number for one in self._sum().reports)
            case Stage.CONFIRM if not self._sum().agreed:
                return set(self._sum().reported).difference(one.number for one in self._sum().consents)
            case Stage.ANSWER if not self._sum().enough:
                return set(self._sum().reported).difference(one.number for one in self._sum().answers)
            case _:
                return ()

    def _owes(self, number: int) -> bool:
        return number in self.asked and number in self._owing()

    def ask(self, number: int, epoch: bytes) -> Enrol | Meet | Vow | Confirm | Open | tuple[int, ...] | None:
        """Return what a client is asked for now; the cohort of masks where that is its report; None is nothing.

        Args:
            number: the client's.
            epoch: in which it says it is.
        """
        if not self._owes(number):
            return None
        match self.stage:
            case Stage.ENROL:
                return Enrol(self.epoch.terms)
            case Stage.PLEDGE:
                known = epoch == self.epoch.name
                return Vow(self.slot) if known else Meet(tuple(self.epoch.enrolments.values()), self.slot)
            case Stage.REPORT:
                return self._sum().cohort
            case Stage.CONFIRM:
                return Confirm(self._sum().closing())
            case _:
                return Open(self._sum().request(number))

    def reports(self, number: int, told: Told) -> bool:
        """Return whether what a client says has the report that this attempt waits for: not one that comes again."""
        masked = told.masked
        return masked is not None and self.stage == Stage.REPORT and masked.slot == self.slot and self._owes(number)

    def take(self, number: int, told: Told) -> None:
        """Take what a client says.

        Raises:
            ForgeryError: it contradicts what a client has said before; names it.
            ReportError: it does not belong here.
        """
        parts = told.enrolment, told.pledge, told.masked, told.consent, told.answer
        if any(part is not None and part.number != number for part in parts):
            raise ReportError(f"client {number} speaks for another in secure sums")
        if told.enrolment is not None and self.stage == Stage.ENROL and number in self.asked:
            signatory_of(self.epoch.terms, told.enrolment, self.authority, datetime.now(UTC))
            self.epoch.enrolments[number] = told.enrolment
        if told.pledge is not None and (self.stage == Stage.PLEDGE or told.pledge.slot.round > self.plan.round):
            self.epoch.pledge(told.pledge)
        if told.masked is not None and self.reports(number, told):
            self.aggregation = self._sum().report(told.masked)
        if told.consent is not None and self._awaits(Stage.CONFIRM, told.consent.slot, number):
            self.aggregation = self._sum().consent(told.consent)
        if told.answer is not None and self._awaits(Stage.ANSWER, told.answer.slot, number):
            self._answered(told.answer)

    def _awaits(self, stage: Stage, slot: Slot, number: int) -> bool:
        return self.stage == stage and slot == self.slot and self._owes(number)

    def drop(self, number: int) -> None:
        """Go on without a client that is no longer admitted; what it said before others were asked is forgotten."""
        self.asked = tuple(one for one in self.asked if one != number)
        if self.stage == Stage.ENROL:
            self.epoch.enrolments.pop(number, None)
        if self.stage == Stage.PLEDGE:
            self.epoch.pledges.get(self.slot, {}).pop(number, None)
        if self.stage == Stage.REPORT:
            reports = tuple(one for one in self._sum().reports if one.number != number)
            self.aggregation = replace(self._sum(), reports=reports)

    def next(self) -> None:
        """Go to the next stage with what has come.

        Raises:
            AbandonedError: too little has come.
            ReportError: what has come does not go together.
        """
        match self.stage:
            case Stage.ENROL:
                self.epoch.roster = self._roster()
            case Stage.PLEDGE:
                self.aggregation = self._pledged()
            case Stage.REPORT:
                self.aggregation = self._sum().close()
            case Stage.CONFIRM:
                if not self._sum().agreed:
                    raise AbandonedError(f"{len(self._sum().consents)} signatures of whose reports came are too few")
            case _:
                if not self._sum().enough:
                    raise AbandonedError(f"{len(self._sum().answers)} answers are too few to open the sum")
        self.stage = Stage(self.stage + 1)

    @property
    def reported(self) -> tuple[int, ...]:
        """Whose reports are added up, once no more are taken; nobody before."""
        return self.aggregation.reported if self.aggregation is not None else ()

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
        return Aggregation.of(roster, self.slot, Ring.of(self.plan), self.plan.words + 1, self.subject, pledges)

    def _sum(self) -> Aggregation:
        if self.aggregation is None:
            raise ReportError("no reports are taken yet")
        return self.aggregation


@dataclass(slots=True)
class Attempt:
    """One attempt at a round: the sums of its groups, which go from stage to stage together."""

    plan: Plan
    gatherings: list[Gathering]
    """Those that are not given up."""
    given_up: list[tuple[Gathering, ReportError]] = field(default_factory=list[tuple[Gathering, ReportError]])

    @property
    def done(self) -> bool:
        """Whether nobody is to be asked anything more."""
        return all(one.stage == Stage.DONE for one in self.gatherings)

    def missing(self) -> list[int]:
        """Return the clients that the stage waits for, ascending."""
        return sorted(number for one in self.gatherings for number in one.missing())

    def ask(self, number: int, epoch: bytes) -> Enrol | Meet | Vow | Confirm | Open | tuple[int, ...] | None:
        """Return what a client is asked for now, as `Gathering.ask`."""
        found = self._of(number)
        return found.ask(number, epoch) if found is not None else None

    def reports(self, number: int, told: Told) -> bool:
        """Return whether what a client says has the report that is waited for."""
        found = self._of(number)
        return found is not None and found.reports(number, told)

    def take(self, number: int, told: Told) -> None:
        """Take what a client says.

        Raises:
            ForgeryError, ReportError: as `Gathering.take`.
        """
        found = self._of(number)
        if found is not None:
            found.take(number, told)

    def drop(self, number: int) -> None:
        """Go on without a client that is no longer admitted."""
        found = self._of(number)
        if found is not None:
            found.drop(number)

    def next(self) -> None:
        """Go to the next stage, without the groups that can't."""
        for one in list(self.gatherings):
            try:
                one.next()
            except ReportError as error:
                self.give_up(one, error)

    def give_up(self, gathering: Gathering, error: ReportError) -> None:
        """Go on without a group."""
        log.warning("round %d, attempt %d: %s", self.plan.round, self.plan.attempt, error)
        self.gatherings.remove(gathering)
        self.given_up.append((gathering, error))

    def _of(self, number: int) -> Gathering | None:
        return next((one for one in self.gatherings if number in one.asked), None)


@dataclass(slots=True)
class Convener:
    """What lasts from round to round: the epochs, and who has lied."""

    run: bytes
    """The run's public name."""
    authority: bytes
    """`ca.pem`: secure sums need signed keys."""
    suspicion: Suspicion
    """Who spoils sums, and how cohorts are cut into groups."""
    minimum: int = 2
    """Fewest reports of which the sum of a group is opened, ≥ 2; that of a whole cohort needs the plan's quorum."""
    epochs: list[Epoch] = field(default_factory=list[Epoch])
    """One for each group of the last attempt."""
    liars: set[int] = field(default_factory=set[int])
    """Clients that have contradicted themselves."""
    absent: dict[int, tuple[int, int]] = field(default_factory=dict[int, tuple[int, int]])
    """Clients that did not enrol: how often, and until which round they are left alone."""

    @property
    def barred(self) -> frozenset[int]:
        """Clients that are asked no more."""
        return self.suspicion.found | self.liars

    def begin(self, plan: Plan, parameters: Vector, epochs: Mapping[int, bytes]) -> Attempt:
        """Return an attempt that begins, in new epochs if need be.

        Args:
            plan: what is asked.
            parameters: θ [n], at which it is asked.
            epochs: in which epoch each client says it is.
        """
        groups, subject = self.suspicion.groups(plan, self._asked(plan)), subject_of(plan, parameters)
        found = [self._gathering(plan, group, subject, epochs) for group in groups]
        self.epochs = [one.epoch for one in found]
        return Attempt(plan, found)

    def _gathering(self, plan: Plan, group: tuple[int, ...], subject: bytes, epochs: Mapping[int, bytes]) -> Gathering:
        for epoch in self.epochs:
            if epoch.serves(plan, group, epochs):
                return Gathering(plan, epoch, self.authority, group, subject, self.liars, Stage.PLEDGE)
        minimum = self.minimum if self.suspicion.size else max(2, plan.quorum)
        terms = Terms(self.run, secrets.randbits(62), plan.round, usual_threshold(len(group)), minimum)
        return Gathering(plan, Epoch(terms, group), self.authority, group, subject, self.liars)

    def _asked(self, plan: Plan) -> tuple[int, ...]:
        """Return the clients of the cohort that may take part: without those that rest, where the others are enough."""
        self._note_absent(plan.round)
        honest = tuple(number for number in plan.cohort if number not in self.barred)
        eager = tuple(number for number in honest if self.absent.get(number, (0, 0))[1] <= plan.round)
        return eager if len(eager) >= plan.quorum else honest

    def _note_absent(self, now: int) -> None:
        """Take note, once, of who did not enrol for an epoch."""
        for epoch in self.epochs:
            for number in epoch.asked:
                times = self.absent.pop(number, (0, 0))[0] + 1
                if number not in epoch.enrolments:
                    self.absent[number] = (times, now + min(2**times, RESTS))
            epoch.asked = ()

    def drop(self, number: int) -> None:
        """Begin a new epoch in place of each that has a client that is no longer admitted, before the next attempt."""
        self.epochs = [one for one in self.epochs if one.roster is None or number not in one.roster.members]

    def concluded(self, attempt: Attempt) -> Summed:
        """Return what an attempt comes to; takes a while. Keeps away from those who have lied."""
        sound: list[Summed] = []
        spoilt: list[tuple[int, ...]] = []
        for one in list(attempt.gatherings):
            try:
                sound.append(one.summed())
            except ReportError as error:
                attempt.give_up(one, error)
                if isinstance(error, SpoiltError):
                    spoilt.append(one.reported)
        left_out: dict[int, str] = {}
        for _, error in attempt.given_up:
            if isinstance(error, ForgeryError):
                self.liars.update(error.members)
                left_out |= dict.fromkeys(error.members, str(error))
        summed = self.suspicion.total(attempt.plan, sound, spoilt, left_out.items())
        failed = len(summed.uploads) < attempt.plan.quorum
        over = [one for one, _ in attempt.given_up] + (attempt.gatherings if failed else [])
        # Whoever has signed has no part in another sum of this round in this epoch.
        signed = [one.epoch for one in over if one.stage >= Stage.CONFIRM]
        self.epochs = [epoch for epoch in self.epochs if all(epoch is not other for other in signed)]
        return summed
