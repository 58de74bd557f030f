from __future__ import annotations

import re
import sys
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("torch")
pytest.importorskip("sklearn")


def refused(told, *words: str) -> None:
    """Claim exit status 2 and one line in the tool's own words, with all of `words` in it."""
    assert told.status == 2
    assert told.error.startswith("baffle: error: "), told.error
    assert told.error.count("\n") == 1, told.error
    assert "Traceback" not in told.error + told.out
    for word in words:
        assert word in told.error, told.error


# Settings: the field, the value and the rule.

SETTINGS = [
    ("clients", "0", ">= 1"),
    ("clients", "ten", "must be a whole number"),
    ("clients", "2.5", "must be a whole number"),
    ("forwards", "9223372036854775808", "must be a whole number <= 9223372036854775807"),
    ("population", "1048578", "<= 1048576"),
    ("threads", "1025", "<= 1024"),
    ("workers", "4097", "<= 4096"),
    ("minimum", "9223372036854775808", "must be a whole number <= 9223372036854775807"),
    ("rounds", "9223372036854775808", "must be a whole number <= 9223372036854775807"),
    ("participation", "0", "> 0"),
    ("participation", "1.1", "<= 1"),
    ("quorum", "0", "> 0"),
    ("bits", "1", ">= 2"),
    ("bits", "33", "<= 32"),
    ("forwards", "0", ">= 1"),
    ("batch", "-1", ">= 0"),
    ("batch", "few", "must be a whole number"),
    ("memory", "0", ">= 1"),
    ("chunk", "0", ">= 1"),
    ("orthogonal", "perhaps", "must be true or false"),
    ("allocation", "best", "must be one of adaptive, equal, variance"),
    ("blocks", "head.*", "must match a tensor; there are 1.weight, 1.bias, 3.weight, 3.bias"),
    ("blocks", "*.weight,*.waist", "must match a tensor"),
    ("groups", "0", ">= 1"),
    ("rounds", "-1", ">= 0"),
    ("scale", "0", "> 0"),
    ("scale", "-1", "> 0"),
    ("scale", "nan", "> 0"),
    ("scale", "inf", "finite"),
    ("rate", "0", "> 0"),
    ("rate", "inf", "finite"),
    ("rate", "fast", "must be a number"),
    ("bound", "inf", "finite"),
    ("momentum", "1", "< 1"),
    ("beta2", "1", "< 1"),
    ("average", "1", "< 1"),
    ("unavailable", "1", "< 1"),
    ("clip", "-0.1", ">= 0"),
    ("seed", "-1", ">= 0"),
    ("hidden", "8,x", "must be a whole number"),
    ("hidden", "8,0", ">= 1"),
    ("law", "cauchy", "must be one of gaussian, rademacher"),
    ("estimator", "exact", "must be one of forward, central, centred"),
    ("algorithm", "fedprox", "must be one of baffle, paper, grid, fedsgd, fedavg"),
    ("partition", "random", "must be one of iid, dirichlet, shards, owner"),
    ("precision", "float16", "must be one of float32, float64"),
    ("norm", "batch", "must be one of auto, group, none"),
    ("dataset", "imagenet", "must be digits, mnist"),
    ("model", "resnet", "must be lenet, wrn, mlp, or module:function"),
    ("device", "tpu9", "can't be used"),
    ("evaluate_every", "0", ">= 1"),
]


@pytest.mark.parametrize(("field", "value", "rule"), SETTINGS, ids=lambda v: str(v).split(" ")[0])
def test_a_setting_out_of_its_range_is_named_with_its_value_and_rule(field, value, rule, command) -> None:
    told = command("train", "--rounds=0", f"--{field.replace('_', '-')}={value}", "--no-report", "--out", "run")
    refused(told, f"error: {field} = ", value.split(",")[-1], rule)
    assert not Path("run").exists()


@pytest.mark.parametrize(("field", "value"), [row[:2] for row in SETTINGS[::3]], ids=lambda v: v)
def test_a_file_is_held_to_the_same_rules(field, value, command) -> None:
    text = value if re.fullmatch(r"-?[0-9.]+|nan|inf", value) else repr(value)
    Path("mine.toml").write_text(f"{field} = {text}\n")
    refused(command("train", "mine.toml", "--no-report", "--out", "run"), f"error: {field} = ")
    assert not Path("run").exists()


def test_an_infinite_concentration_is_refused(command) -> None:
    flags = ("--partition=dirichlet", "--alpha=inf", "--rounds=0", "--no-report", "--out=run")
    refused(command("train", *flags), "alpha = inf: must be")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("forwrads = 3", ["forwrads = 3", "is no setting; did you mean forwards?"]),
        ("xyzzy = 3", ["xyzzy = 3", "is no setting"]),
        ("[data]\nclients = 3", ["data = ", "is no setting"]),
        ("rounds = '3'", ["rounds = '3'", "must be a whole number"]),
        ("rounds = 3.5", ["rounds = 3.5", "must be a whole number"]),
        ("rounds = true", ["rounds = True", "must be a whole number"]),
        ("model = 3", ["model = 3", "must be a text"]),
        ("hidden = 3", ["hidden = 3", "must be a list"]),
        ("blocks = 3", ["blocks = 3", "must be whole, layers, or a list of patterns of tensor names"]),
        ("blocks = '*.bias'", ["blocks = '*.bias'", "must be whole, layers, or a list of patterns of tensor names"]),
        (
            "blocks = ['*.bias', 3]",
            ["blocks = ['*.bias', 3]", "must be whole, layers, or a list of patterns of tensor names"],
        ),
        ("blocks = ['*.waist']", ["blocks = '*.waist'", "must match a tensor; there are 1.weight, 1.bias"]),
        ("orthogonal = 1", ["orthogonal = 1", "must be true or false"]),
        ("orthogonal = 'yes'", ["orthogonal = 'yes'", "must be true or false"]),
        ("allocation = 'best'", ["allocation = 'best'", "must be one of adaptive, equal, variance"]),
        ("batch = 2.0", ["batch = 2.0", "must be a whole number"]),
        ("hidden = ['a']", ["hidden = ['a']", "must be a whole number"]),
        ("rate = [1]", ["rate = [1]", "must be a number"]),
        ("rounds = ", ["mine.toml", "is no TOML"]),
        ("rounds = 3\nrounds = 4", ["mine.toml", "is no TOML"]),
        ("\x00", ["mine.toml", "is no TOML"]),
        ("seed = 18446744073709551616", ["seed = 18446744073709551616", "<= 9223372036854775807"]),
    ],
    ids=lambda v: v.split(" ")[0] if isinstance(v, str) else "",
)
def test_a_file_that_can_not_be_read_as_settings_says_why(text, words, command) -> None:
    Path("mine.toml").write_text(text)
    refused(command("train", "mine.toml", "--out", "run"), *words)
    assert not Path("run").exists()


def test_a_file_that_is_no_text_says_so(command) -> None:
    Path("mine.toml").write_bytes(b"a = '\xff\xfe'")
    refused(command("train", "mine.toml"), "mine.toml", "is no TOML")


@pytest.mark.parametrize("name", ["nowhere.toml", "."])
def test_a_missing_file_is_named(name, command) -> None:
    refused(command("train", name), "experiment = ", name, "can't be read")


# What only fails when settings meet.


@pytest.mark.parametrize(
    ("flags", "field", "words"),
    [
        (("--forwards=1", "--estimator=forward"), "forwards", ["forwards = 1:", "each of 2 block(s) 1 directions"]),
        (
            ("--forwards=2",),
            "forwards",
            ["forwards = 2: on 1 samples a probe must give each of 2 block(s) 2 directions"],
        ),
        (("--forwards=2", "--batch=0"), "forwards", ["forwards = 2: on 1 samples", "2 directions"]),
        (("--forwards=60", "--batch=30"), "forwards", ["forwards = 60: on 30 samples", "2 directions"]),
        (("--forwards=8", "--local-steps=4"), "forwards", ["forwards = 8: on 1 samples", "2 directions"]),
        (
            (
                *("--forwards=1001", "--batch=1", "--estimator=forward", "--bits=32", "--law=gaussian", "--clients=2"),
                "--orthogonal=false",
            ),
            "bits",
            ["bits = 32: sums could reach 2^", "must stay below 2^63", "weight = 'equal'"],
        ),
    ],
)
def test_settings_that_do_not_go_together_leave_no_folder_behind(flags, field, words, command) -> None:
    """A folder that is left over would refuse the corrected command."""
    told = command("train", "--threads=1", "--no-report", "--out=run", "--rounds=1", *flags)
    refused(told, f"error: {field} = ", *words)
    assert not Path("run").exists()


def test_more_clients_than_samples_are_refused(train) -> None:
    refused(train("--clients", "5000"), "client")
    assert not Path("run").exists()


def test_the_linear_schedule_can_not_be_made_longer(train, command) -> None:
    train("--rounds", 2, "--schedule", "linear")
    refused(command("train", "--resume", "run", "--rounds", 3), "rounds = 3", "can't change with schedule = 'linear'")


def test_a_run_with_a_budget_can_not_be_made_longer(train, command) -> None:
    train("--rounds", 2, "--clients", 60, "--mechanism", "gaussian", "--epsilon", 8)
    refused(command("train", "--resume", "run", "--rounds", 3), "rounds = 3", "can't change with epsilon", "for 2")


# Data.


def test_a_missing_data_file_is_named(train) -> None:
    refused(train("--dataset", "nowhere.npz"), "nowhere.npz", "No such file")
    refused(train("--dataset", "nowhere.csv"), "nowhere.csv", "No such file")


@pytest.mark.parametrize(
    ("arrays", "words"),
    [
        ({"y": np.array([0, 1, 5, 1]), "classes": 3}, ["label 5 of sample 2", "from 0 to 2"]),
        ({"y": np.array([0, -1, 0, 1])}, ["label -1 of sample 1"]),
        ({"y": np.array([0.5, 1, 0, 1])}, ["label 0.5 of sample 0"]),
        ({"y": np.array([0, 1, 0])}, ["labels of shape [3]: must be [4]"]),
        ({"x": np.array([[1.0], [np.nan], [1], [1]])}, ["sample 1 holds a NaN or an infinity"]),
        ({"x": np.array([[1.0], [1], [1e300], [1]])}, ["sample 2 holds a NaN or an infinity"]),
        ({"x": None}, ["no array x; it holds y"]),
        ({"x": np.zeros((0, 1)), "y": np.zeros(0, int)}, ["at least one sample"]),
    ],
    ids=range(8),
)
def test_data_that_can_not_be_used_say_which_sample(arrays, words, train) -> None:
    whole = {"x": np.ones((4, 1)), "y": np.array([0, 1, 0, 1]), "x_test": np.ones((2, 1)), "y_test": np.array([0, 1])}
    np.savez("own.npz", **{name: array for name, array in (whole | arrays).items() if array is not None})
    refused(train("--dataset", "own.npz", "--clients", 2), "own.npz", *words)
    assert not Path("run").exists()


def test_a_file_that_is_no_npz_is_named(train) -> None:
    Path("own.npz").write_bytes(b"PK\x03\x04 and no more")
    refused(train("--dataset", "own.npz"), "own.npz: can't be read as .npz")


def test_owners_that_the_data_do_not_name_are_missed(train) -> None:
    refused(train("--partition", "owner"), "partition = 'owner'", "digits does not say whose each sample is")


# Models.

MODELS = """
import torch
from torch import nn

def empty(shape, classes): return nn.Flatten()
def frozen(shape, classes): return nn.Sequential(nn.Flatten(), nn.Linear(64, 10)).requires_grad_(False)
def norm(shape, classes): return nn.Sequential(nn.Flatten(), nn.Linear(64, 10), nn.BatchNorm1d(10))
def raises(shape, classes): raise ValueError("no such\\nshape")
def wide(shape, classes): return nn.Sequential(nn.Flatten(), nn.Linear(65, classes))
def few(shape, classes): return nn.Sequential(nn.Flatten(), nn.Linear(64, 4))
def flat(shape, classes): return nn.Sequential(nn.Flatten(), nn.Linear(64, 1), nn.Flatten(0))
def pooled(shape, classes): return Pooled()
def text(shape, classes): return "a model"
def alone(): return nn.Linear(1, 1)
def late(shape, classes): return Late()
number = 3

class Pooled(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(64, 10)
    def forward(self, x): return self.layer(x.flatten(1)).mean(0, keepdim=True)

class Late(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(64, 10)
    def forward(self, x): raise RuntimeError("not today")
"""


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("empty", ["no trainable parameters", "requires_grad"]),
        ("frozen", ["no trainable parameters", "requires_grad"]),
        ("norm", ["2 is BatchNorm in training mode", "GroupNorm", ".eval()"]),
        ("raises", ["fails when it is built: ValueError: no such"]),
        ("wide", ["fails on samples of shape [1, 8, 8]", "shapes cannot be multiplied"]),
        ("few", ["bad_models:few", "10"]),
        ("flat", ["bad_models:flat"]),
        ("pooled", ["1 outputs for 10 samples"]),
        ("text", ["model = 'bad_models:text'", "must return a torch.nn.Module, returned str"]),
        ("alone", ["model = 'bad_models:alone'", "must be callable as alone(shape, classes)"]),
        ("late", ["bad_models:late: the model fails on samples of shape [1, 8, 8]: RuntimeError: not today"]),
        ("number", ["has no function number"]),
        ("nothing", ["has no function nothing"]),
    ],
)
def test_a_model_that_can_not_be_trained_says_what_to_change(name, words, train, monkeypatch) -> None:
    Path("bad_models.py").write_text(MODELS)
    monkeypatch.delitem(sys.modules, "bad_models", raising=False)
    refused(train("--model", f"bad_models:{name}", "--rounds", 2), *words)
    assert not Path("run").exists()


@pytest.mark.parametrize("text", ["import nowhere_to_be_found\n", "def f(\n", "raise OSError('no')\n"])
def test_a_module_that_can_not_be_imported_says_so(text, train, monkeypatch) -> None:
    Path("broken_model.py").write_text(text)
    monkeypatch.delitem(sys.modules, "broken_model", raising=False)
    refused(train("--model", "broken_model:f"), "broken_model:f fails when it is built")
    refused(train("--model", "nowhere_to_be_found:f"), "no module nowhere_to_be_found in")
    refused(train("--model", "a b:f"), "must be module:function")


def test_a_device_that_is_not_there_is_told(train) -> None:
    import torch

    if torch.cuda.is_available():
        pytest.skip("there is a GPU")
    refused(train("--device", "cuda"), "device = 'cuda'", "can't be used")
    assert not Path("run").exists()


# Folders.


def test_a_folder_that_holds_a_run_is_not_written_over(train) -> None:
    train("--rounds", 1)
    before = {path: path.read_bytes() for path in Path("run").rglob("*") if path.is_file()}
    refused(train("--rounds", 2, "--seed", 9), "run", "holds a run already: resume it, or name another folder")
    assert {path: path.read_bytes() for path in Path("run").rglob("*") if path.is_file()} == before


@pytest.mark.parametrize("place", ["nowhere", "empty", "file"])
def test_resume_needs_a_run(place, command) -> None:
    Path("empty").mkdir()
    Path("file").write_text("x")
    refused(command("train", "--resume", place), f"resume = '{place}'", "holds no run that `baffle train` began")


def test_resume_takes_no_other_flag_and_no_file(train, command) -> None:
    train("--rounds", 1)
    refused(command("train", "--resume", "run", "--seed", 4), "seed = 4", "can't change when a run is resumed")
    refused(command("train", "--resume", "run", "--out", "x"), "out = 'x'", "can't change when a run is resumed")
    refused(command("train", "run/settings.toml", "--resume", "run"), "resume = 'run'", "leave EXPERIMENT.toml out")


def test_resume_of_settings_that_were_edited_is_refused(train, command) -> None:
    train("--rounds", 1)
    settings = Path("run/settings.toml").read_text()
    Path("run/settings.toml").write_text(settings.replace("seed = 0", "seed = 1"))
    refused(command("train", "--resume", "run", "--rounds", 2), "was begun with other settings, data or model")


def test_resume_of_a_run_that_simulate_began_is_told(command) -> None:
    """Its settings.toml has a table of the algorithm, which no setting of the command line is."""
    from federation import simulation

    simulation().run(1, out=Path("run"))
    refused(command("train", "--resume", "run"), "run")


def test_a_damaged_ledger_is_named_on_resume(train, command) -> None:
    train("--rounds", 2)
    data = bytearray(Path("run/ledger").read_bytes())
    data[200] ^= 1
    Path("run/ledger").write_bytes(data)
    refused(command("train", "--resume", "run", "--rounds", 3), "ledger record 0", "does not verify")
    assert Path("run/ledger").read_bytes() == bytes(data)


def test_a_place_that_can_not_be_written_is_named(train) -> None:
    Path("taken").write_text("a file")
    refused(train("--rounds", 1, out="taken/run"), "taken")


def test_divergence_is_told_and_the_run_kept(train, command) -> None:
    told = train("--rounds", 9, "--optimizer", "sgd", "--rate", 1, "--weight-decay", 1e13, "--precision", "float64")
    refused(told, "would make a weight infinite; the model of the round before is kept", "A smaller rate")
    assert command("verify", "run").status == 0
    assert command("replay", "run").status == 0


@pytest.mark.parametrize(
    "arguments", [[], ["fly"], ["train", "--forwrads", "3"], ["train", "--rounds"], ["verify"], ["train", "a", "b"]]
)
def test_a_command_that_is_none_exits_with_2_and_no_traceback(arguments, command) -> None:
    told = command(*arguments)
    assert told.status == 2
    assert "error: " in told.error
    assert "Traceback" not in told.error
