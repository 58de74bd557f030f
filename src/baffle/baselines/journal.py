"""A baseline's run folder: settings, snapshots and curve, without a ledger."""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import tomli_w

from baffle.errors import LedgerError, ModelError, SettingsError
from baffle.parameters import Layout
from baffle.run import LEDGER, SNAPSHOTS
from baffle.server import State
from baffle.snapshots import read_snapshot, snapshots, write_snapshot
from baffle.storage import FolderLock, remove, write_atomically

METRICS = "metrics.jsonl"
log = logging.getLogger("baffle")


@dataclass(slots=True)
class Journal:
    """Where a run's states go and come from; with `folder` None, nothing is written.

    From `begin` or `resume` to `close`, no other process can use the folder.
    """

    folder: Path | None
    layout: Layout
    about: bytes
    """Fingerprint of what the run depends on: a state is taken up with an equal one alone."""
    _lock: FolderLock | None = None

    def begin(self, settings: Mapping[str, Any], state: State) -> None:
        """Write the settings and the first state.

        Raises:
            SettingsError: the folder holds a run already, or is in use by another process.
        """
        if self.folder is None:
            return
        self._take(self.folder)
        if (self.folder / LEDGER).exists() or snapshots(self.folder / SNAPSHOTS):
            raise SettingsError("out", str(self.folder), "holds a run already: resume it, or name another folder")
        self._write_settings(settings)
        remove(self.folder / METRICS)
        self.keep(state)

    def resume(self, settings: Mapping[str, Any]) -> State | None:
        """Return the newest good state; None where a run was interrupted before it had one.

        Raises:
            SettingsError: there is no such run, it was begun with other settings, or no snapshot of it is whole.
        """
        if self.folder is None or not (self.folder / "settings.toml").exists():
            raise SettingsError("resume", str(self.folder), "holds no run")
        if (self.folder / LEDGER).exists():
            raise SettingsError("resume", str(self.folder), "holds a run with a ledger, which no baseline has")
        self._take(self.folder)
        state = self._newest(self.folder / SNAPSHOTS)
        if state is not None:
            self._write_settings(settings)
        return state

    def _take(self, folder: Path) -> None:
        """Keep others from the folder; a run that was interrupted before it had a state begins in it again."""
        if self._lock is None:
            self._lock = FolderLock(folder)

    def close(self) -> None:
        """Let others use the folder."""
        if self._lock is not None:
            self._lock.close()

    def _newest(self, folder: Path) -> State | None:
        for path in snapshots(folder):
            try:
                state, about = read_snapshot(path, self.layout)
            except LedgerError as error:
                log.warning("%s; an older one is used", error.reason)
                continue
            except ModelError:  # of another shape
                raise self._foreign() from None
            if about != self.about:
                raise self._foreign()
            return state
        if snapshots(folder):
            raise SettingsError("resume", str(self.folder), "has no snapshot that is whole")
        return None

    def _foreign(self) -> SettingsError:
        return SettingsError("resume", str(self.folder), "was begun with other settings, data or model")

    def keep(self, state: State) -> None:
        """Write a snapshot."""
        if self.folder is not None:
            write_snapshot(self.folder / SNAPSHOTS, self.layout, state, self.about)

    def finish(self, summary: Mapping[str, Any]) -> None:
        """Write what came of the run."""
        if self.folder is not None:
            write_atomically(self.folder / "summary.json", json.dumps(summary, indent=1).encode())

    def _write_settings(self, settings: Mapping[str, Any]) -> None:
        if self.folder is not None:
            write_atomically(self.folder / "settings.toml", tomli_w.dumps(dict(settings)).encode())


def newest(folder: Path, layout: Layout) -> State:
    """Return the newest state of a run that can be read.

    Raises:
        SettingsError: there is none of a model of this layout.
    """
    for path in snapshots(folder / SNAPSHOTS):
        try:
            return read_snapshot(path, layout)[0]
        except LedgerError as error:
            log.warning("%s; an older one is used", error.reason)
        except ModelError:
            raise SettingsError("source", str(folder), "has weights of another model than its settings") from None
    raise SettingsError("source", str(folder), "has no snapshot that is whole")


def fingerprint(*parts: bytes) -> bytes:
    """Return 32 bytes that differ where `parts` do."""
    digest = hashlib.blake2b(digest_size=32, person=b"baffle-baseline")
    for part in parts:
        digest.update(len(part).to_bytes(8, "little") + part)
    return digest.digest()
