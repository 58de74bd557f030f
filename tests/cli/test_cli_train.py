from __future__ import annotations

import json
import tomllib
from pathlib import Path

import msgspec
import pytest
import tomli_w

from baffle import Baffle, __version__
from baffle.baselines import presets
from baffle.experiment import FIELDS, Experiment, about, read
from baffle.ledger import Reader

pytest.importorskip("torch")
pytest.importorskip("sklearn")


def summary(folder="run") -> dict:
    return json.loads((Path(folder) / "summary.json").read_text())


def ledger(folder="run") -> bytes:
    return (Path(folder) / "ledger").read_bytes()


def header(folder="run"):
    from baffle import run as runs

    return runs.verify(Path(folder))[0]


def spent(folder="run") -> tuple[list[float], list[int]]:
    """Return what the plans of a ledger ask of a client (docs/ledger-2.md): forwards, and bytes of slopes."""
    passes, slopes = [], []
    reader = Reader(Path(folder) / "ledger")
    for data in list(reader)[1:]:
        plan = msgspec.msgpack.decode(data)[1]
        batch, blocks = plan[9], plan[13]
        assert (plan[7], plan[11], plan[12]["estimator"]) == (1, 8, "centred")
        costs = [block[5] for block in blocks]
        passes.append(batch * (sum(block[2] * block[5] for block in blocks) + 1 - min(costs)))
        slopes.append(sum(block[2] for block in blocks))
    return passes, slopes


def test_training_leaves_a_folder_behind_and_says_what_came_of_it(train) -> None:
    told = train("--rounds", 6, "--evaluate-every", 3, "--snapshot-every", 2)
    assert told.status == 0
    assert told.error == ""
    assert sorted(str(path) for path in Path("run").rglob("*") if path.is_file()) == [
        "run/ledger",
        "run/lock",
        "run/metrics.jsonl",
        "run/settings.toml",
        "run/snapshots/00000002.safetensors",
        "run/snapshots/00000004.safetensors",
        "run/snapshots/00000006.safetensors",
        "run/summary.json",
    ]
    found = summary()
    assert set(found) == {
        "accuracy",
        "accuracy_last",
        "loss",
        "rounds",
        "forward_equivalents",
        "upload_bytes",
        "download_bytes",
        "seconds",
        "peak_memory_bytes",
        "digest",
        "ledger_digest",
        "clients",
        "parameters",
        "epsilon",
        "delta",
    }
    assert found["epsilon"] is found["delta"] is None  # nothing was promised
    assert found["rounds"] == 6
    passes, slopes = spent()
    assert found["forward_equivalents"] == pytest.approx(sum(passes), rel=1e-12)
    assert all(88 < some <= 96 for some in passes)  # a probe of the first layer more, on 8 samples, would be too many
    assert sum(slopes) < found["upload_bytes"] <= sum(slopes) + 6 * 64
    assert found["download_bytes"] > found["upload_bytes"]
    assert found["parameters"] == 64 * 4 + 4 + 4 * 10 + 10
    assert 0 <= found["accuracy"] <= 1
    assert found["peak_memory_bytes"] > 50e6
    assert found["seconds"] > 0
    assert len(found["digest"]) == len(found["ledger_digest"]) == 64
    assert [row["samples"] for row in found["clients"]] == [360, 360, 359, 359]
    for fact in (
        found["digest"],
        f"{sum(passes):,.0f} a client",
        "run",
        f"{100 * found['accuracy']:.2f} %",
        f"{found['loss']:.4f}",
    ):
        assert fact in told.out
    assert told.out.count("\nround ") == 3  # a line for each evaluation, and no bar where there is no terminal
    assert "\x1b" not in told.out
    rounds = [json.loads(line)["round"] for line in Path("run/metrics.jsonl").read_text().splitlines()]
    assert rounds == [0, 3, 6]


def test_the_same_command_gives_the_same_ledger(train) -> None:
    train("--rounds", 3, out="one")
    train("--rounds", 3, out="two")
    train("--rounds", 3, "--seed", 1, out="three")
    assert ledger("one") == ledger("two") != ledger("three")


def test_training_learns_digits(command) -> None:
    """The defaults' accuracy after 60 of 400 rounds; chance is 0.1."""
    assert command("train", "--threads", 1, "--rounds", 60, "--no-report", "--out", "run").status == 0
    assert summary()["accuracy"] > 0.5


def test_a_run_without_a_name_goes_to_a_new_folder_each_time(train) -> None:
    for number in (1, 2):
        assert train("--rounds", 0, out=None).status == 0
        assert Path(f"runs/digits-mlp-baffle-{number}/summary.json").exists()


def test_resume_with_more_rounds_is_a_straight_run(train, command) -> None:
    assert train("--rounds", 3, "--snapshot-every", 2).status == 0
    told = command("train", "--resume", "run", "--rounds", 7, "--no-report")
    assert told.status == 0
    train("--rounds", 7, "--snapshot-every", 2, out="straight")
    assert ledger() == ledger("straight")
    for name in ("digest", "ledger_digest", "accuracy", "loss", "upload_bytes", "clients", "rounds"):
        assert summary()[name] == summary("straight")[name]
    settings = [tomllib.loads(Path(f"{folder}/settings.toml").read_text()) for folder in ("run", "straight")]
    assert settings[0] | {"out": ""} == settings[1] | {"out": ""}


def test_resume_without_a_number_of_rounds_ends_what_was_begun(train, command) -> None:
    train("--rounds", 4)
    whole, digest = ledger(), summary()["digest"]
    Path("run/ledger").write_bytes(whole[: len(whole) - 100])
    Path("run/summary.json").unlink()
    told = command("train", "--resume", "run", "--no-report")
    assert told.status == 0
    assert "baffle: WARNING: the ledger ended in" in told.error
    assert ledger() == whole
    assert summary()["digest"] == digest


def test_a_moved_folder_is_resumed_where_it_is(train, command) -> None:
    train("--rounds", 2)
    Path("run").rename("elsewhere")
    assert command("train", "--resume", "elsewhere", "--rounds", 3, "--no-report").status == 0
    assert not Path("run").exists()
    assert summary("elsewhere")["rounds"] == 3
    assert tomllib.loads(Path("elsewhere/settings.toml").read_text())["out"] == "elsewhere"


def test_the_settings_that_are_left_behind_make_the_same_run(train, command) -> None:
    train("--rounds", 2, "--groups", 2, "--law", "gaussian")
    settings = tomllib.loads(Path("run/settings.toml").read_text())
    assert set(settings) == set(Experiment.__struct_fields__) - set(presets.OWN)
    assert command("train", "run/settings.toml", "--out", "again", "--no-report").status == 0
    assert ledger("again") == ledger()


def test_a_file_says_what_flags_do_not(train) -> None:
    Path("mine.toml").write_text(tomli_w.dumps({"rounds": 2, "seed": 5, "hidden": [3, 2], "batch": 7, "bits": 6}))
    assert train("mine.toml", "--seed", 6, "--hidden", "5").status == 0
    settings = tomllib.loads(Path("run/settings.toml").read_text())
    assert {name: settings[name] for name in ("rounds", "seed", "hidden", "batch", "bits")} == {
        "rounds": 2,
        "seed": 6,  # a flag before the file
        "hidden": [5],
        "batch": 8,  # QUICK's flag
        "bits": 6,  # the file before the default
    }
    assert settings["forwards"] == 96
    assert header().algorithm.bits == 6


def test_the_papers_preset_is_the_papers_method(command) -> None:
    assert (
        command("train", "--algorithm", "paper", "--rounds", 0, "--threads", 1, "--no-report", "--out", "p").status == 0
    )
    assert header("p").algorithm == Baffle.paper()
    told = command("train", "--rounds", 0, "--threads", 1, "--no-report", "--out", "b")
    assert header("b").algorithm == Baffle()
    assert told.out.startswith("Baffle: mlp of 2,410 weights on digits, 10 clients, 3,200 forward passes")


# One flag a setting, each with a value that is not its default.
CHANGED = {
    "dataset": None,  # tested with files below
    "data_dir": "somewhere",
    "image_size": 4,
    "label_column": "digit",
    "client_column": "writer",
    "clients": 3,
    "partition": "shards",
    "alpha": 0.7,
    "shards": 3,
    "model": "lenet",
    "hidden": (6, 5),
    "activation": "relu",
    "norm": "none",
    "runtime": "onnx",
    "pruned": True,
    "precision": "float64",
    "device": "cpu",
    "threads": 2,
    "chunk": 50,
    "memory": 7,
    "algorithm": "paper",
    "forwards": 20,
    "batch": 5,
    "allocation": "variance",
    "orthogonal": False,
    "estimator": "central",
    "scale": 0.02,
    "law": "gaussian",
    "odds": 40,
    "blocks": "whole",
    "groups": 2,
    "bits": 12,
    "bound": 3.0,
    "spread": 4.0,
    "local_steps": 2,
    "local_rate": 0.3,
    "clip": 0.1,
    "optimizer": "sgd",
    "rate": 0.5,
    "momentum": 0.5,
    "beta1": 0.8,
    "beta2": 0.98,
    "eps": 1e-6,
    "weight_decay": 0.01,
    "average": 0.9,
    "schedule": "linear",
    "participation": 0.5,
    "quorum": 0.9,
    "weight": "equal",
    "unavailable": 0.1,
    "secure": "masks",
    "minimum": 3,
    "sum_size": 4,
    "mechanism": "rqm",
    "epsilon": 8.0,
    "delta": 1e-6,
    "slope_size": 0.5,
    "quantile": 0.5,
    "colluding": 1,
    "epochs": 2,
    "local_momentum": 0.3,
    "checkpointing": True,
    "directions": 3,
    "population": 4,
    "rounds": 1,
    "seed": 3,
    "initial": "model",
    "engine": "ray",
    "workers": 2,
    "address": "127.0.0.1:6379",
    "evaluate_every": 4,
    "snapshot_every": 6,
    "out": "run",
}
BESIDE = {
    "mechanism": {"epsilon": 8.0},
    "epsilon": {"mechanism": "gaussian"},
    "epochs": {"algorithm": "fedavg"},
    "local_momentum": {"algorithm": "fedavg"},
    "checkpointing": {"algorithm": "fedavg"},
    "directions": {"algorithm": "fedzo"},
    "population": {"algorithm": "es"},
}
"""What a setting can't be without."""


def test_every_setting_has_a_changed_value_here() -> None:
    assert set(CHANGED) == set(Experiment.__struct_fields__)
    default = read({})
    assert [name for name, value in CHANGED.items() if value == getattr(default, name)] == []


@pytest.mark.parametrize("name", [name for name, value in CHANGED.items() if value is not None])
def test_every_setting_is_a_flag_that_reaches_the_run(name, command, monkeypatch) -> None:
    """The experiment that the command line builds has this value, and nothing else that differs."""
    taken = []
    monkeypatch.setattr("baffle.cli.train._run", lambda experiment, *_, **__: taken.append(experiment))
    value = CHANGED[name]
    text = ",".join(map(str, value)) if isinstance(value, tuple) else str(value)
    beside = BESIDE.get(name, {})
    flags = [part for other, given in beside.items() for part in (f"--{other}", given)]
    told = command("train", f"--{name.replace('_', '-')}", text, *flags, "--no-report")
    assert (told.status, told.error) == (0, "")
    assert taken == [read({name: value} | beside)]
    assert getattr(taken[0], name) == value


def test_help_explains_every_setting_with_its_unit_and_default(command) -> None:
    told = command("train", "--help")
    assert told.status == 0
    words = " ".join(told.out.split())
    default = read({})
    for name in Experiment.__struct_fields__:
        assert f"--{name.replace('_', '-')} " in words, name
        what = about(name)
        value = getattr(default, name)
        shown = ",".join(map(str, value)) if isinstance(value, tuple) else value
        shown = f"{shown:g}" if isinstance(shown, float) else str(shown) or "none"
        text = what.text + (f", in {what.unit}" if what.unit else "")
        # Words may be broken anywhere; compared without blanks.
        assert (text + f" [{shown}]").replace(" ", "") in words.replace(" ", ""), name
    for choice in (
        "{iid",
        "iid|dirichlet|shards|owner",
        "forward|central|centred",
        "adaptive|equal|variance",
        "none|masks|ideal",
        "none|gaussian|shares|rqm",
        "baffle|paper",
    ):
        assert choice.startswith("{") or choice in words
    assert len(FIELDS) == len(CHANGED)


def test_the_commands_and_the_version_are_told(command) -> None:
    told = command("--help")
    assert told.status == 0
    for name in ("train", "replay", "verify", "report"):
        assert f"    {name} " in told.out
    assert command("--version").out == f"baffle {__version__}\n"


def test_data_of_ones_own(train) -> None:
    np = pytest.importorskip("numpy")
    rng = np.random.default_rng(0)
    x = rng.normal(size=(60, 5)).astype(np.float32)
    owners = np.repeat(["ann", "bob", "cy"], 20)
    np.savez("own.npz", x=x, y=(x[:, 0] > 0).astype(int), x_test=x, y_test=(x[:, 0] > 0).astype(int), client=owners)
    assert train("--dataset", "own.npz", "--partition", "owner", "--rounds", 2).status == 0
    assert [row["samples"] for row in summary()["clients"]] == [20, 20, 20]
    assert summary()["parameters"] == 5 * 4 + 4 + 4 * 2 + 2


def test_a_model_of_ones_own_begins_with_its_own_weights(train) -> None:
    Path("networks.py").write_text(
        "from torch import nn\n"
        "def flat(shape, classes):\n"
        "    model = nn.Sequential(nn.Flatten(), nn.Linear(64, classes))\n"
        "    nn.init.zeros_(model[1].weight)\n"
        "    return model\n"
    )
    import sys

    assert train("--model", "networks:flat", "--rounds", 1).status == 0
    sys.modules.pop("networks", None)
    assert header().federation.layout.given
    assert Path("run/snapshots/initial.safetensors").exists()
    assert summary()["parameters"] == 650


def test_an_interrupted_run_says_how_to_go_on(train, monkeypatch) -> None:
    from baffle.training import Training

    def stop(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Training, "run", stop)
        told = train("--rounds", 3)
    assert told.status == 130
    assert told.error.strip() == "baffle: interrupted; go on with: baffle train --resume run"
    assert Path("run/ledger").exists()


@pytest.mark.parametrize(
    ("text", "blocks"),
    [
        ("whole", [(0, 310)]),
        ("layers", [(0, 260), (260, 310)]),
        ("*.weight", [(0, 256), (256, 260), (260, 300), (300, 310)]),
        ("*.bias,1.*", [(0, 256), (256, 260), (260, 300), (300, 310)]),
        ("1.bias", [(0, 256), (256, 260), (260, 310)]),
        ("*", [(0, 310)]),
    ],
)
def test_blocks_may_be_patterns_of_names_as_a_flag_and_in_a_file(text, blocks, train, command) -> None:
    assert train("--rounds", 1, "--blocks", text).status == 0
    plan = msgspec.msgpack.decode(list(Reader(Path("run/ledger")))[1])[1]
    assert [tuple(block[:2]) for block in plan[13]] == blocks
    value = text if text in ("whole", "layers") else text.split(",")
    assert tomllib.loads(Path("run/settings.toml").read_text())["blocks"] == value
    Path("mine.toml").write_text(tomli_w.dumps({"blocks": value}))
    assert train("mine.toml", "--rounds", 1, out="again").status == 0
    assert ledger("again") == ledger()
    assert command("train", "run/settings.toml", "--out", "third", "--no-report").status == 0
    assert ledger("third") == ledger()
    # Resumed with what was written, and replayed from the ledger.
    assert command("train", "--resume", "run", "--rounds", 2, "--no-report").status == 0
    assert f"digest      {summary()['digest']}" in command("replay", "run").out


@pytest.mark.parametrize(
    ("flags", "batch"),
    [
        ((), 8),
        (("--batch", 0), 2),  # √(96/(20 · 4)) is 1.1, and two is the least
        (("--batch", 0, "--forwards", 2000), 5),
        (("--batch", 0, "--forwards", 2000, "--clients", 1), 10),
        (("--batch", 0, "--forwards", 2000, "--local-steps", 5), 2),
        (("--batch", 0, "--forwards", 4), 1),  # two whole probes and two of the last layer leave no other choice
    ],
)
def test_the_samples_of_a_probe_are_given_or_chosen(flags, batch, train) -> None:
    assert train("--rounds", 1, *flags).status == 0
    plan = msgspec.msgpack.decode(list(Reader(Path("run/ledger")))[1])[1]
    assert plan[9] == batch
    asked = dict(zip(flags[::2], flags[1::2], strict=True))
    assert tomllib.loads(Path("run/settings.toml").read_text())["batch"] == asked.get("--batch", 8)


def test_experiment_settings_print_in_full(train) -> None:
    train("--rounds", 0)
    settings = tomllib.loads(Path("run/settings.toml").read_text())
    experiment = read(settings)
    assert json.loads(msgspec.json.encode(experiment)) == settings | presets.OWN
