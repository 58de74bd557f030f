"""The run's append-only record: frames chained by hash, on disk before they count. See docs/ledger-2.md."""

from __future__ import annotations

import fcntl
import hashlib
import os
import struct
import zlib
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO

from baffle.errors import LedgerError
from baffle.storage import sync_folder, writing

VERSION = 2
"""Of the format that new ledgers have. Those of version 1 are read, replayed and gone on with as they are."""
_MAGICS = {b"BAFFLE\x01\n": 1, b"BAFFLE\x02\n": 2}
MAGIC = next(magic for magic, version in _MAGICS.items() if version == VERSION)
"""First eight bytes of a ledger; the seventh is the format's version."""
DIGEST = 32
_HEAD = struct.Struct("<II")
_START = bytes(DIGEST)


def _seal(before: bytes, length: bytes, payload: bytes) -> bytes:
    return hashlib.blake2b(before + length + payload, digest_size=DIGEST, person=b"baffle-ledger").digest()


def _frame(before: bytes, payload: bytes) -> tuple[bytes, bytes]:
    """Return a frame's bytes and its digest.

    The length has a checksum of its own: without one, a flipped bit in it would look like a torn tail and cost every
    record after it.
    """
    length = struct.pack("<I", len(payload))
    seal = _seal(before, length, payload)
    return length + struct.pack("<I", zlib.crc32(before + length)) + payload + seal, seal


@dataclass(slots=True)
class Reader:
    """The payloads of a ledger in order, each verified before it is given.

    Attributes after the first payload:
        version: of the ledger's format.

    Attributes after the last payload:
        records: how many there were.
        head: digest of the last one, 32 bytes.
        end: offset of its end in the file, bytes.
        torn: bytes of a record that was never finished, after `end`; 0 as a rule.
    """

    path: Path
    records: int = 0
    head: bytes = _START
    end: int = len(MAGIC)
    torn: int = 0
    version: int = VERSION

    def __iter__(self) -> Iterator[bytes]:
        """Yield payloads.

        Raises:
            LedgerError: there is no such ledger, or a record does not verify; says which.
        """
        try:
            file = self.path.open("rb")
        except OSError as error:
            raise LedgerError(0, f"{self.path} can't be read: {error.strerror}") from None
        with file:
            magic = file.read(len(MAGIC))
            if magic not in _MAGICS:
                self._torn_start(magic)
                return
            self.version = _MAGICS[magic]
            while (payload := self._next(file)) is not None:
                yield payload

    def _torn_start(self, magic: bytes) -> None:
        if not any(known.startswith(magic) for known in _MAGICS):
            raise LedgerError(0, "this is no ledger of a version known here")
        self.end, self.torn = 0, len(magic)

    def _next(self, file: BinaryIO) -> bytes | None:
        head = file.read(_HEAD.size)
        if len(head) == _HEAD.size:
            length, check = _HEAD.unpack(head)
            if check != zlib.crc32(self.head + head[:4]):
                return self._bad_head(file, head)
            rest = file.read(length + DIGEST)
            if len(rest) == length + DIGEST:
                return self._verified(head[:4], rest[:length], rest[length:])
        self.torn = self._size(file) - self.end
        return None

    def _bad_head(self, file: BinaryIO, head: bytes) -> None:
        """Take an end of zeros, which a file grown but not written before a power failure has, for a torn tail."""
        if head.strip(b"\0") or file.read().strip(b"\0"):
            raise LedgerError(self.records, "the length does not verify")
        self.torn = self._size(file) - self.end

    def _verified(self, length: bytes, payload: bytes, seal: bytes) -> bytes:
        if seal != _seal(self.head, length, payload):
            raise LedgerError(self.records, "the record does not verify: it was changed, or one before it was")
        self.records += 1
        self.head = seal
        self.end += _HEAD.size + len(payload) + DIGEST
        return payload

    @staticmethod
    def _size(file: BinaryIO) -> int:
        return file.seek(0, os.SEEK_END)


@dataclass(slots=True)
class Ledger:
    """A ledger open for appending."""

    head: bytes
    """Digest of the last record, 32 bytes: it stands for everything before."""
    records: int
    _file: BinaryIO = field(repr=False)
    version: int = VERSION

    @classmethod
    def create(cls, path: Path) -> Ledger:
        """Return a new, empty ledger at `path`.

        Raises:
            LedgerError: there is one already.
            StorageError: the disk refuses it.
        """
        with writing(path):
            try:
                # The header has the run's secret: its owner alone may read it.
                file = os.fdopen(
                    os.open(path, os.O_CREAT | os.O_EXCL | os.O_RDWR | os.O_CLOEXEC, 0o600), "r+b", buffering=0
                )
            except FileExistsError:
                raise LedgerError(0, f"{path} is there already") from None
            with _closed_on_error(file):
                _lock(file, path)
                _write(file, MAGIC)
                sync_folder(path.parent)
        return cls(_START, 0, file)

    @classmethod
    def reopen(cls, reader: Reader) -> Ledger:
        """Return the ledger that `reader` has read to its end; a torn tail is cut off.

        Raises:
            LedgerError: another process writes it.
            StorageError: the disk refuses it.
        """
        with writing(reader.path):
            file = reader.path.open("r+b", buffering=0)
            with _closed_on_error(file):
                _lock(file, reader.path)
                file.truncate(reader.end)
                file.seek(reader.end)
                if reader.end == 0:
                    _write(file, MAGIC)
                os.fsync(file.fileno())
        return cls(reader.head, reader.records, file, reader.version)

    def append(self, payload: bytes) -> None:
        """Add a record; it is on disk when this returns.

        Raises:
            LedgerError: the disk refuses it. What was there before is untouched.
        """
        frame, seal = _frame(self.head, payload)
        start = self._file.tell()
        try:
            _write(self._file, frame)
        except OSError as error:
            self._file.truncate(start)
            self._file.seek(start)
            raise LedgerError(self.records, f"can't be written: {error.strerror}; nothing before it is lost") from error
        self.head = seal
        self.records += 1

    def close(self) -> None:
        """Close the file."""
        self._file.close()


@contextmanager
def _closed_on_error(file: BinaryIO) -> Generator[None]:
    try:
        yield
    except BaseException:
        file.close()
        raise


def _lock(file: BinaryIO, path: Path) -> None:
    """Keep other processes from appending; the lock goes with the process, however it ends."""
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        raise LedgerError(0, f"{path} is being written by another process") from None


def _write(file: BinaryIO, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[file.write(view) :]
    os.fsync(file.fileno())
