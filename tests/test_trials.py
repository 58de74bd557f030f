"""Runs of a comparison: their names and folders, and what their process says; the processes are in cli/."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import get_args

import pytest

from baffle.errors import SettingsError
from baffle.experiment import FIELDS, read
from baffle.trials import Job, jobs_of, labels, shared
from baffle.trials.jobs import share
from baffle.trials.process import LOG, Where, follow

QUICK = {"forwards": 96, "clients": 4, "hidden": [4], "batch": 8, "threads": 1, "rounds": 3, "evaluate_every": 1}


@pytest.mark.parametrize(
    ("paths", "expected"),
    [
        (["a/ours.toml", "b/paper.toml"], ["ours", "paper"]),
        (["a/ours.toml", "b/ours.toml"], ["a-ours", "b-ours"]),
        (["a/ours.toml", "b/Ours.toml"], ["a-ours", "b-Ours"]),
        (["a/ours.toml", "a/ours"], ["ours-1", "ours-2"]),
        (["a/ours.toml", "a/../a/ours.toml"], ["ours"]),
        (["run.1"], ["run.1"]),
        ([], []),
    ],
)
def test_names_are_as_long_as_it_takes_to_tell_them_apart(paths, expected) -> None:
    assert list(labels([Path(path) for path in paths]).values()) == expected


def test_jobs_differ_by_seed_and_folder_alone(tmp_path) -> None:
    first, second = jobs_of("ours", read(QUICK | {"seed": 9}), (0, 3), tmp_path)
    assert (first.experiment.seed, second.experiment.seed) == (0, 3)
    assert second.folder == tmp_path / "ours" / "seed-3"
    assert first.settings() | {"seed": 3, "out": str(second.folder)} == second.settings()
    assert first.state == "to do"


@pytest.mark.parametrize("algorithm", get_args(get_args(FIELDS["algorithm"])[0]))
def test_the_process_of_a_run_reads_the_experiment_that_it_is_sent(algorithm, tmp_path) -> None:
    (job,) = jobs_of("one", read({"algorithm": algorithm, "clients": 4, "rounds": 3}), (7,), tmp_path)
    sent = json.loads(json.dumps(job.settings()))
    assert read(sent | {"out": ""}) == job.experiment


def test_a_folder_that_was_begun_with_another_setting_is_refused(tmp_path) -> None:
    import tomli_w

    (job,) = jobs_of("ours", read(QUICK), (0,), tmp_path)
    job.folder.mkdir(parents=True)
    (job.folder / "settings.toml").write_text(tomli_w.dumps(job.settings()))
    assert jobs_of("ours", read(QUICK), (0,), tmp_path)[0].state == "begun"
    with pytest.raises(SettingsError, match=r"rate = 0\.5: is 0\.02 in .*seed-0, begun before; name another folder"):
        jobs_of("ours", read(QUICK | {"rate": 0.5}), (0,), tmp_path)


def test_company_is_remembered(tmp_path) -> None:
    assert not shared(tmp_path / "run")
    share(tmp_path / "run")
    assert shared(tmp_path / "run")


def started(folder: Path, code: str) -> tuple[str, list[Where]]:
    """Return the reason and the tellings of a process that runs `code` in place of a run."""
    job = Job("ours", read(QUICK), folder)
    folder.mkdir(exist_ok=True)
    seen: list[Where] = []
    with (folder / LOG).open("w") as log:
        pipe = subprocess.PIPE
        process = subprocess.Popen([sys.executable, "-c", code], stdin=pipe, stdout=pipe, stderr=log, text=True)
    return follow(process, job, seen.append), seen


@pytest.mark.parametrize(
    ("code", "reason"),
    [
        ("import json; print(json.dumps({'done': True}))", ""),
        ("import json; print(json.dumps({'error': 'no data'}))", "no data"),
        ("import os; os.kill(os.getpid(), 9)", "its process ended by signal 9 (Killed)"),
        ("import sys; sys.exit(3)", "its process ended with status 3"),
    ],
    ids=["done", "an error", "killed", "a status"],
)
def test_how_a_process_ended_is_told(code, reason, tmp_path) -> None:
    assert started(tmp_path, code) == (reason, [])
    assert not (tmp_path / LOG).exists()


def test_what_a_process_printed_is_kept_and_named(tmp_path) -> None:
    code = "import sys; print('{\"round\": 2, \"accuracy\": 0.5}'); print('no', file=sys.stderr); sys.exit(1)"
    reason, seen = started(tmp_path, code)
    assert reason == f"its process ended with status 1; see {tmp_path / LOG}"
    assert (tmp_path / LOG).read_text() == "no\n"
    assert seen == [Where(2, 0.5)]


def test_a_run_tells_where_it_is_and_leaves_a_runs_folder(tmp_path) -> None:
    pytest.importorskip("torch")
    pytest.importorskip("sklearn")
    from baffle.trials.worker import _tried

    told: list[dict] = []
    settings = QUICK | {"seed": 1, "out": str(tmp_path / "run")}
    assert _tried(settings, tmp_path / "run", told.append) is None
    assert [line["round"] for line in told] == [0, 1, 2, 3]
    assert json.loads((tmp_path / "run" / "summary.json").read_text())["rounds"] == 3


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (SettingsError("rate", 0, "must be more"), "rate = 0: must be more"),
        (OSError(28, "No space left on device", "ledger"), "ledger: No space left on device"),
        (MemoryError(), "MemoryError: no more is said"),
        (ValueError("two\nlines"), "ValueError: two"),
    ],
    ids=["settings", "disk", "memory", "a bug"],
)
def test_an_error_is_told_in_words(error, words, tmp_path, monkeypatch) -> None:
    from baffle.trials import worker

    def fail(*_: object) -> None:
        raise error

    monkeypatch.setattr(worker, "_run", fail)
    assert worker._tried({}, tmp_path, lambda _: None) == words
