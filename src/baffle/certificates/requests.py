"""Requests for certificates (PKCS #10, RFC 2986): a device makes its own keys, and no private key ever travels."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass, field

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.x509.oid import NameOID

from baffle.certificates.issuing import secret
from baffle.certificates.names import client_name, client_number, general_name, hosts, who
from baffle.errors import SettingsError

MOST_REQUEST = 16_384
"""Bytes of a request, at most."""

_BLOCK = re.compile(rb"-----BEGIN CERTIFICATE REQUEST-----[^-]+-----END CERTIFICATE REQUEST-----\r?\n?")
_UNREADABLE = (
    ValueError,
    TypeError,
    InvalidSignature,
    UnsupportedAlgorithm,
    x509.DuplicateExtension,
    x509.UnsupportedGeneralNameType,
)


@dataclass(frozen=True, slots=True)
class Own:
    """Keys that a device has made, and the request for their certificates."""

    request: bytes
    """PEM: one request of a server; two of a client, to connect and to sign."""
    link: bytes = field(repr=False)
    """PEM (PKCS #8, not encrypted): secret."""
    signs: bytes = field(default=b"", repr=False)
    """PEM (PKCS #8, not encrypted), of a client: secret."""


@dataclass(frozen=True, slots=True)
class Asked:
    """What a request asks for. That its sender has the keys is sure; who the sender is, is not."""

    number: int | None
    """A client's; None of a server."""
    addresses: tuple[str, ...]
    """Those of a server, unchecked."""
    link: ec.EllipticCurvePublicKey
    signs: Ed25519PublicKey | None
    """A client's."""
    fingerprint: str
    """The first 8 bytes of the SHA-256 of the request, in hexadecimal, to compare by eye."""


def ask_server(addresses: Sequence[str]) -> Own:
    """Return a server's new key (EC P-256), and a request for a certificate for `addresses`.

    Raises:
        SettingsError: an address that is no host name and no IP address, or none.
    """
    if not addresses:
        raise SettingsError("address", list(addresses), "must be one or more, those that clients dial")
    names = [general_name(text) for text in dict.fromkeys(addresses)]
    key = ec.generate_private_key(ec.SECP256R1())
    builder = _builder("server").add_extension(x509.SubjectAlternativeName(names), critical=False)
    return Own(_pem(builder.sign(key, hashes.SHA256())), secret(key))


def ask_client(number: int) -> Own:
    """Return client `number`'s new keys (EC P-256, Ed25519), and a request for their certificates.

    Raises:
        SettingsError: a number outside [0, 2⁶³ − 1].
    """
    builder = _builder(client_name(number))
    link, signs = ec.generate_private_key(ec.SECP256R1()), Ed25519PrivateKey.generate()
    request = _pem(builder.sign(link, hashes.SHA256())) + _pem(builder.sign(signs, None))
    return Own(request, secret(link), secret(signs))


def asked(request: bytes) -> Asked:
    """Return what a request asks for; each part is under the key that it is about.

    Raises:
        SettingsError: it is none, too large, or not as `ask_server` and `ask_client` make them.
    """
    if len(request) > MOST_REQUEST:
        raise _wrong(request, f"is larger than {MOST_REQUEST} bytes")
    try:
        found = [x509.load_pem_x509_csr(block) for block in _BLOCK.findall(request)]
        if not found or not all(one.is_signature_valid for one in found):
            raise ValueError
        keys = [one.public_key() for one in found]
        _ = [one.extensions for one in found]
    except _UNREADABLE:
        raise _wrong(request, "is not a request for certificates (PEM) that can be read") from None
    der = b"".join(one.public_bytes(serialization.Encoding.DER) for one in found)
    mark = hashlib.sha256(der).digest()[:8].hex(" ", 2)
    numbers = {client_number(one) for one in found}
    link, signs = keys[0], keys[1] if len(keys) == 2 else None
    if isinstance(link, ec.EllipticCurvePublicKey) and isinstance(link.curve, ec.SECP256R1) and len(numbers) == 1:
        number = numbers.pop()
        if number is None and len(found) == 1 and who(found[0].subject) == "server":
            return Asked(None, _hosts(found[0]), link, None, mark)
        if number is not None and len(found) == 2 and isinstance(signs, Ed25519PublicKey):
            return Asked(number, (), link, signs, mark)
    raise _wrong(request, "must be made by `baffle keys server --request` or `baffle keys client --request`")


def _hosts(request: x509.CertificateSigningRequest) -> tuple[str, ...]:
    try:
        return hosts(request)
    except x509.ExtensionNotFound:
        return ()


def _builder(name: str) -> x509.CertificateSigningRequestBuilder:
    return x509.CertificateSigningRequestBuilder().subject_name(
        x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    )


def _pem(request: x509.CertificateSigningRequest) -> bytes:
    return request.public_bytes(serialization.Encoding.PEM)


def _wrong(request: bytes, rule: str) -> SettingsError:
    return SettingsError("request", f"{len(request)} bytes", rule)


__all__ = ["MOST_REQUEST", "Asked", "Own", "ask_client", "ask_server", "asked"]
