"""Every key of the protocol: what two members share, ratcheted round by round, and what is derived from it.

    c_0 = HKDF(X25519(i, j); run, epoch, i, j, roster)       c_{r+1} = HKDF-Expand(c_r, "next")
    h_ij,r = HKDF-Expand(c_r, "mask", attempt)               16 bytes, the same for both
    ch_ij,r = HKDF-Expand(c_r, "channel", i, j)              16 bytes, one for each direction

A chain that has moved on does not tell what it was: who steals a member's state later opens no round that the member
has forgotten. Sources: RFC 7748 (X25519), RFC 5869 (HKDF), Perrin & Marlinspike 2016 (symmetric-key ratchet).
"""

from __future__ import annotations

import hashlib
import hmac
import struct
from typing import TYPE_CHECKING

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from baffle.errors import ReportError

if TYPE_CHECKING:
    from hashlib import _Hash as Hash  # pyright: ignore[reportPrivateUsage]

NONCE = 12
"""Bytes of a nonce of AES-GCM."""
TAG = 16
"""Bytes that AES-GCM adds."""
CHECK = 8
"""Bytes of a check that names a liar; what no lie may pass has 16."""

_SHA = hashes.SHA256()
_LABEL = b"baffle-secure-2\0"


def numbers(*values: int) -> bytes:
    """Return numbers below 2⁶⁴, 8 bytes each: no two lists of one length have equal bytes."""
    return struct.pack(f">{len(values)}Q", *values)


def pair(private: X25519PrivateKey, public: bytes, context: bytes, own: int, other: int) -> bytes:
    """Return c_0 of two members, 32 bytes, the same from both sides; `context` names run, epoch and roster.

    Raises:
        ReportError: the public key is none.
    """
    try:
        secret = private.exchange(X25519PublicKey.from_public_bytes(public))
    except ValueError:  # a point of low order
        raise ReportError(f"the public key of member {other} is none") from None
    info = _LABEL + b"pair" + context + numbers(*sorted((own, other)))
    return HKDF(_SHA, 32, salt=None, info=info).derive(secret)


def later(chain: bytes, rounds: int) -> bytes:
    """Return the chain of so many `rounds` later."""
    for _ in range(rounds):
        chain = _expand(chain, b"next", b"", 32)
    return chain


def mask_seed(chain: bytes, attempt: int) -> bytes:
    """Return h_ij,r of an attempt at the chain's round, 16 bytes."""
    return _expand(chain, b"mask", numbers(attempt), 16)


def witness(chain: bytes, sender: int, receiver: int, binding: bytes) -> bytes:
    """Return 8 bytes by which the receiver knows that the sender has masked a report for `binding`."""
    return _expand(chain, b"witness", numbers(sender, receiver) + binding, CHECK)


def seal(chain: bytes, sender: int, receiver: int, nonce: bytes, data: bytes, bound: bytes) -> bytes:
    """Return `data` sealed to the receiver, TAG bytes longer; a nonce serves one pledge."""
    return AESGCM(_channel(chain, sender, receiver)).encrypt(nonce, data, bound)


def unseal(chain: bytes, sender: int, receiver: int, nonce: bytes, sealed: bytes, bound: bytes) -> bytes | None:
    """Return what the sender has sealed, or None where it is not what came."""
    try:
        return AESGCM(_channel(chain, sender, receiver)).decrypt(nonce, sealed, bound)
    except InvalidTag:
        return None


def told(kind: str, where: bytes, value: bytes, length: int) -> bytes:
    """Return a hash of a `value`, which tells it to nobody where it is 16 random bytes; `where` has a fixed length."""
    hashing = begun(kind, where)
    hashing.update(value)
    return hashing.digest()[:length]


def begun(kind: str, where: bytes) -> Hash:
    """Return the hash of `told` before it has the value, to be copied where there are many."""
    return hashlib.sha256(_LABEL + kind.encode() + b"\0" + where)


def _channel(chain: bytes, sender: int, receiver: int) -> bytes:
    return _expand(chain, b"channel", numbers(sender, receiver), 16)


def _expand(chain: bytes, label: bytes, rest: bytes, length: int) -> bytes:
    # HKDF-Expand of up to 32 bytes is one HMAC; this one is three times as fast as the library's object for it.
    return hmac.digest(chain, _LABEL + label + b"\0" + rest + b"\1", "sha256")[:length]


__all__ = [
    "CHECK",
    "NONCE",
    "TAG",
    "begun",
    "later",
    "mask_seed",
    "numbers",
    "pair",
    "seal",
    "told",
    "unseal",
    "witness",
]
