"""The names in certificates: of clients, of servers' addresses, and as a terminal shows them."""

from __future__ import annotations

import re
from ipaddress import IPv6Address, ip_address
from typing import TypeAlias

from cryptography import x509
from cryptography.x509.oid import NameOID

from baffle import checks
from baffle.errors import SettingsError

Named: TypeAlias = x509.Certificate | x509.CertificateSigningRequest
"""What names somebody."""

_MOST_NUMBER = (1 << 63) - 1
_CLIENT = re.compile("client-(0|[1-9][0-9]*)")
_HOST = re.compile(r"(?!-)[a-z0-9-]{1,63}(?<!-)(\.(?!-)[a-z0-9-]{1,63}(?<!-))*", re.IGNORECASE)


def client_name(number: int) -> str:
    """Return the common name of client `number`.

    Raises:
        SettingsError: a number outside [0, 2⁶³ − 1].
    """
    checks.within("number", number, 0, _MOST_NUMBER)
    return f"client-{number}"


def client_number(certificate: Named) -> int | None:
    """Return the number of the client that a certificate names, or None where it names none."""
    names = certificate.subject.get_attributes_for_oid(NameOID.COMMON_NAME)
    found = _CLIENT.fullmatch(str(names[0].value)) if len(names) == 1 else None
    return int(found[1]) if found else None


def general_name(address: str) -> x509.GeneralName:
    """Return an IP address or a host name as certificates hold it.

    Raises:
        SettingsError: it is neither.
    """
    try:
        found = ip_address(address)
    except ValueError:
        last = address.rpartition(".")[2]
        if len(address) > 253 or not _HOST.fullmatch(address) or last.isdecimal():
            rule = "must be a host name (letters, digits, hyphens and dots) or an IP address, without port or scheme"
            raise SettingsError("address", address, rule) from None
        return x509.DNSName(address.lower())
    if isinstance(found, IPv6Address) and found.scope_id:
        raise SettingsError("address", address, "must be without a zone: a certificate can't hold one")
    return x509.IPAddress(found)


def hosts(certificate: Named) -> tuple[str, ...]:
    """Return the host names and IP addresses in a certificate, or in a request for one, as they are.

    Raises:
        ExtensionNotFound: it has no place for any.
    """
    names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    return (*names.get_values_for_type(x509.DNSName), *map(str, names.get_values_for_type(x509.IPAddress)))


def addresses(certificate: x509.Certificate) -> str:
    """Return at which addresses a certificate's owner is dialled, fit for a terminal.

    Raises:
        ExtensionNotFound: it has no place for any.
    """
    return _fit(", ".join(hosts(certificate)))


def who(name: x509.Name) -> str:
    """Return who is named, fit for a terminal."""
    names = name.get_attributes_for_oid(NameOID.COMMON_NAME)
    return _fit(str(names[0].value) if names else name.rfc4514_string())


def _fit(text: str) -> str:
    """Return a text of others, fit for a terminal."""
    return text if text.isprintable() else ascii(text)


__all__ = ["addresses", "client_name", "client_number", "general_name", "hosts", "who"]
