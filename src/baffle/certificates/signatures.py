"""Signatures of clients, and whose they are."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from functools import lru_cache

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from baffle.certificates.names import client_number, who
from baffle.certificates.purpose import SIGNING, purposes
from baffle.certificates.reading import leads_to, out_of_time, read_authority, read_certificate, read_key, utc
from baffle.errors import ReportError, SettingsError

REPORT = b"baffle-report-1\0"
"""Stands before a message when it is signed, so that no signature made for anything else is one of a report."""


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
        found = read_key("sign-key", key)
        if not isinstance(found, Ed25519PrivateKey):
            raise SettingsError("sign-key", type(found).__name__, "must be an Ed25519 key, of `baffle keys client`")
        return cls(found)

    def sign(self, message: bytes) -> bytes:
        """Return the signature of `message`, 64 bytes; equal messages have equal signatures."""
        return self.key.sign(REPORT + message)


@dataclass(frozen=True, slots=True)
class Signatory:
    """A client whose certificate has been looked at, so that its signatures can be checked one after another."""

    number: int
    starts: datetime
    """Before it, and after `ends`, no signature is good."""
    ends: datetime
    _key: Ed25519PublicKey = field(repr=False)

    @classmethod
    def read(cls, certificate: bytes, authority: bytes, now: datetime) -> Signatory:
        """Return the client that signs under this certificate.

        Args:
            certificate: PEM, untrusted: a client's `sign.pem`.
            authority: `ca.pem`, trusted.
            now: the time at which the certificate must be valid.

        Raises:
            ReportError: the certificate is none, another authority's, expired, not yet valid, or not one under which a
                client signs.
            SettingsError: the authority is none.
        """
        root = read_authority(authority)
        try:
            found = read_certificate(certificate)
        except ValueError as error:
            raise ReportError(f"what came as a certificate {error}") from None
        if not leads_to(found, root):
            raise ReportError("the certificate was issued by another authority")
        for one, name in ((root, "the authority"), (found, "the certificate")):
            if told := out_of_time(one, now):
                raise ReportError(f"{name} {told}")
        number = client_number(found)
        key = found.public_key()
        if number is None or not isinstance(key, Ed25519PublicKey) or SIGNING not in purposes(found):
            raise ReportError(f"the certificate of {who(found.subject)} is not one under which a client signs reports")
        starts = max(root.not_valid_before_utc, found.not_valid_before_utc)
        return cls(number, starts, min(root.not_valid_after_utc, found.not_valid_after_utc), key)

    @property
    def public(self) -> bytes:
        """The key of its signatures, Ed25519, 32 bytes."""
        return self._key.public_bytes_raw()

    def check(self, message: bytes, signature: bytes, now: datetime) -> None:
        """Raise ReportError unless the client has signed `message`, and its certificate is valid `now`."""
        if not self.starts <= now <= self.ends:
            told = f"expired on {utc(self.ends)}" if now > self.ends else f"is not valid before {utc(self.starts)}"
            raise ReportError(f"the certificate of client {self.number} {told}, and it is {utc(now)}")
        try:
            self._key.verify(signature, REPORT + message)
        except InvalidSignature:
            raise ReportError(f"the signature is not client {self.number}'s of this message") from None


@lru_cache(maxsize=1 << 14)
def signs(public: bytes, message: bytes, signature: bytes) -> bool:
    """Return whether a `signature` of `message` is by the private key of this `public` one, Ed25519, 32 bytes.

    What was looked at before is remembered: members of a simulation, in one process, see the same signatures.
    """
    try:
        Ed25519PublicKey.from_public_bytes(public).verify(signature, REPORT + message)
    except InvalidSignature:
        return False
    return True


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
    found = Signatory.read(certificate, authority, now)
    found.check(message, signature, now)
    return found.number


__all__ = ["REPORT", "Signatory", "Signer", "signs", "verified"]
