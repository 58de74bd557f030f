"""Who takes part: what the server knows of each client."""

from __future__ import annotations

import hmac
import secrets
import time
from collections import deque
from collections.abc import Callable, Collection
from dataclasses import dataclass, field
from datetime import datetime
from statistics import median
from typing import Any, Protocol

from baffle.certificates import Signatory
from baffle.certificates.serving import digest_of
from baffle.engines.network.dialogue import ANY_SERVER, PROTOCOL, Hello, Signed, signed
from baffle.errors import ReportError

REVOKED = "the certificate of client {} is revoked"
"""What a client is told whose certificate is revoked."""


class Request(Protocol):
    """A client's message that waits for a reply."""

    @property
    def payload(self) -> bytes:
        """What the client said."""
        ...

    def reply(self, payload: bytes) -> None:
        """Answer it, once; the client may be gone."""
        ...


class FinalRefusalError(ReportError):
    """A client is refused, and asking again can't help."""


@dataclass(slots=True)
class Entry:
    """A client as the server sees it."""

    number: int
    session: bytes = b""
    """Of its process; empty until it has joined."""
    signatory: Signatory | None = None
    software: str = ""
    gone: float | None = None
    """Since when its link is down, by the monotonic clock."""
    ready: bool = False
    """Whether it is in step and waits to be called."""
    serial: int = -1
    version: int | None = None
    samples: int = 0
    epoch: bytes = b""
    """Of secure sums, in which it says it is."""
    parked: Request | None = None
    since: float = 0.0
    """When it was parked."""
    called: float = 0.0
    """When it was called last."""
    heard: float | None = None
    """When it was heard last, seconds since 1970."""
    reported: float | None = None
    """When its last good report came, seconds since 1970."""
    counted: tuple[int, int] | None = None
    """Round and attempt of its last report that counts."""
    run: bytes = b""
    """Of which run its state is, as it says."""
    told: bool = False
    """Whether it was sent the end of the run."""
    done: bool = False
    """Whether it has heard it."""
    up: int = 0
    """Bytes of its messages."""
    down: int = 0
    """Bytes of replies to it."""
    answered: int = 0
    late: int = 0
    duplicate: int = 0
    refused: int = 0
    dropped: int = 0
    """Messages for which there was no room."""
    joined: int = 0
    reason: str = ""
    """Why something of its was refused last."""
    latencies: deque[float] = field(default_factory=lambda: deque[float](maxlen=32))
    """Seconds from call to report."""
    revoked: bool = False
    """Whether it is kept out because its certificate is revoked."""
    spent: int = 0
    """Milliseconds that its last report took to make, as it says."""
    challenge: bytes = b""

    def joins(self, session: bytes, hello: Hello, signatory: Signatory | None) -> None:
        """Begin anew with a process of the client."""
        self.session, self.signatory, self.software = session, signatory, hello.software
        self.gone, self.ready, self.serial, self.version = None, False, -1, None
        self.run, self.told, self.done, self.epoch = b"", False, False, b""
        self.parked, self.challenge, self.revoked = None, b"", False
        self.joined += 1

    def bar(self) -> None:
        """End what its process may say: its certificate is revoked."""
        self.session, self.ready, self.revoked, self.gone = b"", False, True, time.monotonic()

    def refuse(self, reason: str) -> None:
        """Count something that was refused."""
        self.refused += 1
        self.reason = reason

    def counts(self, of: tuple[int, int], spent: int) -> None:
        """Take note of a report that counts: of which round and attempt, and how many milliseconds it took to make."""
        self.counted, self.reported, self.spent = of, self.heard, spent
        self.answered += 1
        self.latencies.append(time.monotonic() - self.called)

    def row(self, now: datetime, clock: float) -> dict[str, Any]:
        """Return what is told of the client; times in seconds, bytes of messages."""
        return {
            "client": self.number,
            "state": self._state(),
            "version": self.version,
            "samples": self.samples,
            "software": self.software,
            "last_heard": self.heard,
            "last_report": self.reported,
            "missing_for": None if self.gone is None else clock - self.gone,
            "latency": median(self.latencies) if self.latencies else None,
            "evaluation": self.spent / 1000,
            "up": self.up,
            "down": self.down,
            "answered": self.answered,
            "late": self.late,
            "duplicate": self.duplicate,
            "refused": self.refused,
            "dropped": self.dropped,
            "joined": self.joined,
            "last_refusal": self.reason,
            "certificate_days": None if self.signatory is None else max((self.signatory.ends - now).days, 0),
        }

    def _state(self) -> str:
        if self.revoked:
            return "revoked"
        if not self.session:
            return "never seen"
        if self.done:
            return "done"
        if self.gone is not None:
            return "away"
        return "ready" if self.ready else "busy"


@dataclass(slots=True)
class Roster:
    """All clients that are or were there, and the rules by which they are let in."""

    clients: int
    """Numbers run from 0 to one less."""
    authority: bytes | None
    """PEM; None admits whoever connects, for tests on one machine."""
    admitted: Collection[int] | None = None
    """Numbers that may join; None is all."""
    revoked: Callable[[Signatory], bool] = lambda _: False
    """Whether the certificate under which a client signs is revoked; may change at any time."""
    certificate: bytes = b""
    """The server's own, PEM, to which clients' signatures are bound; empty where clients connect without one."""
    entries: dict[int, Entry] = field(default_factory=dict[int, Entry])
    strangers: int = 0
    """Messages refused that are nobody's."""
    _server: bytes = field(init=False, default=ANY_SERVER)
    _read: dict[int, tuple[bytes, Signatory]] = field(default_factory=dict[int, tuple[bytes, Signatory]], repr=False)
    """Of each client the certificate that was looked at last: to look at one takes longer than to check a signature."""

    def __post_init__(self) -> None:
        if self.certificate:
            self._server = digest_of(self.certificate)

    def admits(self, number: int) -> bool:
        """Return whether the client of that number may join."""
        return 0 <= number < self.clients and (self.admitted is None or number in self.admitted)

    @property
    def expected(self) -> int:
        """How many clients may join."""
        return sum(1 for number in range(self.clients) if self.admits(number))

    def there(self) -> list[Entry]:
        """Return the clients that have joined and are linked."""
        return [entry for entry in self.entries.values() if entry.session and entry.samples and entry.gone is None]

    def ready(self) -> list[int]:
        """Return the numbers of those that wait to be called, ascending."""
        return sorted(entry.number for entry in self.there() if entry.ready)

    def absent(self) -> list[int]:
        """Return the numbers of those that may join and are not there, ascending."""
        there = {entry.number for entry in self.there()}
        return [number for number in range(self.clients) if number not in there and self.admits(number)]

    def hello(self, message: Signed, hello: Hello, now: datetime) -> tuple[Entry, bytes]:
        """Return the client that says hello and, unless it has proved to be fresh, a challenge for it to say back.

        Raises:
            ReportError: it is not admitted; says why.
        """
        if hello.protocol != PROTOCOL:
            raise FinalRefusalError(
                f"protocol {hello.protocol} where {PROTOCOL} is spoken: install the server's version"
            )
        signatory = self._signatory(message, hello, now)
        number = message.client
        if number >= self.clients:
            raise FinalRefusalError(f"client {number} where the run has clients 0 to {self.clients - 1}")
        if not self.admits(number):
            raise FinalRefusalError(f"client {number} is not among those admitted")
        entry = self.entries.setdefault(number, Entry(number))
        if signatory is not None and self.revoked(signatory):
            # Another process of the client may be here, with another certificate.
            entry.revoked = entry.revoked or not entry.session
            raise _barred(number)
        if entry.challenge and hmac.compare_digest(hello.challenge, entry.challenge):
            entry.joins(message.session, hello, signatory)
            return entry, b""
        entry.challenge = secrets.token_bytes(16)
        return entry, entry.challenge

    def _signatory(self, message: Signed, hello: Hello, now: datetime) -> Signatory | None:
        if self.authority is None:
            return None
        found = self._reads(hello.certificate, self.authority, message.client, now)
        # Who says a challenge back has seen whose it is.
        server = self._server if hello.challenge else ANY_SERVER
        found.check(signed(server, message.session, message.body), message.signature, now)
        if found.number != message.client:
            raise ReportError(f"client {found.number} speaks as client {message.client}")
        return found

    def _reads(self, certificate: bytes, authority: bytes, number: int, now: datetime) -> Signatory:
        """Return whose a certificate is, that came in the name of a client."""
        before = self._read.get(number)
        if before is not None and before[0] == certificate:
            return before[1]
        found = Signatory.read(certificate, authority, now)
        if found.number == number and self.admits(number):
            self._read[number] = certificate, found
        return found

    def known(self, message: Signed, now: datetime) -> Entry | None:
        """Return the client that a message is from; None where its process has not said hello to this one.

        Raises:
            ReportError: it is not the client's.
        """
        entry = self.entries.get(message.client)
        if entry is None or not entry.session:
            return None
        # First, since it costs nothing: neither answer says or changes anything.
        if entry.session != message.session:
            if entry.joined > 1:
                raise FinalRefusalError(f"another process has joined as client {message.client} since")
            return None
        if entry.signatory is not None:
            entry.signatory.check(signed(self._server, message.session, message.body), message.signature, now)
            if self.revoked(entry.signatory):
                raise _barred(entry.number)
        return entry

    def bar(self) -> list[Entry]:
        """Keep out the clients whose certificates have been revoked since they were admitted, and return them."""
        held = [entry for entry in self.entries.values() if entry.session and entry.signatory is not None]
        found = [entry for entry in held if entry.signatory is not None and self.revoked(entry.signatory)]
        for entry in found:
            entry.bar()
        return found

    def session_of(self, number: int) -> bytes:
        """Return the session of a client's process that has joined; empty where there is none."""
        entry = self.entries.get(number)
        return entry.session if entry is not None else b""

    def of_session(self, name: str) -> Entry | None:
        """Return the client whose process has a name, in hexadecimal."""
        return next((entry for entry in tuple(self.entries.values()) if entry.session.hex() == name), None)


def _barred(number: int) -> FinalRefusalError:
    return FinalRefusalError(REVOKED.format(number))
