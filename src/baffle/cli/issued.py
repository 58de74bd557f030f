"""What an authority has issued: a copy of every certificate in its folder, without which none is handed out."""

from __future__ import annotations

import contextlib
from collections.abc import Generator, Iterable
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

from baffle import certificates
from baffle.cli.key_files import ISSUED, read, write_one
from baffle.errors import SettingsError


@contextmanager
def recorded(ca: Path, made: Iterable[bytes]) -> Generator[None]:
    """Keep copies of certificates, PEM, in an authority's folder; take them back if what is done with them fails.

    Raises:
        OSError: they can't be kept.
    """
    folder = ca / ISSUED
    folder.mkdir(mode=0o700, exist_ok=True)
    paths = [(folder / _name(certificate), certificate) for certificate in made]
    try:
        for path, certificate in paths:
            write_one(path, certificate)
        yield
    except BaseException:
        for path, _ in paths:
            path.unlink(missing_ok=True)
        with contextlib.suppress(OSError):
            folder.rmdir()
        raise


def on_record(ca: Path) -> list[Path]:
    """Return the copies in an authority's folder, by name."""
    return sorted((ca / ISSUED).glob("*.pem"))


def of_client(ca: Path, number: int) -> list[bytes]:
    """Return the certificates of a client that are on record.

    Raises:
        SettingsError: there are none.
    """
    found = [read(path) for path in on_record(ca) if path.name.startswith(f"client-{number}-")]
    if not found:
        rule = f"has no certificate on record in {ca / ISSUED}; name its files, if there are any, with --certificate"
        raise SettingsError("number", number, rule)
    return found


def _name(certificate: bytes) -> str:
    number = certificates.about(certificate, datetime.now(UTC)).number
    whose = "server" if number is None else f"client-{number}"
    return f"{whose}-{certificates.serial_number(certificate):040x}.pem"


__all__ = ["of_client", "on_record", "recorded"]
