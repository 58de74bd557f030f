"""The certificate that a server shows, looked at by who dials it."""

from __future__ import annotations

from datetime import datetime
from ipaddress import ip_address

from cryptography import x509
from cryptography.hazmat.primitives import hashes

from baffle.certificates.purpose import SERVES, purposes
from baffle.certificates.reading import leads_to, out_of_time, read_authority, read_certificate
from baffle.errors import ReportError


def digest_of(certificate: bytes) -> bytes:
    """Return SHA-256 of the certificate (DER) in a PEM.

    Raises:
        ReportError: there is none.
    """
    return _read(certificate).fingerprint(hashes.SHA256())


def dialled(certificate: bytes, authority: bytes, host: str, now: datetime) -> bytes:
    """Return SHA-256 of the certificate (DER) of a server that is dialled at `host`.

    Args:
        certificate: PEM, untrusted.
        authority: `ca.pem`, trusted.
        host: a name or an IP address, without brackets.
        now: the time at which the certificate must be valid.

    Raises:
        ReportError: the certificate is none, another authority's, expired, not yet valid, not a server's, or not for
            that host.
        SettingsError: the authority is none.
    """
    found = _read(certificate)
    if not leads_to(found, read_authority(authority)):
        raise ReportError("what the server shows as its certificate was issued by another authority")
    if told := out_of_time(found, now):
        raise ReportError(f"the certificate that the server shows {told}")
    if SERVES not in purposes(found):
        raise ReportError("what the server shows as its certificate is not a server's")
    if not _names(found, host):
        raise ReportError(f"the server at {host} shows the certificate of another: it may pass on what it is told")
    return found.fingerprint(hashes.SHA256())


def _read(certificate: bytes) -> x509.Certificate:
    try:
        return read_certificate(certificate)
    except ValueError as error:
        raise ReportError(f"what the server shows as its certificate {error}") from None


def _names(certificate: x509.Certificate, host: str) -> bool:
    """Return whether a certificate is for a host: names are compared in full, as `baffle keys server` makes them."""
    try:
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return False
    try:
        return ip_address(host) in names.get_values_for_type(x509.IPAddress)
    except ValueError:
        return host.lower().rstrip(".") in [name.lower() for name in names.get_values_for_type(x509.DNSName)]


__all__ = ["dialled", "digest_of"]
