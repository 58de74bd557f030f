"""`baffle compare`."""

from __future__ import annotations

import argparse
import fcntl
import os
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from baffle import checks, extras
from baffle.cli.daemon import Interrupted
from baffle.cli.settings import flags_of
from baffle.errors import SettingsError
from baffle.experiment import Experiment, read, read_toml
from baffle.storage import make_folder

if TYPE_CHECKING:
    from baffle.report.comparison import Entry
    from baffle.trials import Job

FIELDS = tuple(name for name in Experiment.__struct_fields__ if name not in ("seed", "out"))
"""Settings that overrule all experiments."""
_MOST_SEED = 2**63 - 1
_MOST_SEEDS = 1000


def compare(options: argparse.Namespace) -> None:
    """Run experiments with several seeds, or read runs, and write how they compare."""
    from baffle.cli.compared import show_comparison, show_jobs
    from baffle.report.comparison import Comparison, chosen_target, write_comparison
    from baffle.trials import check_task, entry_of, shared

    checks.at_least("jobs", options.jobs, 1)
    targets, seeds = _targets(options.target), _seeds(options.seeds)
    out: Path = options.folder or _free(Path("runs"))
    jobs, folders = _given(options, seeds, out)
    remarks = check_task([*(entry_of(label, some, {}) for label, some in jobs.items()), *folders])
    if options.list:
        show_jobs([job for some in jobs.values() for job in some], folders)
        return
    extras.require("matplotlib", "train")
    reasons = _run([job for some in jobs.values() for job in some], options.jobs, out)
    entries = (*(entry_of(label, some, reasons) for label, some in jobs.items()), *folders)
    timed = not any(shared(run.folder) for entry in entries for run in entry.runs)
    if not timed:
        remarks.append("Some runs went on at once with others, so that seconds are not compared.")
    comparison = Comparison(entries, targets or chosen_target(entries), tuple(remarks), timed=timed)
    show_comparison(comparison, write_comparison(comparison, out))


def _given(
    options: argparse.Namespace, seeds: tuple[int, ...], out: Path
) -> tuple[dict[str, list[Job]], tuple[Entry, ...]]:
    """Return the runs to do, by their experiment's label, and the experiments whose runs are there.

    Raises:
        SettingsError: a file or folder is not there, or `out` holds other runs.
    """
    from baffle.trials import folder_entries, jobs_of, labels

    for path in options.experiments:
        if not path.exists():
            raise SettingsError("experiment", str(path), "is not there: neither a file of settings nor a run's folder")
    if (out / "settings.toml").exists():
        raise SettingsError("out", str(out), "is a run's own folder; name another")
    flags, named = flags_of(options), labels(options.experiments)
    folders = {path: label for path, label in named.items() if path.is_dir()}
    if flags and len(folders) == len(named):
        name = next(iter(flags))
        raise SettingsError(name, flags[name], "can't change runs that are finished")
    jobs = {
        label: jobs_of(label, _experiment(path, flags), seeds, out)
        for path, label in named.items()
        if path not in folders
    }
    return jobs, tuple(folder_entries(folders))


def _experiment(path: Path, flags: dict[str, object]) -> Experiment:
    try:
        return read(read_toml(path), flags)
    except SettingsError as error:
        told = error.rule if error.field == "experiment" else f"{error.rule} (in {path}, or by a flag)"
        raise SettingsError(error.field, error.value, told) from None


def _run(jobs: list[Job], at_once: int, out: Path) -> dict[Job, str]:
    """Return why runs did not finish."""
    from baffle.cli.compared import Display
    from baffle.trials import run_all

    with _held(out), Display(jobs, out) as display:
        try:
            return run_all([job for job in jobs if job.state != "finished"], at_once, display)
        except KeyboardInterrupt:
            raise Interrupted(f"interrupted; the same command with --out {out} goes on") from None


@contextmanager
def _held(out: Path) -> Generator[None]:
    """Keep other comparisons out of a folder.

    Raises:
        SettingsError: one is at work there.
    """
    make_folder(out)
    lock = os.open(out, os.O_RDONLY)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
    except BlockingIOError:
        raise SettingsError("out", str(out), "is in use by another comparison") from None
    finally:
        os.close(lock)


def _free(folder: Path) -> Path:
    return next(path for i in range(1, 1_000_000) if not (path := folder / f"compare-{i}").exists())


def _seeds(text: str) -> tuple[int, ...]:
    """Return the seeds that "3" or "0,1,2" stands for.

    Raises:
        SettingsError: it stands for none, or for one twice or out of range.
    """
    listed = "," in text
    try:
        numbers = [int(part) for part in text.split(",") if part.strip()]
    except ValueError:
        raise SettingsError("seeds", text, 'must be a number, or numbers with commas: "3" or "0,1,2"') from None
    if not listed:
        checks.within("seeds", numbers[0] if numbers else 0, 1, _MOST_SEEDS)
        return tuple(range(numbers[0]))
    if not numbers or len(set(numbers)) < len(numbers):
        raise SettingsError("seeds", text, "must name each seed once, and at least one")
    for number in numbers:
        checks.within("seeds", number, 0, _MOST_SEED)
    return tuple(numbers)


def _targets(texts: list[str]) -> tuple[float, ...]:
    """Return accuracies, each once, in the order given.

    Raises:
        SettingsError: one is no number in (0, 1].
    """
    found: dict[float, None] = {}
    for part in ",".join(texts).split(","):
        if not part.strip():
            continue
        try:
            target = float(part)
        except ValueError:
            raise SettingsError("target", part, "must be a number above 0, at most 1, such as 0.9") from None
        if not 0 < target <= 1:
            raise SettingsError("target", target, "must be above 0, at most 1, such as 0.9 for 90 %")
        found[target] = None
    return tuple(found)
