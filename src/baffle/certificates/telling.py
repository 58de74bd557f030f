"""What a certificate says, to be read and compared by a person."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from cryptography import x509
from cryptography.hazmat.primitives import hashes

from baffle.certificates.names import client_number, who
from baffle.certificates.purpose import in_words, issues
from baffle.certificates.reading import leads_to, out_of_time, read_authority, read_certificate
from baffle.errors import SettingsError

SOON = 30
"""Days left at which a certificate is warned about."""


@dataclass(frozen=True, slots=True)
class About:
    """What a certificate says, in words; whether it is true, its issuer knows."""

    purpose: str
    issuer: str
    ends: datetime
    days: int
    """Whole days left, 0 once it has expired."""
    wrong: str
    """Why it can't be used at this time, or nothing."""
    issues: bool
    """Whether it is an authority's."""
    number: int | None
    """The client's that it names; None where it names none."""


def about(certificate: bytes, now: datetime) -> About:
    """Return what the certificate in a PEM says.

    Raises:
        SettingsError: it can't be read.
    """
    found = _read(certificate)
    issuer = "itself" if found.issuer == found.subject else who(found.issuer)
    ends = found.not_valid_after_utc
    days = max((ends - now).days, 0)
    return About(in_words(found), issuer, ends, days, out_of_time(found, now), issues(found), client_number(found))


def fingerprint(certificate: bytes) -> str:
    """Return the first 8 bytes of the SHA-256 of the certificate in a PEM, in hexadecimal, to compare by eye.

    Raises:
        SettingsError: it can't be read.
    """
    return _read(certificate).fingerprint(hashes.SHA256())[:8].hex(" ", 2)


def serial_number(certificate: bytes) -> int:
    """Return the serial number of the certificate in a PEM.

    Raises:
        SettingsError: it can't be read.
    """
    return _read(certificate).serial_number


def issued(certificate: bytes, authority: bytes) -> bool:
    """Return whether the certificate in a PEM leads to the `authority` in another.

    Raises:
        SettingsError: the authority is none.
    """
    root = read_authority(authority)
    try:
        return leads_to(read_certificate(certificate), root)
    except ValueError:
        return False


def _read(certificate: bytes) -> x509.Certificate:
    try:
        return read_certificate(certificate)
    except ValueError as error:
        raise SettingsError("certificate", f"{len(certificate)} bytes", str(error)) from None


__all__ = ["SOON", "About", "about", "fingerprint", "issued", "serial_number"]
