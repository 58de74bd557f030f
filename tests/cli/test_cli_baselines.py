from __future__ import annotations

import json
from pathlib import Path

import pytest

from baffle.baselines.presets import BASELINES
from baffle.experiment import read, read_toml

pytest.importorskip("torch")
pytest.importorskip("sklearn")

QUICK = ("--threads", 1, "--clients", 4, "--hidden", 4, "--batch", 8)
SMALL = {"es": ("--population", 4), "fedzo": ("--directions", 2, "--local-steps", 1), "fedavg": ("--epochs", 1)}


def train(command, name, *arguments, report=False):
    shown = () if report else ("--no-report",)
    return command("train", "--algorithm", name, *QUICK, *SMALL.get(name, ()), "--out", name, *shown, *arguments)


def curve(folder) -> list[dict]:
    rows = [json.loads(line) for line in (Path(folder) / "metrics.jsonl").read_text().splitlines()]
    return [{name: value for name, value in row.items() if name != "seconds"} for row in rows]


def refused(told, *words: str) -> None:
    assert told.status == 2
    assert told.error.startswith("baffle: error: "), told.error
    assert told.error.count("\n") == 1, told.error
    for word in words:
        assert word in told.error, told.error


@pytest.mark.parametrize("name", BASELINES)
def test_a_baseline_trains_resumes_and_leaves_a_folder(name, command) -> None:
    told = train(command, name, "--rounds", 2, "--evaluate-every", 1)
    assert (told.status, told.error) == (0, "")
    assert "accuracy" in told.out
    settings = read_toml(Path(name) / "settings.toml")
    assert settings["algorithm"] == name
    assert "bits" not in settings
    assert read(settings).baseline() is not None
    longer = command("train", "--resume", name, "--rounds", 4, "--no-report")
    assert (longer.status, longer.error) == (0, "")
    assert [row["round"] for row in curve(name)] == [0, 1, 2, 3, 4]


def test_fedavg_learns_digits(command) -> None:
    told = command("train", "--algorithm", "fedavg", "--rounds", 15, "--no-report", "--out", "run")
    assert told.status == 0
    assert curve("run")[-1]["accuracy"] > 0.8


def test_a_report_compares_a_baseline_with_baffle(command) -> None:
    pytest.importorskip("matplotlib")
    assert train(command, "fedsgd", "--rounds", 2, report=True).status == 0
    assert (Path("fedsgd") / "report.html").exists()
    command("train", *QUICK, "--forwards", 96, "--rounds", 2, "--no-report", "--out", "ours")
    told = command("report", "fedsgd", "ours", "--out", "both.html")
    assert (told.status, told.error) == (0, "")
    assert "fedsgd" in Path("both.html").read_text()


@pytest.mark.parametrize("what", ["replay", "verify"])
def test_there_is_no_ledger_to_look_into(what, command) -> None:
    train(command, "fedsgd", "--rounds", 1)
    refused(command(what, "fedsgd"), "folder = 'fedsgd'", "fedsgd, which keeps no ledger: metrics.jsonl is its record")


def test_what_a_baseline_learned_goes_to_clients_that_only_run_inference(command) -> None:
    """Its averaged weights, of the newest snapshot that can be read: training by forward passes begins with them."""
    for package in ("onnx", "onnxruntime"):
        pytest.importorskip(package)
    command(
        "train", *QUICK, "--algorithm", "fedavg", "--rounds", 6, "--snapshot-every", 3, "--no-report", "--out", "run"
    )
    told = command("export", "run", "--out", "model")
    assert (told.status, told.error) == (0, "")
    own = ("--forwards", 200, "--rounds", 0, "--no-report")
    assert command("train", *QUICK, *own, "--model", "model", "--initial", "model", "--out", "on").status == 0
    (first,) = curve("on")
    last = curve("run")[-1]
    assert first["accuracy"] == last["accuracy"] != last["accuracy_last"]
    assert first["loss"] == pytest.approx(last["loss"], rel=1e-5)


def test_a_baseline_without_a_snapshot_that_can_be_read_is_not_exported(command) -> None:
    for package in ("onnx", "onnxruntime"):
        pytest.importorskip(package)
    train(command, "fedsgd", "--rounds", 1)
    for path in Path("fedsgd/snapshots").iterdir():
        path.write_bytes(path.read_bytes()[:-1])
    told = command("export", "fedsgd", "--out", "model")
    assert told.status == 2
    assert told.error.splitlines()[-1].startswith("baffle: error: source = 'fedsgd': has no snapshot that is whole")


def test_too_little_memory_is_told_in_words(command, monkeypatch) -> None:
    def full(*_: object) -> None:
        raise MemoryError("Unable to allocate 3 PiB")

    monkeypatch.setattr("baffle.assembly.assemble", full)
    refused(command("train", *QUICK), "there is not enough memory for these settings: Unable to allocate 3 PiB")


def test_a_baseline_is_not_served(command) -> None:
    pytest.importorskip("zenoh")
    refused(
        command("serve", "--algorithm", "fedavg", "--insecure", "--out", "served"), "algorithm = 'fedavg'", "ledger"
    )


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--engine", "ray"), ("engine = 'ray'", "must be one of local")),
        (("--bits", 4), ("bits = 4", "is of no use to algorithm = 'fedsgd'")),
        (("--batch", 0), ("batch = 0", "must be 1 or more")),
        (("--device", "tpu9"), ("device", "can't be used")),
    ],
    ids=["ray", "useless", "batch", "device"],
)
def test_what_does_not_fit_is_named(arguments, words, command) -> None:
    refused(command("train", "--algorithm", "fedsgd", *arguments, "--out", "run", "--no-report"), *words)
    assert not Path("run").exists()


def test_divergence_is_told_and_the_snapshot_kept(command) -> None:
    told = train(command, "fedsgd", "--optimizer", "sgd", "--rate", "3e38", "--rounds", 9)
    refused(told, "would make a weight infinite")
    assert list((Path("fedsgd") / "snapshots").glob("*.safetensors"))


def test_another_runs_folder_is_refused(command) -> None:
    train(command, "fedsgd", "--rounds", 1)
    refused(train(command, "fedsgd", "--rounds", 1), "holds a run already")
