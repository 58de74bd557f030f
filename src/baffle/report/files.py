"""Reads the three files of a run folder; every error names the file and, where there is one, the line."""

from __future__ import annotations

import json
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import TypeVar, cast

import msgspec

from baffle.errors import DataError
from baffle.report.records import Point, Summary

_Record = TypeVar("_Record", Point, Summary)


def read_settings(path: Path) -> dict[str, str]:
    """Return a TOML file's values as text, a sub-table's under dotted names, in the file's order.

    Raises:
        DataError: the file can't be read or is not TOML.
    """
    try:
        return as_text(tomllib.loads(_content(path).decode("utf-8")))
    except ValueError as error:  # TOMLDecodeError and UnicodeDecodeError; the former's text names the line
        raise DataError(f"{path}: not TOML: {error}") from None


def read_points(path: Path) -> tuple[Point, ...]:
    """Return a `metrics.jsonl` in the order of its rounds; of two lines about one round the later one counts.

    What stands after the last newline is a line still being written: it is left out unless it is whole.

    Raises:
        DataError: the file can't be read, a line is not a point, or there is none.
    """
    *lines, torn = _content(path).split(b"\n")
    points = [_record(line, Point, path, number) for number, line in enumerate(lines, 1) if line.strip()]
    if _is_whole(torn):
        points.append(_record(torn, Point, path, len(lines) + 1))
    if not points:
        raise DataError(f"{path}: no metrics yet; the run has not evaluated its model")
    return tuple(point for _, point in sorted({point.round: point for point in points}.items()))


def read_summary(path: Path) -> Summary | None:
    """Return a `summary.json`, or None where a run has not written it yet.

    Raises:
        DataError: the file can't be read or is not a summary.
    """
    return _record(_content(path), Summary, path, 1) if path.exists() else None


def as_text(settings: Mapping[str, object]) -> dict[str, str]:
    """Return settings' values as text, a sub-table's under dotted names."""
    return _flat("", dict(settings))


def _content(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise DataError(f"{path}: {error.strerror}; expected a file of a run's folder") from None


def _record(content: bytes, kind: type[_Record], path: Path, first_line: int) -> _Record:
    try:
        return msgspec.convert(json.loads(content, object_hook=_without_nulls), kind)
    except json.JSONDecodeError as error:
        raise DataError(f"{path}: line {first_line + error.lineno - 1}: not JSON: {error.msg}") from None
    except (ValueError, RecursionError, msgspec.ValidationError) as error:
        raise DataError(f"{path}: line {first_line}: {error}") from None


def _without_nulls(values: dict[str, object]) -> dict[str, object]:
    return {name: value for name, value in values.items() if value is not None}


def _is_whole(line: bytes) -> bool:
    try:
        json.loads(line)
    except (ValueError, RecursionError):
        return False
    return True


def _flat(prefix: str, table: dict[str, object]) -> dict[str, str]:
    flat: dict[str, str] = {}
    for name, value in table.items():
        if isinstance(value, dict):
            flat |= _flat(f"{prefix}{name}.", cast("dict[str, object]", value))
        else:
            flat[prefix + name] = _text(value)
    return flat


def _text(value: object) -> str:
    return value if isinstance(value, str) else json.dumps(value, default=str, ensure_ascii=False)
