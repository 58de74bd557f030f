"""Adapters: y + (x A) B in place of y, beside products of every kind, doing nothing at first."""

from __future__ import annotations

import numpy as np
import pytest

pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")

from baffle.errors import ModelError
from baffle.export import Choice, Source, export, prepared
from baffle.export.adapters import adapted
from baffle.export.model import normal
from baffle.export.prepare import runs
from baffle.export.quantise import quantised
from baffle.keys import Key
from baffle.parameters import Constant, Uniform
from export.graphs import (
    CLASSES,
    FEATURES,
    HIDDEN,
    INT8,
    draw,
    initialisers,
    mlp,
    model,
    node,
    on_a_grid,
    residual,
    run,
    x,
)

KEY = Key.root(5)


def gemm(**attributes):
    shape = (CLASSES, FEATURES) if attributes.get("transB") else (FEATURES, CLASSES)
    nodes = [node("Gemm", ["x", "layer.weight", "layer.bias"], ["y"], **attributes)]
    return model(nodes, {"layer.weight": draw(*shape), "layer.bias": draw(CLASSES)})


def product():
    return model([node("MatMul", ["x", "layer.weight"], ["y"])], {"layer.weight": draw(FEATURES, CLASSES)})


def transposed():
    nodes = [node("Transpose", ["layer.weight"], ["w"], perm=[1, 0]), node("MatMul", ["x", "w"], ["y"])]
    return model(nodes, {"layer.weight": draw(CLASSES, FEATURES)})


def dequantised():
    nodes = [
        node("DequantizeLinear", ["layer.weight_quantized", "scale"], ["w"]),
        node("MatMul", ["x", "w"], ["y"]),
    ]
    whole = np.random.default_rng(0).integers(-120, 121, (FEATURES, CLASSES)).astype(np.int8)
    return model(nodes, {"layer.weight_quantized": whole, "scale": np.float32(0.01)})


KINDS = {
    "product": product,
    "transposed": transposed,
    "gemm": gemm,
    "gemm of a transposed matrix": lambda: gemm(transB=1),
    "gemm with factors": lambda: gemm(transB=1, alpha=0.5, beta=2.0),
    "dequantised": dequantised,
    "integers": lambda: quantised(normal(product()), []),
    "integers of a gemm": lambda: quantised(normal(gemm()), []),
    "integers of a transposed gemm": lambda: quantised(normal(gemm(transB=1)), []),
}


@pytest.mark.parametrize("kind", KINDS)
def test_an_adapter_does_nothing_at_first_and_then_adds_its_product(kind) -> None:
    made = normal(KINDS[kind]())
    before = run(made, x())[0]
    found = adapted(made, 2, ["*"])
    (low, high) = found.names
    np.testing.assert_array_equal(run(found.model, x())[0], before)
    tensors = initialisers(found.model)
    assert (tensors[low].shape, tensors[high].shape) == ((FEATURES, 2), (2, CLASSES))
    assert not tensors[high].any()
    moved = draw(2, CLASSES, seed=4)
    for tensor in found.model.graph.initializer:
        if tensor.name == high:
            tensor.raw_data = moved.tobytes()
    expected = before + x()["x"] @ tensors[low] @ moved
    np.testing.assert_allclose(run(found.model, x())[0], expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("kind", ["product", "gemm", "gemm of a transposed matrix", "transposed", "dequantised"])
def test_names_are_those_of_layers(kind) -> None:
    assert adapted(normal(KINDS[kind]()), 1, ["*"]).names == ("layer.lora_a", "layer.lora_b")


def test_a_begins_uniformly_and_b_at_zero() -> None:
    found = adapted(normal(mlp(hidden=50)), 2, ["second*"])
    a, b = found.names
    assert found.initial == {a: Uniform(pytest.approx(np.sqrt(3 / 50))), b: Constant(0.0)}
    drawn = initialisers(found.model)[a]
    assert np.abs(drawn).max() <= np.sqrt(3 / 50)
    assert drawn.std() == pytest.approx(np.sqrt(1 / 50), rel=0.2)


@pytest.mark.parametrize(
    ("patterns", "layers"),
    [(["*"], ["first", "second"]), (["second"], ["second"]), (["*.weight"], ["first", "second"]), (["f*"], ["first"])],
)
def test_layers_are_matched_by_their_names_or_their_weights(patterns, layers) -> None:
    names = adapted(normal(mlp()), 1, patterns).names
    assert names == tuple(f"{layer}.lora_{end}" for layer in layers for end in "ab")


def test_no_layer_that_matches_is_told_with_those_there_are() -> None:
    with pytest.raises(ModelError, match=r"--lora-on head\*, tail matches no linear layer; there are: first, second"):
        adapted(normal(mlp()), 1, ["head*", "tail"])
    curve = model([node("Relu", ["x"], ["y"])], outputs=(("y", None),))
    with pytest.raises(ModelError, match="there are: none"):
        adapted(normal(curve), 1, ["*"])


@pytest.mark.parametrize("rank", [CLASSES, CLASSES + 1, 100])
def test_a_rank_that_saves_nothing_is_refused(rank) -> None:
    with pytest.raises(ModelError, match=f"--lora {rank} is no less than the rank of second, {HIDDEN} x {CLASSES}"):
        adapted(normal(mlp()), rank, ["second"])
    adapted(normal(mlp()), CLASSES - 1, ["second"])


def test_a_product_of_activations_or_of_several_matrices_has_no_adapter() -> None:
    nodes = [
        node("MatMul", ["x", "w"], ["h"]),
        node("Transpose", ["h"], ["t"]),
        node("MatMul", ["h", "t"], ["s"]),
        node("MatMul", ["s", "stack"], ["y"]),
    ]
    made = model(nodes, {"w": draw(FEATURES, HIDDEN), "stack": draw(2, 5, 3)}, outputs=(("y", None),))
    assert adapted(normal(made), 1, ["*"]).names == ("w.lora_a", "w.lora_b")


def test_layers_that_share_a_matrix_share_an_adapter() -> None:
    found = adapted(normal(residual()), 2, ["shared"])
    assert set(found.names) == {"shared.lora_a", "shared.lora_b"}
    np.testing.assert_array_equal(run(found.model, x())[0], run(residual(), x())[0])
    names = [tensor.name for tensor in found.model.graph.initializer]
    assert len(names) == len(set(names))


# A fixed A.


def fixed(seed: int):
    return adapted(normal(mlp()), 2, ["*"], fixed=Key.root(seed).fold("lora"))


def test_a_fixed_a_is_the_keys_and_is_not_trained() -> None:
    one, again, other = fixed(0), fixed(0), fixed(1)
    assert one.names == ("first.lora_b", "second.lora_b")
    assert one.initial.keys() == set(one.names)
    for layer, inputs in (("first", FEATURES), ("second", HIDDEN)):
        a = [initialisers(found.model)[f"{layer}.lora_a"] for found in (one, again, other)]
        np.testing.assert_array_equal(a[0], a[1])
        assert np.abs(a[0] - a[2]).max() > 0.01
        assert a[0].any(axis=0).all()
        assert np.abs(a[0]).max() <= np.sqrt(3 / inputs)


def source_of(made) -> Source:
    made = normal(made)
    return Source(made, runs(made, "y"))


def test_a_choice_trains_adapters_alone_or_with_others() -> None:
    source = source_of(mlp())

    def names(**choice):
        return [tensor.name for tensor in prepared(source, Choice(lora=1, **choice))[0].tensors]

    assert names(lora_on=("second",)) == ["second.lora_a", "second.lora_b"]
    assert names(lora_on=("second",), lora_b_only=True) == ["second.lora_b"]
    both = names(lora_on=("second",), lora_b_only=True, train=("*.bias",))
    assert both == ["first.bias", "second.lora_b", "second.bias"]


@pytest.mark.parametrize("int8", [False, True])
def test_an_adapted_model_is_exported_with_its_seed(int8, tmp_path) -> None:
    source, digests = source_of(mlp(hidden=16)), []
    for seed in (0, 0, 1):
        trainable, expected = prepared(source, Choice(lora=2, lora_b_only=True, int8=int8, seed=seed))
        bundle = export(trainable, tmp_path / f"{len(digests)}", expected=expected)
        assert [tensor.initial for tensor in bundle.manifest.layout.tensors] == [Constant(0.0)] * 2
        digests.append(bundle.digest)
    assert digests[0] == digests[1] != digests[2]


def test_weights_that_are_int8_stay_so_beside_their_adapters() -> None:
    trainable, _ = prepared(source_of(mlp(hidden=16)), Choice(lora=2, int8=True))
    kinds = [tensor.data_type for tensor in trainable.model.graph.initializer if len(tensor.dims) == 2]
    assert kinds == [INT8, INT8]
    found, _ = prepared(source_of(on_a_grid()), Choice(lora=2, lora_on=("first",)))
    assert [tensor.name for tensor in found.tensors] == ["first.lora_a", "first.lora_b"]


def test_adapters_are_not_pruned_although_they_begin_at_zero() -> None:
    """--pruned keeps zeros of a model that came pruned; a B without weights would never do anything."""
    trainable, _ = prepared(source_of(mlp()), Choice(lora=1, lora_on=("second",), pruned=True))
    assert {tensor.name: tensor.size for tensor in trainable.tensors} == {
        "second.lora_a": HIDDEN,
        "second.lora_b": CLASSES,
    }
