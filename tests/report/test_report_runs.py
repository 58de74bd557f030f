import os

import pytest

from baffle.errors import DataError
from baffle.report.runs import differing, read_runs


def test_a_finished_run_has_its_summarys_numbers(make_run):
    (run,) = read_runs([make_run()])
    assert run.finished
    assert (run.name, run.dataset, run.model) == ("run-a", "digits", "lenet")
    assert (run.outcome.accuracy, run.outcome.rounds, len(run.outcome.clients)) == (0.9137, 40, 3)


def test_a_running_run_stands_where_its_last_point_is(make_run):
    (run,) = read_runs([make_run(finished=False)])
    assert not run.finished
    assert run.outcome.rounds == 40
    assert run.outcome.accuracy == pytest.approx(0.9)
    assert run.outcome.clients == ()


@pytest.mark.parametrize("settings", ['[data]\nname = "mnist"\n[model]\nname = "vgg"', 'dataset="mnist"\nmodel="vgg"'])
def test_dataset_and_model_are_found_in_tables_too(make_run, settings):
    (run,) = read_runs([make_run(settings=settings)])
    assert (run.dataset, run.model) == ("mnist", "vgg")


def test_runs_keep_their_order_and_one_given_twice_counts_once(make_run):
    b, a = make_run("b"), make_run("a")
    assert [run.name for run in read_runs([b, a, b / ".." / "b"])] == ["b", "a"]


def test_names_are_as_long_as_it_takes_to_differ(make_run):
    runs = read_runs([make_run("first/run"), make_run("second/run"), make_run("second/other")])
    assert [run.name for run in runs] == ["first/run", "second/run", "second/other"]


def test_a_name_that_is_not_utf8_is_shown_with_replacements(make_run):
    folder = make_run("plain")
    odd = folder.with_name(os.fsdecode(b"odd\xff"))
    folder.rename(odd)
    assert read_runs([odd])[0].name == "odd\ufffd"


def test_differing_names_what_not_all_have_alike(make_run):
    settings = ["seed = 0\nsame = 1\n", "seed = 1\nsame = 1\nmore = 2\n"]
    runs = read_runs([make_run(f"run-{index}", settings=text) for index, text in enumerate(settings)])
    assert differing(runs) == ("seed", "more")
    assert differing(runs[:1]) == ()


def test_no_folder_and_a_missing_folder_are_refused(tmp_path):
    with pytest.raises(DataError, match="at least one"):
        read_runs([])
    with pytest.raises(DataError, match=r"nowhere: there is no such folder"):
        read_runs([tmp_path / "nowhere"])


@pytest.mark.parametrize("file", ["settings.toml", "metrics.jsonl"])
def test_a_missing_file_is_named(make_run, file):
    folder = make_run()
    (folder / file).unlink()
    with pytest.raises(DataError, match=file):
        read_runs([folder])
