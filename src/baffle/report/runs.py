"""A run as the report sees it."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from baffle.errors import DataError, SettingsError
from baffle.report.files import read_points, read_settings, read_summary
from baffle.report.records import Point, Summary, standing
from baffle.status import NAME, Status, read_status


@dataclass(frozen=True, slots=True)
class Run:
    """One run folder, read."""

    name: str
    """The end of the folder's path, as long as it takes to tell the runs apart."""
    folder: Path
    settings: Mapping[str, str]
    """Every setting as text; a sub-table's have dotted names."""
    points: tuple[Point, ...]
    """By round, at least one."""
    outcome: Summary
    finished: bool
    """Whether the run wrote its summary; else `outcome` is where it stands."""
    status: Status | None = None
    """What its server told last of clients over the network; None where it has none, or none that can be read."""
    without: str = ""
    """Why a status that is there can't be read."""

    def setting(self, *names: str) -> str:
        """Return the first of the settings `names` that is there, else nothing."""
        return next((self.settings[name] for name in names if name in self.settings), "")

    @property
    def dataset(self) -> str:
        """The data set's name, where the settings tell it."""
        return self.setting("dataset", "dataset.name", "data.dataset", "data.name", "data")

    @property
    def model(self) -> str:
        """The model's name, where the settings tell it."""
        return self.setting("model", "model.name", "model.kind")


def read_runs(folders: Sequence[Path]) -> tuple[Run, ...]:
    """Return the runs in `folders`, in that order; a folder given twice counts once.

    Raises:
        DataError: there is no folder, or a file of one can't be used; the text names the file and the line.
    """
    unique = list(dict.fromkeys(folder.resolve() for folder in folders))
    if not unique:
        raise DataError("a report needs at least one run's folder")
    return tuple(_read(folder, name) for folder, name in zip(unique, _names(unique), strict=True))


def differing(runs: Sequence[Run]) -> tuple[str, ...]:
    """Return the settings that `runs` do not all have alike, in the order they are met."""
    names = dict.fromkeys(name for run in runs for name in run.settings)
    return tuple(name for name in names if len({run.settings.get(name) for run in runs}) > 1)


def _read(folder: Path, name: str) -> Run:
    if not folder.is_dir():
        raise DataError(f"{folder}: there is no such folder")
    points = read_points(folder / "metrics.jsonl")
    summary = read_summary(folder / "summary.json")
    status, without = _status(folder)
    return Run(
        name=name,
        folder=folder,
        settings=read_settings(folder / "settings.toml"),
        points=points,
        outcome=summary or standing(points[-1]),
        finished=summary is not None,
        status=status,
        without=without,
    )


def _status(folder: Path) -> tuple[Status | None, str]:
    """Return a run's status, or why there is none: it may not have outlasted a power failure, unlike all the rest."""
    if not (folder / NAME).exists():
        return None, ""
    try:
        return read_status(folder), ""
    except SettingsError as error:
        return None, f"It {error.rule}."


def _names(folders: Sequence[Path]) -> list[str]:
    depth = 1
    while True:
        names = ["/".join(folder.parts[-depth:]) for folder in folders]
        if len(set(names)) == len(names) or depth > max(len(folder.parts) for folder in folders):
            return [_printable(name) for name in names]
        depth += 1


def _printable(name: str) -> str:
    return os.fsencode(name).decode("utf-8", "replace")
