"""The run that a server serves: what a client is told of it, and what becomes of a report."""

from __future__ import annotations

import logging
import time
from dataclasses import dataclass, field

from baffle.engines.network.convener import Attempt
from baffle.engines.network.dialogue import Begin, Call, Done, Reply, Step, Steps, Turn
from baffle.engines.network.roster import Entry
from baffle.engines.network.shelf import Shelf
from baffle.engines.network.steps import Window, bitmap
from baffle.engines.suspicion import Suspicion
from baffle.errors import ReportError
from baffle.header import Header
from baffle.messages import Plan, Report, decode

log = logging.getLogger("baffle")


@dataclass(slots=True)
class Opening:
    """A round that is open."""

    plan: Plan
    cohort: bytes
    """A bit for each client."""
    check: bytes
    """Of the plan."""
    reports: dict[int, bytes] = field(default_factory=dict[int, bytes])
    """Encoded, by client."""
    secure: Attempt | None = None
    """Where the server is to see the sum alone."""

    def drop(self, number: int) -> None:
        """Go on without a client that is no longer admitted, and without its report where that can still be."""
        self.reports.pop(number, None)
        if self.secure is not None:
            self.secure.drop(number)

    def missing(self) -> list[int]:
        """Return the clients that have not answered."""
        if self.secure is not None:
            return self.secure.missing()
        return [number for number in self.plan.cohort if number not in self.reports]


@dataclass(slots=True)
class Served:
    """A run as its clients see it."""

    header: Header
    encoded: bytes
    """The header."""
    name: bytes
    window: Window
    shelf: Shelf
    suspicion: Suspicion
    """Of clients that spoil secure sums."""
    version: int = 0
    """Rounds that count."""
    live: bool = False
    """Whether clients may have it yet."""
    opening: Opening | None = None
    finished: bool = False

    def begin(self, *, anew: bool) -> Begin:
        """Return what a client starts from."""
        return Begin(self.encoded, anew)

    def next(self, entry: Entry) -> Reply | None:
        """Return what a client is told now, or None when it has to wait."""
        version = entry.version
        if version is None or version > self.version:
            return self._rescue(entry)
        if version < self.version and not self.window.reaches(version):
            return self._rescue(entry)
        steps = self.window.since(version) if version < self.version else ()
        if version + len(steps) < self.version:
            return Steps(steps)
        if self.finished:
            entry.told, entry.ready = True, False
            return Done(steps)
        opening = self.opening
        if opening is not None and opening.secure is not None:
            return self._secure(opening, opening.secure, entry, steps)
        if opening is not None and entry.number in opening.plan.cohort and entry.number not in opening.reports:
            entry.called, entry.ready = time.monotonic(), False
            return Call(steps, opening.plan.round, opening.plan.attempt, opening.cohort, opening.check)
        return Steps(steps) if steps else None

    def _secure(self, opening: Opening, secure: Attempt, entry: Entry, steps: tuple[Step, ...]) -> Reply | None:
        asked = secure.ask(entry.number, entry.epoch)
        if asked is None:
            return Steps(steps) if steps else None
        entry.called, entry.ready = time.monotonic(), False
        if isinstance(asked, tuple):
            plan, masked = opening.plan, bitmap(asked, self.header.federation.clients)
            return Call(steps, plan.round, plan.attempt, opening.cohort, opening.check, masked)
        return Steps(steps) if steps else asked

    def _rescue(self, entry: Entry) -> Reply:
        """Return a way back for a client whose state is of no use: a snapshot, or the beginning."""
        entry.ready = False
        offer = self.shelf.newest()
        if offer is None or (offer.version < self.version and not self.window.reaches(offer.version)):
            return self.begin(anew=True)
        log.info("client %d at version %s gets the snapshot of %d", entry.number, entry.version, offer.version)
        return offer

    def tell(self, entry: Entry, turn: Turn) -> None:
        """Take a client's part in secure sums, or say why not."""
        opening = self.opening
        if turn.told is None or opening is None or opening.secure is None:
            return
        reports = opening.secure.reports(entry.number, turn.told)
        try:
            opening.secure.take(entry.number, turn.told)
        except ReportError as error:
            entry.refuse(str(error))
            if seldom(entry.refused):
                log.warning("client %d: its part in a secure sum is refused: %s", entry.number, error)
            return
        if reports:
            entry.counts((opening.plan.round, opening.plan.attempt), turn.spent)

    def take(self, entry: Entry, turn: Turn) -> None:
        """Count a client's report, or say why not."""
        if self.header.federation.secure:
            entry.refuse("a report in the open, where sums are secure")
            return
        try:
            report = decode(turn.report, Report)
            if report.client != entry.number:
                raise ReportError(f"a report of client {report.client} from client {entry.number}")
        except ReportError as error:
            entry.refuse(str(error))
            if seldom(entry.refused):
                log.warning("client %d: its report is refused: %s", entry.number, error)
            return
        opening, of = self.opening, (report.round, report.attempt)
        if of == entry.counted:
            entry.duplicate += 1
        elif opening is None or of != (opening.plan.round, opening.plan.attempt):
            entry.late += 1
            if seldom(entry.late):
                number, late = entry.number, entry.late
                log.info("client %d: its report on round %d comes late (%d so far)", number, report.round, late)
        elif report.client in opening.plan.cohort:
            opening.reports[entry.number] = turn.report
            entry.counts(of, turn.spent)


def seldom(count: int) -> bool:
    """Return whether something that has happened `count` times is worth a line: ever more rarely."""
    return count & (count - 1) == 0
