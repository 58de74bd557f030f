"""A plan of scikit-learn's digits, with a measurement, against the run."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

pytest.importorskip("torch")
pytest.importorskip("sklearn")

import msgspec

from baffle.assembly import assemble
from baffle.experiment import read
from baffle.planning import forecast, measured
from baffle.planning.trial import Request, trial

QUICK = {"threads": 1, "forwards": 200, "clients": 4, "hidden": (6,), "batch": 8, "rounds": 30}


def tried(seconds: float, **settings):
    experiment = read(QUICK | settings)
    request = Request(msgspec.to_builtins(experiment), seconds, time.time(), 0)
    found = trial(request)
    return found, forecast(experiment, assemble(experiment), found), experiment


@pytest.mark.parametrize("settings", [{}, {"groups": 4}], ids=["shared", "own directions"])
def test_first_rounds_are_the_runs(settings, tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("baffle.planning.trial.LEAST", 0.0)
    found, told, experiment = tried(10.0, **settings)
    assert found.rounds == 3
    assert [*tmp_path.iterdir()] == []
    result = assemble(experiment).run(30)
    assert told.run.upload.least <= result.upload_bytes <= told.run.upload.most
    assert told.run.upload.expected == pytest.approx(result.upload_bytes, rel=0.1)
    assert told.run.forwards.expected == pytest.approx(result.forward_equivalents, rel=0.05)
    assert 0 < told.ways[0].cosine < 1
    assert all(part.cosine <= 1 for part in told.parts)
    assert sum(part.share for part in told.parts) == pytest.approx(1)
    assert min(found.apart) >= 1


def test_short_rounds_are_tried_for_longer(tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("baffle.planning.trial.LEAST", 1e6)
    found, told, experiment = tried(10.0)
    assert found.rounds == 30
    assert told.run.upload.expected == assemble(experiment).run(30).upload_bytes


def test_where_rounds_take_too_long_a_part_of_one_is_timed() -> None:
    found, told, _ = tried(1e-6)
    assert (found.rounds, found.budgets) == (0, ())
    assert found.a_forward.wall > 0
    assert told.process.seconds > 0
    assert told.process.tried == 0
    assert told.run.upload.least <= told.run.upload.expected <= told.run.upload.most


def test_a_process_of_its_own_finds_the_same_slopes(tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    experiment = read(QUICK | {"rounds": 3})
    found = measured(experiment, 10.0)
    again = trial(Request(msgspec.to_builtins(experiment), 10.0, time.time(), 0))
    assert (found.budgets, found.squares) == (again.budgets, again.squares)
    assert found.peak_memory > 10_000_000
    assert {*found.passes} == {"inference", "backward", "checkpointed"}


def test_what_is_wrong_comes_back_in_words() -> None:
    from baffle import BaffleError

    with pytest.raises(BaffleError, match="no module nowhere"):
        measured(read({"model": "nowhere:at_all"}), 1.0)


def test_without_a_measurement_there_is_no_time(tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    experiment = read(QUICK)
    told = forecast(experiment, assemble(experiment), None)
    assert told.process is None
    assert told.ways[0].seconds is None
    assert {way.memory for way in told.ways} == {None}
    assert Path("runs").exists() is False
