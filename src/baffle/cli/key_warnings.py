"""What a server or a client warns of when it starts: keys that end soon, an authority's key that lies near."""

from __future__ import annotations

import logging
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

from baffle.certificates import SOON
from baffle.cli.key_files import CA, CA_KEY, read

if TYPE_CHECKING:
    from baffle.engines.network.keyring import ClientKeys, ServerKeys

_MOST_FOLDERS = 1000
"""Folders beside one another that are looked into."""

log = logging.getLogger("baffle")


def warn_of_authority(keys: ServerKeys) -> None:
    """Warn if the key of the authority of a server's keys lies in their folder, around it, or where the server runs."""
    folder = keys.ca.parent.resolve()
    places = {folder, *_inside(folder), *_inside(folder.parent), folder.parent, Path.cwd(), *_inside(Path.cwd())}
    for path in sorted(place / CA_KEY for place in places):
        if _is_file(path) and _beside(path) in (None, keys.ca_pem):
            log.warning(
                "%s is the authority's key, on the machine where the server runs: who holds it can make clients of its "
                "own, and with them open any secure sum. Keep the authority on another machine",
                path,
            )


def warn_of_end(keys: ServerKeys | ClientKeys) -> None:
    """Warn if keys, or their authority, end soon."""
    if keys.days < SOON:
        folder, days = keys.ca.parent, "1 day" if keys.days == 1 else f"{keys.days} days"
        log.warning("the keys in %s are good for %s more: make new ones in time (baffle keys)", folder, days)


def _inside(folder: Path) -> list[Path]:
    """Return the folders in a folder, as far as they can be seen."""
    try:
        return [path for path in islice(folder.iterdir(), _MOST_FOLDERS) if path.is_dir()]
    except OSError:
        return []


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except OSError:
        return False


def _beside(path: Path) -> bytes | None:
    """Return the authority's certificate beside its key, or None where there is none to be read."""
    try:
        return read(path.parent / CA)
    except OSError:
        return None


__all__ = ["warn_of_authority", "warn_of_end"]
