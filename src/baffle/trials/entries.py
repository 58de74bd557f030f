"""From folders of runs to what the report compares."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from baffle.errors import SettingsError
from baffle.report.comparison import Entry, Trial
from baffle.report.files import as_text
from baffle.report.runs import Run, read_runs
from baffle.trials.jobs import NOT_COMPARED, Job


def entry_of(label: str, jobs: Sequence[Job], reasons: Mapping[Job, str]) -> Entry:
    """Return an experiment and what came of its runs; `reasons` say why one did not finish."""
    settings = _without(as_text(jobs[0].settings()))
    return Entry(label, settings, tuple(_trial(job, reasons.get(job, "")) for job in jobs))


def _trial(job: Job, reason: str) -> Trial:
    seed = str(job.experiment.seed)
    if reason or job.state != "finished":
        return Trial(seed, None, reason or "was not run")
    return Trial(seed, read_runs([job.folder])[0])


def folder_entries(names: Mapping[Path, str]) -> list[Entry]:
    """Return the finished runs in folders, those that differ by their seed alone together, named after the first.

    A folder of one experiment that `baffle compare` made, with a folder for each seed, stands for its runs.

    Raises:
        SettingsError: a folder holds no run, or one that is not finished.
        DataError: a file of one can't be used.
    """
    entries: list[Entry] = []
    for path, name in names.items():
        for run in _runs(path):
            trial, settings = Trial(run.setting("seed") or "?", run), _without(run.settings)
            place = _place(entries, settings, trial)
            if place is None:
                entries.append(Entry(_unused(name, entries), settings, (trial,)))
            else:
                entries[place] = Entry(entries[place].name, settings, (*entries[place].trials, trial))
    return entries


def _runs(path: Path) -> tuple[Run, ...]:
    inner = sorted(path.glob("seed-*/settings.toml"), key=lambda file: (len(file.parent.name), file.parent.name))
    folders = [path] if (path / "settings.toml").exists() else [file.parent for file in inner]
    if not folders:
        raise SettingsError("experiment", str(path), "is a folder that holds no run (no settings.toml)")
    for folder in folders:
        if not (folder / "summary.json").exists():
            rule = f"has not finished; go on with: baffle train --resume {folder}"
            raise SettingsError("experiment", str(folder), rule)
    return read_runs(folders)


def _place(entries: Sequence[Entry], settings: Mapping[str, str], trial: Trial) -> int | None:
    """Return which entry has these settings, and not this seed yet."""
    for index, entry in enumerate(entries):
        if entry.settings == settings and trial.seed not in {other.seed for other in entry.trials}:
            return index
    return None


def _unused(name: str, entries: Sequence[Entry]) -> str:
    taken = {entry.name for entry in entries}
    choices = [name, *(f"{name} ({number})" for number in range(2, len(taken) + 3))]
    return next(choice for choice in choices if choice not in taken)


def _without(settings: Mapping[str, str]) -> dict[str, str]:
    return {name: value for name, value in settings.items() if name not in NOT_COMPARED}
