"""A federation's own authority, the certificates it issues, and signatures that lead back to it."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from ipaddress import IPv6Address, ip_address

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from baffle import checks
from baffle.errors import ReportError, SettingsError

REPORT = b"baffle-report-1\0"
"""Stands before a message when it is signed, so that no signature made for anything else is one of a report."""

SIGNING = x509.ObjectIdentifier("1.2.840.113556.1.8000.2554.57925.64814.4383.18050.46592.13950027.13473756")
"""The extended key usage "signs Baffle's reports": no TLS library takes it for a connection.

The OID is from a random UUID under Microsoft's arc for that; not under 2.25, whose numbers cryptography 42 can't hold.
"""

SLACK = timedelta(days=1)
"""Certificates are valid from this long before they are made: clocks are late, or keep local time."""

MOST_DAYS = 36_500
_MOST_BYTES = 16_384
_MOST_NUMBER = (1 << 63) - 1
_CLIENT = re.compile("client-(0|[1-9][0-9]*)")
_HOST = re.compile(r"(?!-)[a-z0-9-]{1,63}(?<!-)(\.(?!-)[a-z0-9-]{1,63}(?<!-))*", re.IGNORECASE)
_CONNECTS = ExtendedKeyUsageOID.CLIENT_AUTH
_SERVES = ExtendedKeyUsageOID.SERVER_AUTH
_UNREADABLE = (
    ValueError,
    UnsupportedAlgorithm,
    x509.DuplicateExtension,
    x509.InvalidVersion,
    x509.UnsupportedGeneralNameType,
)
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
    checks.within("days", days, 1, MOST_DAYS)
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
    names = [_address(text) for text in dict.fromkeys(addresses)]
    key = ec.generate_private_key(ec.SECP256R1())
    return Pair(_issued(issuer, "server", names, key.public_key(), (_SERVES, _CONNECTS), days, now), _secret(key))


def client(issuer: Pair, number: int, days: int, now: datetime) -> Pair:
    """Return the certificate (EC P-256) with which client `number` connects; its common name is `client-NUMBER`.

    It can't serve: a client's key that is stolen is no server's.

    Raises:
        SettingsError: a number outside [0, 2⁶³ − 1], days outside [1, 36500] or beyond the authority's end, or an
            authority that is none, has expired or is not yet valid.
    """
    name = _client_name(number)
    key = ec.generate_private_key(ec.SECP256R1())
    return Pair(_issued(issuer, name, [x509.DNSName(name)], key.public_key(), (_CONNECTS,), days, now), _secret(key))


def signing(issuer: Pair, number: int, days: int, now: datetime) -> Pair:
    """Return the certificate (Ed25519) under which client `number` signs reports, for `Signer` and `verified`.

    Raises:
        SettingsError: as `client`.
    """
    name = _client_name(number)
    key = Ed25519PrivateKey.generate()
    return Pair(_issued(issuer, name, [x509.DNSName(name)], key.public_key(), (SIGNING,), days, now), _secret(key))


@dataclass(frozen=True, slots=True)
class Signer:
    """Signs a client's reports: Ed25519 (RFC 8032) over REPORT ‖ message."""

    key: Ed25519PrivateKey = field(repr=False)

    @classmethod
    def read(cls, key: bytes) -> Signer:
        """Return the signer with the private key in this PEM.

        Raises:
            SettingsError: it holds no private Ed25519 key.
        """
        found = _private("sign-key", key)
        if not isinstance(found, Ed25519PrivateKey):
            raise SettingsError("sign-key", type(found).__name__, "must be an Ed25519 key, of `baffle keys client`")
        return cls(found)

    def sign(self, message: bytes) -> bytes:
        """Return the signature of `message`, 64 bytes; equal messages have equal signatures."""
        return self.key.sign(REPORT + message)


def verified(certificate: bytes, authority: bytes, message: bytes, signature: bytes, now: datetime) -> int:
    """Return the number of the client that signed `message`.

    That the message is that client's of this round, and came once, is not in a signature: compare the numbers, and
    have the round in the message.

    Args:
        certificate: what came with the report, PEM, untrusted: a client's `sign.pem`.
        authority: `ca.pem`, trusted.
        message: what was signed.
        signature: 64 bytes, untrusted.
        now: the time at which the certificate must be valid.

    Raises:
        ReportError: the certificate is none, another authority's, expired, not yet valid, or not one under which a
            client signs; or the signature is wrong.
        SettingsError: the authority is none.
    """
    root = _authority(authority)
    try:
        found = _certificate(certificate)
    except ValueError as error:
        raise ReportError(f"what came as a certificate {error}") from None
    if not _leads_to(found, root):
        raise ReportError("the certificate was issued by another authority")
    for one, name in ((root, "the authority"), (found, "the certificate")):
        if told := _out_of_time(one, now):
            raise ReportError(f"{name} {told}")
    number = _client_number(found)
    key = found.public_key()
    if number is None or not isinstance(key, Ed25519PublicKey) or SIGNING not in _purposes(found):
        raise ReportError(f"the certificate of {_name(found.subject)} is not one under which a client signs reports")
    try:
        key.verify(signature, REPORT + message)
    except InvalidSignature:
        raise ReportError(f"the signature is not client {number}'s of this message") from None
    return number


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


def about(certificate: bytes, now: datetime) -> About:
    """Return what the certificate in a PEM says.

    Raises:
        SettingsError: it can't be read.
    """
    try:
        found = _certificate(certificate)
    except ValueError as error:
        raise SettingsError("certificate", f"{len(certificate)} bytes", str(error)) from None
    issuer = "itself" if found.issuer == found.subject else _name(found.issuer)
    ends = found.not_valid_after_utc
    return About(_purpose(found), issuer, ends, max((ends - now).days, 0), _out_of_time(found, now))


def issued(certificate: bytes, authority: bytes) -> bool:
    """Return whether the certificate in a PEM leads to the `authority` in another.

    Raises:
        SettingsError: the authority is none.
    """
    root = _authority(authority)
    try:
        return _leads_to(_certificate(certificate), root)
    except ValueError:
        return False


def _issued(
    issuer: Pair,
    name: str,
    addresses: Sequence[x509.GeneralName],
    key: _Public,
    purposes: Sequence[x509.ObjectIdentifier],
    days: int,
    now: datetime,
) -> bytes:
    checks.within("days", days, 1, MOST_DAYS)
    root, secret = _opened(issuer, now)
    ends = root.not_valid_after_utc
    if now + timedelta(days=days) > ends:
        rule = f"the authority lasts until {_day(ends)}: at most {(ends - now).days}, or make a new authority"
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
    root = _authority(issuer.certificate)
    name = _name(root.subject)
    if told := _out_of_time(root, now):
        raise SettingsError("ca", name, told)
    key = _private("ca-key", issuer.key)
    if not isinstance(key, ec.EllipticCurvePrivateKey) or key.public_key() != root.public_key():
        raise SettingsError("ca", name, "has another key than the one beside it")
    return root, key


def _authority(certificate: bytes) -> x509.Certificate:
    try:
        found = _certificate(certificate)
        constraints = found.extensions.get_extension_for_class(x509.BasicConstraints).value
        found.extensions.get_extension_for_class(x509.SubjectKeyIdentifier)
    except x509.ExtensionNotFound:
        raise SettingsError("ca", "ca.pem", "is a certificate, but not an authority's") from None
    except ValueError as error:
        raise SettingsError("ca", "ca.pem", str(error)) from None
    if not constraints.ca:
        raise SettingsError("ca", _name(found.subject), "is not an authority: it can't issue certificates")
    return found


def _certificate(pem: bytes) -> x509.Certificate:
    """Return the certificate in a PEM that may hold anything, or raise ValueError; all that is asked of it is there."""
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


def _pem(certificate: x509.Certificate) -> bytes:
    return certificate.public_bytes(serialization.Encoding.PEM)


def _secret(key: ec.EllipticCurvePrivateKey | Ed25519PrivateKey) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )


def _private(field: str, pem: bytes) -> object:
    try:
        return serialization.load_pem_private_key(pem, password=None)
    except TypeError:
        raise SettingsError(
            field, f"{len(pem)} bytes", "is encrypted; it must be a private key as it was made"
        ) from None
    except (ValueError, UnsupportedAlgorithm):
        raise SettingsError(field, f"{len(pem)} bytes", "is not a private key (PEM)") from None


def _leads_to(certificate: x509.Certificate, root: x509.Certificate) -> bool:
    try:
        certificate.verify_directly_issued_by(root)
    except (ValueError, TypeError, InvalidSignature, UnsupportedAlgorithm):
        return False
    return True


def _out_of_time(certificate: x509.Certificate, now: datetime) -> str:
    if now < certificate.not_valid_before_utc:
        return f"is not valid before {_day(certificate.not_valid_before_utc)}, and it is {_day(now)}: is a clock wrong?"
    if now > certificate.not_valid_after_utc:
        return f"expired on {_day(certificate.not_valid_after_utc)}"
    return ""


def _day(time: datetime) -> str:
    return f"{time.astimezone(UTC):%Y-%m-%d %H:%M} UTC"


def _address(text: str) -> x509.GeneralName:
    """Return an IP address or a host name as certificates hold it."""
    try:
        found = ip_address(text)
    except ValueError:
        last = text.rpartition(".")[2]
        if len(text) > 253 or not _HOST.fullmatch(text) or last.isdecimal():
            rule = "must be a host name (letters, digits, hyphens and dots) or an IP address, without port or scheme"
            raise SettingsError("address", text, rule) from None
        return x509.DNSName(text.lower())
    if isinstance(found, IPv6Address) and found.scope_id:
        raise SettingsError("address", text, "must be without a zone: a certificate can't hold one")
    return x509.IPAddress(found)


def _client_name(number: int) -> str:
    checks.within("number", number, 0, _MOST_NUMBER)
    return f"client-{number}"


def _client_number(certificate: x509.Certificate) -> int | None:
    names = certificate.subject.get_attributes_for_oid(NameOID.COMMON_NAME)
    found = _CLIENT.fullmatch(str(names[0].value)) if len(names) == 1 else None
    return int(found[1]) if found else None


def _name(name: x509.Name) -> str:
    """Return who is named, fit for a terminal."""
    names = name.get_attributes_for_oid(NameOID.COMMON_NAME)
    text = str(names[0].value) if names else name.rfc4514_string()
    return text if text.isprintable() else ascii(text)


def _purposes(certificate: x509.Certificate) -> list[x509.ObjectIdentifier]:
    try:
        return list(certificate.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value)
    except x509.ExtensionNotFound:
        return []


def _purpose(certificate: x509.Certificate) -> str:
    name, purposes, number = _name(certificate.subject), _purposes(certificate), _client_number(certificate)
    try:
        if certificate.extensions.get_extension_for_class(x509.BasicConstraints).value.ca:
            return f"{name}, an authority: it issues the certificates of servers and clients"
        addresses = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return name
    if _SERVES in purposes:
        hosts = [*addresses.get_values_for_type(x509.DNSName), *addresses.get_values_for_type(x509.IPAddress)]
        told = ", ".join(map(str, hosts))
        return f"{name}, dialled at {told if told.isprintable() else ascii(told)}"
    if number is None:
        return name
    return f"client {number}, signs its reports" if SIGNING in purposes else f"client {number}, connects to servers"


__all__ = [
    "About",
    "Pair",
    "Signer",
    "about",
    "authority",
    "client",
    "issued",
    "server",
    "signing",
    "verified",
]
