"""The keys of one server or one client, read from the folder that `baffle keys` made."""

from __future__ import annotations

import logging
import stat
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Self, TypeAlias

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.types import CertificatePublicKeyTypes, PublicKeyTypes

from baffle import certificates
from baffle.certificates import CONNECTS, SERVES, SIGNING, Signer, WrongPassphraseError
from baffle.errors import SettingsError

log = logging.getLogger("baffle")

_CA = "ca.pem"
_REQUEST = "request.pem"
_REVOKED = "revoked.pem"
_MOST_BYTES = 1 << 20
_SERVER_FILES = (_CA, "server.pem", "server-key.pem")
_CLIENT_FILES = (_CA, "client.pem", "client-key.pem", "sign.pem", "sign-key.pem")

Passphrase: TypeAlias = Callable[[Path], bytes]
"""(an encrypted key's file) -> its passphrase; raises SettingsError where there is none."""


def no_passphrase(key: Path) -> bytes:
    """Raise SettingsError: there is no passphrase."""
    raise SettingsError("passphrase", None, f"is needed: {key} is encrypted")


@dataclass(frozen=True, slots=True)
class ServerKeys:
    """With what a server shows who it is, and knows its clients."""

    ca: Path
    certificate: Path
    key: Path
    ca_pem: bytes
    certificate_pem: bytes
    key_pem: bytes = field(repr=False)
    """As it is without a passphrase; on the disk it may be encrypted."""
    days: int
    """Whole days until the certificate, or its authority, expires."""

    @classmethod
    def read(cls, folder: Path, now: datetime, passphrase: Passphrase = no_passphrase) -> Self:
        """Return the keys in a folder of `baffle keys server`.

        Raises:
            SettingsError: the folder is not one, or lacks a file; a certificate has expired, is not yet valid, is
                another authority's or for another purpose; a key is not the one of its certificate, or is encrypted
                and there is no passphrase, or a wrong one.
        """
        files, _ = _opened(folder, _read(folder, _SERVER_FILES, "server", "client"), passphrase)
        days = _checked(folder, files, "server", SERVES, now)
        ca, certificate, key = (folder / name for name in _SERVER_FILES)
        return cls(ca, certificate, key, files[_CA], files["server.pem"], files["server-key.pem"], days)

    @property
    def revoked(self) -> Path:
        """Where the list of revoked certificates is, if there is one."""
        return self.ca.parent / _REVOKED


@dataclass(frozen=True, slots=True)
class ClientKeys:
    """With what a client connects, and signs its reports."""

    ca: Path
    certificate: Path
    key: Path
    ca_pem: bytes
    certificate_pem: bytes
    key_pem: bytes = field(repr=False)
    """As it is without a passphrase; on the disk it may be encrypted."""
    days: int
    """Whole days until the first of the certificates, or their authority, expires."""
    number: int
    signer: Signer = field(repr=False)
    sign_certificate: bytes
    """PEM."""
    passphrase: bytes | None = field(default=None, repr=False)
    """Of the file `key`; None where that is not encrypted."""

    @classmethod
    def read(cls, folder: Path, now: datetime, passphrase: Passphrase = no_passphrase) -> Self:
        """Return the keys in a folder of `baffle keys client`.

        Raises:
            SettingsError: as `ServerKeys.read`, or the two certificates are of different clients.
        """
        files, opens = _opened(folder, _read(folder, _CLIENT_FILES, "client", "server"), passphrase)
        connects = _checked(folder, files, "client", CONNECTS, now)
        signs = _checked(folder, files, "sign", SIGNING, now)
        number, other = (_number(folder, files, name) for name in ("client.pem", "sign.pem"))
        if number != other:
            raise _wrong(folder, f"is of two clients: client.pem of {number}, sign.pem of {other}")
        signer = Signer.read(files["sign-key.pem"])
        ca, certificate, key = (folder / name for name in _CLIENT_FILES[:3])
        days, signed, link = min(connects, signs), files["sign.pem"], files["client-key.pem"]
        return cls(
            ca,
            certificate,
            key,
            files[_CA],
            files["client.pem"],
            link,
            days,
            number,
            signer,
            signed,
            opens.get(key.name),
        )

    @property
    def revoked(self) -> Path:
        """Where the list of revoked certificates is, if there is one."""
        return self.ca.parent / _REVOKED


def _read(folder: Path, names: tuple[str, ...], kind: str, other: str) -> dict[str, bytes]:
    """Return the files of a folder by their names."""
    made = f"make one with: baffle keys {kind}"
    if not folder.is_dir():
        raise _wrong(folder, f"is not a folder of keys; {made}")
    if not (folder / f"{kind}.pem").exists() and (folder / f"{other}.pem").exists():
        raise _wrong(folder, f"has a {other}'s keys, and a {kind}'s are needed; {made}")
    if (folder / _REQUEST).is_file() and not (folder / f"{kind}.pem").exists():
        raise _wrong(folder, f"waits for certificates: have {_REQUEST} signed (baffle keys sign), and put them into it")
    if missing := [name for name in names if not (folder / name).is_file()]:
        raise _wrong(folder, f"holds no {missing[0]}; {made}")
    return {name: _content(folder, name) for name in names}


def _opened(folder: Path, files: dict[str, bytes], passphrase: Passphrase) -> tuple[dict[str, bytes], dict[str, bytes]]:
    """Return the files with their keys as they are without a passphrase, and the passphrases of those that have one."""
    opens = {name: passphrase(folder / name) for name in files if _is_key(name) and certificates.is_locked(files[name])}
    plain = dict(files)
    for name, one in opens.items():
        try:
            plain[name] = certificates.unlocked(files[name], one)
        except WrongPassphraseError as error:
            raise _wrong(folder, f"holds {name}, which {error}") from None
    return plain, opens


def _is_key(name: str) -> bool:
    return name.endswith("-key.pem")


def _content(folder: Path, name: str) -> bytes:
    path = folder / name
    try:
        if _is_key(name) and path.stat().st_mode & (stat.S_IRGRP | stat.S_IROTH):
            log.warning("%s can be read by other users of this machine: chmod 600 it", path)
        with path.open("rb") as file:
            return file.read(_MOST_BYTES)
    except OSError as error:
        raise _wrong(folder, f"holds {name}, which can't be read: {error.strerror}") from None


def _checked(folder: Path, files: dict[str, bytes], name: str, purpose: x509.ObjectIdentifier, now: datetime) -> int:
    """Return for how many days a certificate and its authority are good for `purpose`, having checked its key too."""
    days = min(_days(folder, files, file, now) for file in (_CA, f"{name}.pem"))
    if not certificates.issued(files[f"{name}.pem"], files[_CA]):
        raise _wrong(folder, f"holds {name}.pem, which was issued by another authority than the {_CA} beside it")
    found = x509.load_pem_x509_certificate(files[f"{name}.pem"])
    if purpose not in certificates.purposes(found):
        told = certificates.about(files[f"{name}.pem"], now).purpose
        raise _wrong(folder, f"holds {name}.pem, which is for another purpose: {told}")
    if _public(files[f"{name}-key.pem"]) != _encoded(found.public_key()):
        raise _wrong(folder, f"holds {name}-key.pem, which is not the key of the {name}.pem beside it")
    return days


def _days(folder: Path, files: dict[str, bytes], name: str, now: datetime) -> int:
    try:
        found = certificates.about(files[name], now)
    except SettingsError as error:
        raise _wrong(folder, f"holds {name}, which {error.rule}") from None
    if found.wrong:
        raise _wrong(folder, f"holds {name}, which {found.wrong}")
    return found.days


def _number(folder: Path, files: dict[str, bytes], name: str) -> int:
    found = certificates.client_number(x509.load_pem_x509_certificate(files[name]))
    if found is None:
        raise _wrong(folder, f"holds {name}, which names no client")
    return found


def _public(pem: bytes) -> bytes | None:
    """Return the public half of a private key in a PEM, or None if it holds none that can be used."""
    try:
        return _encoded(serialization.load_pem_private_key(pem, password=None).public_key())
    except (ValueError, TypeError, AttributeError, UnsupportedAlgorithm):
        return None


def _encoded(key: CertificatePublicKeyTypes | PublicKeyTypes) -> bytes:
    return key.public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)


def _wrong(folder: Path, rule: str) -> SettingsError:
    return SettingsError("keys", str(folder), rule)


__all__ = ["ClientKeys", "Passphrase", "ServerKeys", "no_passphrase"]
