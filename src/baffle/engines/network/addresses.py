"""HOST:PORT in words that a person gives, and whether a server can listen there."""

from __future__ import annotations

import errno
import ipaddress
import socket
from collections.abc import Sequence

from baffle.engines.network.keyring import ServerKeys
from baffle.errors import SettingsError


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
    """
    places = [place("listen", text) for text in listen]
    if not places:
        raise SettingsError("listen", list(listen), "must be one address (HOST:PORT) or more")
    if keys is None:
        _refuse_outside(places)
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
