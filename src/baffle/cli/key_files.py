"""How folders of keys are written and read: all or nothing, nothing overwritten, keys for their owner alone."""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections.abc import Mapping
from pathlib import Path

from baffle.errors import SettingsError

CA = "ca.pem"
CA_KEY = "ca-key.pem"
REQUEST = "request.pem"
REVOKED = "revoked.pem"
ISSUED = "issued"
"""Folder of an authority, with a copy of every certificate that it issued."""

_MOST_BYTES = 1 << 20


def refuse(folder: Path) -> None:
    """Refuse a folder with keys or certificates in it: none is ever overwritten."""
    if folder.exists() and not folder.is_dir():
        raise SettingsError("out", str(folder), "is a file; name a folder")
    if found := sorted(folder.glob("*.pem"), key=lambda path: (not path.name.endswith("-key.pem"), path.name)):
        rule = f"holds {found[0].name} already, and no key is overwritten: name another folder"
        raise SettingsError("out", str(folder), rule)


def write(folder: Path, files: Mapping[str, bytes]) -> None:
    """Write all `files` into a folder that has none of them, or, when interrupted, nothing."""
    made = not folder.exists()
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    try:
        with tempfile.TemporaryDirectory(prefix=".new-", dir=folder) as fresh:
            for name, data in files.items():
                write_one(Path(fresh) / name, data)
            for name in files:
                (Path(fresh) / name).rename(folder / name)
    except BaseException:
        for name in files:
            (folder / name).unlink(missing_ok=True)
        if made:
            with contextlib.suppress(OSError):
                folder.rmdir()
        raise


def write_one(path: Path, data: bytes) -> None:
    """Write a new file; a key is its owner's from the first moment."""
    mode = 0o600 if path.name.endswith("-key.pem") else 0o644
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode), "wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


def replace(path: Path, data: bytes) -> None:
    """Write a file, such that a reader finds the old one or the new."""
    with tempfile.TemporaryDirectory(prefix=".new-", dir=path.parent) as fresh:
        write_one(Path(fresh) / path.name, data)
        (Path(fresh) / path.name).replace(path)


def read(path: Path) -> bytes:
    """Return what a PEM file may hold at most."""
    with path.open("rb") as file:
        return file.read(_MOST_BYTES + 1)


__all__ = ["CA", "CA_KEY", "ISSUED", "REQUEST", "REVOKED", "read", "refuse", "replace", "write", "write_one"]
