"""A run's folder: its ledger, its snapshots, and how a state is found again from them."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from baffle import bits, server
from baffle.errors import BaffleError, LedgerError, ModelError, ReportError
from baffle.header import Header
from baffle.kernels import Kernels
from baffle.ledger import Ledger, Reader
from baffle.messages import Intent, Plan, Record, Round, decode, encode
from baffle.parameters import Vector, digest
from baffle.records import Course, decode_record, encode_record
from baffle.server import State
from baffle.snapshots import INITIAL, read_snapshot, read_tensors, snapshots, write_snapshot, write_tensors
from baffle.storage import Room, make_folder, remove

LEDGER = "ledger"
SNAPSHOTS = "snapshots"
ROOM = "room"
"""The file that holds disk space for the record of an attempt that is asked for."""
log = logging.getLogger("baffle")


@dataclass(slots=True)
class Run:
    """A run that goes on: append a record, then it counts."""

    folder: Path
    header: Header
    ledger: Ledger

    @property
    def _room(self) -> Room:
        return Room(self.folder / ROOM)

    def intend(self, plan: Plan) -> Intent:
        """Put on disk that an attempt is about to be asked for, with room for the record of what came of it.

        Raises:
            StorageError, LedgerError: the disk refuses it: nothing may be asked.
        """
        intent = Intent.of(plan)
        self._room.hold(record_size(plan))
        self.ledger.append(encode_record(intent, self.ledger.version))
        return intent

    def append(self, record: Round) -> None:
        """Put a record on disk.

        Raises:
            LedgerError: the disk refuses it, the room that was held for it included.
        """
        payload = encode_record(record, self.ledger.version)
        try:
            self.ledger.append(payload)
        except LedgerError:
            if not self._room.release():
                raise
            log.warning("%s: the disk is full; the record takes the room that was held for it", self.folder)
            self.ledger.append(payload)

    def finish(self) -> None:
        """Give back what the run held on the disk."""
        self._room.release()

    def snapshot(self, state: State) -> None:
        """Keep the state after the last record."""
        write_snapshot(self.folder / SNAPSHOTS, self.header.federation.layout, state, self.ledger.head)


def record_size(plan: Plan) -> int:
    """Return bytes that the record of an attempt does not exceed, unless the reasons in it are unusually long."""
    return 2 * len(encode(plan)) + 8 * math.prod(plan.shape) + 256 * len(plan.cohort) + 4096


def begin(folder: Path, header: Header, given: Mapping[str, NDArray[np.generic]]) -> Run:
    """Return a new run in `folder`, made if need be. Tensors that are not drawn from the key are written first.

    Raises:
        LedgerError: there is a ledger already.
    """
    make_folder(folder)
    if header.federation.layout.given:
        write_tensors(folder / SNAPSHOTS / INITIAL, given, {"digest": header.initial})
    run = Run(folder, header, Ledger.create(folder / LEDGER))
    try:
        run.ledger.append(encode(header))
    except BaseException:
        run.ledger.close()
        raise
    return run


def resume(
    folder: Path,
    kernels: Kernels,
    watch: Callable[[Record], None],
    accept: Callable[[Header], None] = lambda _: None,
) -> tuple[Run, State] | None:
    """Return a run that was interrupted and its state: the newest good snapshot and the records after it.

    A torn tail is cut off with a warning. None if the run was interrupted before its header was on disk.

    Args:
        folder: the run's.
        kernels: for reconstruction.
        watch: is shown every record of the ledger, in order.
        accept: is shown the header before anything is changed, and raises if it is of another run.

    Raises:
        LedgerError: a record does not verify.
    """
    reader = Reader(folder / LEDGER)
    records = _records(reader)
    header = next(records, None)
    if header is None:
        remove(folder / LEDGER)
        return None
    accept(header)
    state, head = _newest(folder, header)
    followed, course = head == reader.head, _course(header, reader)
    for record in records:
        course.take(record, reader.records - 1)
        watch(record)
        if followed:
            state = _follow(header, state, record, kernels, reader.records - 1)
        followed = followed or head == reader.head
    state = replace(state, attempt=course.attempt)
    if reader.torn:
        log.warning("the ledger ended in %d bytes of an unfinished record; they were cut off", reader.torn)
    return Run(folder, header, Ledger.reopen(reader)), state


def header_of(folder: Path) -> Header | None:
    """Return the header of the run in a folder, or None where none has begun.

    Raises:
        LedgerError: it does not verify.
    """
    if not (folder / LEDGER).exists():
        return None
    return next(_records(Reader(folder / LEDGER)), None)


def read(folder: Path) -> tuple[Header, list[Record]]:
    """Return a ledger's header and all records after it, in order.

    Raises:
        LedgerError: a record does not verify or does not decode. A torn tail is left out.
    """
    records = _records(Reader(folder / LEDGER))
    header = next(records, None)
    if header is None:
        raise LedgerError(0, "the ledger has no header")
    return header, list(records)


def replay(folder: Path, kernels: Kernels) -> tuple[Header, State]:
    """Return the state that a ledger stands for, rebuilt from its start; every round's digest is compared.

    Raises:
        LedgerError: a record does not verify, or gives another θ than it says.
    """
    reader = Reader(folder / LEDGER)
    records = _records(reader)
    header = next(records, None)
    if header is None:
        raise LedgerError(0, "the ledger has no header")
    state, course = header.start(_given(folder, header)), _course(header, reader)
    for record in records:
        course.take(record, reader.records - 1)
        state = _follow(header, state, record, kernels, reader.records - 1)
    _report_torn(reader)
    return header, replace(state, attempt=course.attempt)


def verify(folder: Path) -> tuple[Header, int]:
    """Return the header and the number of rounds of a ledger whose every byte is as it was written.

    Raises:
        LedgerError: a record does not verify, does not decode or does not follow; or the ledger has a torn tail.
    """
    reader = Reader(folder / LEDGER)
    records = _records(reader)
    header = next(records, None)
    if header is None:
        raise LedgerError(0, "the ledger has no header")
    course = _course(header, reader)
    for record in records:
        course.take(record, reader.records - 1)
        _check_sums(record, reader.records - 1)
    _report_torn(reader)
    return header, course.round


def _course(header: Header, reader: Reader) -> Course:
    """Return what a ledger's records are held to: version 1 knows no intents."""
    return Course(header.guarded and reader.version > 1)


def _check_sums(record: Record, number: int) -> None:
    try:
        if isinstance(record, Round) and record.aggregate is not None:
            record.aggregate.integers(record.plan)
    except ReportError as error:
        raise LedgerError(number, str(error)) from None


def _report_torn(reader: Reader) -> None:
    if reader.torn:
        raise LedgerError(
            reader.records,
            f"is unfinished: {reader.torn} bytes; `baffle train --resume`, or `baffle serve`, cuts it off",
        )


def _records(reader: Reader) -> Iterator[Any]:
    """Yield the header, then the records."""
    for payload in reader:
        try:
            record = decode(payload, Header) if reader.records == 1 else decode_record(payload, reader.version)
        except BaffleError as error:
            raise LedgerError(reader.records - 1, str(error)) from None
        if isinstance(record, Header) and record.noise != bits.VERSION:
            raise LedgerError(0, f"its noise is of version {record.noise}; {bits.VERSION} is known here")
        yield record


def _given(folder: Path, header: Header) -> Mapping[str, NDArray[np.generic]] | None:
    return read_tensors(folder / SNAPSHOTS / INITIAL)[0] if header.federation.layout.given else None


def _newest(folder: Path, header: Header) -> tuple[State, bytes]:
    """Return the newest good state on disk that belongs to the ledger, else the first one; and its record's digest."""
    reader = Reader(folder / LEDGER)
    heads = [reader.head for _ in reader]
    for path in snapshots(folder / SNAPSHOTS):
        try:
            state, head = read_snapshot(path, header.federation.layout)
        except (LedgerError, ModelError) as error:
            log.warning("%s; an older one is used", error)
            continue
        if head in heads:
            return state, head
        log.warning("%s belongs to no record of this ledger; an older one is used", path)
    return header.start(_given(folder, header)), heads[0]


def _follow(header: Header, state: State, record: Record, kernels: Kernels, number: int) -> State:
    """Return the state after a record, whose place in the ledger has been checked."""
    if isinstance(record, Intent) or record.aggregate is None:
        return state
    try:
        state = server.apply(header.algorithm, state, record.plan, record.aggregate, kernels)
    except ReportError as error:
        raise LedgerError(number, str(error)) from None
    _refuse_other("θ", state.parameters, record.digest, number)
    _refuse_other("the average of the weights", state.average, record.average, number)
    return state


def _refuse_other(what: str, vector: Vector, due: str | None, number: int) -> None:
    if due is not None and digest(vector) != due:
        raise LedgerError(number, f"{what} has digest {digest(vector)}, the record says {due}")
