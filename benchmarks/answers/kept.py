"""Runs that are kept and go on where they were, and the file that their curves are committed in."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from fcntl import LOCK_EX, flock
from pathlib import Path
from typing import Any

from machine import describe

from baffle.assembly import assemble
from baffle.experiment import read
from baffle.storage import write_atomically

RUNS = Path("runs/questions")
RESULTS = Path(__file__).parents[1] / "results" / "questions.json"
COLUMNS = {"round": 0, "accuracy": 4, "accuracy_last": 4, "forward_equivalents": 0, "upload_bytes": 0}
"""What is committed of a curve, and its decimals."""
Columns = dict[str, list[float]]


def curve(folder: Path, settings: Mapping[str, Any]) -> Columns:
    """Return the curve of the run in `folder`, begun, taken up again, or finished before."""
    if not (folder / "summary.json").exists():
        made = read(settings)
        every = {field: getattr(made, field) for field in made.__struct_fields__}
        assemble(made).run(made.rounds, out=folder, resume=(folder / "settings.toml").exists(), settings=every)
    return columns((folder / "metrics.jsonl").read_text())


def columns(lines: str) -> Columns:
    """Return what is committed of a run's metrics."""
    rows = [json.loads(line) for line in lines.splitlines()]
    return {name: [round(row[name], digits or None) for row in rows] for name, digits in COLUMNS.items()}


def folder_of(question: str, label: str, settings: Mapping[str, Any], seed: int) -> Path:
    """Return where a run is kept: its label in letters that every file system has, and a hash of its settings."""
    told = re.sub(r"[^A-Za-z0-9.]+", "-", label).strip("-")
    digest = hashlib.blake2b(json.dumps(dict(settings), sort_keys=True).encode(), digest_size=4).hexdigest()
    return RUNS / question / f"{told}-{digest}" / str(seed)


def found() -> dict[str, Any]:
    """Return everything that is on record."""
    return json.loads(RESULTS.read_text()) if RESULTS.exists() else {}


def keep(question: str, **parts: Any) -> None:
    """Put `parts` of an answer on record, beside what is there."""
    with changing() as record:
        record[question] = record.get(question, {}) | {"machine": describe()} | parts


def keep_run(question: str, label: str, settings: Mapping[str, Any], seed: int, run: Columns) -> None:
    """Put a curve on record; those of other settings under the same label are no longer there."""
    settings = json.loads(json.dumps(dict(settings)))  # as they are read from the file
    with changing() as record:
        answer = record.get(question, {})
        rows = answer.get("rows", {})
        before = rows.get(label, {}).get("runs", {}) if rows.get(label, {}).get("settings") == settings else {}
        rows[label] = {"settings": settings, "runs": before | {str(seed): run}}
        record[question] = answer | {"machine": describe(), "rows": rows}


@contextmanager
def changing() -> Iterator[dict[str, Any]]:
    """Yield the record, and write it when it was changed; another process that would change it waits."""
    RUNS.mkdir(parents=True, exist_ok=True)
    with (RUNS / "lock").open("w") as lock:
        flock(lock, LOCK_EX)
        record = found()
        yield record
        write_atomically(RESULTS, (compact(dict(sorted(record.items(), key=order))) + "\n").encode())


def order(item: tuple[str, Any]) -> tuple[int, str]:
    """Return a key that sorts questions by number."""
    number, _, rest = item[0].partition("-")
    return (int(number), rest) if number.isdigit() else (1000, item[0])


def compact(record: Any) -> str:
    """Return JSON with every list of numbers on one line."""
    text = json.dumps(record, indent=1, ensure_ascii=False)
    return re.sub(r"\[[^][{}\"]*\]", lambda match: re.sub(r"\s+", " ", match.group()), text)
