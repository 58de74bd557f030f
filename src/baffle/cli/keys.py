"""`baffle keys`."""

from __future__ import annotations

import argparse
import contextlib
import logging
import os
import tempfile
from datetime import UTC, datetime
from pathlib import Path

from baffle import certificates
from baffle.certificates import Pair
from baffle.errors import SettingsError

SOON = 30
"""Days left at which a certificate is warned about."""

_CA = "ca.pem"
_CA_KEY = "ca-key.pem"
_MOST_BYTES = 1 << 20

log = logging.getLogger("baffle")


def ca(options: argparse.Namespace) -> None:
    """Make an authority."""
    _refuse(options.out)
    made = certificates.authority(options.name, options.days, _now())
    _write(options.out, {_CA: made.certificate, _CA_KEY: made.key})
    _told(options.out / _CA)
    print(f"secret      {options.out / _CA_KEY}: who has it can admit anyone; keep it off servers and clients")


def server(options: argparse.Namespace) -> None:
    """Make a server's key and certificate."""
    _refuse(options.out)
    issuer = _issuer(options.ca)
    made = certificates.server(issuer, options.address, options.days, _now())
    _write(options.out, {_CA: issuer.certificate, "server.pem": made.certificate, "server-key.pem": made.key})
    _told(options.out / "server.pem")
    print(f"secret      {options.out / 'server-key.pem'}: for this server alone; the folder has all that it needs")


def client(options: argparse.Namespace) -> None:
    """Make a client's keys and certificates: one pair to connect, one to sign."""
    _refuse(options.out)
    issuer, now = _issuer(options.ca), _now()
    connects = certificates.client(issuer, options.number, options.days, now)
    signs = certificates.signing(issuer, options.number, options.days, now)
    files = {
        _CA: issuer.certificate,
        "client.pem": connects.certificate,
        "sign.pem": signs.certificate,
        "client-key.pem": connects.key,
        "sign-key.pem": signs.key,
    }
    _write(options.out, files)
    _told(options.out / "client.pem")
    _told(options.out / "sign.pem")
    both = f"{options.out / 'client-key.pem'}, {options.out / 'sign-key.pem'}"
    print(f"secret      {both}: for client {options.number} alone; the folder has all that it needs")


def show(options: argparse.Namespace) -> None:
    """Say what a certificate, or those in a folder, are."""
    if not options.path.is_dir():
        _told(options.path)
        return
    paths = sorted(path for path in options.path.glob("*.pem") if not path.name.endswith("-key.pem"))
    if not paths:
        raise SettingsError("path", str(options.path), "holds no certificate (*.pem)")
    for path in paths:
        if path != paths[0]:
            print()
        _told(path)
    if options.path / _CA in paths:
        _strangers(paths, options.path / _CA)


def _told(path: Path) -> None:
    """Print what the certificate at `path` says, and warn where it can't be used, or not for long."""
    certificate = _read(path)
    try:
        found = certificates.about(certificate, _now())
    except SettingsError as error:
        raise SettingsError("path", str(path), error.rule) from None
    print(f"file        {path}")
    print(f"for         {found.purpose}")
    print(f"issued by   {found.issuer}")
    if found.issues:
        print(f"fingerprint {certificates.fingerprint(certificate)}")
    print(f"lasts       {_days(found.days)}, until {found.ends:%Y-%m-%d %H:%M} UTC")
    if found.wrong:
        log.warning("%s %s", path, found.wrong)
    elif found.days < SOON:
        log.warning("%s has %s left: make a new one in time", path, _days(found.days))


def _strangers(paths: list[Path], authority: Path) -> None:
    """Warn of certificates in a folder that its authority did not issue."""
    known = _read(authority)
    for path in paths:
        if not certificates.issued(_read(path), known):
            log.warning("%s was not issued by %s beside it", path, _CA)


def _issuer(folder: Path) -> Pair:
    """Return the authority in a folder.

    Raises:
        SettingsError: there is none.
    """
    for name in (_CA, _CA_KEY):
        if not (folder / name).is_file():
            raise SettingsError("ca", str(folder), f"holds no {name}; make it with: baffle keys ca --out DIR")
    return Pair(_read(folder / _CA), _read(folder / _CA_KEY))


def _refuse(folder: Path) -> None:
    """Refuse a folder with keys or certificates in it: none is ever overwritten."""
    if folder.exists() and not folder.is_dir():
        raise SettingsError("out", str(folder), "is a file; name a folder")
    if found := sorted(folder.glob("*.pem"), key=lambda path: (not path.name.endswith("-key.pem"), path.name)):
        rule = f"holds {found[0].name} already, and no key is overwritten: name another folder"
        raise SettingsError("out", str(folder), rule)


def _write(folder: Path, files: dict[str, bytes]) -> None:
    """Write all `files` into a folder that has none of them, or, when interrupted, nothing."""
    made = not folder.exists()
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    try:
        with tempfile.TemporaryDirectory(prefix=".new-", dir=folder) as fresh:
            for name, data in files.items():
                _write_one(Path(fresh) / name, data)
            for name in files:
                (Path(fresh) / name).rename(folder / name)
    except BaseException:
        for name in files:
            (folder / name).unlink(missing_ok=True)
        if made:
            with contextlib.suppress(OSError):
                folder.rmdir()
        raise


def _write_one(path: Path, data: bytes) -> None:
    """Write a new file; a key is its owner's from the first moment."""
    mode = 0o600 if path.name.endswith("-key.pem") else 0o644
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode), "wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


def _read(path: Path) -> bytes:
    """Return what a PEM file may hold at most."""
    with path.open("rb") as file:
        return file.read(_MOST_BYTES)


def _days(number: int) -> str:
    return "1 day" if number == 1 else f"{number} days"


def _now() -> datetime:
    return datetime.now(UTC)


__all__ = ["ca", "client", "server", "show"]
