"""Where a passphrase comes from: a file, the environment, or a person at a terminal."""

from __future__ import annotations

import getpass
import logging
import os
import stat
import sys
from dataclasses import dataclass, field
from pathlib import Path

from baffle.certificates.passphrases import LONGEST
from baffle.errors import SettingsError

log = logging.getLogger("baffle")


@dataclass(slots=True)
class Passphrase:
    """One passphrase, looked up when it is needed for the first time, and never written or shown."""

    file: Path | None
    """Its first line; None takes the environment, else the terminal."""
    flag: str = "passphrase-file"
    """What names the file."""
    variable: str = "BAFFLE_PASSPHRASE"
    """Of the environment."""
    _known: bytes | None = field(default=None, repr=False)

    def __call__(self, key: Path) -> bytes:
        """Return the passphrase of an encrypted key.

        Raises:
            SettingsError: there is none; says how to give it.
        """
        if self._known is None:
            self._known = self._given() or self._typed(f"passphrase of {key}: ", f"is needed, {key} is encrypted")
        return self._known

    def new(self, made: str) -> bytes:
        """Return the passphrase for new keys, `made` in words; a person types it twice.

        Raises:
            SettingsError: there is none, or it was typed in two ways.
        """
        if self._known is None:
            self._known = self._given()
        if self._known is None:
            self._known = self._typed(f"new passphrase for {made}: ", "new keys are to be encrypted")
            if self._known != self._typed("the same again: ", ""):
                raise SettingsError(self.flag, None, "was typed in two ways: nothing is written")
        return self._known

    def _given(self) -> bytes | None:
        if self.file is not None:
            return self._first_line(self.file)
        return os.fsencode(os.environ.get(self.variable, "")) or None

    def _first_line(self, path: Path) -> bytes:
        with path.open("rb") as file:
            mode = os.fstat(file.fileno()).st_mode
            if stat.S_ISREG(mode) and mode & (stat.S_IRGRP | stat.S_IROTH):
                log.warning("%s can be read by other users of this machine: chmod 600 it", path)
            line = file.readline(LONGEST + 3).rstrip(b"\r\n")
        if not 1 <= len(line) <= LONGEST:
            raise SettingsError(self.flag, str(path), f"must have a first line of 1 to {LONGEST} bytes")
        return line

    def _typed(self, prompt: str, why: str) -> bytes:
        if not sys.stdin.isatty():
            rule = f"{why}: name a file with --{self.flag}, set {self.variable}, or start at a terminal"
            raise SettingsError(self.flag, None, rule)
        return os.fsencode(getpass.getpass(prompt))


__all__ = ["Passphrase"]
