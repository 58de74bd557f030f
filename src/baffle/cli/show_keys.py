"""`baffle keys show`: what certificates, requests and lists of revoked certificates say."""

from __future__ import annotations

import argparse
import logging
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path

from baffle import certificates
from baffle.certificates import SOON, Revocations, utc
from baffle.cli.issued import on_record
from baffle.cli.key_files import CA, REVOKED, read
from baffle.errors import SettingsError

log = logging.getLogger("baffle")


def show(options: argparse.Namespace) -> None:
    """Say what a file, or those in a folder, are; of an authority's folder, also what it has issued."""
    if not options.path.is_dir():
        told(options.path)
        return
    paths = sorted(path for path in options.path.glob("*.pem") if not path.name.endswith("-key.pem"))
    if not paths:
        raise SettingsError("path", str(options.path), "holds no certificate (*.pem)")
    for path in paths:
        if path != paths[0]:
            print()
        told(path)
    if options.path / CA in paths:
        _strangers(paths, options.path / CA)
    _on_record(options.path)


def told(path: Path) -> None:
    """Print what a file says, and warn where it can't be used, or not for long."""
    content = read(path)
    try:
        if b"-----BEGIN CERTIFICATE REQUEST-----" in content:
            _request(path, content)
        elif b"-----BEGIN X509 CRL-----" in content:
            _list(path, content)
        else:
            _certificate(path, content)
    except SettingsError as error:
        raise SettingsError("path", str(path), error.rule) from None


def revocations(path: Path, authority: Path) -> Revocations:
    """Return the list in a file, signed by the authority whose certificate is in another.

    Raises:
        SettingsError: it can't be used, or there is no such certificate.
    """
    if not authority.is_file():
        raise SettingsError("path", str(path), f"can't be checked without {authority}, the authority's certificate")
    try:
        return certificates.read_revocations(read(path), read(authority))
    except ValueError as error:
        raise SettingsError("path", str(path), str(error)) from None


def _certificate(path: Path, content: bytes) -> None:
    found = certificates.about(content, datetime.now(UTC))
    print(f"file        {path}")
    print(f"for         {found.purpose}")
    print(f"issued by   {found.issuer}")
    if found.issues:
        print(f"fingerprint {certificates.fingerprint(content)}")
    print(f"lasts       {_days(found.days)}, until {found.ends:%Y-%m-%d %H:%M} UTC")
    if found.wrong:
        log.warning("%s %s", path, found.wrong)
    elif found.days < SOON:
        log.warning("%s has %s left: make a new one in time", path, _days(found.days))


def _request(path: Path, content: bytes) -> None:
    asked = certificates.asked(content)
    hosts = ", ".join(host if host.isprintable() else ascii(host) for host in asked.addresses)
    whose = f"client {asked.number}" if asked.number is not None else f"server, dialled at {hosts}"
    print(f"file        {path}")
    print(f"for         {whose}: a request for certificates")
    print(f"fingerprint {asked.fingerprint}")


def _list(path: Path, content: bytes) -> None:
    del content
    found = revocations(path, path.parent / CA)
    print(f"file        {path}")
    print(f"for         servers: a list of revoked certificates, number {found.number}")
    print(f"made        {utc(found.made)}")
    for serial, since in sorted(found.serials.items(), key=lambda item: (item[1], item[0])):
        print(f"revoked     {serial:040x}, since {utc(since)}")


def _on_record(folder: Path) -> None:
    """Print what an authority has issued."""
    paths = on_record(folder)
    known: Mapping[int, datetime] = {}
    if paths and (folder / REVOKED).is_file():
        known = revocations(folder / REVOKED, folder / CA).serials
    for path in paths:
        if path == paths[0]:
            print()
        content = read(path)
        found, serial = certificates.about(content, datetime.now(UTC)), certificates.serial_number(content)
        revoked = f", revoked on {utc(known[serial])}" if serial in known else ""
        print(f"issued      {found.purpose}, until {found.ends:%Y-%m-%d}{revoked}: {serial:040x}")


def _strangers(paths: list[Path], authority: Path) -> None:
    """Warn of certificates in a folder that its authority did not issue."""
    known = read(authority)
    for path in paths:
        content = read(path)
        if b"-----BEGIN CERTIFICATE-----" in content and not certificates.issued(content, known):
            log.warning("%s was not issued by %s beside it", path, CA)


def _days(number: int) -> str:
    return "1 day" if number == 1 else f"{number} days"


__all__ = ["revocations", "show", "told"]
