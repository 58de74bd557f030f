"""`baffle keys revoke`."""

from __future__ import annotations

import argparse
import fcntl
from collections.abc import Generator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

from baffle import certificates
from baffle.certificates import Pair, Revocations, utc
from baffle.cli.issued import of_client
from baffle.cli.key_files import CA, REVOKED, read, replace
from baffle.cli.keys import issuer_of
from baffle.cli.show_keys import revocations
from baffle.errors import SettingsError


def revoke(options: argparse.Namespace) -> None:
    """Put clients' certificates on the authority's list, and sign it."""
    if not options.number and not options.certificate:
        raise SettingsError("number", None, "name clients with --number, or certificates with --certificate")
    issuer, now = issuer_of(options), datetime.now(UTC)
    with _held(options.ca):
        wanted = _wanted(options, issuer, now)
        path = options.ca / REVOKED
        before = revocations(path, options.ca / CA) if path.is_file() else Revocations(0, now, {})
        fresh = [serial for serial in wanted if serial not in before.serials]
        if fresh:
            serials = {**before.serials, **dict.fromkeys(fresh, now)}
            replace(path, certificates.revoked(issuer, serials, before.number + 1, now))
    for serial, purpose in wanted.items():
        since = "" if serial in fresh else f", since {utc(before.serials[serial])}"
        print(f"revoked     {purpose}{since}: {serial:040x}")
    _handed_out(path, options.out)


def _wanted(options: argparse.Namespace, issuer: Pair, now: datetime) -> dict[int, str]:
    """Return the serial numbers of certificates that are to be revoked, and whose they are."""
    named = {str(path): read(path) for path in options.certificate}
    for name, content in named.items():
        try:
            ours = certificates.issued(content, issuer.certificate)
            number = certificates.about(content, now).number if ours else None
        except SettingsError as error:
            raise SettingsError("certificate", name, error.rule) from None
        if number is None:
            raise SettingsError("certificate", name, "must be a client's certificate that this authority issued")
    found = [*named.values(), *(one for number in options.number for one in of_client(options.ca, number))]
    return {certificates.serial_number(one): certificates.about(one, now).purpose for one in found}


def _handed_out(path: Path, out: Path | None) -> None:
    """Put the list where the server finds it, or say so."""
    place = path
    if out is not None:
        place = out / REVOKED if out.is_dir() else out
        replace(place, read(path))
    number = revocations(path, path.parent / CA).number
    print(f"list        {place}, number {number}")
    print(f"next        put it into the server's folder of keys as {REVOKED}; it is read without a restart")


@contextmanager
def _held(folder: Path) -> Generator[None]:
    """Keep two commands from making one list at once."""
    with (folder / CA).open("rb") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


__all__ = ["revoke"]
