"""Low-rank adapters beside the linear layers of an ONNX model."""

# pyright: standard
from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from fnmatch import fnmatchcase
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from onnx import ModelProto, NodeProto, TensorProto, helper, numpy_helper

from baffle.errors import ModelError
from baffle.export.choose import QUANTISED
from baffle.keys import Key
from baffle.parameters import Constant, Initial, Layout, Tensor, Uniform

_BEFORE_QUANTISING = {"MatMulInteger", "MatMulIntegerToFloat"}
_LINEAR = {"MatMul", "Gemm", "FusedGemm", "DynamicQuantizeMatMul", *_BEFORE_QUANTISING}


class _Linear(NamedTuple):
    """x W with a constant matrix W: where x comes from, where the product goes."""

    name: str
    inputs: str
    output: str
    node: NodeProto
    """Writes `output`, in float32."""
    shape: tuple[int, int]
    """Inputs, outputs."""


class Adapted(NamedTuple):
    """A model with adapters that do nothing yet."""

    model: ModelProto
    names: tuple[str, ...]
    """Of the tensors to be trained."""
    initial: Mapping[str, Initial]
    """How they begin."""


def adapted(model: ModelProto, rank: int, patterns: Iterable[str], *, fixed: Key | None = None) -> Adapted:
    """Return `model` with y + (x A) B in place of y = x W for the linear layers that `patterns` match.

    A [inputs, r] begins uniformly in ±√(3/inputs), so that entries of x A have the size of x, B [r, outputs] at zero.
    Sources: Hu et al. 2021, "LoRA"; for a fixed A, Sun et al. 2024, "Improving LoRA in privacy-preserving federated
    learning": the sum of several clients' changes of B is then a change of the sum.

    Args:
        model: as `normal` returns it.
        rank: r, ≥ 1.
        patterns: of names of weights or of the layers that have them.
        fixed: draws every A, which stays as it is; None has A trained.

    Raises:
        ModelError: a pattern matches no linear layer.
    """
    layers = [layer for layer in _linears(model) if any(_fits(layer.name, pattern) for pattern in patterns)]
    if not layers:
        there = ", ".join(layer.name for layer in _linears(model)[:20]) or "none"
        raise ModelError(f"--lora-on {', '.join(patterns)} matches no linear layer; there are: {there}")
    made = ModelProto()
    made.CopyFrom(model)
    tensors: list[Tensor] = []
    for layer in layers:
        inputs, outputs = layer.shape
        if rank >= min(inputs, outputs):
            raise ModelError(f"--lora {rank} is no less than the rank of {layer.name}, {inputs} x {outputs}")
        tensors += [
            Tensor(f"{layer.name}.lora_a", (inputs, rank), Uniform(math.sqrt(3.0 / inputs))),
            Tensor(f"{layer.name}.lora_b", (rank, outputs), Constant(0.0)),
        ]
        _insert(made, layer)
    values = _values(tensors, fixed or Key.root(0))
    made.graph.initializer.extend(numpy_helper.from_array(value, name) for name, value in values.items())
    chosen = [t for t in tensors if fixed is None or t.name.endswith(".lora_b")]
    return Adapted(made, tuple(t.name for t in chosen), {t.name: t.initial for t in chosen})


def _values(tensors: list[Tensor], key: Key) -> dict[str, NDArray[Any]]:
    layout = Layout(tuple(tensors))
    return {name: np.ascontiguousarray(part) for name, part in layout.unflatten(layout.initial(key)).items()}


def _linears(model: ModelProto) -> list[_Linear]:
    """Return the products with constant matrices, in the graph's order."""
    known = {tensor.name: tensor for tensor in model.graph.initializer}
    makers = {name: node for node in model.graph.node for name in node.output}
    found: list[_Linear] = []
    for node in model.graph.node:
        weight = _constant(node, known, makers) if node.op_type in _LINEAR else None
        if weight is None or len(weight.dims) != 2:
            continue
        inputs, end = node.input[0], node
        if node.op_type in _BEFORE_QUANTISING:
            maker = makers.get(inputs)
            if maker is None or maker.op_type != "DynamicQuantizeLinear":
                continue
            inputs = maker.input[0]
        while end is not None and end.op_type in ("MatMulInteger", "Cast"):  # integers, then floats not yet scaled
            end = next((one for one in model.graph.node if end.output[0] in one.input), None)
        if end is None:
            continue
        first, second = weight.dims
        shape = (second, first) if any(a.name == "transB" and a.i for a in node.attribute) else (first, second)
        name = weight.name.removesuffix(QUANTISED).removesuffix(".weight")
        found.append(_Linear(name, inputs, end.output[0], end, shape))
    return found


def _constant(node: NodeProto, known: Mapping[str, TensorProto], makers: Mapping[str, NodeProto]) -> TensorProto | None:
    """Return the constant matrix of a product, which may be quantised."""
    name = node.input[1]
    maker = makers.get(name)
    if maker is not None and maker.op_type in ("DequantizeLinear", "Transpose", "Identity"):
        transposed = maker.op_type == "Transpose"
        weight = known.get(maker.input[0])
        if weight is not None and transposed:
            weight = TensorProto(name=weight.name, dims=tuple(reversed(weight.dims)), data_type=weight.data_type)
        return weight
    return known.get(name)


def _fits(name: str, pattern: str) -> bool:
    return fnmatchcase(name, pattern) or fnmatchcase(name + ".weight", pattern)


def _insert(model: ModelProto, layer: _Linear) -> None:
    """Put an adapter behind a layer."""
    place = next(i for i, node in enumerate(model.graph.node) if layer.output in node.output)
    node = model.graph.node[place]
    plain, low, high = (f"{layer.output}/{end}" for end in ("plain", "lora_a", "lora_b"))
    outputs = [plain if name == layer.output else name for name in node.output]
    del node.output[:]
    node.output.extend(outputs)
    made = [
        helper.make_node("MatMul", [layer.inputs, f"{layer.name}.lora_a"], [low]),
        helper.make_node("MatMul", [low, f"{layer.name}.lora_b"], [high]),
        helper.make_node("Add", [plain, high], [layer.output]),
    ]
    for offset, one in enumerate(made, 1):
        model.graph.node.insert(place + offset, one)
