"""There and back: a trained model as plain ONNX, and an exported one as a source of another export."""

from __future__ import annotations

import numpy as np
import pytest

pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")

import onnx

from baffle.export import Choice, Source, export, from_bundle, from_onnx, prepared, with_weights, write_plain
from baffle.export.model import normal
from baffle.export.prepare import runs
from baffle.runtimes.onnx import OnnxRuntime
from export.graphs import CLASSES, HIDDEN, draw, initialisers, mlp, residual, run, save, x

CHOICES = {
    "all": (Choice(train=("*",)), 6),
    "some": (Choice(train=("*.bias",)), 6),
    "adapters": (Choice(lora=2), 16),
    "fixed adapters": (Choice(lora=2, lora_b_only=True), 16),
    "int8": (Choice(train=("second.*",), int8=True), 32),
    "int8 adapters": (Choice(lora=2, int8=True), 32),
}


def source_of(made) -> Source:
    made = normal(made)
    return Source(made, runs(made, "y"), ("*",))


def moved(given, seed: int = 0):
    return {name: value + draw(*value.shape, seed=seed) for name, value in given.items()}


@pytest.mark.parametrize("kind", CHOICES)
def test_a_plain_model_of_trained_weights_gives_the_runtimes_outputs(kind, tmp_path) -> None:
    choice, hidden = CHOICES[kind]
    trainable, expected = prepared(source_of(mlp(hidden=hidden)), choice)
    bundle = export(trainable, tmp_path / "model", expected=expected)
    runtime = OnnxRuntime(bundle.folder, loss=lambda outputs, targets: (outputs * targets).sum(1))
    trained = moved(runtime.given, seed=7)
    source = with_weights(from_bundle(bundle.folder), trained)
    write_plain(prepared(source, Choice())[0], tmp_path / "plain" / "model.onnx")
    plain = onnx.load(tmp_path / "plain" / "model.onnx")
    onnx.checker.check_model(plain)
    assert [one.name for one in plain.graph.input] == ["x"]
    for name, value in trained.items():
        np.testing.assert_array_equal(initialisers(plain)[name], value)
    outputs, weights = run(plain, x())[0], draw(5, CLASSES, seed=1)
    point = runtime.layout.flatten(trained)
    found = runtime.losses([point], [(x()["x"], weights)])[0, 0]
    assert found == pytest.approx((outputs * weights).sum(1).mean(), rel=2e-5, abs=1e-6)


@pytest.mark.parametrize("kind", CHOICES)
def test_an_exported_model_is_a_source_of_the_same_export(kind, tmp_path) -> None:
    choice, hidden = CHOICES[kind]
    trainable, expected = prepared(source_of(mlp(hidden=hidden)), choice)
    one = export(trainable, tmp_path / "one", expected=expected)
    again, expected = prepared(from_bundle(one.folder), Choice())
    two = export(again, tmp_path / "two", expected=expected)
    assert [(t.name, t.shape) for t in two.manifest.layout.tensors] == [
        (t.name, t.shape) for t in one.manifest.layout.tensors
    ]
    assert two.manifest.whole == one.manifest.whole
    assert [cut.displaced for cut in two.manifest.cuts] == [cut.displaced for cut in one.manifest.cuts]
    assert two.manifest.coupled == one.manifest.coupled
    for name, value in one.given().items():
        np.testing.assert_array_equal(two.given()[name], value)


def test_an_exported_model_that_was_pruned_stays_pruned(tmp_path) -> None:
    """Round after round: what is written for clients again leaves out the same weights."""
    made = mlp()
    for tensor in made.graph.initializer:
        if tensor.name == "first.weight":
            values = initialisers(made)["first.weight"] * (np.random.default_rng(0).random((HIDDEN, 4)) < 0.5)
            tensor.raw_data = values.astype(np.float32).tobytes()
    trainable, expected = prepared(source_of(made), Choice(pruned=True))
    one = export(trainable, tmp_path / "one", expected=expected)
    again, expected = prepared(from_bundle(one.folder), Choice())
    two = export(again, tmp_path / "two", expected=expected)
    assert two.manifest.layout == one.manifest.layout


def test_a_plain_model_is_written_without_a_run(tmp_path) -> None:
    trainable, _ = prepared(source_of(residual()), Choice())
    write_plain(trainable, tmp_path / "model.onnx")
    np.testing.assert_array_equal(run(onnx.load(tmp_path / "model.onnx"), x())[0], run(residual(), x())[0])
    again = from_onnx(tmp_path / "model.onnx")
    np.testing.assert_array_equal(again.outputs(x()), run(residual(), x())[0])


def test_with_weights_changes_those_alone_and_where_the_model_begins() -> None:
    source = source_of(mlp())
    found = with_weights(source, {"second.bias": np.ones(CLASSES)})
    before = initialisers(source.model)
    after = initialisers(found.model)
    assert after["second.bias"].tolist() == [1.0] * CLASSES
    assert after["second.bias"].dtype == np.float32
    for name in before.keys() - {"second.bias"}:
        np.testing.assert_array_equal(before[name], after[name])
    np.testing.assert_allclose(
        found.outputs(x()) - source.outputs(x()), np.tile(1 - before["second.bias"], (5, 1)), rtol=1e-4
    )
    assert found.initial == {}


def test_what_is_trained_goes_on_from_the_weights_given(tmp_path) -> None:
    made = save(mlp(), tmp_path / "model.onnx")
    source = with_weights(from_onnx(made), {"second.bias": np.full(CLASSES, 2.0)})
    trainable, expected = prepared(source, Choice(train=("second.*",)))
    bundle = export(trainable, tmp_path / "out", expected=expected)
    assert bundle.given()["second.bias"].tolist() == [2.0] * CLASSES
