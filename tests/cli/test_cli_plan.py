from __future__ import annotations

import json
from pathlib import Path

import pytest

pytest.importorskip("torch")
pytest.importorskip("sklearn")

QUICK = ("--threads", "1", "--forwards", "96", "--clients", "4", "--hidden", "4", "--batch", "8", "--rounds", "20")


@pytest.fixture
def plan(command):
    """Returns a function that plans a quick run, without a measurement unless told otherwise."""

    def run(*arguments: object, measure: object = 0):
        return command("plan", *QUICK, "--measure", measure, *arguments)

    return run


def test_plan_tells_costs_beside_backpropagation(plan) -> None:
    told = plan()
    assert (told.status, told.error) == (0, "")
    lines = told.out.splitlines()
    assert lines[0] == "run         20 rounds, 4 of 4 clients each, 310 weights"
    for name in ("forwards", "upload", "download", "ledger", "server"):
        assert sum(line.startswith(name) for line in lines) >= 1
    head = next(line for line in lines if line.startswith("a client's round"))
    assert head.split("  ")[-1] == "FedAvg, checkpointed"
    assert "1,240 B" in told.out
    assert lines[-1].endswith("use FedSGD wherever clients can run it.")
    assert list(Path().iterdir()) == []


def test_plan_of_a_run_is_what_its_summary_says(plan, train) -> None:
    told = plan("--allocation", "equal", "--json", "--unavailable", "0.2", measure=5)
    assert (told.status, told.error) == (0, "")
    found = json.loads(told.out)
    assert train("--rounds", 20, "--allocation", "equal", "--unavailable", "0.2").status == 0
    summary = json.loads(Path("run/summary.json").read_text())
    assert found["run"]["forwards"]["expected"] == pytest.approx(summary["forward_equivalents"], rel=1e-12)
    assert found["run"]["upload"]["expected"] == summary["upload_bytes"]
    assert found["run"]["download"]["expected"] == summary["download_bytes"]
    assert found["run"]["ledger"]["expected"] == Path("run/ledger").stat().st_size
    assert 2 <= found["process"]["tried"] <= 20
    assert found["advice"]


def test_measured_plan_tells_time_and_memory(plan) -> None:
    told = plan(measure=2)
    assert (told.status, told.error) == (0, "")
    for name in ("time  ", "processor  ", "memory  "):
        assert name in told.out


def test_limits_decide_what_fits(plan) -> None:
    told = plan("--upload-limit", "200B")
    assert "fits" in told.out
    assert "Your clients can upload 200 B a round: only forward passes fit" in told.out
    assert "only run forward passes" in plan("--no-backward").out


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (
            ("--memory-limit", "40 MX"),
            "memory-limit = '40 MX': must be a number of B, kB, MB, GB, KiB,",
        ),
        (("--upload-limit", "kB"), "upload-limit = 'kB': must be a number of"),
        (("--memory-limit", "40MB"), "memory-limit = '40MB': needs to know what a client holds"),
        (("--upload-limit", "0"), "upload-limit = 0: must be 1 or more"),
        (("--measure", "-1"), "measure = -1.0: must be 0 or more"),
        (("--measure", "nan"), "measure = nan: must be 0 or more"),
        (("--backward-batch", "-1"), "backward-batch = -1: must be 0 or more"),
        (("--forwards", "3"), "forwards = 3: on 8 samples a probe must give each of 2 block(s) 2 directions"),
        (("--rounds", "0"), "rounds = 0: must be between 1 and 10000000"),
        (("--rate", "no"), "rate = 'no': must be a number"),
        (("nowhere.toml",), "experiment = 'nowhere.toml': can't be read: No such file or directory"),
    ],
    ids=[
        "unit",
        "no number",
        "not measured",
        "nothing",
        "time",
        "no time",
        "batch",
        "too few",
        "no rounds",
        "setting",
        "file",
    ],
)
def test_what_is_wrong_is_told_in_words(plan, arguments, words) -> None:
    told = plan(*arguments)
    assert told.status == 2
    assert words in told.error
    assert told.error.count("\n") == 1


def test_a_file_of_settings_is_read(plan) -> None:
    Path("experiment.toml").write_text("participation = 0.5\n")
    told = plan("experiment.toml")
    assert "2 of 4 clients each" in told.out
