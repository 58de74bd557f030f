"""The server's half of a federation: who is there, what each is told, when a round closes."""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from baffle.engines.network.convener import Convener
from baffle.engines.network.desk import Desk, send
from baffle.engines.network.dialogue import (
    MOST,
    PARK,
    Bye,
    Challenge,
    Fetch,
    Gone,
    Hello,
    Kind,
    Part,
    Refused,
    Reply,
    Signed,
    Stranger,
    Turn,
    Wait,
    Welcome,
    check_of,
    opened,
    run_name,
)
from baffle.engines.network.inbox import Inbox, Limits
from baffle.engines.network.roster import REVOKED, Entry, Request, Roster
from baffle.engines.network.served import Opening, Served, seldom
from baffle.engines.network.shelf import Shelf
from baffle.engines.network.steps import Window, bitmap, step_of
from baffle.engines.suspicion import ASIDE, Suspicion
from baffle.errors import ReportError, SettingsError, StoppedError
from baffle.header import Header
from baffle.keys import Key
from baffle.messages import Plan, Round, encode, report_size
from baffle.parameters import Vector
from baffle.secure import GroupTesting
from baffle.server import Summed

GRACE = 1.0
"""Seconds that a client whose link broke in a round has to come back, once the others have answered."""
SETTLE = 5.0
"""Seconds after its start for which the server waits for clients that may be on their way back."""
_AROUND = 4096
"""Bytes around the slopes in a message, at most."""
_PARKED = 1 << 16
"""Bytes of a message that is kept until there is something to answer, at most; who sent a larger one asks again."""
_PAUSE = 0.05
"""Seconds after a secure sum's first attempt that is abandoned; twice as long after each further one."""
_TOLD = 10.0
"""Seconds between two words about who is missing."""

log = logging.getLogger("baffle")


@dataclass(slots=True, kw_only=True)
class Hub:
    """An engine whose clients are processes of their own, on any machine.

    `receive` takes requests from whatever carries them and never waits; the desk answers them. A round closes when all
    of its cohort have answered, at the deadline, or when those that have not are gone and do not come back.
    """

    roster: Roster
    settings: Mapping[str, Any]
    """Of the experiment, told to every client that is admitted."""
    kind: Kind
    """Of samples, told as well."""
    deadline: float = 60.0
    """Seconds that a round's cohort has to answer, > 0."""
    park: float = PARK
    """Seconds after which a client that waits is told so."""
    settle: float = SETTLE
    """Seconds after the start before rounds begin without clients that may come back."""
    most_bytes: int = MOST
    """The largest message that can be carried."""
    until: datetime | None = None
    """When the server's own certificate ends: then nothing more is answered, since links that are cut may come back."""
    told: Callable[[dict[str, Any]], None] = lambda _: None
    """Is shown the status every second; must not fail."""
    limits: Limits = field(default_factory=Limits)
    """How much may wait to be answered."""
    inbox: Inbox = field(init=False, repr=False)
    _run: Served | None = None
    _convener: Convener | None = None
    _changed: threading.Condition = field(default_factory=threading.Condition, repr=False)
    _desk: Desk | None = None
    _shown: float = 0.0
    """When the status was shown last."""
    _started: float = field(default_factory=time.monotonic)
    _closed: deque[float] = field(default_factory=lambda: deque[float](maxlen=64))
    """When the latest rounds closed."""

    def __post_init__(self) -> None:
        self.inbox = Inbox(self.roster, self.limits)

    def __enter__(self) -> Hub:
        self.inbox = Inbox(self.roster, self.limits)
        self._desk = Desk(
            roster=self.roster,
            inbox=self.inbox,
            reply=self._heard,
            gone=self._went,
            look=self._look,
            until=self.until,
            pause=self.park / 4,
        )
        self._desk.open()
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Stop answering."""
        if self._desk is not None:
            self._desk.close()
            self._desk = None

    def receive(self, request: Request, client: int | None = None) -> None:
        """Take a request, to be answered soon; one that comes to a closed hub, or one too many, is dropped.

        Args:
            request: a client's message.
            client: whose link it came by; None where that is not certain.
        """
        if self._desk is not None:
            self.inbox.put(request, client)

    def gone(self, session: str, client: int | None = None) -> None:
        """Take note that the link of a client's process is down."""
        if self._desk is not None:
            self.inbox.notice(session, client)

    # What the run's loop calls.

    def gathered(self, least: int) -> dict[int, int]:
        """Return the samples of each client that is there, once they are `least` or more."""
        with self._changed:
            self._wait(lambda: len(self.roster.there()), least)
            return {entry.number: entry.samples for entry in self.roster.there()}

    def open(self, header: Header, folder: Shelf, *, most_bytes: int) -> None:
        """Take up a run, whose earlier records are then shown to `closed`, from the first; `start` serves it.

        Args:
            header: the run's.
            folder: its snapshots.
            most_bytes: beyond which a client that missed rounds gets a snapshot.
        """
        encoded = encode(header)
        with self._changed:
            testing = GroupTesting(Key(header.federation.key).fold("group testing"))
            suspicion = Suspicion(testing, header.federation.sum_size)
            self._run = Served(header, encoded, run_name(encoded), Window(most_bytes), folder, suspicion)

    def start(self) -> None:
        """Let the clients that wait have the run, and those that come."""
        run = self._served()
        with self._changed:
            run.live = True
            parked = [entry for entry in self.roster.there() if entry.parked is not None]
            replies = [(e, self._unparked(e), run.begin(anew=False)) for e in parked if e.run != run.name]
            self._started = time.monotonic()
        send(replies)

    def closed(self, record: Round) -> None:
        """Take note of a record that is in the ledger."""
        run = self._served()
        with self._changed:
            if not run.live:
                run.suspicion.recall(record)
            for number, reason in record.left_out:
                if run.live and number in self.roster.entries and reason not in ("no answer", *ASIDE):
                    entry = self.roster.entries[number]
                    entry.refuse(reason)
                    if seldom(entry.refused):
                        log.warning("client %s, round %d: %s", number, record.plan.round, reason)
            if record.aggregate is None:
                return
            run.window.append(step_of(record, run.header.federation.clients))
            run.window.trim(run.shelf.version())
            run.version = record.plan.round + 1
            if run.live:
                self._closed.append(time.monotonic())

    def present(self) -> Sequence[int] | None:
        """Return the clients that can be asked, ascending, once they are enough; None where that is all.

        Raises:
            StoppedError: to ask anybody would spend or wait in vain.
        """
        run = self._served()
        federation = run.header.federation
        with self._changed:
            run.suspicion.refuse_going_on(self.roster.admits)
            barred = self._convener.barred if self._convener is not None else run.suspicion.found
            self._refuse_few(barred, federation.least)
            settled = self._started + self.settle
            self._wait(lambda: len(self.roster.ready()), self.roster.expected, settled)
            self._wait(lambda: len(set(self.roster.ready()) - barred), federation.least)
            if run.suspicion.testing.searching:
                # Who is not yet back from the last attempt can't be left out, and the test would tell less.
                self._wait(lambda: len(self.roster.ready()), len(self.roster.there()), time.monotonic() + GRACE)
            ready = [number for number in self.roster.ready() if number not in barred]
            return None if len(ready) == federation.clients else ready

    def gather(self, plan: Plan, parameters: Vector) -> list[bytes] | Summed:
        """Return the encoded reports that came in for `plan` by the deadline, or their sum where it is secure.

        Raises:
            SettingsError: the round's slopes do not fit a message.
        """
        self._refuse_large(plan)
        run = self._served()
        cohort = bitmap(plan.cohort, run.header.federation.clients)
        opening = Opening(plan, cohort, check_of(encode(plan)))
        if run.header.federation.secure:
            return self._summed(run, opening, parameters)
        self._call(run, opening)
        with self._changed:
            run.opening = None
            self._tell_missing(opening)
            return list(opening.reports.values())

    def _call(self, run: Served, opening: Opening) -> None:
        """Ask the cohort, and wait until it has answered or has had its time."""
        with self._changed:
            run.opening = opening
            numbers = [number for number in opening.plan.cohort if number in self.roster.entries]
            waiting = [self.roster.entries[number] for number in numbers]
            replies = [(e, self._unparked(e), reply) for e in waiting if e.parked and (reply := run.next(e))]
        send(replies)
        until = time.monotonic() + self.deadline
        with self._changed:
            while not self._settled(opening, until):
                self._changed.wait(min(0.2, max(0.0, until - time.monotonic())))

    def _summed(self, run: Served, opening: Opening, parameters: Vector) -> Summed:
        """Return the cohort's sum, stage by stage, or nobody's."""
        with self._changed:
            convener = self._convener = self._convener or self._convenes(run)
            epochs = {number: entry.epoch for number, entry in self.roster.entries.items()}
            opening.secure = attempt = convener.begin(opening.plan, parameters, epochs)
        try:
            while not attempt.done:
                self._call(run, opening)
                with self._changed:
                    self._tell_missing(opening)
                    attempt.next()
            summed = convener.concluded(attempt)
        finally:
            with self._changed:
                run.opening = None
        if len(summed.uploads) < opening.plan.quorum and not run.suspicion.testing.searching:
            # Whoever is left may be too few for good: then attempts come ever more rarely, and so do their records.
            time.sleep(min(_PAUSE * 2 ** min(opening.plan.attempt, 16), self.deadline))
        return summed

    def _convenes(self, run: Served) -> Convener:
        if self.roster.authority is None:
            raise SettingsError("secure", "masks", "needs keys: `baffle keys` makes them, and --insecure is without")
        return Convener(run.name, self.roster.authority, run.suspicion, run.header.federation.minimum)

    def _refuse_few(self, barred: Collection[int], least: int) -> None:
        """Raise StoppedError where too few may take part for ever, without those that have lied."""
        able = self.roster.expected - sum(1 for number in barred if self.roster.admits(number))
        if barred and able < least:
            raise StoppedError(
                f"{able} clients are left without those whose part in secure sums was false "
                f"({', '.join(map(str, sorted(barred)))}), and a round needs {least}"
            )

    def _refuse_large(self, plan: Plan) -> None:
        """Refuse a round whose reports, or whose sums in as many bits, are too large to be carried."""
        size = plan.groups * report_size(plan)
        if size + _AROUND > self.most_bytes:
            raise SettingsError(
                "forwards",
                plan.forwards,
                f"gives {plan.groups} × {plan.steps * plan.directions} slopes of {plan.bits} bits a round, {size} "
                f"bytes, and a message has at most {self.most_bytes - _AROUND}: use fewer forwards, bits or groups",
            )

    def finish(self, linger: float) -> None:
        """Tell every client that the run is over; wait `linger` seconds at most until all have heard it."""
        run = self._served()
        with self._changed:
            run.finished = True
            parked = [entry for entry in self.roster.entries.values() if entry.parked is not None]
            replies = [(entry, self._unparked(entry), run.next(entry)) for entry in parked]
        send(replies)
        until = time.monotonic() + linger
        with self._changed:
            while (now := time.monotonic()) < until and self._untold(now):
                self._changed.wait(0.1)

    def status(self) -> dict[str, Any]:
        """Return where the run is and how each client does."""
        with self._changed:
            now, clock = datetime.now(UTC), time.monotonic()
            opening = self._run.opening if self._run else None
            return {
                "time": now.timestamp(),
                "round": self._run.version if self._run else 0,
                "finished": self._run.finished if self._run else False,
                "attempt": opening.plan.attempt if opening else 0,
                "asked": len(opening.plan.cohort) if opening else 0,
                "waiting_for": opening.missing() if opening else [],
                "rounds_a_minute": self._pace(clock),
                "strangers": self.roster.strangers,
                "inbox": self.inbox.status(),
                "clients": [entry.row(now, clock) for _, entry in sorted(self.roster.entries.items())],
            }

    def _pace(self, clock: float) -> float:
        since = [moment for moment in self._closed if clock - moment <= 60.0]
        return 60.0 * len(since) / (clock - since[0]) if since and clock > since[0] else 0.0

    # Waiting; `_changed` is held.

    def _wait(self, count: Callable[[], int], least: int, until: float = float("inf")) -> None:
        """Wait until enough clients are counted; say now and then who is missing."""
        told = time.monotonic()
        while count() < least and (now := time.monotonic()) < until:
            self._changed.wait(min(0.2, until - now))
            if time.monotonic() - told > _TOLD and count() < least:
                told, busy = time.monotonic(), len(self.roster.there()) - count()
                catching = f", {busy} are catching up" if busy else ""
                log.warning(
                    "waiting for clients: %d of %d are ready%s%s",
                    count(),
                    least,
                    catching,
                    _named(self.roster.absent()),
                )

    def _untold(self, now: float) -> bool:
        """Return whether some client may not have heard that the run is over."""
        told = sum(1 for entry in self.roster.entries.values() if entry.done)
        if now < self._started + self.settle:
            return told < self.roster.expected
        return told < sum(1 for entry in self.roster.entries.values() if entry.session)

    def _settled(self, opening: Opening, until: float) -> bool:
        missing, now = opening.missing(), time.monotonic()
        if not missing or now >= until:
            return True
        gone = [self.roster.entries[number].gone for number in missing if number in self.roster.entries]
        enough = opening.secure is not None or len(opening.reports) >= opening.plan.quorum
        return enough and all(moment is not None and now - moment >= GRACE for moment in gone)

    def _tell_missing(self, opening: Opening) -> None:
        for number in opening.missing():
            entry = self.roster.entries.get(number)
            why = (
                "its link is down"
                if entry is None or entry.gone is not None
                else "its link is up: too slow, or stopped"
            )
            log.warning("client %d gave no answer to round %d: %s", number, opening.plan.round, why)

    # What the desk's thread calls.

    def _heard(self, message: Signed, request: Request) -> tuple[Entry | None, Reply | None]:
        with self._changed:
            entry, reply = self._reply(message, request)
            if entry is not None:
                entry.up += len(request.payload)
            self._changed.notify_all()
            return entry, reply

    def _went(self, session: str) -> None:
        with self._changed:
            entry = self.roster.of_session(session) if session else None
            if entry is not None and entry.gone is None and not entry.done:
                entry.gone, entry.ready, entry.parked = time.monotonic(), False, None
                entry.done = entry.told
                log.info("client %d is away: its link is down", entry.number)
                self._changed.notify_all()

    def _look(self, closing: bool) -> None:
        if not closing:
            self._wake()
        if closing or time.monotonic() - self._shown >= 1.0:
            self._shown = time.monotonic()
            self._bar()
            self._show()

    def _wake(self) -> None:
        """Tell clients that have waited for long that there is nothing yet."""
        due = time.monotonic() - self.park
        with self._changed:
            parked = [e for e in self.roster.entries.values() if e.parked is not None and e.since < due]
            replies = [(entry, self._unparked(entry), Wait()) for entry in parked]
        send(replies)

    def _bar(self) -> None:
        """Drop clients whose certificates have been revoked since they were admitted."""
        with self._changed:
            barred = self.roster.bar()
            replies = [(entry, self._unparked(entry), Refused(REVOKED.format(entry.number), True)) for entry in barred]
            for entry in barred:
                log.warning("client %d is dropped: its certificate is revoked", entry.number)
                entry.refuse(REVOKED.format(entry.number))
                if self._convener is not None:
                    self._convener.drop(entry.number)
                if self._run is not None and self._run.opening is not None:
                    self._run.opening.drop(entry.number)
            self._changed.notify_all()
        send(replies)

    def _show(self) -> None:
        try:
            self.told(self.status())
        except Exception:  # the status is for people; a round must not depend on it
            log.exception("the status could not be told")

    # What each is told; `_changed` is held.

    def _reply(self, message: Signed, request: Request) -> tuple[Entry | None, Reply | None]:
        now = datetime.now(UTC)
        words = opened(message)
        if isinstance(words, Hello):
            entry, challenge = self.roster.hello(message, words, now)
            if challenge:
                return entry, Challenge(challenge, self.roster.certificate)
            log.info("client %d has joined%s", entry.number, " again" if entry.joined > 1 else "")
            return entry, Welcome(dict(self.settings), self.kind, now.timestamp())
        entry = self.roster.known(message, now)
        if entry is None:
            return None, Stranger()
        if entry.gone is not None:
            log.info("client %d is back", entry.number)
        entry.gone, entry.heard = None, now.timestamp()
        if isinstance(words, Bye):
            entry.done = entry.told
            return entry, Wait()
        if isinstance(words, Fetch):
            data = self._served().shelf.part(words.digest, words.offset)
            return entry, Gone() if data is None else Part(data)
        return entry, self._turn(entry, words, request)

    def _turn(self, entry: Entry, turn: Turn, request: Request) -> Reply | None:
        if turn.serial <= entry.serial:
            entry.duplicate += 1
            return None
        entry.serial, entry.version, entry.samples, entry.run = turn.serial, turn.version, turn.samples, turn.run
        entry.epoch = turn.epoch
        run = self._run if self._run is not None and self._run.live else None
        if run is not None and turn.run != run.name:
            entry.ready = False
            return run.begin(anew=False)
        if run is not None and turn.report:
            run.take(entry, turn)
        if run is not None:
            run.tell(entry, turn)
        reply = run.next(entry) if run is not None else None
        if reply is None and len(request.payload) > _PARKED:
            return Wait()
        if reply is None:
            entry.parked, entry.since, entry.ready = request, time.monotonic(), True
        return reply

    def _unparked(self, entry: Entry) -> Request | None:
        request, entry.parked = entry.parked, None
        return request

    def _served(self) -> Served:
        if self._run is None:
            raise ReportError("the run has not begun")
        return self._run


def _named(absent: Sequence[int]) -> str:
    told = ", ".join(map(str, absent[:20]))
    return f"; missing: {told}{', ...' if len(absent) > 20 else ''}" if absent else ""
