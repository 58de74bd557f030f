"""Weights of an ONNX model in eight bits."""

# pyright: standard
from __future__ import annotations

import contextlib
import logging
import tempfile
from collections.abc import Iterable
from pathlib import Path

import onnx
from onnx import ModelProto

from baffle.errors import ModelError
from baffle.export.choose import QUANTISED
from baffle.export.model import normal


def quantised(model: ModelProto, kept: Iterable[str]) -> ModelProto:
    """Return a model whose matrix products and convolutions have int8 weights and quantise their inputs as they come.

    ONNX Runtime's dynamic quantiser: one scale a tensor, zero at zero; the range of activations is that of a pass, so
    samples of one pass depend on each other a little.

    Args:
        model: trained tensors are inputs of it.
        kept: names of these, which stay as they are.

    Raises:
        ModelError: the quantiser fails, or finds nothing to quantise.
    """
    from onnxruntime.quantization import QuantType, quantize_dynamic

    trained = set(kept)
    named = ModelProto()
    named.CopyFrom(model)
    for number, node in enumerate(named.graph.node):
        node.name = node.name or f"{node.op_type}_{number}"
    products = [node for node in named.graph.node if node.op_type in ("MatMul", "Gemm", "Conv")]
    excluded = [node.name for node in products if set(node.input[:2]) & trained]
    excluded += [f"{name}_MatMul" for name in excluded]  # what the quantiser makes of a Gemm before it looks
    level = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with tempfile.TemporaryDirectory() as folder, contextlib.redirect_stdout(None):
            path = Path(folder) / "model.onnx"
            quantize_dynamic(named, path, weight_type=QuantType.QInt8, nodes_to_exclude=excluded)
            made = onnx.load(path)
    except Exception as error:  # of whatever kind the quantiser happens to raise
        raise ModelError(f"ONNX Runtime's quantiser fails: {str(error).splitlines()[0][:300]}") from error
    finally:
        logging.disable(level)
    if not any(tensor.name.endswith(QUANTISED) for tensor in made.graph.initializer):
        raise ModelError("--int8 finds no product with a weight that is not trained: leave it out, or train less")
    return normal(made)
