"""Which clients' certificates are revoked, by a list in a file that may be replaced while the server runs."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Self, TypeAlias

from baffle.certificates import MOST_LIST, Revocations, Signatory, read_revocations, utc
from baffle.errors import SettingsError

EVERY = 1.0
"""Least seconds between two looks at the file."""

_State: TypeAlias = tuple[int, int, int] | None
"""Of a file: when it was written, its size, which it is; None where there is none."""

log = logging.getLogger("baffle")


@dataclass(slots=True)
class Revoked:
    """Says whether a certificate is revoked; called as often as one likes, by one thread at a time.

    A list that can't be used, or is older than the one in force, changes nothing but the log; so does none.
    """

    path: Path
    """Of the list."""
    authority: bytes
    """`ca.pem`, trusted."""
    clock: Callable[[], float] = time.monotonic
    _list: Revocations | None = None
    _seen: _State = None
    _next: float = 0.0

    @classmethod
    def read(cls, path: Path, authority: bytes, clock: Callable[[], float] = time.monotonic) -> Self:
        """Return the list in a file, or an empty one where there is no file yet.

        Raises:
            SettingsError: the file can't be used.
        """
        found = cls(path, authority, clock)
        found._seen = found._state()
        if found._seen is not None:
            try:
                found._take()
            except (OSError, ValueError) as error:
                raise SettingsError("keys", str(path), _told(error)) from None
        found._next = clock() + EVERY
        return found

    def __call__(self, signatory: Signatory) -> bool:
        """Return whether the certificate under which a client signs is revoked."""
        return self.has(signatory.serial)

    def has(self, serial: int) -> bool:
        """Return whether the certificate of a serial number is on the list in force, which may be another by now."""
        self._look()
        return self._list is not None and serial in self._list.serials

    def _look(self) -> None:
        """Take another list, if there is one."""
        if self.clock() < self._next:
            return
        self._next = self.clock() + EVERY
        state = self._state()
        if state == self._seen:
            return
        self._seen = state
        if state is None:
            log.warning("%s is gone; the list that was read before stays in force", self.path)
            return
        try:
            self._take()
        except (OSError, ValueError) as error:
            log.error("%s %s; the list that was read before stays in force", self.path, _told(error))

    def _take(self) -> None:
        """Put the list in the file in force.

        Raises:
            OSError, ValueError: it can't be used; says why, without a subject.
        """
        with self.path.open("rb") as file:
            found = read_revocations(file.read(MOST_LIST + 1), self.authority)
        held = self._list
        if held is not None and found.number < held.number:
            raise ValueError(f"has number {found.number}, which is older than {held.number}")
        if held is not None and found.number == held.number and found != held:
            raise ValueError(f"has number {found.number} again, with other certificates")
        if found != held:
            count = len(found.serials)
            log.info("revoked: %d certificates, by list %d of %s", count, found.number, utc(found.made))
        self._list = found

    def _state(self) -> _State:
        try:
            found = self.path.stat()
        except OSError:
            return None
        return found.st_mtime_ns, found.st_size, found.st_ino


def _told(error: Exception) -> str:
    return f"can't be read: {error.strerror or error}" if isinstance(error, OSError) else str(error)


__all__ = ["EVERY", "Revoked"]
