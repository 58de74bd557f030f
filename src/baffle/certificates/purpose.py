"""What a certificate is for."""

from __future__ import annotations

from cryptography import x509
from cryptography.x509.oid import ExtendedKeyUsageOID

from baffle.certificates.names import addresses, client_number, who

CONNECTS = ExtendedKeyUsageOID.CLIENT_AUTH
"""The extended key usage of whoever dials."""

SERVES = ExtendedKeyUsageOID.SERVER_AUTH
"""The extended key usage of whoever is dialled."""

SIGNING = x509.ObjectIdentifier("1.2.840.113556.1.8000.2554.57925.64814.4383.18050.46592.13950027.13473756")
"""The extended key usage "signs Baffle's reports": no TLS library takes it for a connection.

The OID is from a random UUID under Microsoft's arc for that; not under 2.25, whose numbers cryptography 42 can't hold.
"""


def purposes(certificate: x509.Certificate) -> list[x509.ObjectIdentifier]:
    """Return the extended key usages of a certificate, none where it has no such extension."""
    try:
        return list(certificate.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value)
    except x509.ExtensionNotFound:
        return []


def issues(certificate: x509.Certificate) -> bool:
    """Return whether a certificate is an authority's."""
    try:
        return certificate.extensions.get_extension_for_class(x509.BasicConstraints).value.ca
    except x509.ExtensionNotFound:
        return False


def in_words(certificate: x509.Certificate) -> str:
    """Return whose a certificate is and what for, fit for a terminal; of a stranger's, the name alone."""
    name, uses, number = who(certificate.subject), purposes(certificate), client_number(certificate)
    try:
        if certificate.extensions.get_extension_for_class(x509.BasicConstraints).value.ca:
            return f"{name}, an authority: it issues the certificates of servers and clients"
        dialled = addresses(certificate)
    except x509.ExtensionNotFound:
        return name
    if SERVES in uses:
        return f"{name}, dialled at {dialled}"
    if number is None:
        return name
    return f"client {number}, signs its reports" if SIGNING in uses else f"client {number}, connects to servers"


__all__ = ["CONNECTS", "SERVES", "SIGNING", "in_words", "issues", "purposes"]
