"""Questions and answers between clients and their server over zenoh, by mutual TLS."""

# pyright: standard

from __future__ import annotations

import logging
import re
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Any, Protocol, Self

from baffle import checks
from baffle.engines.network.addresses import place, refuse_unservable
from baffle.engines.network.dialogue import MOST
from baffle.engines.network.keyring import ClientKeys, ServerKeys
from baffle.engines.network.links import (
    HERE,
    KEY,
    MOST_CLIENTS,
    OLD,
    RETRY,
    client_settings,
    config_of,
    server_settings,
)
from baffle.errors import SettingsError
from baffle.extras import require

if TYPE_CHECKING:
    import zenoh

SETTLE = 0.1
"""Seconds that a question without an answer takes longer, at most, unless the link has gone."""

MOST_BYTES = MOST
"""The largest question or answer, in bytes: what zenoh queues for a client that is slow to take it in.

A larger answer to a frozen client would hold a thread, and leave a link that never ends (zenoh 1.10).
"""

_SESSION = re.compile("[0-9a-f]{16}")
_NUMBERED = re.compile(f"(?:{KEY}|{HERE})/(0|[1-9][0-9]{{0,18}})")
log = logging.getLogger("baffle")


class Request(Protocol):
    """What a client asked, to be answered at once or later, from any thread."""

    payload: bytes

    def reply(self, payload: bytes) -> None:
        """Answer; only the first answer has an effect, and none if the client has gone. Never raises."""
        ...


class ZenohServer:
    """Answers the clients whose certificates are of its own authority.

    Its access control, enforced for whoever connects, admits questions at KEY and tokens below HERE: no client hears,
    answers or asks another, and only client N's certificate lets a link speak at KEY/N and HERE/N. A question that is
    not answered and no longer referred to ends without an answer.

    Args:
        listen: each HOST:PORT, with a host or an address of this machine, like `0.0.0.0:7447` and `[::]:7447`.
        keys: the server's; None for TCP without any protection, on loopback addresses alone.
        receive: called with each request, in a thread of zenoh's that reads links, where it must only queue; and with
            the number of the client by whose certificate it came, or None where it came to where anyone may ask.
            Without keys, the number is what the link says.
        gone: called, in such a thread, with the session of a client whose link has ended, and its number: at once when
            it is closed or its process dies, after 10 s if the machine is frozen or unplugged.
        clients: numbers below it may be clients', 0 to MOST_CLIENTS.
        most_bytes: the largest question and the largest answer, in bytes, 1 to MOST_BYTES; larger ones are dropped.

    Raises:
        SettingsError: an address can't be listened at, or not without keys.
        MissingExtraError: zenoh is not installed.
    """

    def __init__(
        self,
        listen: Sequence[str],
        keys: ServerKeys | None,
        receive: Callable[[Request, int | None], None],
        gone: Callable[[str, int], None],
        *,
        clients: int = 1000,
        most_bytes: int = MOST_BYTES,
    ) -> None:
        checks.within("most_bytes", most_bytes, 1, MOST_BYTES)
        checks.within("clients", clients, 0, MOST_CLIENTS)
        places = refuse_unservable(listen, keys)
        require("zenoh", "network")
        self._receive, self._gone, self._most_bytes, self._dropped = receive, gone, most_bytes, 0
        self._session = _listening(server_settings(places, keys, most_bytes, clients), listen)
        for key in (KEY, f"{KEY}/*", OLD):
            self._session.declare_queryable(key, _at_once(self._asked), complete=True)
        self._session.liveliness().declare_subscriber(f"{HERE}/*/*", _at_once(self._changed), history=True)

    def close(self) -> None:
        """Stop answering; requests that are open end without an answer. Closing again does nothing."""
        if not self._session.is_closed():
            self._session.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None):
        self.close()

    def _asked(self, query: zenoh.Query) -> None:
        asked = _Asked(query, self._most_bytes)
        if len(asked.payload) <= self._most_bytes:
            self._receive(asked, _number(str(query.key_expr)))
            return
        self._dropped += 1
        if self._dropped & (self._dropped - 1) == 0:
            log.warning(
                "a question of %d bytes is dropped, at most %d can be (%d so far)",
                len(asked.payload),
                self._most_bytes,
                self._dropped,
            )

    def _changed(self, sample: zenoh.Sample) -> None:
        import zenoh

        if sample.kind == zenoh.SampleKind.DELETE:
            whose, _, session = str(sample.key_expr).rpartition("/")
            number = _number(whose)
            if number is not None and _SESSION.fullmatch(session):
                self._gone(session, number)


class ZenohClient:
    """Asks one server, which it reaches again whenever the link or the server was away.

    The server is looked for in the background, for ever: whether it is reached, `connected` says.

    Args:
        address: the server's HOST:PORT; the host must be one that its certificate names.
        keys: the client's; None for TCP without any protection.
        session: by which the server knows this client's link: 16 hexadecimal digits, another for each object.
        number: the client's, where it has no keys to say it.
        most_bytes: the largest question and the largest answer, in bytes, 1 to MOST_BYTES; larger answers are dropped.

    Raises:
        SettingsError: the address or the session is not one.
        MissingExtraError: zenoh is not installed.
    """

    def __init__(
        self,
        address: str,
        keys: ClientKeys | None,
        session: str,
        *,
        number: int = 0,
        most_bytes: int = MOST_BYTES,
    ) -> None:
        server = place("address", address)
        if not _SESSION.fullmatch(session):
            raise SettingsError("session", session, "must be 16 hexadecimal digits")
        checks.within("most_bytes", most_bytes, 1, MOST_BYTES)
        require("zenoh", "network")
        self._settings = client_settings(server, keys, most_bytes)
        number = number if keys is None else keys.number
        self._token, self._most_bytes = f"{HERE}/{number}/{session}", most_bytes
        self._doors = (f"{KEY}/{number}", KEY)
        self._known = False
        """Whether the last question was answered at this client's own door."""
        self._session: zenoh.Session | None = None
        self._here: zenoh.LivelinessToken | None = None
        self._lock = threading.Lock()
        self._tried, self._closed = threading.Event(), threading.Event()
        self._opener = threading.Thread(target=self._open, name="baffle-reach", daemon=True)
        self._opener.start()

    @property
    def connected(self) -> bool:
        """Whether there is a link to the server now."""
        session = self._session
        return session is not None and not self._closed.is_set() and bool(session.info.routers_zid())

    def ask(self, payload: bytes, timeout: float) -> bytes | None:
        """Return the server's answer, or None if there was none within `timeout` seconds (> 0) or no link.

        Without a link, or when it breaks, None comes at once: wait a little before asking again. Threads may ask at
        the same time.

        Raises:
            ValueError: the payload is larger than `most_bytes`.
        """
        if len(payload) > self._most_bytes:
            raise ValueError(f"{len(payload)} bytes are asked, and at most {self._most_bytes} can be")
        ends = time.monotonic() + timeout
        self._tried.wait(timeout)
        answer = self._asked_at(self._doors[0], payload, timeout)
        left = ends - time.monotonic()
        if answer is None and not self._known and left > 0 and self.connected:
            # Where the server has no door for this client, it says why at the one for anybody.
            return self._asked_at(self._doors[1], payload, left)
        self._known = answer is not None
        return answer

    def _asked_at(self, door: str, payload: bytes, timeout: float) -> bytes | None:
        import zenoh

        session = self._session
        if session is None:
            return None
        try:
            replies = session.get(
                door,
                # A RingChannel loses, now and then, an answer whose question ends right behind it.
                zenoh.handlers.FifoChannel(4),
                payload=payload,
                timeout=timeout,
                target=zenoh.QueryTarget.BEST_MATCHING,
                consolidation=zenoh.ConsolidationMode.NONE,
                congestion_control=zenoh.CongestionControl.BLOCK,
                express=True,
            )
            for reply in replies:
                if reply.ok is not None:
                    return bytes(reply.ok.payload)
        except zenoh.ZError as error:
            log.debug("zenoh: %s", error)
        self._settle()
        return None

    def close(self) -> None:
        """Leave; a question that is open ends without an answer. Closing again does nothing."""
        with self._lock:
            self._closed.set()
            self._tried.set()
            session, self._session = self._session, None
        if session is not None:
            session.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None):
        self.close()

    def _settle(self) -> None:
        """Let a link that broke vanish: for a moment zenoh takes questions into it, and ends them by timeout alone."""
        ends = time.monotonic() + SETTLE
        while self.connected and time.monotonic() < ends:
            time.sleep(SETTLE / 20)

    def _open(self) -> None:
        """Reach the server for the first time; from then on zenoh itself does."""
        pause, longest = RETRY
        while not self._closed.is_set():
            session = _reached(self._settings)
            if session is not None:
                self._keep(session)
                return
            self._tried.set()
            self._closed.wait(pause)
            pause = min(2 * pause, longest)

    def _keep(self, session: zenoh.Session) -> None:
        here = session.liveliness().declare_token(self._token)
        with self._lock:
            if not self._closed.is_set():
                # A token that nothing refers to is taken back.
                self._session, self._here = session, here
                self._tried.set()
                return
        session.close()


class _Asked:
    """A request that holds zenoh's query until it is answered."""

    __slots__ = ("_key", "_lock", "_most_bytes", "_query", "payload")

    def __init__(self, query: zenoh.Query, most_bytes: int) -> None:
        self._most_bytes = most_bytes
        self.payload = b"" if query.payload is None else bytes(query.payload)
        self._key = str(query.key_expr)
        self._query: zenoh.Query | None = query
        self._lock = threading.Lock()

    def reply(self, payload: bytes) -> None:
        import zenoh

        with self._lock:
            query, self._query = self._query, None
        if query is None:
            return
        try:
            with query:
                if len(payload) <= self._most_bytes:
                    query.reply(self._key, payload, express=True)
                else:
                    log.error("an answer of %d bytes is dropped: at most %d can be", len(payload), self._most_bytes)
        except zenoh.ZError as error:
            log.debug("zenoh: %s", error)


def _at_once(act: Callable[[Any], None]) -> Any:
    """Return a callback that zenoh's reading thread calls itself.

    Otherwise another thread does, and what it has not got to waits in a queue without a bound. So a link from which
    more comes than can be taken is read no faster, and its client has to wait.
    """
    import zenoh

    return zenoh.handlers.Callback(act, indirect=False)


def _number(key: str) -> int | None:
    """Return the number in which a key ends, or None."""
    found = _NUMBERED.fullmatch(key)
    return int(found[1]) if found else None


def _listening(settings: Mapping[str, object], listen: Sequence[str]) -> zenoh.Session:
    import zenoh

    try:
        return zenoh.open(config_of(settings))
    except zenoh.ZError as error:
        raise SettingsError("listen", list(listen), f"can't be served: {error}") from None


def _reached(settings: Mapping[str, object]) -> zenoh.Session | None:
    import zenoh

    try:
        return zenoh.open(config_of(settings))
    except zenoh.ZError as error:
        log.debug("zenoh: %s", error)
        return None


__all__ = ["HERE", "KEY", "MOST_BYTES", "MOST_CLIENTS", "OLD", "Request", "ZenohClient", "ZenohServer"]
