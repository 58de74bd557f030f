"""A user's own table: features, label and perhaps client of each sample in a .csv file."""

from __future__ import annotations

import csv
import math
from array import array
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from baffle.data.dataset import Dataset, Split, hold_out
from baffle.data.labels import numbered
from baffle.errors import DataError
from baffle.keys import Key

HELD_OUT = 0.2
"""The share of samples held out where the file names no test samples."""

CLIENT_COLUMN = "client"
"""The client column's usual name; a table need not have it."""


def load_csv(path: Path, key: Key, *, label_column: str = "label", client_column: str = CLIENT_COLUMN) -> Split:
    """Return the table of a .csv file (UTF-8, a header row), a random fifth of its rows held out.

    Every column but the two named is a feature and must be finite numbers: samples [columns], float32, as they are.
    Labels and clients are whole numbers or strings, numbered in sorted order and then the names of classes and clients.
    A table without a column "client" has no clients; any other `client_column` must be there.

    Raises:
        DataError: the file can't be read, a column is missing, or a cell is not a number; the text says where.
    """
    try:
        table = read_table(path, label_column, client_column)
        labels, classes = numbered(table.labels)
        owners, names = numbered(table.clients) if table.clients else (None, ())
        dataset = Dataset(table.inputs, labels, len(classes), owners=owners, owner_names=names, class_names=classes)
        return hold_out(dataset, HELD_OUT, key)
    except DataError as error:
        raise DataError(f"{path}: {error}") from None


@dataclass(frozen=True, slots=True)
class Table:
    """A table's rows, filled one by one."""

    cells: array[float] = field(default_factory=lambda: array("f"))
    """The features, row by row."""

    labels: list[str] = field(default_factory=list[str])
    """Each row's label, as it is written."""

    clients: list[str] = field(default_factory=list[str])
    """Each row's client, as it is written; empty where the table has no clients."""

    @property
    def inputs(self) -> np.ndarray:
        """The features [rows, columns], float32, not copied."""
        if not self.labels:
            return np.empty((0, 1), np.float32)
        return np.frombuffer(self.cells, np.float32).reshape(len(self.labels), -1)


def read_table(path: Path, label_column: str, client_column: str) -> Table:
    """Return a .csv file's rows; a `client_column` other than "client" must be there.

    Raises:
        DataError: as `load_csv`, but the text does not name the file.
    """
    try:
        return _rows(path, label_column, client_column)
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"can't be read as .csv: {error}") from None


@dataclass(frozen=True, slots=True)
class _Columns:
    """Where a table's columns lie."""

    names: list[str]
    label: int
    client: int | None
    features: list[int]


def _columns(names: list[str], label: str, client: str) -> _Columns:
    names = [name.strip() for name in names]
    if len(set(names)) != len(names):
        raise DataError(f"columns {', '.join(names)}: each name must stand once")
    needed = {label} if client == CLIENT_COLUMN else {label, client}
    if absent := sorted(needed - set(names)):
        raise DataError(f"no column {' and '.join(absent)}; it has {', '.join(names) or 'none'}")
    features = [index for index, name in enumerate(names) if name not in (label, client)]
    if not features:
        raise DataError("no column is left for the features")
    return _Columns(names, names.index(label), names.index(client) if client in names else None, features)


def _rows(path: Path, label: str, client: str) -> Table:
    table = Table()
    with path.open(encoding="utf-8-sig", newline="") as file:
        rows = csv.reader(file, strict=True, skipinitialspace=True)
        columns = _columns(next(rows, list[str]()), label, client)
        for row in rows:
            if row:
                _append(table, columns, row, rows.line_num)
    return table


def _append(table: Table, columns: _Columns, row: list[str], line: int) -> None:
    if len(row) != len(columns.names):
        raise DataError(f"line {line}: {len(row)} cells where the header has {len(columns.names)}")
    table.cells.extend(_number(row[index], columns.names[index], line) for index in columns.features)
    table.labels.append(_name(row[columns.label], columns.names[columns.label], line))
    if columns.client is not None:
        table.clients.append(_name(row[columns.client], columns.names[columns.client], line))


def _name(cell: str, column: str, line: int) -> str:
    if not cell.strip():
        raise DataError(f"line {line}, column {column!r}: is empty")
    return cell.strip()


def _number(cell: str, column: str, line: int) -> float:
    try:
        number = float(cell)
    except ValueError:
        raise DataError(f"line {line}, column {column!r}: {cell!r} is not a number") from None
    if not math.isfinite(number):
        raise DataError(f"line {line}, column {column!r}: {cell!r} is not finite")
    return number
