"""Questions and answers between clients and their server over zenoh, by mutual TLS."""

# pyright: standard

from __future__ import annotations

import errno
import ipaddress
import json
import logging
import re
import socket
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Protocol, Self

from baffle import checks
from baffle.engines.network.keyring import ClientKeys, ServerKeys
from baffle.errors import SettingsError
from baffle.extras import require

if TYPE_CHECKING:
    import zenoh

KEY = "baffle/1/ask"
"""Where clients ask, and the server alone answers."""

HERE = "baffle/1/here"
"""Under which each client's session shows that it is there."""

RETRY = (0.25, 4.0)
"""Seconds between two attempts to reach the server: at first, and at most, doubling.

Not shorter: after each client that it refuses, zenoh's server accepts nobody for 0.1 s.
"""

FREEZE = 0.5
"""Seconds for which an answer waits for a client that takes nothing in; its link is cut then."""

SETTLE = 0.1
"""Seconds that a question without an answer takes longer, at most, unless the link has gone."""

MOST_BYTES = 1 << 20
"""The largest question or answer, in bytes: what zenoh queues for a client that is slow to take it in.

A larger answer to a frozen client would hold a thread, and leave a link that never ends (zenoh 1.10).
"""

_MOST_CLIENTS = 65_536
_SESSION = re.compile("[0-9a-f]{16}")
_HEAD = 4096
"""Bytes that zenoh may put around a payload; far more than it does."""

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
    answers or asks another. A question that is not answered and no longer referred to ends without an answer.

    Args:
        listen: each HOST:PORT, with a host or an address of this machine, like `0.0.0.0:7447` and `[::]:7447`.
        keys: the server's; None for TCP without any protection, on loopback addresses alone.
        receive: called with each request, one at a time, in a thread of zenoh's: it must only queue.
        gone: called, in such a thread, with the session of a client whose link has ended: at once when it is closed
            or its process dies, after 10 s if the machine is frozen or unplugged.
        most_bytes: the largest question and the largest answer, in bytes, 1 to MOST_BYTES; larger ones are dropped.

    Raises:
        SettingsError: an address can't be listened at, or not without keys.
        MissingExtraError: zenoh is not installed.
    """

    def __init__(
        self,
        listen: Sequence[str],
        keys: ServerKeys | None,
        receive: Callable[[Request], None],
        gone: Callable[[str], None],
        *,
        most_bytes: int = MOST_BYTES,
    ) -> None:
        checks.within("most_bytes", most_bytes, 1, MOST_BYTES)
        places = refuse_unservable(listen, keys)
        self._receive, self._gone, self._most_bytes, self._dropped = receive, gone, most_bytes, 0
        self._session = _listening(_server_settings(places, keys, most_bytes), listen)
        self._session.declare_queryable(KEY, self._asked, complete=True)
        self._session.liveliness().declare_subscriber(f"{HERE}/*", self._changed, history=True)

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
            self._receive(asked)
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
            self._gone(str(sample.key_expr).rpartition("/")[2])


class ZenohClient:
    """Asks one server, which it reaches again whenever the link or the server was away.

    The server is looked for in the background, for ever: whether it is reached, `connected` says.

    Args:
        address: the server's HOST:PORT; the host must be one that its certificate names.
        keys: the client's; None for TCP without any protection.
        session: by which the server knows this client's link: 16 hexadecimal digits, another for each object.
        most_bytes: the largest question and the largest answer, in bytes, 1 to MOST_BYTES; larger answers are dropped.

    Raises:
        SettingsError: the address or the session is not one.
        MissingExtraError: zenoh is not installed.
    """

    def __init__(self, address: str, keys: ClientKeys | None, session: str, *, most_bytes: int = MOST_BYTES) -> None:
        server = place("address", address)
        if not _SESSION.fullmatch(session):
            raise SettingsError("session", session, "must be 16 hexadecimal digits")
        checks.within("most_bytes", most_bytes, 1, MOST_BYTES)
        require("zenoh", "network")
        self._settings = _client_settings(server, keys, most_bytes)
        self._token, self._most_bytes = f"{HERE}/{session}", most_bytes
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
        import zenoh

        if len(payload) > self._most_bytes:
            raise ValueError(f"{len(payload)} bytes are asked, and at most {self._most_bytes} can be")
        self._tried.wait(timeout)
        session = self._session
        if session is None:
            return None
        try:
            replies = session.get(
                KEY,
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

    __slots__ = ("_lock", "_most_bytes", "_query", "payload")

    def __init__(self, query: zenoh.Query, most_bytes: int) -> None:
        self._most_bytes = most_bytes
        self.payload = b"" if query.payload is None else bytes(query.payload)
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
                    query.reply(KEY, payload, express=True)
                else:
                    log.error("an answer of %d bytes is dropped: at most %d can be", len(payload), self._most_bytes)
        except zenoh.ZError as error:
            log.debug("zenoh: %s", error)


def place(field: str, text: str) -> tuple[str, int]:
    """Return the host, without brackets, and the port of HOST:PORT.

    Raises:
        SettingsError: the text is not that.
    """
    host, colon, port = text.rpartition(":")
    bracketed = host.startswith("[") and host.endswith("]")
    host = host[1:-1] if bracketed else host
    fit = host.isascii() and host.isprintable() and not set(host) & set(" /?#;[]")
    if not (colon and host and fit and bracketed == (":" in host) and port.isascii() and port.isdecimal()):
        rule = "must be HOST:PORT, like 192.0.2.7:7447, fed.example.org:7447 or [2001:db8::7]:7447"
        raise SettingsError(field, text, rule)
    if not 1 <= int(port) <= 65_535:
        raise SettingsError(field, text, "must have a port from 1 to 65535")
    return host, int(port)


def refuse_unservable(listen: Sequence[str], keys: ServerKeys | None) -> list[tuple[str, int]]:
    """Return each HOST:PORT's host and port, where a server can listen at them now.

    Raises:
        SettingsError: an address can't be listened at, or not without keys.
        MissingExtraError: zenoh is not installed.
    """
    places = [place("listen", text) for text in listen]
    if not places:
        raise SettingsError("listen", list(listen), "must be one address (HOST:PORT) or more")
    if keys is None:
        _refuse_outside(places)
    require("zenoh", "network")
    for host, port in places:
        _refuse_unbindable(host, port)
    return places


def _refuse_outside(places: Sequence[tuple[str, int]]) -> None:
    """Refuse to serve without keys at an address that other machines reach."""
    for host, port in places:
        if not _is_loopback(host):
            rule = "is reached by other machines: that needs keys (baffle keys server); without, 127.0.0.1 or [::1]"
            raise SettingsError("listen", f"{host}:{port}", rule)


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        # What a name stands for can change between this look and zenoh's own.
        return False


def _refuse_unbindable(host: str, port: int) -> None:
    """Refuse where nothing can be listened at, in words that zenoh does not have."""
    shown = joined(host, port)
    try:
        family, kind, protocol, _, found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
    except OSError as error:
        raise SettingsError("listen", shown, f"is not found: {error.strerror}") from None
    with socket.socket(family, kind, protocol) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(found)
            probe.listen()
        except OSError as error:
            raise SettingsError("listen", shown, _unbindable(error)) from None


def _unbindable(error: OSError) -> str:
    if isinstance(error, PermissionError):
        return "is not allowed to this user; ports below 1024 often are not"
    words = {errno.EADDRINUSE: "is in use by another program", errno.EADDRNOTAVAIL: "is not an address of this machine"}
    return words.get(error.errno or 0, f"can't be listened at: {error.strerror}")


def joined(host: str, port: int) -> str:
    """Return HOST:PORT, an IPv6 address in brackets."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def _listening(settings: Mapping[str, object], listen: Sequence[str]) -> zenoh.Session:
    import zenoh

    try:
        return zenoh.open(_config(settings))
    except zenoh.ZError as error:
        raise SettingsError("listen", list(listen), f"can't be served: {error}") from None


def _reached(settings: Mapping[str, object]) -> zenoh.Session | None:
    import zenoh

    try:
        return zenoh.open(_config(settings))
    except zenoh.ZError as error:
        log.debug("zenoh: %s", error)
        return None


def _config(settings: Mapping[str, object]) -> zenoh.Config:
    import zenoh

    config = zenoh.Config()
    for key, value in settings.items():
        config.insert_json5(key, json.dumps(value))
    return config


def _server_settings(places: Sequence[tuple[str, int]], keys: ServerKeys | None, most_bytes: int) -> dict[str, object]:
    scheme = "tcp" if keys is None else "tls"
    return {
        **_settings(scheme, most_bytes),
        "mode": "router",
        "listen/endpoints": [f"{scheme}/{joined(host, port)}" for host, port in places],
        "listen/timeout_ms": 0,
        "listen/exit_on_failure": True,
        "transport/unicast/max_sessions": _MOST_CLIENTS,
        "transport/link/tx/queue/congestion_control/block/wait_before_close": int(FREEZE * 1e6),
        "access_control": _access(),
        **({} if keys is None else _secured("listen", keys)),
    }


def _client_settings(server: tuple[str, int], keys: ClientKeys | None, most_bytes: int) -> dict[str, object]:
    scheme = "tcp" if keys is None else "tls"
    return {
        **_settings(scheme, most_bytes),
        "mode": "client",
        "connect/endpoints": [f"{scheme}/{joined(*server)}"],
        # Open fails at once when nobody is there; later links are sought for ever, at these intervals.
        "connect/timeout_ms": 0,
        "connect/retry": {
            "period_init_ms": int(RETRY[0] * 1e3),
            "period_max_ms": int(RETRY[1] * 1e3),
            "period_increase_factor": 2.0,
        },
        "transport/unicast/open_timeout": 5000,
        **({} if keys is None else _secured("connect", keys)),
    }


def _settings(scheme: str, most_bytes: int) -> dict[str, object]:
    """Return what server and clients have in common: no discovery, one protocol, one lane, bounded messages."""
    return {
        "scouting/multicast/enabled": False,
        "scouting/gossip/enabled": False,
        "scouting/delay": 0,
        "timestamping/enabled": False,
        "adminspace/enabled": False,
        "transport/shared_memory/enabled": False,
        "transport/unicast/qos/enabled": False,
        "transport/link/protocols": [scheme],
        "transport/link/rx/max_message_size": most_bytes + _HEAD,
        # As many batches (64 KiB) as zenoh allows, for MOST_BYTES: what exceeds them has FREEZE in all to leave.
        "transport/link/tx/queue/size/data": 16,
    }


def _secured(side: str, keys: ServerKeys | ClientKeys) -> dict[str, object]:
    """Return the settings of mutual TLS for the side that listens or connects."""
    tls = "transport/link/tls"
    return {
        f"{tls}/root_ca_certificate": str(keys.ca),
        f"{tls}/{side}_certificate": str(keys.certificate),
        f"{tls}/{side}_private_key": str(keys.key),
        f"{tls}/enable_mtls": True,
        f"{tls}/verify_name_on_connect": True,
        f"{tls}/close_link_on_expiration": True,
    }


def _access() -> dict[str, object]:
    """Return what passes between the server and anyone: all else is dropped."""
    rules = [
        {"id": "ask", "messages": ["query"], "flows": ["ingress"], "permission": "allow", "key_exprs": [KEY]},
        {
            "id": "here",
            "messages": ["liveliness_token"],
            "flows": ["ingress"],
            "permission": "allow",
            "key_exprs": [f"{HERE}/*"],
        },
        {
            "id": "answer",
            "messages": ["reply", "declare_queryable"],
            "flows": ["egress"],
            "permission": "allow",
            "key_exprs": [KEY],
        },
    ]
    return {
        "enabled": True,
        "default_permission": "deny",
        "rules": rules,
        "subjects": [{"id": "anyone"}],
        "policies": [{"rules": [rule["id"] for rule in rules], "subjects": ["anyone"]}],
    }


__all__ = ["HERE", "KEY", "MOST_BYTES", "Request", "ZenohClient", "ZenohServer", "joined", "place"]
