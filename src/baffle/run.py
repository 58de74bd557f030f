"""A run's folder: its ledger, its snapshots, and how a state is found again from them."""

from __future__ import annotations

import logging
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
from baffle.messages import Round, decode, encode
from baffle.parameters import digest
from baffle.server import State
from baffle.snapshots import INITIAL, read_snapshot, read_tensors, snapshots, write_snapshot, write_tensors

LEDGER = "ledger"
SNAPSHOTS = "snapshots"
log = logging.getLogger("baffle")


@dataclass(slots=True)
class Run:
    """A run that goes on: append a record, then it counts."""

    folder: Path
    header: Header
    ledger: Ledger

    def append(self, record: Round) -> None:
        """Put a record on disk."""
        self.ledger.append(encode(record))

    def snapshot(self, state: State) -> None:
        """Keep the state after the last record."""
        write_snapshot(self.folder / SNAPSHOTS, self.header.federation.layout, state, self.ledger.head)


def begin(folder: Path, header: Header, given: Mapping[str, NDArray[np.generic]]) -> Run:
    """Return a new run in `folder`, made if need be. Tensors that are not drawn from the key are written first.

    Raises:
        LedgerError: there is a ledger already.
    """
    folder.mkdir(parents=True, exist_ok=True)
    if header.federation.layout.given:
        write_tensors(folder / SNAPSHOTS / INITIAL, given, {"digest": header.initial})
    run = Run(folder, header, Ledger.create(folder / LEDGER))
    run.ledger.append(encode(header))
    return run


def resume(
    folder: Path,
    kernels: Kernels,
    watch: Callable[[Round], None],
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
        (folder / LEDGER).unlink()
        return None
    accept(header)
    state, head = _newest(folder, header)
    followed = head == reader.head
    for record in records:
        watch(record)
        if followed:
            state = _follow(header, state, record, kernels, reader.records - 1)
        followed = followed or head == reader.head
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
    state = header.start(_given(folder, header))
    for record in records:
        state = _follow(header, state, record, kernels, reader.records - 1)
    _report_torn(reader)
    return header, state


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
    rounds, attempt = 0, 0
    for record in records:
        if (record.plan.round, record.plan.attempt) != (rounds, attempt):
            told = f"round {record.plan.round}, attempt {record.plan.attempt}"
            raise LedgerError(reader.records - 1, f"{told} where round {rounds}, attempt {attempt} follows")
        _check_sums(record, reader.records - 1)
        rounds, attempt = (rounds, attempt + 1) if record.aggregate is None else (rounds + 1, 0)
    _report_torn(reader)
    return header, rounds


def _check_sums(record: Round, number: int) -> None:
    try:
        if record.aggregate is not None:
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
    """Yield the header, then the rounds."""
    kind: type[Header] | type[Round] = Header
    for payload in reader:
        try:
            record = decode(payload, kind)
        except BaffleError as error:
            raise LedgerError(reader.records - 1, str(error)) from None
        if isinstance(record, Header) and record.noise != bits.VERSION:
            raise LedgerError(0, f"its noise is of version {record.noise}; {bits.VERSION} is known here")
        yield record
        kind = Round


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


def _follow(header: Header, state: State, record: Round, kernels: Kernels, number: int) -> State:
    """Return the state after a record."""
    if record.plan.round != state.round:
        raise LedgerError(number, f"round {record.plan.round} where {state.round} follows")
    if record.aggregate is None:
        return replace(state, attempt=state.attempt + 1)
    try:
        state = server.apply(header.algorithm, state, record.plan, record.aggregate, kernels)
    except ReportError as error:
        raise LedgerError(number, str(error)) from None
    if record.digest is not None and digest(state.parameters) != record.digest:
        raise LedgerError(number, f"θ has digest {digest(state.parameters)}, the record says {record.digest}")
    return state
