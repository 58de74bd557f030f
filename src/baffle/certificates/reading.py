"""Certificates and keys in PEM, which may hold anything, and what is asked of any certificate."""

from __future__ import annotations

from datetime import UTC, datetime

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization

from baffle.certificates.names import who
from baffle.errors import SettingsError

_MOST_BYTES = 16_384
_UNREADABLE = (
    ValueError,
    UnsupportedAlgorithm,
    x509.DuplicateExtension,
    x509.InvalidVersion,
    x509.UnsupportedGeneralNameType,
)


def read_certificate(pem: bytes) -> x509.Certificate:
    """Return the certificate in a PEM that may hold anything; all that is asked of it is there.

    Raises:
        ValueError: there is none, or it is too large; says which, without a subject.
    """
    if len(pem) > _MOST_BYTES:
        raise ValueError(f"is larger than {_MOST_BYTES} bytes")
    try:
        found = x509.load_pem_x509_certificate(pem)
        # These are parsed when they are asked for.
        _ = found.subject, found.issuer, found.extensions, found.public_key()
        _ = found.not_valid_before_utc, found.not_valid_after_utc
    except _UNREADABLE:
        raise ValueError("is not a certificate (PEM) that can be read") from None
    return found


def read_authority(pem: bytes) -> x509.Certificate:
    """Return the certificate of an authority in a PEM.

    Raises:
        SettingsError: there is none.
    """
    try:
        found = read_certificate(pem)
        constraints = found.extensions.get_extension_for_class(x509.BasicConstraints).value
        found.extensions.get_extension_for_class(x509.SubjectKeyIdentifier)
    except x509.ExtensionNotFound:
        raise SettingsError("ca", "ca.pem", "is a certificate, but not an authority's") from None
    except ValueError as error:
        raise SettingsError("ca", "ca.pem", str(error)) from None
    if not constraints.ca:
        raise SettingsError("ca", who(found.subject), "is not an authority: it can't issue certificates")
    return found


def read_key(field: str, pem: bytes) -> object:
    """Return the private key in a PEM, of whatever kind.

    Raises:
        SettingsError: there is none, or it is encrypted; names `field`.
    """
    try:
        return serialization.load_pem_private_key(pem, password=None)
    except TypeError:
        raise SettingsError(
            field, f"{len(pem)} bytes", "is encrypted; it must be a private key as it was made"
        ) from None
    except (ValueError, UnsupportedAlgorithm):
        raise SettingsError(field, f"{len(pem)} bytes", "is not a private key (PEM)") from None


def leads_to(certificate: x509.Certificate, root: x509.Certificate) -> bool:
    """Return whether a certificate was issued by `root` itself."""
    try:
        certificate.verify_directly_issued_by(root)
    except (ValueError, TypeError, InvalidSignature, UnsupportedAlgorithm):
        return False
    return True


def out_of_time(certificate: x509.Certificate, now: datetime) -> str:
    """Return why a certificate is not valid at this time, or nothing."""
    if now < certificate.not_valid_before_utc:
        return f"is not valid before {utc(certificate.not_valid_before_utc)}, and it is {utc(now)}: is a clock wrong?"
    if now > certificate.not_valid_after_utc:
        return f"expired on {utc(certificate.not_valid_after_utc)}"
    return ""


def utc(time: datetime) -> str:
    """Return a time to the minute, as a person reads it."""
    return f"{time.astimezone(UTC):%Y-%m-%d %H:%M} UTC"


__all__ = ["leads_to", "out_of_time", "read_authority", "read_certificate", "read_key", "utc"]
