"""Files that are whole or not there, folders that one process uses at a time, and room for what must be written."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import BinaryIO, Self

from baffle.errors import SettingsError, StorageError

LOCK = "lock"
"""The file in a folder by which processes know that another one uses it; empty, and never deleted."""


@contextmanager
def writing(path: Path) -> Generator[None]:
    """Raise what the disk refuses inside as a StorageError that names `path`."""
    try:
        yield
    except OSError as error:
        raise StorageError(path, f"can't be written: {error.strerror or error}") from error


def write_atomically(path: Path, data: bytes, *, private: bool = False) -> None:
    """Put `data` at `path` such that a reader finds the old content or the new, also after a power failure.

    Args:
        path: the file; its folder is made if need be.
        data: its content.
        private: whether the file's owner alone may read it, from its first byte on, and a new folder as well.

    Raises:
        StorageError: the disk refuses it; names the file. What was there before is untouched.
    """
    temporary = path.with_name(path.name + ".part")
    with writing(path):
        made = not path.parent.exists()
        path.parent.mkdir(0o700 if private else 0o777, parents=True, exist_ok=True)
        flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC
        with os.fdopen(os.open(temporary, flags, 0o600 if private else 0o666), "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
        sync_folder(path.parent)
        if made:
            sync_folder(path.parent.parent)


def write_files(files: Mapping[Path, bytes]) -> None:
    """Write files whose folders are made if need be; for what can be made again, so not atomically.

    Raises:
        StorageError: the disk refuses one; names it.
    """
    for path, content in files.items():
        with writing(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)


def make_folder(path: Path) -> None:
    """Make a folder, and those above it, where they are missing.

    Raises:
        StorageError: the disk refuses it; names the folder.
    """
    with writing(path):
        path.mkdir(parents=True, exist_ok=True)


def remove(path: Path) -> None:
    """Remove a file, if it is there.

    Raises:
        StorageError: the disk refuses it; names the file.
    """
    with writing(path):
        path.unlink(missing_ok=True)


def append_line(path: Path, line: str) -> None:
    """Add a line to a text file, made if need be.

    Raises:
        StorageError: the disk refuses it; names the file.
    """
    with writing(path), path.open("a", encoding="utf-8") as file:
        file.write(line + "\n")


def sync_folder(path: Path) -> None:
    """Make the names of a folder's new files outlast a power failure."""
    folder = os.open(path, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


@dataclass(slots=True)
class FolderLock:
    """Keeps other processes, and other runs of this process, from a folder until it is closed.

    The lock belongs to the open file: it goes with the process, however that ends.

    Raises:
        SettingsError: the folder is in use, or can't be written; names `setting`.
    """

    folder: Path
    setting: str = "out"
    """The setting that named the folder."""
    _file: BinaryIO | None = field(default=None, repr=False)

    def __post_init__(self) -> None:
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            file = (self.folder / LOCK).open("wb")
        except OSError as error:
            rule = f"can't be written: {error.strerror or error}"
            raise SettingsError(self.setting, str(self.folder), rule) from error
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            file.close()
            raise SettingsError(self.setting, str(self.folder), "is in use by another process") from None
        self._file = file

    def close(self) -> None:
        """Let others use the folder; closing again does nothing."""
        if self._file is not None:
            self._file.close()
            self._file = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None):
        self.close()


@dataclass(frozen=True, slots=True)
class Room:
    """A file that holds disk space for something that must not fail to be written later.

    What is private is opened once, and the record of it follows: a disk that is full by then would lose the record and
    keep the secret spent. So as much room as the record takes is held before, and given up for it where need be.
    """

    path: Path

    def hold(self, size: int) -> None:
        """Hold at least `size` bytes.

        Raises:
            StorageError: the disk has no such room; names the file.
        """
        try:
            if self.path.exists() and self.path.stat().st_size >= size:
                return
            with self.path.open("wb") as file:
                file.write(os.urandom(size))  # zeros take no room on some file systems
                file.flush()
                os.fsync(file.fileno())
        except OSError as error:
            self.release()
            raise StorageError(self.path, f"can't hold {size} bytes: {error.strerror or error}") from error

    def release(self) -> bool:
        """Give the room back, and return whether there was any."""
        try:
            self.path.unlink()
        except OSError:
            return False
        return True


__all__ = [
    "LOCK",
    "FolderLock",
    "Room",
    "append_line",
    "make_folder",
    "remove",
    "sync_folder",
    "write_atomically",
    "write_files",
    "writing",
]
