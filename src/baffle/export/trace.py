"""What a model's operations do for one sample: types and sizes of its values, and floating-point operations."""

# pyright: standard
from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import ModelProto, NodeProto

from baffle.bundle import Feature
from baffle.errors import ModelError
from baffle.export.model import first, session
from baffle.runtimes.work import LOSS, MOVED

SAMPLES = 2
_VIEWS = {"Flatten", "Identity", "Reshape", "Shape", "Squeeze", "Unsqueeze", "Dropout"}
_WEIGHT_AT = {"ConvInteger": 1, "Conv": 1, "QLinearConv": 3}
_MATRICES = {"MatMul", "Gemm", "MatMulInteger", "FusedMatMul", "MatMulIntegerToFloat", "QLinearMatMul", "FusedGemm"}


def samples(features: Sequence[Feature], count: int, free: int) -> dict[str, NDArray[Any]]:
    """Return made-up samples: normals; 0 and 1 where numbers are whole. A free axis has `free` entries."""
    rng = np.random.default_rng(0)
    found: dict[str, NDArray[Any]] = {}
    for one in features:
        shape = (count, *(free if size < 0 else size for size in one.shape))
        kind = np.dtype(one.dtype)
        drawn = rng.normal(size=shape) if np.issubdtype(kind, np.floating) else rng.integers(0, 2, shape)
        found[one.name] = drawn.astype(kind)
    return found


def traced(model: ModelProto, given: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
    """Return every value of the model on the inputs `given`.

    Raises:
        ModelError: ONNX Runtime can't run it on such samples.
    """
    shown = ModelProto()
    shown.CopyFrom(model)
    del shown.graph.output[:]
    names = [name for node in model.graph.node for name in node.output if name]
    shown.graph.output.extend(onnx.ValueInfoProto(name=name) for name in names)
    try:
        values = session(shown, plain=True).run(names, dict(given))
    except ModelError:
        raise
    except Exception as error:  # ONNX Runtime's own kinds are no public names
        shapes = ", ".join(f"{name} {list(value.shape)}" for name, value in given.items() if value.ndim)
        raise ModelError(
            f"ONNX Runtime fails on samples of shape {shapes}: {str(error).splitlines()[0][:300]}"
        ) from None
    return dict(zip(names, values, strict=True))


def operations(model: ModelProto, values: Mapping[str, NDArray[Any]], fixed: set[str]) -> dict[str, int]:
    """Return what each operation does for one sample, by the name of its first value.

    Args:
        model: the model.
        values: of everything that its operations read and write, for `SAMPLES` samples.
        fixed: names of constants and trained tensors, whose numbers stay where they are.
    """
    return {first(node): _work(node, values, fixed) // SAMPLES for node in model.graph.node}


def loss(output: NDArray[Any]) -> int:
    """Return what the loss costs for one sample."""
    return LOSS * max(1, output.size // SAMPLES)


def _work(node: NodeProto, values: Mapping[str, NDArray[Any]], fixed: set[str]) -> int:
    made = values.get(first(node))
    if node.op_type in _VIEWS or not isinstance(made, np.ndarray):  # a sequence moves no numbers
        return 0
    products = 0
    if node.op_type in _WEIGHT_AT:
        weight = values[node.input[_WEIGHT_AT[node.op_type]]]
        products = 2 * made.size * (weight.size // max(1, weight.shape[0]))
    elif node.op_type == "ConvTranspose":
        products = 2 * values[node.input[0]].size * values[node.input[1]][0].size
    elif node.op_type in _MATRICES:
        transposed = node.op_type == "Gemm" and any(a.name == "transA" and a.i for a in node.attribute)
        products = 2 * made.size * values[node.input[0]].shape[0 if transposed else -1]
    others = [values[name] for name in node.input if name and name not in fixed and name in values]
    read = sum(one.size for one in others if isinstance(one, np.ndarray))
    return products + MOVED * (made.size + read)
