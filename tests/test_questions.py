"""What benchmarks/questions.py reads off its runs, and that its page says what was measured."""

from __future__ import annotations

import importlib
import json
from pathlib import Path
from types import SimpleNamespace

import pytest

ROOT = Path(__file__).parents[1]
RUN = {"round": [0, 10, 20], "accuracy": [0.1, 0.5, 0.9], "upload_bytes": [0, 100, 200]}


@pytest.fixture
def answers(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    names = ("asked", "kept", "reading", "tables")
    return SimpleNamespace(**{name: importlib.import_module(f"answers.{name}") for name in names})


@pytest.mark.parametrize(("amount", "expected"), [(0, 0.1), (10, 0.5), (15, 0.7), (20, 0.9), (21, None)])
def test_accuracy_between_evaluations_lies_on_a_line(answers, amount: float, expected: float | None) -> None:
    found = answers.reading.at(RUN, "round", amount)
    assert found is None if expected is None else found == pytest.approx(expected)


@pytest.mark.parametrize(("target", "expected"), [(0.5, 100), (0.8, 175), (0.95, None)])
def test_a_target_is_reached_between_evaluations(answers, target: float, expected: float | None) -> None:
    found = answers.reading.reached(RUN, target, "upload_bytes")
    assert found is None if expected is None else found == pytest.approx(expected)


@pytest.mark.parametrize(
    ("values", "text"),
    [
        ([1.0, 2.0, 3.0], "2.0 ± 1.0"),
        ([1.25], "1.2"),
        ([1.0, None, 2.0], "2 of 3 runs"),
        ([None, None], "not reached"),
        ([None], "not reached"),
    ],
    ids=str,
)
def test_a_spread_is_the_samples_and_says_who_is_missing(answers, values, text: str) -> None:
    assert answers.reading.spread(values, ".1f") == text


def test_runs_are_in_the_order_of_their_seeds(answers) -> None:
    row = {"runs": {str(seed): {"accuracy": [seed]} for seed in (10, 2, 0)}}
    assert answers.reading.ends(row) == [0, 2, 10]


def test_the_rate_of_a_size_is_the_one_that_ended_best(answers) -> None:
    ended = {"1,000 weights, ours, 320, rate 0.02": 0.5, "1,000 weights, ours, 320, rate 0.005": 0.7}
    rows = {label: {"runs": {"0": {"accuracy": [0.1, end]}}} for label, end in ended.items()}
    assert answers.tables.best_rates(rows) == {"ours 320": [(1000, 0.005, [0.7])]}


def test_a_run_of_other_settings_has_another_folder(answers) -> None:
    folders = {answers.kept.folder_of("2", "paper's, gelu", {"rounds": rounds}, 0) for rounds in (100, 200)}
    assert len(folders) == 2
    assert all(folder.parent.name.startswith("paper-s-gelu-") for folder in folders)


def test_a_record_is_kept_beside_others_and_loses_what_had_other_settings(answers, monkeypatch, tmp_path) -> None:
    monkeypatch.setattr(answers.kept, "RESULTS", tmp_path / "questions.json")
    monkeypatch.setattr(answers.kept, "RUNS", tmp_path)
    wide = {"hidden": (4, 3)}
    for question, settings, seed in (
        *(("10", {}, 0), ("2", wide, 0), ("2", wide, 1)),
        *(("9", {}, 0), ("9", {"rate": 1.0}, 1)),
    ):
        answers.kept.keep_run(question, "row", settings, seed, RUN)
    record = answers.kept.found()
    assert list(record) == ["2", "9", "10"]
    assert list(record["2"]["rows"]["row"]["runs"]) == ["0", "1"]
    assert record["9"]["rows"]["row"] == {"settings": {"rate": 1.0}, "runs": {"1": RUN}}


def test_a_finished_run_is_not_run_again(answers, monkeypatch, tmp_path) -> None:
    settings = {"rounds": 2, "evaluate_every": 1, "forwards": 200, "seed": 0}
    pytest.importorskip("torch")
    pytest.importorskip("sklearn")
    first = answers.kept.curve(tmp_path / "run", settings)
    assert first["round"] == [0, 1, 2]
    monkeypatch.setattr(answers.kept, "assemble", None)
    assert answers.kept.curve(tmp_path / "run", settings) == first


def test_every_rows_settings_are_understood(answers) -> None:
    from baffle.experiment import read

    asked = [question.settings(label) for question in answers.asked.QUESTIONS.values() for label in question.rows]
    assert len(asked) > 80
    assert all(read(settings).rounds > 0 for settings in asked)


def test_the_pages_tables_are_of_what_was_measured(answers) -> None:
    page = (ROOT / "docs" / "questions.md").read_text()
    record = json.loads((ROOT / "benchmarks" / "results" / "questions.json").read_text())
    assert len(answers.tables.PLACE.findall(page)) >= 12
    assert answers.tables.filled(page, record) == page


@pytest.mark.parametrize("old", ["", "old\n", "old\nolder\n"])
def test_a_table_goes_between_its_marks(answers, old: str) -> None:
    runs = {"0": {"accuracy": [0.1, 0.5]}, "1": {"accuracy": [0.1, 0.6]}}
    page = f"before\n<!-- table 11 -->\n{old}<!-- end -->\nbetween\n<!-- table 12 -->\n<!-- end -->\nafter"
    settings = answers.asked.QUESTIONS["11"].settings("ten clients")
    filled = answers.tables.filled(page, {"11": {"rows": {"ten clients": {"settings": settings, "runs": runs}}}})
    assert filled.splitlines()[5] == "| ten clients | 55.0 ± 7.1 | 2 |"
    assert filled.splitlines()[8] == "between"
    assert filled.splitlines()[-1] == "after"


def test_runs_of_other_settings_are_in_no_table(answers) -> None:
    settings = answers.asked.QUESTIONS["11"].settings("ten clients")
    rows = {"ten clients": {"settings": settings | {"rounds": 7}, "runs": {}}}
    assert answers.tables.answered({"11": {"rows": rows}}, "11") == {}
