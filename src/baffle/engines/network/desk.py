"""The server's desk: takes messages from whatever carries them, and answers one after another."""

from __future__ import annotations

import logging
import queue
import threading
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TypeAlias

from baffle.engines.network.dialogue import Refused, Reply, Signed
from baffle.engines.network.roster import Entry, FinalRefusalError, Request, Roster
from baffle.engines.network.served import seldom
from baffle.errors import BaffleError, ReportError
from baffle.messages import decode, encode

Answer: TypeAlias = tuple[Entry | None, Request | None, Reply | None]
"""To whom, to which message, what; no message or no reply is nothing to send."""

_PAUSE = 0.25
"""Seconds without a message after which there is a look around."""

log = logging.getLogger("baffle")


@dataclass(slots=True, kw_only=True)
class Desk:
    """A thread that answers messages in the order in which they come."""

    roster: Roster
    reply: Callable[[Signed, Request], tuple[Entry | None, Reply | None]]
    """What a message gets: from whom it is, and the reply, which may come later."""
    gone: Callable[[str], None]
    """Is told which client's process is no longer linked."""
    look: Callable[[bool], None]
    """Is called after each message, and several times a second; with whether the desk is about to close."""
    until: datetime | None = None
    """When the server's own certificate ends: then nothing more is answered, since links that are cut may come back."""
    pause: float = _PAUSE
    _inbox: queue.SimpleQueue[Request | str | None] = field(
        default_factory=queue.SimpleQueue["Request | str | None"], repr=False
    )
    _thread: threading.Thread | None = None

    def open(self) -> None:
        """Begin to answer."""
        self._thread = threading.Thread(target=self._work, name="desk", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Stop answering."""
        if self._thread is not None:
            self._inbox.put(None)
            self._thread.join()
            self._thread = None

    def put(self, found: Request | str) -> None:
        """Take a message, or the session of a client's process whose link is down; never waits."""
        self._inbox.put(found)

    def _work(self) -> None:
        while True:
            try:
                found = self._inbox.get(timeout=min(_PAUSE, self.pause))
            except queue.Empty:
                found = ""
            if found is None:
                self.look(True)
                return
            if isinstance(found, str):
                self.gone(found)
            else:
                self._answer(found)
            self.look(False)

    def _answer(self, request: Request) -> None:
        entry: Entry | None = None
        message: Signed | None = None
        try:
            message = decode(request.payload, Signed)
            self._refuse_expired()
            entry, reply = self.reply(message, request)
        except BaffleError as error:
            self._refuse(message, str(error))
            reply = Refused(str(error), isinstance(error, FinalRefusalError))
        except Exception:  # whatever a stranger sends must not end the service
            log.exception("a message could not be handled")
            reply = Refused("the server could not handle this message; its log says why", False)
        send([(entry, request, reply)])

    def _refuse_expired(self) -> None:
        if self.until is not None and datetime.now(UTC) > self.until:
            raise ReportError(
                f"the server's certificate expired on {self.until:%Y-%m-%d %H:%M} UTC: it needs a new one"
            )

    def _refuse(self, message: Signed | None, reason: str) -> None:
        """Count a message that is refused, and tell of it, more rarely the more there are."""
        entry = self.roster.entries.get(message.client) if message is not None else None
        if entry is None:
            self.roster.strangers += 1
            count, name = self.roster.strangers, "a stranger" if message is None else f"client {message.client}"
        else:
            entry.refuse(reason)
            count, name = entry.refused, f"client {entry.number}"
        if seldom(count):
            log.warning("a message that says it is of %s is refused (%d so far): %s", name, count, reason)


def send(answers: Iterable[Answer]) -> None:
    """Send replies, and count their bytes."""
    for entry, request, reply in answers:
        if request is not None and reply is not None:
            data = encode(reply)
            if entry is not None:
                entry.down += len(data)
            request.reply(data)
