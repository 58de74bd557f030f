"""`baffle compare`: what it refuses, reads, and says. The processes of real runs are in test_cli_compare_runs.py."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

pytest.importorskip("torch")
pytest.importorskip("sklearn")

SETTINGS = 'dataset = "digits"\nrounds = 4\nforwards = 96\nclients = 4\nhidden = [4]\nbatch = 8\nthreads = 1\n'


def refused(told, *words: str) -> None:
    """Claim exit status 2 and one line in the tool's own words, with all of `words` in it."""
    assert told.status == 2, told
    assert told.error.startswith("baffle: error: "), told.error
    assert told.error.count("\n") == 1, told.error
    for word in words:
        assert word in told.error, told.error


@pytest.fixture
def write():
    """Returns a function that writes an experiment's file."""

    def make(name: str = "ours.toml", more: str = "") -> str:
        Path(name).parent.mkdir(parents=True, exist_ok=True)
        Path(name).write_text(SETTINGS + more)
        return name

    return make


@pytest.fixture
def keep():
    """Returns a function that writes a finished run's folder, as train does."""

    def make(folder: str, *, accuracy: float = 0.8, finished: bool = True, **settings: object) -> str:
        import tomli_w

        Path(folder).mkdir(parents=True)
        told = {"dataset": "digits", "image_size": -1, "model": "mlp", "seed": 0, "out": folder} | settings
        Path(folder, "settings.toml").write_text(tomli_w.dumps(told))
        rows = [{"round": done, "accuracy": accuracy * done / 4, "seconds": done} for done in range(5)]
        Path(folder, "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
        if finished:
            summary = {"rounds": 4, "accuracy": accuracy, "seconds": 4.0, "peak_memory_bytes": 5e8}
            Path(folder, "summary.json").write_text(json.dumps(summary))
        return folder

    return make


def entries(folder: str = "out") -> list[dict]:
    return json.loads(Path(folder, "comparison.json").read_text())["experiments"]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["none.toml"], ("experiment = 'none.toml'", "is not there")),
        (["."], ("holds no run",)),
        (["ours.toml", "--seeds", "0"], ("seeds = 0", "between 1 and 1000")),
        (["ours.toml", "--seeds", "1,-1"], ("seeds = -1",)),
        (["ours.toml", "--seeds", "1,1"], ("each seed once",)),
        (["ours.toml", "--seeds", "two"], ("must be a number",)),
        (["ours.toml", "--target", "90"], ("target = 90.0", "such as 0.9 for 90 %")),
        (["ours.toml", "--target", "high"], ("target = 'high'",)),
        (["ours.toml", "--jobs", "0"], ("jobs = 0", "1 or more")),
        (["ours.toml", "--rate", "0"], ("rate = ", "> 0")),
        (["ours.toml", "bad.toml"], ("speed = 3", "is no setting", "bad.toml")),
        (["ours.toml", "mnist.toml"], ("dataset = 'mnist'", "of mnist is digits in ours", "same data")),
        (["ours.toml", "small.toml"], ("image_size = '4'", "of small is 0 in ours")),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_what_can_not_be_compared_is_refused_in_words(arguments, words, command, write) -> None:
    write()
    write("bad.toml", "speed = 3\n")
    Path("mnist.toml").write_text('dataset = "mnist"\n')
    write("small.toml", "image_size = 4\n")
    refused(command("compare", *arguments, "--out", "out"), *words)
    assert not Path("out").exists()


def test_a_folder_with_other_settings_is_refused_by_the_setting(command, write, keep) -> None:
    path = write()
    keep("out/ours/seed-1", seed=1, rounds=9, forwards=96, clients=4, hidden=[4], batch=8, threads=1)
    refused(command("compare", path, "--out", "out"), "rounds = 4", "is 9 in out/ours/seed-1", "--out")
    refused(command("compare", path, "--out", "out/ours/seed-1"), "a run's own folder")


def test_list_says_what_there_is_to_do_and_does_nothing(command, write, keep) -> None:
    told = command("compare", write(), write("b/ours.toml"), keep("old"), "--seeds", "0,7", "--out", "out", "--list")
    assert told.status == 0
    lines = [" ".join(line.split()) for line in told.out.splitlines()]
    here = Path.cwd().name
    assert lines == [
        f"to do {here}-ours seed 0 out/{here}-ours/seed-0",
        f"to do {here}-ours seed 7 out/{here}-ours/seed-7",
        "to do b-ours seed 0 out/b-ours/seed-0",
        "to do b-ours seed 7 out/b-ours/seed-7",
        f"finished {here}-old seed 0 {Path.cwd() / 'old'}",
    ]
    assert not Path("out").exists()


def test_finished_runs_are_read_and_seeds_put_together(command, keep) -> None:
    folders = [keep("a-0"), keep("a-1", seed=1, accuracy=0.9), keep("b", model="lenet", accuracy=0.4)]
    told = command("compare", *folders, "--out", "out", "--target", "0.2,0.4")
    assert told.status == 0, told
    first, second = entries()
    assert (first["name"], first["seeds"], second["name"]) == ("a-0", ["0", "1"], "b")
    assert first["at_end"]["accuracy"]["mean"] == pytest.approx(0.85)
    assert first["to_target"][0]["rounds"]["mean"] == pytest.approx((1 + 4 * 0.2 / 0.9) / 2)
    assert second["to_target"][1]["rounds"]["mean"] == pytest.approx(4)
    for words in ("To 40 % accuracy", "80.00% to 90.00%", "The models differ (model)", "out/comparison.html"):
        assert words in told.out
    assert sorted(path.name for path in Path("out").iterdir()) == [
        "accuracy.png",
        "comparison.csv",
        "comparison.html",
        "comparison.json",
        "memory.png",
    ]


def test_a_folder_of_an_earlier_comparison_stands_for_its_seeds(command, keep) -> None:
    for seed in (2, 10):
        keep(f"before/ours/seed-{seed}", seed=seed)
    assert command("compare", "before/ours", "--out", "out").status == 0
    (found,) = entries()
    assert (found["name"], found["seeds"]) == ("ours", ["2", "10"])


def test_a_run_that_is_not_finished_is_refused_with_how_to_go_on(command, keep) -> None:
    refused(command("compare", keep("half", finished=False)), "has not finished", "baffle train --resume")


def test_flags_for_finished_runs_alone_are_refused(command, keep) -> None:
    refused(command("compare", keep("old"), "--rate", "0.1"), "rate = 0.1", "can't change runs that are finished")


def test_without_a_folder_a_new_one_in_runs_is_taken(command, keep) -> None:
    folder = keep("old")
    for number in (1, 2):
        assert command("compare", folder).status == 0
        assert Path(f"runs/compare-{number}/comparison.html").exists()


def test_a_folder_in_use_is_refused(command, keep) -> None:
    import fcntl
    import os

    Path("out").mkdir()
    lock = os.open("out", os.O_RDONLY)
    fcntl.flock(lock, fcntl.LOCK_EX)
    try:
        refused(command("compare", keep("old"), "--out", "out"), "in use by another comparison")
    finally:
        os.close(lock)
