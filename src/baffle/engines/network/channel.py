"""A client's words to the server: numbered, signed, and said again until there is a reply."""

from __future__ import annotations

import logging
import secrets
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from threading import Event

from baffle.certificates.serving import dialled
from baffle.engines.network.addresses import place
from baffle.engines.network.dialogue import (
    ANY_SERVER,
    PARK,
    Bye,
    Challenge,
    Hello,
    Refused,
    Reply,
    Words,
    heard,
    sealed,
)
from baffle.errors import ReportError

_LONGEST = 4.0
"""Seconds between two tries to reach a server, at most."""
_PARTING = 1.0
"""Seconds for which a client that leaves waits to be heard, each of three times."""

log = logging.getLogger("baffle")


class RefusedError(ReportError):
    """The server does not admit this client; trying again can't help."""


def server_at(address: str, authority: bytes) -> Callable[[bytes], bytes]:
    """Return what looks at the certificate of the server that is dialled at HOST:PORT: `Channel.server_of`.

    Args:
        address: HOST:PORT.
        authority: `ca.pem`.

    Raises:
        SettingsError: the address is not one.
    """
    host = place("address", address)[0]
    return lambda certificate: dialled(certificate, authority, host, datetime.now(UTC))


@dataclass(slots=True, kw_only=True)
class Channel:
    """What a client says to its server, by whatever carries it.

    With keys, all but its very first words are signed together with the server's certificate, which comes with the
    challenge and is looked at by `server_of`. So another server of the same authority that a client dials can't pass
    its words on and be admitted in its name: it would have to show a certificate that is not for the host that was
    dialled. Two servers whose certificates name one host are one server here.
    """

    ask: Callable[[bytes, float], bytes | None]
    """(message, seconds) -> the server's reply, or None."""
    number: int
    """The client's."""
    sign: Callable[[bytes], bytes] = lambda _: b""
    server_of: Callable[[bytes], bytes] | None = None
    """Certificate that a server shows -> its SHA-256, or ReportError where it is not the one that was dialled; None
    where there are no certificates."""
    patience: float = PARK + 10.0
    """Seconds to wait for a reply; more than the server's patience with a client."""
    why: Callable[[], str] = lambda: ""
    """Why the server can't be reached, in words; empty where it can."""
    session: bytes = field(default_factory=lambda: secrets.token_bytes(8))
    """Of this process."""
    stopped: Event = field(default_factory=Event)
    """Whether the client is to end."""
    serial: int = 0
    """Messages so far."""
    up: int = 0
    """Bytes of messages to the server."""
    down: int = 0
    """Bytes of messages from it."""
    _server: bytes = ANY_SERVER
    """To which signatures are bound."""
    _trouble: str = ""
    _tries: int = 0
    """Messages without a reply, one after another."""

    def say(self, words: Words) -> Reply | None:
        """Return the server's reply, or None after a pause where it has none, or nothing that can be understood.

        Raises:
            RefusedError: the server does not admit this client.
        """
        self.serial += 1
        first = isinstance(words, Hello) and not words.challenge
        data = sealed(self.number, self.session, words, self.sign, ANY_SERVER if first else self._server)
        self.up += len(data)
        answer = self.ask(data, self.patience)
        if answer is None:
            return self.pause("")
        self.down += len(answer)
        try:
            reply = heard(answer)
            if isinstance(reply, Challenge) and self.server_of is not None:
                self._server = self.server_of(reply.certificate)
        except ReportError as error:
            return self.pause(str(error))
        if isinstance(reply, Refused):
            if reply.final:
                raise RefusedError(f"the server refuses client {self.number}: {reply.reason}")
            return self.pause(f"the server refuses a message: {reply.reason}")
        if self._trouble:
            log.info("the server answers again")
        self._trouble, self._tries = "", 0
        return reply

    def pause(self, trouble: str) -> None:
        """Say once what is wrong, and wait, longer each time, before the next try.

        Why there is no reply is looked into ever more rarely: a link that is refused costs the server time.
        """
        self._tries += 1
        if not trouble and self._tries & (self._tries - 1) == 0:
            trouble = self.why() or "no reply yet"
        if trouble and trouble != self._trouble:
            log.warning("%s; trying again", trouble.rstrip("."))
            self._trouble = trouble
        self.stopped.wait(min(_LONGEST, 0.125 * 1.5**self._tries, self.patience / 4))

    def leave(self) -> None:
        """Say that the end was heard, so that the server need not wait; it will not wait for long if this is lost."""
        data = sealed(self.number, self.session, Bye(), self.sign, self._server)
        any(self.ask(data, min(_PARTING, self.patience)) is not None for _ in range(3))
