"""Lists of revoked certificates (X.509 CRLs, RFC 5280), signed by the authority that issued them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization

from baffle.certificates.issuing import Pair, opened
from baffle.certificates.names import who
from baffle.certificates.reading import read_authority
from baffle.errors import SettingsError

MOST_LIST = 1 << 20
"""Bytes of a list, at most."""

_UNREADABLE = (ValueError, TypeError, UnsupportedAlgorithm, x509.DuplicateExtension)


@dataclass(frozen=True, slots=True)
class Revocations:
    """A list of revoked certificates that its authority signed."""

    number: int
    """Greater in every list of an authority, from 1."""
    made: datetime
    serials: Mapping[int, datetime]
    """Serial numbers of revoked certificates, and since when."""


def revoked(issuer: Pair, serials: Mapping[int, datetime], number: int, now: datetime) -> bytes:
    """Return the list, PEM, of certificates that an authority revokes.

    It is good until the authority ends, or another with a greater number takes its place.

    Args:
        issuer: the authority.
        serials: serial numbers of certificates, and since when they are revoked.
        number: ≥ 1; greater than that of every list before.
        now: the time.

    Raises:
        SettingsError: the authority is none, has expired, or has another key than the one beside it; or the list
            would be larger than MOST_LIST.
    """
    root, key = opened(issuer, now)
    known = root.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value
    builder = (
        x509.CertificateRevocationListBuilder()
        .issuer_name(root.subject)
        .last_update(now.replace(microsecond=0))
        .next_update(root.not_valid_after_utc)
        .add_extension(x509.CRLNumber(number), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(known), critical=False)
    )
    for serial, since in sorted(serials.items()):
        entry = x509.RevokedCertificateBuilder().serial_number(serial).revocation_date(since.replace(microsecond=0))
        builder = builder.add_revoked_certificate(entry.build())
    made = builder.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)
    if len(made) > MOST_LIST:
        raise SettingsError("number", len(serials), f"certificates are too many: a list has at most {MOST_LIST} bytes")
    return made


def read_revocations(pem: bytes, authority: bytes) -> Revocations:
    """Return the list in a PEM that may hold anything, if `authority` signed it.

    Its dates are told and not judged: a clock that is wrong must not let revoked clients in.

    Raises:
        ValueError: it is too large, none, another authority's, not signed by it, without a number, or has a critical
            extension, which would change what it means; says which, without a subject.
        SettingsError: the authority is none.
    """
    root = read_authority(authority)
    if len(pem) > MOST_LIST:
        raise ValueError(f"is larger than {MOST_LIST} bytes")
    try:
        found = x509.load_pem_x509_crl(pem)
        entries = list(found)
        extensions = [*found.extensions, *(extension for entry in entries for extension in entry.extensions)]
        serials = {entry.serial_number: entry.revocation_date_utc for entry in entries}
        made = found.last_update_utc
    except _UNREADABLE:
        raise ValueError("is not a list of revoked certificates (PEM) that can be read") from None
    if not _signed(found, root):
        raise ValueError(f"was not signed by this authority, but names {who(found.issuer)}")
    if critical := [extension.oid.dotted_string for extension in extensions if extension.critical]:
        raise ValueError(f"has the critical extension {critical[0]}, which is not understood here")
    numbers = [extension.value for extension in extensions if isinstance(extension.value, x509.CRLNumber)]
    if not numbers:
        raise ValueError("has no number")
    return Revocations(numbers[0].crl_number, made, serials)


def _signed(found: x509.CertificateRevocationList, root: x509.Certificate) -> bool:
    try:
        return found.issuer == root.subject and found.is_signature_valid(root.public_key())  # type: ignore[arg-type]
    except _UNREADABLE:
        return False


__all__ = ["MOST_LIST", "Revocations", "read_revocations", "revoked"]
