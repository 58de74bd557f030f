"""The server's desk: takes messages from whatever carries them, and answers one after another, each client in turn."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TypeAlias

from baffle.engines.network.dialogue import Refused, Reply, Signed
from baffle.engines.network.inbox import Inbox
from baffle.engines.network.roster import Entry, FinalRefusalError, Request, Roster
from baffle.engines.network.served import seldom
from baffle.errors import BaffleError, ReportError
from baffle.messages import decode, encode

Answer: TypeAlias = tuple[Entry | None, Request | None, Reply | None]
"""To whom, to which message, what; no message or no reply is nothing to send."""

_PAUSE = 0.25
"""Seconds without a message after which there is a look around."""

_REASON = 2000
"""Characters of a reason that are told."""

log = logging.getLogger("baffle")


@dataclass(slots=True, kw_only=True)
class Desk:
    """A thread that answers what comes into its inbox, in the order which that decides."""

    roster: Roster
    inbox: Inbox
    reply: Callable[[Signed, Request], tuple[Entry | None, Reply | None]]
    """What a message gets: from whom it is, and the reply, which may come later."""
    gone: Callable[[str], None]
    """Is told which client's process is no longer linked."""
    look: Callable[[bool], None]
    """Is called after each message, and several times a second; with whether the desk is about to close."""
    until: datetime | None = None
    """When the server's own certificate ends: then nothing more is answered, since links that are cut may come back."""
    pause: float = _PAUSE
    _thread: threading.Thread | None = None

    def open(self) -> None:
        """Begin to answer."""
        self._thread = threading.Thread(target=self._work, name="desk", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Answer what waits, and nothing more."""
        if self._thread is not None:
            self.inbox.close()
            self._thread.join()
            self._thread = None

    def _work(self) -> None:
        while not self.inbox.done:
            found = self.inbox.get(min(_PAUSE, self.pause))
            if isinstance(found, str):
                self.gone(found)
            elif found is not None:
                self._answer(*found)
            self.look(False)
        self.look(True)

    def _answer(self, request: Request, client: int | None) -> None:
        """Answer a message, which came by the link of a client where that is certain."""
        entry: Entry | None = None
        speaker = client
        try:
            message = decode(request.payload, Signed)
            if client is not None and message.client != client:
                raise ReportError(f"client {client} speaks as client {message.client}")
            speaker = message.client
            self._refuse_expired()
            entry, reply = self.reply(message, request)
        except BaffleError as error:
            self._refuse(speaker, str(error))
            reply = Refused(str(error)[:_REASON], isinstance(error, FinalRefusalError))
        except Exception:  # whatever a stranger sends must not end the service
            log.exception("a message could not be handled")
            reply = Refused("the server could not handle this message; its log says why", False)
        send([(entry, request, reply)])

    def _refuse_expired(self) -> None:
        if self.until is not None and datetime.now(UTC) > self.until:
            raise ReportError(
                f"the server's certificate expired on {self.until:%Y-%m-%d %H:%M} UTC: it needs a new one"
            )

    def _refuse(self, client: int | None, reason: str) -> None:
        """Count a message that is refused, and tell of it, more rarely the more there are."""
        entry = self.roster.entries.get(client) if client is not None else None
        if entry is None:
            self.roster.strangers += 1
            count, name = self.roster.strangers, "a stranger" if client is None else f"client {client}"
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
