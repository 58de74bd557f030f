"""A client's folder: its private randomness, and its state of each run, so that it can be killed at any moment."""

from __future__ import annotations

import contextlib
import logging
import secrets
from dataclasses import dataclass
from pathlib import Path

from baffle.engines.network.commitments import Commitments
from baffle.errors import BaffleError, LedgerError, ModelError, ReportError, SettingsError, StorageError
from baffle.header import Header
from baffle.keys import BYTES, Key
from baffle.messages import decode
from baffle.server import State
from baffle.snapshots import read_snapshot, snapshots, write_snapshot
from baffle.storage import FolderLock, remove, write_atomically

MOST_RUNS = 256
"""Runs of which a client keeps something."""
KEPT_STATES = 8
"""Runs, the latest, of which it keeps states; of the others it gets a snapshot, should they go on."""
_PRIVATE = "private"
_HEADER = "header"
_COMMITMENTS = "commitments"

log = logging.getLogger("baffle")


@dataclass(slots=True)
class Home:
    """What a client keeps on its disk.

    Raises:
        SettingsError: another process uses the folder, or it can't be written.
    """

    folder: Path
    _lock: FolderLock | None = None

    def __post_init__(self) -> None:
        self._lock = FolderLock(self.folder, "state")

    def __enter__(self) -> Home:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Let other processes use the folder."""
        if self._lock is not None:
            self._lock.close()

    def private(self) -> Key:
        """Return the key of the client's own randomness, made by the operating system when it is first asked for.

        Raises:
            SettingsError: the file is not what was written.
        """
        path = self.folder / _PRIVATE
        if not path.exists():
            write_atomically(path, secrets.token_bytes(BYTES), private=True)
        data = path.read_bytes()
        if len(data) != BYTES:
            raise SettingsError("state", str(path), f"must have {BYTES} bytes; it was changed. Move it away to go on")
        return Key(data)

    def runs(self) -> list[str]:
        """Return the names of runs that have a state here, the latest first."""

        def latest(run: Path) -> int:
            # The folder's own time would change with what is removed from it.
            return max(path.stat().st_mtime_ns for path in run.iterdir())

        found = [path.parent for path in self.folder.glob(f"*/{_HEADER}")]
        return [run.name for run in sorted(found, key=latest, reverse=True)]

    def header(self, run: str) -> bytes | None:
        """Return the encoded header of a run, or None where there is none that is whole."""
        try:
            data = (self.folder / run / _HEADER).read_bytes()
            decode(data, Header)
        except (OSError, BaffleError):
            return None
        return data

    def keep_header(self, run: str, header: bytes) -> None:
        """Keep a run's header, and drop the states of runs that are long past: a server that lies begins ever more.

        What was given away of a run stays for ever, since it is what a client must not forget.

        Raises:
            SettingsError: the folder holds too many runs.
            StorageError: the disk refuses it.
        """
        others = [name for name in self.runs() if name != run]
        if len(others) >= MOST_RUNS:
            raise SettingsError("state", str(self.folder), f"holds {MOST_RUNS} runs: move away those that are over")
        write_atomically(self.folder / run / _HEADER, header, private=True)
        for name in others[KEPT_STATES - 1 :]:
            self.forget(name)

    def commitments(self, run: str) -> Commitments:
        """Return what this client has given away of a run; nothing, where no file was ever written.

        Raises:
            SettingsError: the file can't be read, or is not what was written.
        """
        path = self.folder / run / _COMMITMENTS
        try:
            return Commitments.restored(path.read_bytes())
        except FileNotFoundError:
            return Commitments()
        except OSError as error:
            raise SettingsError("state", str(path), f"can't be read: {error.strerror}") from None
        except ReportError as error:
            rule = f"{error}: without it this client could be made to give a report away twice; end its part in the run"
            raise SettingsError("state", str(path), rule) from None

    def commit(self, run: str, value: Commitments) -> None:
        """Keep what this client gives away of a run; it is on the disk when this returns.

        Raises:
            ReportError: the disk refuses it.
        """
        try:
            write_atomically(self.folder / run / _COMMITMENTS, value.stored(), private=True)
        except StorageError as error:
            raise ReportError(f"what this client gives away can't be kept first: {error}") from None

    def state(self, run: str, header: Header) -> State | None:
        """Return the newest good state of a run."""
        for path in snapshots(self.folder / run):
            try:
                return read_snapshot(path, header.federation.layout)[0]
            except (LedgerError, ModelError) as error:
                log.warning("%s; an older state is used", error)
        return None

    def keep(self, run: str, header: Header, state: State) -> bool:
        """Keep a state; return False, saying why, where the disk refuses it."""
        try:
            write_snapshot(self.folder / run, header.federation.layout, state, b"")
        except StorageError as error:
            log.warning("the state can't be kept: %s; an older one stays", error)
            return False
        return True

    def taken(self, run: str, data: bytes, version: int, header: Header) -> State:
        """Keep a snapshot that the server sent, and return its state.

        Raises:
            LedgerError: it is damaged.
        """
        for old in snapshots(self.folder / run):
            if int(old.stem) >= version:
                remove(old)
        path = self.folder / run / f"{version:08d}.safetensors"
        write_atomically(path, data)
        try:
            return read_snapshot(path, header.federation.layout)[0]
        except (LedgerError, ModelError) as error:
            with contextlib.suppress(StorageError):
                remove(path)
            if isinstance(error, ModelError):  # what came is no snapshot of this run
                raise LedgerError(0, f"{path} is no snapshot: {error}") from None
            raise

    def forget(self, run: str) -> None:
        """Drop the states of a run."""
        for path in snapshots(self.folder / run):
            remove(path)
