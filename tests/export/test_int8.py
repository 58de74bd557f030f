"""Weights in eight bits: nearly the same outputs, a quarter of the bytes, and what is trained stays as it is."""

from __future__ import annotations

import logging

import numpy as np
import pytest

pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")

from baffle.errors import ModelError
from baffle.export import Choice, Source, export, from_onnx, prepared
from baffle.export.choose import trained
from baffle.export.model import normal
from baffle.export.prepare import runs, with_constants
from baffle.export.quantise import quantised
from baffle.runtimes.onnx import OnnxRuntime
from export.graphs import (
    CLASSES,
    FEATURES,
    INT8,
    draw,
    initialisers,
    mlp,
    model,
    node,
    run,
    save,
    x,
)


def types(made) -> dict[str, np.dtype]:
    return {name: value.dtype for name, value in initialisers(made).items()}


def convolution():
    nodes = [
        node("Conv", ["x", "kernel", "bias"], ["c"]),
        node("Relu", ["c"], ["r"]),
        node("GlobalAveragePool", ["r"], ["g"]),
        node("Flatten", ["g"], ["f"]),
        node("Gemm", ["f", "head", "head.bias"], ["y"]),
    ]
    constants = {"kernel": draw(8, 2, 3, 3), "bias": draw(8), "head": draw(8, CLASSES), "head.bias": draw(CLASSES)}
    return model(nodes, constants, (("x", ["batch", 2, 9, 9]),))


MODELS = {"mlp": (lambda: mlp(hidden=32), (FEATURES,)), "convolution": (convolution, (2, 9, 9))}


@pytest.mark.parametrize("kind", MODELS)
def test_outputs_are_nearly_the_same_and_weights_int8(kind) -> None:
    make, shape = MODELS[kind]
    made = normal(make())
    found = quantised(made, [])
    given = {"x": draw(64, *shape, seed=3)}
    plain, coarse = run(made, given)[0], run(found, given)[0]
    assert np.abs(coarse - plain).max() <= 0.03 * np.abs(plain).max()
    assert not np.array_equal(coarse, plain)
    matrices = [tensor for tensor in found.graph.initializer if len(tensor.dims) > 1]
    assert len(matrices) == 2
    assert {tensor.data_type for tensor in matrices} == {INT8}


@pytest.mark.parametrize("kind", MODELS)
def test_what_is_trained_stays_float_to_the_bit(kind) -> None:
    make, _ = MODELS[kind]
    made = normal(make())
    names = [tensor.name for tensor in made.graph.initializer]
    for kept in names:
        if len(initialisers(made)[kept].shape) > 1:
            floats = trained(made, [kept])
            found = with_constants(quantised(floats.model, [kept]), floats.given)
            np.testing.assert_array_equal(initialisers(found)[kept], initialisers(made)[kept])
            assert sum(kind == np.int8 for name, kind in types(found).items() if name.endswith("_quantized")) == 1


def test_a_bias_is_trained_beside_its_quantised_matrix(tmp_path) -> None:
    source = from_onnx(save(mlp(hidden=32), tmp_path / "model.onnx"))
    trainable, expected = prepared(source, Choice(train=("*.bias",), int8=True))
    bundle = export(trainable, tmp_path / "out", expected=expected, blocks=("first.bias", "second.bias"))
    assert [tensor.name for tensor in bundle.manifest.layout.tensors] == ["first.bias", "second.bias"]
    runtime = OnnxRuntime(tmp_path / "out", loss=lambda outputs, _: outputs.sum(1))
    point = runtime.layout.flatten(runtime.given)
    up = point.copy()
    up[-CLASSES:] += 1
    data = [(x()["x"], np.zeros(5))]
    moved = runtime.losses([up], data) - runtime.losses([point], data)
    np.testing.assert_allclose(moved, CLASSES, rtol=1e-4)


def test_nothing_left_to_quantise_is_told() -> None:
    made = normal(mlp())
    with pytest.raises(ModelError, match="--int8 finds no product with a weight that is not trained"):
        quantised(made, ["first.weight", "second.weight"])
    with pytest.raises(ModelError, match="--int8 finds no product"):
        quantised(normal(model([node("Relu", ["x"], ["y"])], outputs=(("y", None),))), [])


def test_the_owners_model_and_the_log_are_left_alone(capsys) -> None:
    made = normal(mlp())
    before, level = made.SerializeToString(deterministic=True), logging.root.manager.disable
    quantised(made, [])
    assert made.SerializeToString(deterministic=True) == before
    assert logging.root.manager.disable == level
    assert capsys.readouterr() == ("", "")


@pytest.mark.parametrize("int8", [False, True])
def test_samples_of_a_quantised_model_are_coupled(int8, tmp_path) -> None:
    """One pass sees one client's samples alone, and losses say so."""
    source = from_onnx(save(mlp(hidden=32), tmp_path / "model.onnx"))
    trainable, expected = prepared(source, Choice(train=("second.*",), int8=int8))
    bundle = export(trainable, tmp_path / "out", expected=expected)
    assert bundle.manifest.coupled is int8
    runtime = OnnxRuntime(tmp_path / "out")
    rng = np.random.default_rng(0)
    batches = [(scale * draw(4, FEATURES, seed=scale), rng.integers(0, CLASSES, 4)) for scale in (1, 7, 30)]
    point = runtime.layout.flatten(runtime.given)
    together = runtime.losses([point], batches)[0]
    alone = [runtime.losses([point], [one])[0, 0] for one in batches]
    np.testing.assert_allclose(together, alone, rtol=1e-6)


def test_files_are_smaller(tmp_path) -> None:
    source, sizes = from_onnx(save(mlp(hidden=2000), tmp_path / "model.onnx")), []
    for int8 in (False, True):
        trainable, expected = prepared(source, Choice(train=("*.bias",), int8=int8))
        bundle = export(trainable, tmp_path / str(int8), expected=expected)
        sizes.append(sum((bundle.folder / name).stat().st_size for name in bundle.manifest.files))
    assert sizes[1] < 0.5 * sizes[0]


def test_a_quantised_model_is_compared_with_itself_not_with_the_float_one() -> None:
    made = normal(mlp(hidden=32))
    _, expected = prepared(Source(made, runs(made, "y")), Choice(train=("second.bias",), int8=True))
    found = quantised(made, ["second.bias"])
    np.testing.assert_array_equal(expected(x()), run(found, x())[0])
