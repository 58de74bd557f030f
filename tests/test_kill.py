"""SIGKILL at any moment: real processes, real files; whatever is left is taken up and ends as the run in one."""

from __future__ import annotations

import itertools
import json
import multiprocessing
import os
import random
import signal
import sys
import time
from multiprocessing import forkserver
from pathlib import Path

import pytest

import federation
from baffle import run as runs

ROUNDS = 24
FORKS = multiprocessing.get_context("forkserver")


def small():
    return federation.simulation(sizes=(3, 3, 3), snapshot_every=3, unavailable=0.2, quorum=0.6)


def work(folder: str) -> None:
    """Begin the run in `folder`, or go on with it."""
    out = Path(folder)
    small().run(ROUNDS, out=out, resume=(out / "settings.toml").exists())


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def work_until(folder: str, moment: int, part: float) -> None:
    """Go on with the run, and die at the `moment`-th write of a file: after `part` of its bytes, 1.5 means renamed.

    Every byte that a run keeps passes through one of the four calls that are patched here.
    """
    from baffle import ledger, metrics, snapshots

    left = iter(range(moment, -1, -1))
    write_ledger, write_whole, append_row = ledger._write, snapshots.write_atomically, metrics.Metrics.append

    def on_ledger(file, data):
        if next(left) == 0:
            file.write(data[: int(part * len(data))])
            die()
        write_ledger(file, data)

    def on_whole(path, data):
        if next(left) == 0:
            if part > 1:
                write_whole(path, data)
            else:
                path.parent.mkdir(parents=True, exist_ok=True)
                path.with_name(path.name + ".part").write_bytes(data[: int(part * len(data))])
            die()
        write_whole(path, data)

    def on_row(self, row):
        if next(left) == 0:
            with self.path.open("a") as file:
                line = json.dumps(row) + "\n"
                file.write(line[: int(part * len(line))])
                file.flush()
                die()
        append_row(self, row)

    ledger._write, metrics.Metrics.append = on_ledger, on_row
    for module in (snapshots, metrics, federation.Simulation.run.__globals__["Session"].begin.__globals__):
        if isinstance(module, dict):
            module["write_atomically"] = on_whole
        else:
            module.write_atomically = on_whole
    work(folder)


def work_for(folder: str, calls: int, told: str = "") -> None:
    """Go on with the run, and die at the `calls`-th call of a Python function; or say how many there were."""
    made = itertools.count(1)

    def on_call(_frame, event: str, _argument) -> None:
        if event == "call" and next(made) == calls:
            die()

    sys.setprofile(on_call)
    work(folder)
    sys.setprofile(None)
    Path(told).write_text(str(next(made)))


def work_and_stay(folder: str) -> None:
    """Go on with the run, and wait to be killed."""
    work(folder)
    signal.pause()


def run(target, *arguments, kill_after: float | None = None) -> int:
    """Run `target` in a process of its own; return its exit code, −9 where it was killed."""
    process = FORKS.Process(target=target, args=arguments)
    process.start()
    if kill_after is not None:
        process.join(kill_after)
        process.kill()  # this child alone, by its own number
    process.join(60)
    code = process.exitcode
    process.close()
    return code


def rows(folder: Path) -> list[dict]:
    found = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [{name: value for name, value in row.items() if name != "seconds"} for row in found]


@pytest.fixture(scope="module", autouse=True)
def forks():
    """Start the process that the others are forked from, everything imported; it finds modules by PYTHONPATH alone."""
    FORKS.set_forkserver_preload(["federation", "test_kill"])
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", os.pathsep.join(sys.path))
        forkserver.ensure_running()


@pytest.fixture(scope="module")
def whole():
    """The ledger, rows and summary of the run that nobody stopped, and how long a process takes for it."""
    with federation.memory_folder() as folder:
        began = time.monotonic()
        assert run(work, str(folder / "run")) == 0
        seconds = time.monotonic() - began
        summary = json.loads((folder / "run" / "summary.json").read_text())
        yield federation.ledger_bytes(folder / "run"), rows(folder / "run"), summary, seconds


def settle(folder: Path, whole) -> None:
    """Let the run in `folder` end, and compare it with the one in one."""
    ledger, curve, summary, _ = whole
    assert run(work, str(folder)) == 0
    assert federation.ledger_bytes(folder) == ledger
    found = json.loads((folder / "summary.json").read_text())
    for name in ("digest", "ledger_digest", "rounds", "clients", "upload_bytes", "accuracy", "loss"):
        assert found[name] == summary[name], name
    assert [row["round"] for row in rows(folder)] == [row["round"] for row in curve]
    assert rows(folder) == curve
    assert runs.verify(folder)[1] == ROUNDS


@pytest.fixture
def folder():
    with federation.memory_folder() as made:
        yield made / "run"


def test_the_run_under_test_does_all_that_can_be_interrupted(whole) -> None:
    ledger, curve, summary, _ = whole
    assert summary["rounds"] == ROUNDS
    assert [row["round"] for row in curve] == list(range(0, ROUNDS + 1, 2))
    assert sum(row["left_out"] for row in summary["clients"]) > 0
    assert len(ledger) > 1000


@pytest.fixture(scope="module")
def calls() -> tuple[int, int]:
    """How many functions a whole run calls, and one that has nothing left to do."""
    with federation.memory_folder() as folder:
        found = []
        for _ in range(2):
            assert run(work_for, str(folder / "run"), 0, str(folder / "calls")) == 0
            found.append(int((folder / "calls").read_text()))
    assert found[0] > 3 * found[1] > 1000
    return found[0], found[1]


@pytest.mark.parametrize("seed", range(15))
def test_a_run_killed_at_random_calls_ends_as_if_it_never_was(seed, whole, calls, folder) -> None:
    """The first kill is anywhere in the run, up to two more while what is left is taken up."""
    chance = random.Random(seed)
    for most in (calls[0], calls[1], calls[1])[: 1 + seed % 3]:
        assert run(work_for, str(folder), chance.randint(1, most - most // 10)) == -9
    settle(folder, whole)


@pytest.mark.parametrize("seed", range(5))
def test_a_run_killed_from_outside_ends_as_if_it_never_was(seed, whole, folder) -> None:
    """Some part of the whole run's time after its process began; it does not end before."""
    chance = random.Random(seed)
    for _ in range(1 + seed % 3):
        assert run(work_and_stay, str(folder), kill_after=chance.uniform(0.05, 0.9) * whole[3]) == -9
    settle(folder, whole)


@pytest.mark.parametrize("moment", range(32))
def test_a_run_killed_within_a_write_ends_as_if_it_never_was(moment, whole, folder) -> None:
    """The ledger's beginning, header and records, the curve's rows, settings and snapshots: nothing, a part, or all."""
    part = (0.0, 0.4, 1.0, 1.5)[moment % 4]
    assert run(work_until, str(folder), moment, part) == -9
    settle(folder, whole)


def test_a_run_killed_in_every_write_of_its_way_still_ends(whole, folder) -> None:
    """Each process is killed in its ninth write; together they get there."""
    codes = []
    while len(codes) < 30 and 0 not in codes:
        codes.append(run(work_until, str(folder), 8, (0.4, 1.0)[len(codes) % 2]))
    assert codes == [-9] * (len(codes) - 1) + [0]
    assert len(codes) > 5
    settle(folder, whole)
