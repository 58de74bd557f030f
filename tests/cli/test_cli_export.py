"""`baffle export`, and training what it wrote."""

from __future__ import annotations

import json
import tomllib
from pathlib import Path

import numpy as np
import pytest

onnx = pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")
pytest.importorskip("sklearn")

from baffle.bundle import MANIFEST, Bundle  # noqa: E402
from baffle.kernels import PlainKernels  # noqa: E402
from baffle.runtimes.onnx import OnnxRuntime  # noqa: E402
from export.graphs import CLASSES, FEATURES, draw, initialisers, mlp, model, node, run, save  # noqa: E402


def refused(told, *words: str) -> None:
    """Claim exit status 2 and one line in the tool's own words, with all of `words` in it."""
    assert told.status == 2
    assert told.error.startswith("baffle: error: "), told.error
    assert told.error.count("\n") == 1, told.error
    assert "Traceback" not in told.error + told.out
    for word in words:
        assert word in told.error, told.error


def of_digits(hidden: int = 16):
    """Return a network for images of 8 x 8 in ten classes."""
    nodes = [
        node("Flatten", ["x"], ["flat"]),
        node("Gemm", ["flat", "first.weight", "first.bias"], ["h"], transB=1),
        node("Relu", ["h"], ["a"]),
        node("Gemm", ["a", "second.weight", "second.bias"], ["y"], transB=1),
    ]
    constants = {
        "first.weight": draw(hidden, 64) / 4,
        "first.bias": draw(hidden),
        "second.weight": draw(10, hidden),
        "second.bias": draw(10),
    }
    return model(nodes, constants, (("x", ["batch", 1, 8, 8]),), (("y", ["batch", 10]),))


@pytest.fixture
def source() -> str:
    """The name of an ONNX file in the working folder."""
    save(of_digits(), Path("model.onnx"))
    return "model.onnx"


@pytest.fixture(autouse=True)
def _in_an_empty_folder(command) -> None:
    """`command` changes the working folder; what others make must lie there."""


def summary(folder="run") -> dict:
    return json.loads((Path(folder) / "summary.json").read_text())


def trained_weights(folder="run") -> dict[str, np.ndarray]:
    from baffle import run as runs

    header, state = runs.replay(Path(folder), PlainKernels())
    return dict(header.federation.layout.unflatten(state.average))


# From an ONNX file.


def test_an_onnx_file_is_exported_and_that_is_told(source, command) -> None:
    told = command("export", source, "--train", "*", "--out", "out")
    assert (told.status, told.error) == (0, "")
    bundle = Bundle.read(Path("out"))
    assert "out (" in told.out
    assert f"digest      {bundle.digest}" in told.out
    assert "trained     1210 weights in 4 tensors" in told.out
    share = bundle.manifest.cuts[-1].operations / bundle.manifest.whole.operations
    assert f"{share:7.2%} of a forward pass for second.weight, second.bias" in told.out
    assert set(bundle.manifest.files) | {MANIFEST} == {path.name for path in Path("out").iterdir()}


def test_the_same_command_gives_the_same_digest(source, command) -> None:
    for out in "ab":
        assert command("export", source, "--train", "second.*", "--lora", 2, "--out", out).status == 0
    assert Bundle.read(Path("a")).digest == Bundle.read(Path("b")).digest


def test_a_plain_file_is_written_beside_or_alone(source, command) -> None:
    told = command("export", source, "--train", "*", "--plain", "new/plain.onnx")
    assert (told.status, told.out) == (0, "model       new/plain.onnx\n")
    given = {"x": np.random.default_rng(0).random((3, 1, 8, 8), np.float32)}
    np.testing.assert_array_equal(run(onnx.load("new/plain.onnx"), given)[0], run(of_digits(), given)[0])
    assert command("export", source, "--train", "*", "--plain", "again.onnx", "--out", "out").status == 0
    assert Path("again.onnx").read_bytes() == Path("new/plain.onnx").read_bytes()
    assert (Path("out") / MANIFEST).exists()


@pytest.mark.parametrize(
    ("flags", "tensors", "coupled"),
    [
        (("--train", "*.bias"), ["first.bias", "second.bias"], False),
        (("--train", "second.*", "first.bias"), ["first.bias", "second.weight", "second.bias"], False),
        (("--train", "*.bias", "--int8"), ["first.bias", "second.bias"], True),
        (("--lora", "2", "--lora-on", "second"), ["second.lora_a", "second.lora_b"], False),
        (("--lora", "2", "--lora-b-only", "--seed", "3"), ["first.lora_b", "second.lora_b"], False),
        (("--int8", "--lora", "2", "--lora-b-only"), None, True),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else "",
)
def test_flags_say_what_is_trained_and_how_the_rest_is_kept(flags, tensors, coupled, source, command) -> None:
    assert command("export", source, *flags, "--out", "out").status == 0
    manifest = Bundle.read(Path("out")).manifest
    assert manifest.coupled is coupled
    if tensors is not None:
        assert [tensor.name for tensor in manifest.layout.tensors] == tensors


def test_pruned_weights_stay_out(command) -> None:
    made = of_digits()
    for tensor in made.graph.initializer:
        if tensor.name == "first.weight":
            kept = initialisers(made)["first.weight"]
            kept = np.where(np.random.default_rng(0).random(kept.shape) < 0.05, kept, 0)
            tensor.raw_data = kept.astype(np.float32).tobytes()
    save(made, Path("model.onnx"))
    told = command("export", "model.onnx", "--train", "first.weight", "--pruned", "--out", "out")
    assert f"trained     {np.count_nonzero(kept)} weights in 1 tensors" in told.out


@pytest.mark.parametrize("rule", ["whole", "layers", "*.bias", "first.*,second.*"])
def test_blocks_say_where_to_cut(rule, source, command) -> None:
    told = command("export", source, "--train", "*", "--blocks", rule, "--out", "out")
    assert (told.status, told.error) == (0, "")
    cuts = Bundle.read(Path("out")).manifest.cuts
    assert (
        len(cuts) == {"whole": 1, "layers": 2, "*.bias": 4, "first.*,second.*": 2}[rule]
    )  # images are made flat before


# Errors that a person makes.


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--train", "*"), ["out = None", "say where to: --out DIR", "--plain FILE.onnx"]),
        (("--out", "out"), ["say which tensors to train: --train", "--lora"]),
        (("--int8", "--out", "out"), ["say which tensors to train"]),
        (("--train", "third.*", "--out", "out"), ["'third.*' matches no tensor", "first.weight, first.bias"]),
        (("--grid", "first.weight", "--out", "out"), ["first.weight, which is float32", "--train"]),
        (("--train", "*", "--int8", "--out", "out"), ["--int8 finds no product", "train less"]),
        (("--lora", "10", "--out", "out"), ["--lora 10 is no less than the rank of second, 16 x 10"]),
        (("--lora", "2", "--lora-on", "head", "--out", "out"), ["head matches no linear layer", "first, second"]),
        (("--lora", "-1", "--out", "out"), ["lora = -1"]),
        (("--lora", "2", "--lora-b-only", "--seed", "-1", "--out", "out"), ["seed = -1"]),
        (("--train", "*", "--output", "z", "--out", "out"), ["it has no output z; there are y"]),
        (("--train", "*", "--blocks", "third.*", "--out", "out"), ["blocks = 'third.*'", "must match a tensor"]),
        (("--train", "*", "--out", "model.onnx"), ["model.onnx"]),
        (("--train", "*", "--plain", "."), ["."]),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else "",
)
def test_what_can_not_be_done_is_told_and_nothing_left(arguments, words, source, command) -> None:
    before = sorted(Path().rglob("*"))
    refused(command("export", source, *arguments), *words)
    assert sorted(Path().rglob("*")) == before


@pytest.mark.parametrize(
    ("name", "data", "words"),
    [
        ("nowhere.onnx", None, ["nowhere.onnx", "No such file"]),
        ("nowhere.toml", None, ["nowhere.toml", "No such file"]),
        ("model.pt", b"PK\x03\x04 and so on", ["model.pt is no ONNX model"]),
        ("model.bin", b"", ["model.bin is no ONNX model"]),
        ("config.json", b'{"hidden_size": 384}', ["config.json is no ONNX model"]),
        ("lists.json", b"[1, 2", ["lists.json is no ONNX model"]),
        ("notes.txt", b"a model", ["notes.txt is no ONNX model"]),
        ("settings.toml", b"forwrads = 3", ["forwrads = 3", "did you mean forwards?"]),
        ("settings.toml", b"model = 'resnet'", ["model = 'resnet'", "must be lenet, wrn, mlp"]),
        ("settings.toml", b"model = ", ["settings.toml", "is no TOML"]),
    ],
)
def test_a_source_that_is_none_is_named(name, data, words, command) -> None:
    if data is not None:
        Path(name).write_bytes(data)
    refused(command("export", name, "--train", "*", "--out", "out"), *words)
    assert not Path("out").exists()


def test_a_fixed_batch_axis_is_told_with_advice(command) -> None:
    save(mlp(inputs=(("x", [1, FEATURES]),)), Path("model.onnx"))
    refused(command("export", "model.onnx", "--train", "*", "--out", "out"), "first axis of 1", "dynamic batch axis")


def test_an_exported_folder_is_no_source(source, command) -> None:
    command("export", source, "--train", "*", "--out", "out")
    refused(
        command("export", "out", "--train", "*", "--out", "again"), "source = 'out'", "export what it was made from"
    )


def test_a_folder_that_holds_no_run_is_no_source(command) -> None:
    Path("empty").mkdir()
    refused(command("export", "empty", "--out", "out"), "source = 'empty'", "holds no run")


def test_a_run_that_no_command_began_is_told(command) -> None:
    from federation import simulation

    simulation().run(1, out=Path("own"))
    refused(command("export", "own", "--out", "out"), "own")


@pytest.mark.parametrize("free", [0, -3])
def test_samples_of_no_entries_are_refused(free, command) -> None:
    """A size that is no number of entries can't be what a model is tried with."""
    nodes = [node("ReduceMean", ["x", "one"], ["m"], keepdims=0), node("MatMul", ["m", "w"], ["y"])]
    constants = {"one": np.array([1]), "w": draw(FEATURES, CLASSES)}
    save(model(nodes, constants, (("x", ["batch", "length", FEATURES]),)), Path("model.onnx"))
    refused(command("export", "model.onnx", "--train", "w", "--free", free, "--out", "out"), f"{free}")
    assert command("export", "model.onnx", "--train", "w", "--free", 2, "--out", "out").status == 0


def test_without_onnx_the_extra_is_named(source, command, monkeypatch) -> None:
    import sys

    monkeypatch.setitem(sys.modules, "onnx", None)
    refused(command("export", source, "--train", "*", "--out", "out"), "onnx is not installed", "'baffle[onnx]'")


# Training what was exported.


@pytest.fixture
def out(source, command) -> str:
    assert command("export", source, "--train", "*", "--out", "out").status == 0
    return "out"


def test_an_exported_model_is_trained_and_resumed(out, train, command) -> None:
    assert train("--model", out, "--rounds", 3).status == 0
    assert summary()["parameters"] == 1210
    assert command("verify", "run").status == 0
    assert f"digest      {summary()['digest']}" in command("replay", "run").out
    assert command("train", "--resume", "run", "--rounds", 5, "--no-report").status == 0
    assert train("--model", out, "--rounds", 5, out="straight").status == 0
    assert Path("run/ledger").read_bytes() == Path("straight/ledger").read_bytes()


def test_an_exported_model_learns(out, command) -> None:
    for rounds, folder in ((0, "before"), (40, "after")):
        flags = ("--model", out, "--rounds", rounds, "--forwards", 800, "--batch", 4, "--threads", 1, "--no-report")
        assert command("train", *flags, "--out", folder).status == 0
    assert summary("after")["accuracy"] > summary("before")["accuracy"] + 0.3


def test_a_trained_model_goes_back_to_plain_onnx_and_to_clients(out, train, command) -> None:
    train("--model", out, "--rounds", 3)
    told = command("export", "run", "--plain", "trained.onnx", "--out", "again")
    assert (told.status, told.error) == (0, "")
    weights = trained_weights()
    plain = onnx.load("trained.onnx")
    assert [one.name for one in plain.graph.input] == ["x"]
    for name, value in weights.items():
        np.testing.assert_array_equal(initialisers(plain)[name], value)
        assert not np.array_equal(value, initialisers(of_digits())[name])
    given = {"x": np.random.default_rng(0).random((3, 1, 8, 8), np.float32)}
    again = OnnxRuntime(Path("again"), loss=lambda outputs, targets: (outputs * targets).sum(1))
    assert again.layout == OnnxRuntime(Path(out)).layout
    targets = np.random.default_rng(1).random((3, 10))
    found = again.losses([again.layout.flatten(again.given)], [(given["x"], targets)])[0, 0]
    assert found == pytest.approx((run(plain, given)[0] * targets).sum(1).mean(), rel=1e-5)


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (("--precision", "float64"), ["precision = 'float64'", "must be float32 with ONNX Runtime"]),
        (("--device", "cuda"), ["device = 'cuda'", "must be cpu or auto with ONNX Runtime"]),
    ],
)
def test_what_onnx_runtime_can_not_do_is_told(flags, words, out, train) -> None:
    refused(train("--model", out, "--rounds", 1, *flags), *words)
    assert not Path("run").exists()


def test_data_that_the_model_does_not_take_are_told(out, train) -> None:
    rng = np.random.default_rng(0)
    np.savez("flat.npz", x=rng.random((40, 64)), y=rng.integers(0, 3, 40))
    refused(
        train("--model", out, "--dataset", "flat.npz", "--rounds", 1),
        "out: the model takes samples (x) of float32 of shape [1, 8, 8], not float32 [64]",
    )
    np.savez("many.npz", x=rng.random((40, 1, 8, 8)), y=np.arange(40) % 11)
    refused(train("--model", out, "--dataset", "many.npz", "--rounds", 1), "out: the loss fails on outputs of shape")
    assert not Path("run").exists()


def test_a_damaged_model_is_told(out, train) -> None:
    data = bytearray((Path(out) / "model.onnx").read_bytes())
    data[40] ^= 1
    (Path(out) / "model.onnx").write_bytes(data)
    refused(train("--model", out, "--rounds", 1), "out/model.onnx is not the file that was exported")


def test_a_run_of_a_model_in_a_folder_gets_a_folder_of_its_own(source, train, command) -> None:
    """One in runs/, whatever path the model has."""
    command("export", source, "--train", "*", "--out", "models/digits")
    for number, place in ((1, "models/digits"), (2, Path("models/digits").absolute()), (3, "./models/digits")):
        told = train("--model", place, "--rounds", 0, out=None)
        assert (told.status, told.error) == (0, "")
        assert len(list(Path("runs").iterdir())) == number
        assert all((folder / "summary.json").exists() for folder in Path("runs").iterdir())


def test_a_folder_that_holds_no_model_is_told(train) -> None:
    Path("out").mkdir()
    refused(train("--model", "out", "--rounds", 1), "model = 'out'")


def test_weights_on_a_grid_are_trained_in_steps(source, train, command) -> None:
    flags = ("--int8", "--grid", "first.weight", "second.weight", "--out", "out")
    told = command("export", source, *flags)
    assert (told.status, told.error) == (0, "")
    assert "1184 weights in 2 tensors, 2 of them on a grid" in told.out
    assert train("--model", "out", "--algorithm", "grid", "--rounds", 4).status == 0
    settings = tomllib.loads(Path("run/settings.toml").read_text())
    assert (settings["law"], settings["odds"], settings["rate"]) == ("sparse", 16, 1.0)
    assert f"digest      {summary()['digest']}" in command("replay", "run").out
    moved = trained_weights()
    given = Bundle.read(Path("out")).given()
    for name, value in moved.items():
        assert np.abs(value - given[name].reshape(value.shape)).max() > 0.5
    assert command("export", "run", "--plain", "trained.onnx").status == 0
    kinds = {name: value.dtype for name, value in initialisers(onnx.load("trained.onnx")).items()}
    assert {kinds[name] for name in moved} == {np.dtype(np.int8)}


def test_a_blank_grid_is_told_apart_from_what_it_is_not(source, train, command) -> None:
    """Float weights by the grid's preset are trained all the same: nothing there is int8."""
    command("export", source, "--train", "*", "--out", "out")
    assert train("--model", "out", "--algorithm", "grid", "--rounds", 1, "--rate", 0.01).status == 0
