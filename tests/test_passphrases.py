"""Private keys that a passphrase encrypts: what is written, who can read it, and what is told of a wrong one."""

from __future__ import annotations

import ssl
from datetime import UTC, datetime

import pytest
from cryptography.hazmat.primitives import serialization

from baffle import certificates
from baffle.certificates import WrongPassphraseError, is_locked, locked, unlocked
from baffle.errors import SettingsError

NOW = datetime.now(UTC)
CA = certificates.authority("Ours", 100, NOW)
PAIRS = {"connect": certificates.client(CA, 3, 10, NOW), "sign": certificates.signing(CA, 3, 10, NOW)}
PASSPHRASE = "zwölf Zeichen".encode()
LOCKED = {name: locked(pair.key, PASSPHRASE) for name, pair in PAIRS.items()}
each = pytest.mark.parametrize("name", list(PAIRS))

GOLDEN = b"""-----BEGIN ENCRYPTED PRIVATE KEY-----
MIGTME8GCSqGSIb3DQEFDTBCMCEGCSsGAQQB2kcECzAUBAii5Wp8uNTBcwICQAAC
AQgCAQEwHQYJYIZIAWUDBAEqBBBETtXlEu2buKOWKzRfGmpJBEDFqAp/DESBgNrZ
WOIz9f+hh1ykFNJw+3Z0PG2ORM3IeOqnr9gu6sqOU+xU2txtEVCi8E7jhzyJn7nu
2HtLzzFp
-----END ENCRYPTED PRIVATE KEY-----
"""
"""Made by OpenSSL 3.0: `genpkey -algorithm ed25519`, `pkcs8 -topk8 -scrypt`, with the passphrase "correct horse"."""


@each
def test_a_locked_key_is_the_same_key_to_whoever_has_the_passphrase(name) -> None:
    assert LOCKED[name].startswith(b"-----BEGIN ENCRYPTED PRIVATE KEY-----\n")
    assert is_locked(LOCKED[name])
    assert not is_locked(PAIRS[name].key)
    assert unlocked(LOCKED[name], PASSPHRASE) == PAIRS[name].key
    assert max(map(len, LOCKED[name].splitlines())) <= 64


@each
def test_a_locked_key_is_costly_to_guess(name) -> None:
    """scrypt with N = 2¹⁴, r = 8, p = 5, which OWASP counts with 600,000 turns of PBKDF2."""
    der = serialization_der(LOCKED[name])
    scrypt = bytes.fromhex("06092b06010401da47040b")
    assert scrypt in der
    assert bytes.fromhex("02024000020108020105") in der
    assert bytes.fromhex("060960864801650304012a") in der, "AES-256-CBC"


def serialization_der(pem: bytes) -> bytes:
    import base64

    return base64.b64decode(b"".join(pem.splitlines()[1:-1]))


@each
def test_two_locked_keys_are_never_alike(name) -> None:
    assert locked(PAIRS[name].key, PASSPHRASE) != LOCKED[name]


@each
@pytest.mark.parametrize("wrong", [b"zwoelf Zeichen", PASSPHRASE[:-1], PASSPHRASE + b" ", b"x"])
def test_another_passphrase_does_not_open_and_is_not_told(name, wrong) -> None:
    with pytest.raises(WrongPassphraseError, match="the passphrase does not open") as told:
        unlocked(LOCKED[name], wrong)
    assert "zw" not in str(told.value)


def test_a_damaged_key_is_told_as_such() -> None:
    with pytest.raises(WrongPassphraseError, match="or the file damaged"):
        unlocked(LOCKED["sign"].replace(b"A", b"B"), PASSPHRASE)


def test_pythons_own_tls_reads_a_locked_key(tmp_path) -> None:
    """It is what says why a client can't reach its server."""
    (tmp_path / "key").write_bytes(LOCKED["connect"])
    (tmp_path / "certificate").write_bytes(PAIRS["connect"].certificate)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.load_cert_chain(tmp_path / "certificate", tmp_path / "key", PASSPHRASE)
    with pytest.raises(ssl.SSLError):
        context.load_cert_chain(tmp_path / "certificate", tmp_path / "key", b"another")


def test_a_key_that_openssl_has_locked_is_opened() -> None:
    found = serialization.load_pem_private_key(unlocked(GOLDEN, b"correct horse"), None)
    assert (
        found.public_key().public_bytes_raw().hex()
        == "e8fb2d3fd6baf23b21b7d7234ab430f6fc49ae9ca6be51073aea0039f8ef9900"
    )


@pytest.mark.parametrize(
    ("passphrase", "told"),
    [(b"", "of 0 characters"), (b"eleven char", "of 11 characters"), (b"x" * 1001, "of 1001 characters")],
)
def test_a_new_passphrase_is_long_enough_and_is_not_told(passphrase, told) -> None:
    with pytest.raises(
        SettingsError, match=rf"passphrase = '{told}': must have at least 12 characters, and 1000 bytes"
    ):
        locked(PAIRS["sign"].key, passphrase)


def test_characters_count_and_not_bytes() -> None:
    with pytest.raises(SettingsError, match="of 11 characters"):
        locked(PAIRS["sign"].key, ("ü" * 11).encode())


@pytest.mark.parametrize(
    "noise", [b"", b"-----BEGIN ENCRYPTED PRIVATE KEY-----", CA.certificate], ids=["", "cut", "cert"]
)
def test_what_is_no_key_needs_no_passphrase(noise) -> None:
    assert not is_locked(noise)
