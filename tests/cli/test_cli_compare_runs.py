"""`baffle compare` with real processes: two experiments, two seeds; killed, interrupted, and gone on with."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("torch")
pytest.importorskip("sklearn")
pytest.importorskip("matplotlib")

QUICK = "forwards = 96\nclients = 4\nhidden = [4]\nbatch = 8\nthreads = 1\nevaluate_every = 20\nrounds = 160\n"
SPAWNED = {"seconds", "peak_memory_bytes"}


@pytest.fixture(scope="module")
def place(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("compare")
    (folder / "ours.toml").write_text(QUICK)
    (folder / "fedavg.toml").write_text(QUICK.partition("\n")[2] + 'algorithm = "fedavg"\n')
    (folder / "wild.toml").write_text(
        QUICK + 'optimizer = "sgd"\nrate = 1.0\nweight_decay = 1e13\nprecision = "float64"\n'
    )
    (folder / "absent.toml").write_text(QUICK + 'model = "nowhere:function"\n')
    return folder


def begin(place: Path, *arguments: str) -> subprocess.Popen[str]:
    """Start a comparison, as a person does, in a session of its own."""
    return subprocess.Popen(
        [sys.executable, "-m", "baffle", "compare", *arguments],
        cwd=place,
        env=os.environ | {"COLUMNS": "200"},
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        start_new_session=True,
    )


def ended(process: subprocess.Popen[str]) -> tuple[int, str, str]:
    out, error = process.communicate(timeout=300)
    return process.returncode, out, error


def until(condition: Callable[[], bool], process: subprocess.Popen[str]) -> None:
    while not condition():
        assert process.poll() is None, process.communicate()
        time.sleep(0.01)


def told(folder: Path) -> Any:
    """Return comparison.json but for what depends on the machine."""

    def without(value: Any) -> Any:
        if isinstance(value, dict):
            return {name: without(inner) for name, inner in value.items() if name not in SPAWNED}
        return [without(inner) for inner in value] if isinstance(value, list) else value

    return without(json.loads((folder / "comparison.json").read_text()))


MORE = ("--seeds", "2", "--target", "0.2,0.99")
COMMON = ("ours.toml", "fedavg.toml", *MORE)


@pytest.fixture(scope="module")
def whole(place) -> str:
    status, out, error = ended(begin(place, *COMMON, "--jobs", "4", "--out", "whole"))
    assert (status, error) == (0, "")
    return out


def test_two_experiments_with_two_seeds(place, whole) -> None:
    found = json.loads((place / "whole" / "comparison.json").read_text())
    assert [(entry["name"], entry["seeds"]) for entry in found["experiments"]] == [
        ("ours", ["0", "1"]),
        ("fedavg", ["0", "1"]),
    ]
    for entry in found["experiments"]:
        for run in entry["runs"]:
            summary = json.loads((place / "whole" / entry["name"] / f"seed-{run['seed']}" / "summary.json").read_text())
            assert run["accuracy"] == summary["accuracy"]
            assert run["peak_memory_bytes"] == summary["peak_memory_bytes"] > 50e6
            assert run["rounds"] == 160
        first, second = (run["accuracy"] for run in entry["runs"])
        assert entry["at_end"]["accuracy"]["mean"] == pytest.approx((first + second) / 2)
        assert entry["to_target"][1]["reached"] == 0
    assert "4/4" in whole
    assert "not reached in 160 rounds" in whole
    assert "seconds are not compared" in whole
    assert "\x1b" not in whole


@pytest.mark.usefixtures("whole")
def test_a_finished_comparison_is_read_not_run(place) -> None:
    before = (place / "whole" / "ours" / "seed-0" / "ledger").stat().st_mtime_ns
    status, out, _ = ended(begin(place, *COMMON, "--out", "whole"))
    assert status == 0
    assert "seconds are not compared" in out
    assert "4 finished before" in out
    assert (place / "whole" / "ours" / "seed-0" / "ledger").stat().st_mtime_ns == before


@pytest.mark.usefixtures("whole")
def test_killed_and_interrupted_it_goes_on_to_the_same_end(place) -> None:
    """SIGKILL in the middle of the first run, an interrupt in the middle of the second."""
    arguments = ("ours.toml", *MORE, "--out", "again")
    first, second = (place / "again" / "ours" / f"seed-{seed}" / "metrics.jsonl" for seed in (0, 1))
    process = begin(place, *arguments)
    until(lambda: first.exists() and first.read_text().count("\n") >= 3, process)
    process.kill()
    process.communicate()
    assert not first.with_name("summary.json").exists()

    process = begin(place, *arguments)
    until(lambda: second.exists() and second.read_text().count("\n") >= 3, process)
    os.killpg(process.pid, signal.SIGINT)
    status, _, error = ended(process)
    assert status == 130
    assert "interrupted; the same command with --out again goes on" in error
    assert "Traceback" not in error
    assert not second.with_name("summary.json").exists()

    status, out, error = ended(begin(place, *arguments))
    assert (status, error) == (0, "")
    assert "1 finished before" in out
    assert told(place / "again")["experiments"] == told(place / "whole")["experiments"][:1]


def test_a_run_that_fails_is_told_with_its_reason_and_the_others_go_on(place) -> None:
    status, out, error = ended(
        begin(
            place,
            "wild.toml",
            "absent.toml",
            "ours.toml",
            "--seeds",
            "1",
            "--rounds",
            "20",
            "--jobs",
            "3",
            "--out",
            "mixed",
        )
    )
    assert (status, error) == (0, "")
    assert "wild seed 0 did not finish: " in out
    assert "would make a weight infinite" in out
    assert "absent seed 0 did not finish: model = 'nowhere:function'" in out
    found = {
        entry["name"]: entry for entry in json.loads((place / "mixed" / "comparison.json").read_text())["experiments"]
    }
    assert [len(found[name]["runs"]) for name in ("wild", "absent", "ours")] == [0, 0, 1]
    assert "would make a weight infinite" in (place / "mixed" / "comparison.html").read_text()
