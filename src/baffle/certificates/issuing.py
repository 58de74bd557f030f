"""A federation's own authority, and the certificates that it issues."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import TypeAlias

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.x509.oid import NameOID

from baffle import checks
from baffle.certificates.names import client_name, general_name, who
from baffle.certificates.purpose import CONNECTS, SERVES, SIGNING
from baffle.certificates.reading import out_of_time, read_authority, read_key, utc
from baffle.errors import SettingsError

SLACK = timedelta(days=1)
"""Certificates are valid from this long before they are made: clocks are late, or keep local time."""

_MOST_DAYS = 36_500
Public: TypeAlias = ec.EllipticCurvePublicKey | Ed25519PublicKey
"""What a certificate can be for."""


@dataclass(frozen=True, slots=True)
class Pair:
    """A certificate and the private key of the public key in it."""

    certificate: bytes
    """PEM."""
    key: bytes = field(repr=False)
    """PEM (PKCS #8, not encrypted): secret."""


def authority(name: str, days: int, now: datetime) -> Pair:
    """Return a new authority (EC P-256) that signs itself and is called `name`.

    Here and below, keys and serial numbers are drawn by the operating system, and `now` knows its time zone.

    Raises:
        SettingsError: a name of not 1 to 64 printable characters, or days outside [1, 36500].
    """
    if not (1 <= len(name) <= 64 and name.isprintable() and name.strip() == name):
        raise SettingsError("name", name, "must be 1 to 64 printable characters, without spaces around")
    checks.within("days", days, 1, _MOST_DAYS)
    key = ec.generate_private_key(ec.SECP256R1())
    # An organisation as well, so that no authority has the subject of a server or a client.
    subject = x509.Name(
        [x509.NameAttribute(NameOID.ORGANIZATION_NAME, "Baffle"), x509.NameAttribute(NameOID.COMMON_NAME, name)]
    )
    builder = (
        _builder(subject, subject, key.public_key(), days, now)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_usage(issues=True), critical=True)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(key.public_key()), critical=False)
    )
    return Pair(_pem(builder.sign(key, hashes.SHA256())), secret(key))


def server(issuer: Pair, addresses: Sequence[str], days: int, now: datetime) -> Pair:
    """Return a new key (EC P-256) and its certificate by `issue_server`.

    Raises:
        SettingsError: as `issue_server`.
    """
    key = ec.generate_private_key(ec.SECP256R1())
    return Pair(issue_server(issuer, addresses, key.public_key(), days, now), secret(key))


def client(issuer: Pair, number: int, days: int, now: datetime) -> Pair:
    """Return a new key (EC P-256) and its certificate by `issue_client`.

    Raises:
        SettingsError: as `issue_client`.
    """
    key = ec.generate_private_key(ec.SECP256R1())
    return Pair(issue_client(issuer, number, key.public_key(), days, now), secret(key))


def signing(issuer: Pair, number: int, days: int, now: datetime) -> Pair:
    """Return a new key (Ed25519) and its certificate by `issue_signing`.

    Raises:
        SettingsError: as `issue_client`.
    """
    key = Ed25519PrivateKey.generate()
    return Pair(issue_signing(issuer, number, key.public_key(), days, now), secret(key))


def issue_server(
    issuer: Pair, addresses: Sequence[str], key: ec.EllipticCurvePublicKey, days: int, now: datetime
) -> bytes:
    """Return the certificate, PEM, of a server that clients dial at `addresses`, host names or IP addresses.

    Its common name is `server`; it serves and connects, since a server may dial another.

    Raises:
        SettingsError: an address that is neither, none, or what `issue_client` raises.
    """
    if not addresses:
        raise SettingsError("address", list(addresses), "must be one or more, those that clients dial")
    names = [general_name(text) for text in dict.fromkeys(addresses)]
    return _issued(issuer, "server", names, key, (SERVES, CONNECTS), days, now)


def issue_client(issuer: Pair, number: int, key: ec.EllipticCurvePublicKey, days: int, now: datetime) -> bytes:
    """Return the certificate, PEM, with which client `number` connects; its common name is `client-NUMBER`.

    It can't serve: a client's key that is stolen is no server's.

    Raises:
        SettingsError: a number outside [0, 2⁶³ − 1], days outside [1, 36500] or beyond the authority's end, or an
            authority that is none, has expired or is not yet valid.
    """
    name = client_name(number)
    return _issued(issuer, name, [x509.DNSName(name)], key, (CONNECTS,), days, now)


def issue_signing(issuer: Pair, number: int, key: Ed25519PublicKey, days: int, now: datetime) -> bytes:
    """Return the certificate, PEM, under which client `number` signs reports, for `Signer` and `verified`.

    Raises:
        SettingsError: as `issue_client`.
    """
    name = client_name(number)
    return _issued(issuer, name, [x509.DNSName(name)], key, (SIGNING,), days, now)


def _issued(
    issuer: Pair,
    name: str,
    addresses: Sequence[x509.GeneralName],
    key: Public,
    purposes: Sequence[x509.ObjectIdentifier],
    days: int,
    now: datetime,
) -> bytes:
    checks.within("days", days, 1, _MOST_DAYS)
    root, own = opened(issuer, now)
    ends = root.not_valid_after_utc
    if now + timedelta(days=days) > ends:
        rule = f"the authority lasts until {utc(ends)}: at most {(ends - now).days}, or make a new authority"
        raise SettingsError("days", days, rule)
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    known = root.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value
    builder = (
        _builder(subject, root.subject, key, days, now)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_usage(issues=False), critical=True)
        .add_extension(x509.ExtendedKeyUsage(purposes), critical=False)
        .add_extension(x509.SubjectAlternativeName(addresses), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(known), critical=False)
    )
    return _pem(builder.sign(own, hashes.SHA256()))


def _builder(subject: x509.Name, issuer: x509.Name, key: Public, days: int, now: datetime) -> x509.CertificateBuilder:
    now = now.replace(microsecond=0)
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - SLACK)
        .not_valid_after(now + timedelta(days=days))
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key), critical=False)
    )


def _usage(issues: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not issues,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=issues,
        crl_sign=issues,
        encipher_only=False,
        decipher_only=False,
    )


def opened(issuer: Pair, now: datetime) -> tuple[x509.Certificate, ec.EllipticCurvePrivateKey]:
    """Return an authority that can issue certificates now, and its key.

    Raises:
        SettingsError: it is none, has expired, is not yet valid, or has another key than the one beside it.
    """
    root = read_authority(issuer.certificate)
    name = who(root.subject)
    if told := out_of_time(root, now):
        raise SettingsError("ca", name, told)
    key = read_key("ca-key", issuer.key)
    if not isinstance(key, ec.EllipticCurvePrivateKey) or key.public_key() != root.public_key():
        raise SettingsError("ca", name, "has another key than the one beside it")
    return root, key


def _pem(certificate: x509.Certificate) -> bytes:
    return certificate.public_bytes(serialization.Encoding.PEM)


def secret(key: ec.EllipticCurvePrivateKey | Ed25519PrivateKey) -> bytes:
    """Return a private key in PEM (PKCS #8, not encrypted)."""
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )


__all__ = [
    "Pair",
    "Public",
    "authority",
    "client",
    "issue_client",
    "issue_server",
    "issue_signing",
    "opened",
    "secret",
    "server",
    "signing",
]
