"""Private keys that a passphrase encrypts: PKCS #8 with PBES2 (RFC 8018), AES-256-CBC and scrypt (RFC 7914).

Written here because `cryptography` writes PBKDF2 of 2,048 turns alone. What it reads, and OpenSSL, is this as well.
"""

from __future__ import annotations

import base64
import os
import textwrap

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from cryptography.hazmat.primitives.kdf.scrypt import Scrypt
from cryptography.hazmat.primitives.padding import PKCS7

from baffle.errors import SettingsError

SHORTEST = 12
"""Fewest characters of a passphrase for a new key."""
LONGEST = 1000
"""Most bytes of a passphrase, in UTF-8."""

_N, _R, _P = 1 << 14, 8, 5
"""scrypt's costs: 16 MiB, and a few tenths of a second. OpenSSL admits 32 MiB."""

_PBES2 = bytes.fromhex("06092a864886f70d01050d")
_SCRYPT = bytes.fromhex("06092b06010401da47040b")
_AES_256_CBC = bytes.fromhex("060960864801650304012a")
_INTEGER, _OCTETS, _SEQUENCE = 0x02, 0x04, 0x30


class WrongPassphraseError(ValueError):
    """A passphrase does not open a key, or the key is damaged; neither is told."""


def locked(key: bytes, passphrase: bytes) -> bytes:
    """Return a private key, PEM, encrypted.

    Args:
        key: PEM, not encrypted.
        passphrase: UTF-8, SHORTEST characters to LONGEST bytes.

    Raises:
        SettingsError: the passphrase is too short or too long; it is not told.
    """
    told = len(passphrase.decode("utf-8", "replace"))
    if told < SHORTEST or len(passphrase) > LONGEST:
        rule = f"must have at least {SHORTEST} characters, and {LONGEST} bytes at most"
        raise SettingsError("passphrase", f"of {told} characters", rule)
    plain = serialization.load_pem_private_key(key, password=None).private_bytes(
        serialization.Encoding.DER, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    salt, start = os.urandom(16), os.urandom(16)
    padder = PKCS7(128).padder()
    cipher = Cipher(algorithms.AES(Scrypt(salt, 32, _N, _R, _P).derive(passphrase)), modes.CBC(start)).encryptor()
    secret = cipher.update(padder.update(plain) + padder.finalize()) + cipher.finalize()
    costs = b"".join(_der(_INTEGER, _unsigned(value)) for value in (_N, _R, _P))
    derivation = _der(_SEQUENCE, _SCRYPT + _der(_SEQUENCE, _der(_OCTETS, salt) + costs))
    encryption = _der(_SEQUENCE, _AES_256_CBC + _der(_OCTETS, start))
    scheme = _der(_SEQUENCE, _PBES2 + _der(_SEQUENCE, derivation + encryption))
    return _pem(_der(_SEQUENCE, scheme + _der(_OCTETS, secret)))


def is_locked(key: bytes) -> bool:
    """Return whether a PEM holds a private key that needs a passphrase."""
    try:
        serialization.load_pem_private_key(key, password=None)
    except TypeError:
        return True
    except (ValueError, UnsupportedAlgorithm):
        return False
    return False


def unlocked(key: bytes, passphrase: bytes) -> bytes:
    """Return a private key, PEM, that `passphrase` opens, as it is without.

    Raises:
        WrongPassphraseError: the passphrase is wrong, or the key is damaged.
    """
    try:
        found = serialization.load_pem_private_key(key, password=passphrase)
    except (ValueError, TypeError, UnsupportedAlgorithm):
        raise WrongPassphraseError("the passphrase does not open: is it another one, or the file damaged?") from None
    return found.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )


def _der(tag: int, content: bytes) -> bytes:
    """Return a value in DER (X.690)."""
    size = len(content)
    if size < 0x80:
        return bytes((tag, size)) + content
    length = size.to_bytes((size.bit_length() + 7) // 8, "big")
    return bytes((tag, 0x80 | len(length))) + length + content


def _unsigned(value: int) -> bytes:
    return value.to_bytes(value.bit_length() // 8 + 1, "big")


def _pem(data: bytes) -> bytes:
    lines = textwrap.wrap(base64.b64encode(data).decode(), 64)
    return "\n".join(
        ("-----BEGIN ENCRYPTED PRIVATE KEY-----", *lines, "-----END ENCRYPTED PRIVATE KEY-----", "")
    ).encode()


__all__ = ["LONGEST", "SHORTEST", "WrongPassphraseError", "is_locked", "locked", "unlocked"]
