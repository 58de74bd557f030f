"""Small ONNX models, written operation by operation, and ways to run them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pytest

onnx = pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")

from onnx import TensorProto, helper, numpy_helper  # noqa: E402

from baffle.export.model import session  # noqa: E402

FLOAT, INT64, INT8 = TensorProto.FLOAT, TensorProto.INT64, TensorProto.INT8
FEATURES, HIDDEN, CLASSES = 4, 6, 3

node = helper.make_node


def inputs_of(*declared):
    """Return declarations of (name, shape) or (name, shape, type)."""
    return [helper.make_tensor_value_info(one[0], one[2] if len(one) > 2 else FLOAT, one[1]) for one in declared]


def model(
    nodes,
    constants: Mapping[str, np.ndarray] | None = None,
    inputs=(("x", ["batch", FEATURES]),),
    outputs=(("y", ["batch", CLASSES]),),
    *,
    opset: int = 18,
    functions=(),
    domains: Sequence[str] = (),
):
    """Return a model of these operations, in float32 unless said otherwise."""
    tensors = [numpy_helper.from_array(np.asarray(value), name) for name, value in (constants or {}).items()]
    made = helper.make_graph(nodes, "made", inputs_of(*inputs), inputs_of(*outputs), tensors)
    opsets = [helper.make_opsetid("", opset), *(helper.make_opsetid(domain, 1) for domain in domains)]
    return helper.make_model(made, opset_imports=opsets, ir_version=10, functions=list(functions))


def draw(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng((seed, *shape)).normal(scale=0.5, size=shape).astype(np.float32)


def mlp(*, hidden: int = HIDDEN, **settings):
    """Return relu(x W₁ᵀ + b₁) W₂ + b₂: a Gemm with its matrix transposed, then a product and a sum."""
    nodes = [
        node("Gemm", ["x", "first.weight", "first.bias"], ["h"], transB=1),
        node("Relu", ["h"], ["a"]),
        node("MatMul", ["a", "second.weight"], ["p"]),
        node("Add", ["p", "second.bias"], ["y"]),
    ]
    constants = {
        "first.weight": draw(hidden, FEATURES),
        "first.bias": draw(hidden),
        "second.weight": draw(hidden, CLASSES),
        "second.bias": draw(CLASSES),
    }
    return model(nodes, constants, **settings)


def residual():
    """Return a network with a shortcut around two layers that share one matrix, and a head."""
    nodes = [
        node("MatMul", ["x", "stem.weight"], ["s"]),
        node("Tanh", ["s"], ["t"]),
        node("MatMul", ["t", "shared.weight"], ["u"]),
        node("Tanh", ["u"], ["v"]),
        node("MatMul", ["v", "shared.weight"], ["w"]),
        node("Add", ["w", "t"], ["r"]),
        node("Mul", ["r", "scale.weight"], ["q"]),
        node("MatMul", ["q", "head.weight"], ["z"]),
        node("Add", ["z", "head.bias"], ["y"]),
    ]
    constants = {
        "stem.weight": draw(FEATURES, HIDDEN),
        "shared.weight": draw(HIDDEN, HIDDEN),
        "scale.weight": draw(HIDDEN, seed=1),
        "head.weight": draw(HIDDEN, CLASSES),
        "head.bias": draw(CLASSES),
    }
    return model(nodes, constants)


def on_a_grid():
    """Return x W₁ · s₁ through a relu to W₂ · s₂, with both matrices int8 behind DequantizeLinear."""
    rng = np.random.default_rng(3)
    nodes = [
        node("DequantizeLinear", ["first.weight_quantized", "first.scale"], ["first"]),
        node("MatMul", ["x", "first"], ["h"]),
        node("Relu", ["h"], ["a"]),
        node("DequantizeLinear", ["second.weight_quantized", "second.scale"], ["second"]),
        node("MatMul", ["a", "second"], ["p"]),
        node("Add", ["p", "second.bias"], ["y"]),
    ]
    constants = {
        "first.weight_quantized": rng.integers(-120, 121, (FEATURES, HIDDEN)).astype(np.int8),
        "first.scale": np.float32(0.01),
        "second.weight_quantized": rng.integers(-120, 121, (HIDDEN, CLASSES)).astype(np.int8),
        "second.scale": np.float32(0.02),
        "second.bias": draw(CLASSES),
    }
    return model(nodes, constants)


def run(made, given: Mapping[str, np.ndarray], names=None) -> list[np.ndarray]:
    """Return a model's outputs as ONNX Runtime gives them; of what is given, what it takes."""
    opened = session(made)
    return opened.run(names, {one.name: given[one.name] for one in opened.get_inputs()})


def x(count: int = 5, seed: int = 9) -> dict[str, np.ndarray]:
    return {"x": draw(count, FEATURES, seed=seed)}


def save(made, path: Path) -> Path:
    onnx.save(made, path)
    return path


def initialisers(made) -> dict[str, np.ndarray]:
    return {tensor.name: numpy_helper.to_array(tensor) for tensor in made.graph.initializer}
