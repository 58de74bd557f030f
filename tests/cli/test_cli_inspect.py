from __future__ import annotations

import json
from pathlib import Path

import pytest

pytest.importorskip("torch")
pytest.importorskip("sklearn")


@pytest.fixture
def trained(train):
    assert train("--rounds", 3).status == 0
    return json.loads(Path("run/summary.json").read_text())


def test_replay_rebuilds_the_model_and_tells_its_digest(trained, command) -> None:
    told = command("replay", "run")
    assert (told.status, told.error) == (0, "")
    assert "310 parameters rebuilt from 3 rounds; every digest agrees" in told.out
    assert trained["digest"] in told.out


def test_verify_counts_what_it_found(trained, command) -> None:
    told = command("verify", "run")
    assert (told.status, told.error) == (0, "")
    assert "3 rounds of 4 clients: every record is as it was written" in told.out
    assert trained["rounds"] == 3


@pytest.mark.usefixtures("trained")
@pytest.mark.parametrize("name", ["replay", "verify"])
def test_a_changed_ledger_is_told_with_its_record(name, command) -> None:
    data = bytearray(Path("run/ledger").read_bytes())
    data[-1] ^= 1
    Path("run/ledger").write_bytes(data)
    told = command(name, "run")
    assert told.status == 2
    assert told.error.startswith("baffle: error: ledger record 3: the record does not verify")
    assert told.error.count("\n") == 1


@pytest.mark.usefixtures("trained")
@pytest.mark.parametrize("name", ["replay", "verify"])
def test_a_torn_ledger_is_told_with_what_cuts_it(name, command) -> None:
    data = Path("run/ledger").read_bytes()
    Path("run/ledger").write_bytes(data[:-7])
    told = command(name, "run")
    assert told.status == 2
    assert "ledger record 3: is unfinished:" in told.error
    assert "`baffle train --resume`, or `baffle serve`, cuts it off" in told.error
    assert Path("run/ledger").read_bytes() == data[:-7]


@pytest.mark.parametrize("name", ["replay", "verify"])
def test_where_there_is_no_run_there_is_nothing_to_check(name, command) -> None:
    told = command(name, "nowhere")
    assert told.status == 2
    assert told.error == "baffle: error: ledger record 0: nowhere/ledger can't be read: No such file or directory\n"


def test_report_makes_a_page_of_one_or_several_runs(train, command) -> None:
    pytest.importorskip("matplotlib")
    for name in ("one", "two"):
        assert train("--rounds", 1, out=name).status == 0
    told = command("report", "one")
    assert (told.status, told.error) == (0, "")
    assert told.out.split() == ["one/report.html", "one/accuracy.png", "one/loss.png"]
    told = command("report", "one", "two", "--out", "both.html")
    assert told.status == 0
    page = Path("both.html").read_text()
    assert "one" in page
    assert "two" in page
    assert page.lstrip().lower().startswith("<!doctype html>")


def test_report_says_what_is_missing(command) -> None:
    told = command("report", "nowhere")
    assert told.status == 2
    assert told.error.startswith("baffle: error: ")
    assert "nowhere" in told.error


def test_training_makes_its_report(command) -> None:
    pytest.importorskip("matplotlib")
    told = command("train", "--threads", 1, "--rounds", 1, "--forwards", 8, "--out", "run")
    assert told.status == 0
    assert Path("run/report.html").stat().st_size > 1000
    assert "report      run/report.html" in told.out
