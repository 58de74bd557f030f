"""A federation's own authority, and the certificates that it issues."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta

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
_Public = ec.EllipticCurvePublicKey | Ed25519PublicKey


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
    return Pair(_pem(builder.sign(key, hashes.SHA256())), _secret(key))


def server(issuer: Pair, addresses: Sequence[str], days: int, now: datetime) -> Pair:
    """Return the certificate (EC P-256) of a server that clients dial at `addresses`, host names or IP addresses.

    Its common name is `server`; it serves and connects, since a server may dial another.

    Raises:
        SettingsError: an address that is neither, or what `client` raises.
    """
    if not addresses:
        raise SettingsError("address", list(addresses), "must be one or more, those that clients dial")
    names = [general_name(text) for text in dict.fromkeys(addresses)]
    key = ec.generate_private_key(ec.SECP256R1())
    return Pair(_issued(issuer, "server", names, key.public_key(), (SERVES, CONNECTS), days, now), _secret(key))


def client(issuer: Pair, number: int, days: int, now: datetime) -> Pair:
    """Return the certificate (EC P-256) with which client `number` connects; its common name is `client-NUMBER`.

    It can't serve: a client's key that is stolen is no server's.

    Raises:
        SettingsError: a number outside [0, 2⁶³ − 1], days outside [1, 36500] or beyond the authority's end, or an
            authority that is none, has expired or is not yet valid.
    """
    name = client_name(number)
    key = ec.generate_private_key(ec.SECP256R1())
    return Pair(_issued(issuer, name, [x509.DNSName(name)], key.public_key(), (CONNECTS,), days, now), _secret(key))


def signing(issuer: Pair, number: int, days: int, now: datetime) -> Pair:
    """Return the certificate (Ed25519) under which client `number` signs reports, for `Signer` and `verified`.

    Raises:
        SettingsError: as `client`.
    """
    name = client_name(number)
    key = Ed25519PrivateKey.generate()
    return Pair(_issued(issuer, name, [x509.DNSName(name)], key.public_key(), (SIGNING,), days, now), _secret(key))


def _issued(
    issuer: Pair,
    name: str,
    addresses: Sequence[x509.GeneralName],
    key: _Public,
    purposes: Sequence[x509.ObjectIdentifier],
    days: int,
    now: datetime,
) -> bytes:
    checks.within("days", days, 1, _MOST_DAYS)
    root, secret = _opened(issuer, now)
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
    return _pem(builder.sign(secret, hashes.SHA256()))


def _builder(subject: x509.Name, issuer: x509.Name, key: _Public, days: int, now: datetime) -> x509.CertificateBuilder:
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


def _opened(issuer: Pair, now: datetime) -> tuple[x509.Certificate, ec.EllipticCurvePrivateKey]:
    """Return an authority that can issue certificates now, and its key."""
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


def _secret(key: ec.EllipticCurvePrivateKey | Ed25519PrivateKey) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )


__all__ = ["Pair", "authority", "client", "server", "signing"]
