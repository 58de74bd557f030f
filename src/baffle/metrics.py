"""The curve of a run: a JSON object a line."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from baffle.errors import DataError
from baffle.storage import append_line, write_atomically


@dataclass(slots=True)
class Metrics:
    """Rows by round, in memory and (with a path) in a file that each new row is added to."""

    path: Path | None = None
    rows: list[dict[str, Any]] = field(default_factory=list[dict[str, Any]])

    def resume(self, rounds: int) -> None:
        """Read the file's rows up to round `rounds`; later ones, and a torn last line, are dropped from it.

        Raises:
            DataError: a line in the middle is no row.
        """
        if self.path is None or not self.path.exists():
            return
        lines = self.path.read_bytes().split(b"\n")
        rows = [self._row(number, line) for number, line in enumerate(lines[:-1], 1)]
        self.rows = [row for row in rows if row["round"] <= rounds]
        write_atomically(self.path, "".join(json.dumps(row) + "\n" for row in self.rows).encode())

    def append(self, row: Mapping[str, Any]) -> None:
        """Add a row."""
        self.rows.append(dict(row))
        if self.path is not None:
            append_line(self.path, json.dumps(self.rows[-1]))

    def _row(self, number: int, line: bytes) -> dict[str, Any]:
        try:
            row = json.loads(line)
            return row | {"round": int(row["round"])}
        except (ValueError, TypeError, KeyError):
            raise DataError(f"{self.path}, line {number}: no row of a curve; the ledger is unharmed") from None

    @property
    def seconds(self) -> float:
        """Of the last row; 0 before the first."""
        return self.rows[-1]["seconds"] if self.rows else 0.0
