"""Why a client and its server do not meet, in words: zenoh itself only goes on trying."""

from __future__ import annotations

import socket
import ssl
from collections.abc import Sequence
from datetime import datetime

from cryptography import x509

from baffle.certificates import about, addresses, fingerprint, utc, who
from baffle.engines.network.addresses import place
from baffle.engines.network.keyring import ClientKeys, ServerKeys

PATIENCE = 3.0
"""Seconds for which a server is waited for, at each step."""

VERDICT = 1.0
"""Seconds in which a server that refuses a client's certificate says so; in TLS 1.3 that is after the handshake."""

_NOT_YET, _EXPIRED = 9, 10
_ANOTHER_AUTHORITY = (2, 7, 18, 19, 20, 21)
_ANOTHER_NAME = (62, 64)
_REFUSED_AUTHORITY = ("UNKNOWN_CA", "DECRYPT_ERROR", "BAD_CERTIFICATE", "CERTIFICATE_UNKNOWN", "ACCESS_DENIED")


def why(address: str, keys: ClientKeys | None, now: datetime) -> str:
    """Return why this client can't reach the server at HOST:PORT, or nothing if it can, having tried: up to about 7 s.

    `now` is what this machine's clock says, for the text; the certificates are checked against the clock itself.

    Raises:
        SettingsError: the address is not one.
    """
    host, port = place("address", address)
    try:
        with socket.create_connection((host, port), PATIENCE) as link:
            if keys is None:
                return _unsecured(link, address)
            return _secured(link, address, keys, now)
    except OSError as error:
        return _unreached(error, address, host)


def idle(listen: Sequence[str], keys: ServerKeys | None, now: datetime) -> str:
    """Return what the operator of a server to whom nobody comes can compare with a client."""
    places = ", ".join(listen)
    if keys is None:
        return f"Nobody has connected yet. This server listens at {places} without keys, for this machine alone."
    found = x509.load_pem_x509_certificate(keys.certificate_pem)
    return (
        f"Nobody has connected yet. This server listens at {places}; its certificate lets clients dial it as "
        f"{_addresses(found)}. Theirs must be of the authority {_authority(keys.ca_pem)}. "
        f"Its own is valid until {utc(found.not_valid_after_utc)}, and this machine's clock says {utc(now)}: "
        f"compare that with a client's."
    )


def _unreached(error: OSError, address: str, host: str) -> str:
    if isinstance(error, socket.gaierror):
        return f"The name {host} is not found ({error.strerror}): is it spelt right, and has this machine a network?"
    if isinstance(error, ConnectionRefusedError):
        return f"Nobody listens at {address}: is the server running, and at that port?"
    if isinstance(error, TimeoutError):
        return f"Nothing comes back from {address}: its machine is off or elsewhere, or a firewall is between."
    return f"{address} can't be reached: {error.strerror or error}."


def _unsecured(link: socket.socket, address: str) -> str:
    """Return whether a server that is asked without TLS would have TLS."""
    context = _open_context()
    link.settimeout(VERDICT)
    try:
        context.wrap_socket(link).close()
    except ssl.SSLError as error:
        if "ALERT" not in (error.reason or ""):
            return ""
    except OSError:
        return ""
    return (
        f"The server at {address} speaks TLS, and this client has no keys: it needs a folder of `baffle keys client`."
    )


def _secured(link: socket.socket, address: str, keys: ClientKeys, now: datetime) -> str:
    context = ssl.create_default_context(cafile=keys.ca)
    context.load_cert_chain(keys.certificate, keys.key, keys.passphrase)
    try:
        secure = context.wrap_socket(link, server_hostname=place("address", address)[0])
    except ssl.SSLCertVerificationError as error:
        return _distrusted(error, address, keys, now)
    except OSError as error:
        if isinstance(error, ssl.SSLError) and "ALERT" in (error.reason or ""):
            return _refused(error, address, keys, now)
        return f"{address} takes the connection, but does not speak TLS: another program, or a server without keys?"
    with secure:
        return _verdict(secure, address, keys, now)


def _verdict(secure: ssl.SSLSocket, address: str, keys: ClientKeys, now: datetime) -> str:
    """Return what the server says after the handshake; silence is zenoh waiting for its client."""
    secure.settimeout(VERDICT)
    try:
        secure.recv(1)
    except TimeoutError:
        return ""
    except ssl.SSLError as error:
        return _refused(error, address, keys, now)
    except OSError:
        pass
    return f"The server at {address} ends the connection without saying why: see its log."


def _distrusted(error: ssl.SSLCertVerificationError, address: str, keys: ClientKeys, now: datetime) -> str:
    """Return what is wrong with the server's certificate."""
    found = _shown(address, keys)
    whose = f"The certificate of the server at {address}"
    clock = f"this machine's clock, which says {utc(now)},"
    if error.verify_code == _NOT_YET:
        since = f" before {utc(found.not_valid_before_utc)}" if found else ""
        return f"{whose} is not valid{since}: is {clock} wrong?"
    if error.verify_code == _EXPIRED:
        on = f" on {utc(found.not_valid_after_utc)}" if found else ""
        return f"{whose} expired{on}: unless {clock} is wrong, the server needs a new one (baffle keys server)."
    if error.verify_code in _ANOTHER_AUTHORITY:
        by = f" ({who(found.issuer)})" if found else ""
        return f"{whose} was issued by another authority{by} than this client's, which is {_authority(keys.ca_pem)}."
    if error.verify_code in _ANOTHER_NAME:
        names = f", but for {_addresses(found)}" if found else ""
        return f"{whose} is not for that address{names}: dial it as one of those, or have a new one made."
    return f"{whose} is not accepted: {error.verify_message}."


def _refused(error: ssl.SSLError, address: str, keys: ClientKeys, now: datetime) -> str:
    """Return what the server has against this client's certificate, by the alert that it sent."""
    whose = f"The server at {address} refuses this client's certificate"
    told = error.reason or str(error)
    if "CERTIFICATE_EXPIRED" in told:
        return f"{whose} as not valid at this time: {_validity(keys, now)}."
    if any(name in told for name in _REFUSED_AUTHORITY):
        return f"{whose}: it was issued by another authority than the server's, by {_authority(keys.ca_pem)}."
    if "CERTIFICATE_REQUIRED" in told:
        return f"{whose}: it saw none."
    return f"{whose} or connection: {told}."


def _validity(keys: ClientKeys, now: datetime) -> str:
    if wrong := about(keys.certificate_pem, now).wrong:
        return f"it {wrong}"
    found = x509.load_pem_x509_certificate(keys.certificate_pem)
    since, until = utc(found.not_valid_before_utc), utc(found.not_valid_after_utc)
    return f"it is from {since} until {until}, and here it is {utc(now)}, so one of the two clocks is wrong"


def _shown(address: str, keys: ClientKeys) -> x509.Certificate | None:
    """Return the certificate that a server shows, unchecked: only for what is told of it."""
    host, port = place("address", address)
    context = _open_context()
    context.load_cert_chain(keys.certificate, keys.key, keys.passphrase)
    try:
        with socket.create_connection((host, port), PATIENCE) as link, context.wrap_socket(link) as secure:
            found = secure.getpeercert(binary_form=True)
        return x509.load_der_x509_certificate(found) if found else None
    except (OSError, ValueError):
        return None


def _open_context() -> ssl.SSLContext:
    """Return a context that accepts whatever certificate is shown: nothing is ever sent through it."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    return context


def _addresses(certificate: x509.Certificate) -> str:
    try:
        return addresses(certificate)
    except (x509.ExtensionNotFound, ValueError):
        return "none"


def _authority(pem: bytes) -> str:
    return f"{who(x509.load_pem_x509_certificate(pem).subject)} (fingerprint {fingerprint(pem)})"


__all__ = ["idle", "why"]
