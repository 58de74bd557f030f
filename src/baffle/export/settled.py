"""Graphs as ONNX Runtime rewrites them for this processor, with trained tensors still as inputs.

ONNX Runtime lays the weights of convolutions out in blocks of channels, which makes them a third faster, but only where
weights are constants. So constants that say where each number comes from are put in their place, the graph is
rewritten, and what has become of them tells how the inputs of the rewritten graph are gathered from the tensors.
"""

# pyright: standard
from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import ModelProto, helper, numpy_helper

from baffle.bundle import LAID_OUT
from baffle.export.model import kept_only, restated

_FIRST, _LAST = 1 << 23, 1 << 24
"""Numbers of places: whole numbers that float32 has, and that no model has for weights."""
_LAYOUTS = "com.microsoft.nchwc"


class Settled(NamedTuple):
    """A rewritten graph."""

    model: ModelProto
    places: Mapping[str, NDArray[np.int32]]
    """Of each input that is a tensor in another layout: where its entries come from in the flattened tensor; −1 is a
    zero."""


def settled(model: ModelProto, tensors: Mapping[str, NDArray[Any]]) -> Settled | None:
    """Return `model` rewritten for this processor, or None where that gains nothing or can't be done.

    Args:
        model: some of whose inputs are trained tensors.
        tensors: some values of these, float32.
    """
    inputs = [one.name for one in model.graph.input if one.name in tensors]
    starts = dict(zip(inputs, np.cumsum([0, *(tensors[name].size for name in inputs)]).tolist(), strict=False))
    if sum(tensors[name].size for name in inputs) > _LAST - _FIRST or any(
        tensors[n].dtype != np.float32 for n in inputs
    ):
        return None
    marked = ModelProto()
    marked.CopyFrom(model)
    restated(marked, [one for one in model.graph.input if one.name not in starts])
    for name, start in starts.items():
        shape = tensors[name].shape
        marks = np.arange(_FIRST + start, _FIRST + start + tensors[name].size, dtype=np.float32).reshape(shape)
        marked.graph.initializer.append(numpy_helper.from_array(marks, name))
    made = _rewritten(marked)
    if made is None or not any(node.domain == _LAYOUTS for node in made.graph.node):
        return None
    return _with_inputs(made, model, starts)


def _rewritten(model: ModelProto) -> ModelProto | None:
    """Return what ONNX Runtime would run on this processor."""
    import onnxruntime

    with TemporaryDirectory() as folder:
        path = Path(folder) / "model.onnx"
        path.write_bytes(model.SerializeToString())
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 4
        options.optimized_model_filepath = str(path.with_name("made.onnx"))
        try:
            onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
            return onnx.load(path.with_name("made.onnx"))
        except Exception:  # of whatever kind: the graph as it was written does as well
            return None


def _with_inputs(made: ModelProto, model: ModelProto, starts: Mapping[str, int]) -> Settled | None:
    """Return the rewritten graph with inputs in place of marks, or None if some marks have been mixed."""
    places: dict[str, NDArray[np.int32]] = {}
    renamed: dict[str, str] = {}
    added: list[onnx.ValueInfoProto] = []
    names, firsts = list(starts), np.array(list(starts.values()))
    for tensor in made.graph.initializer:
        values = numpy_helper.to_array(tensor)
        if values.dtype != np.float32 or not (values >= _FIRST).any():
            continue
        marks = np.where(values == 0, -1, values.astype(np.int64) - _FIRST)
        number = int(np.searchsorted(firsts, marks.max(), "right")) - 1
        own = np.where(marks < 0, -1, marks - firsts[number])
        if own[marks >= 0].min() < 0 or ((values != 0) & (values < _FIRST)).any():
            return None
        plain = tensor.name == names[number]
        key = hashlib.blake2b(np.ascontiguousarray(own, "<i4").tobytes(), digest_size=6).hexdigest()
        renamed[tensor.name] = tensor.name if plain else f"{names[number]}{LAID_OUT}{key}"
        if not plain:
            places[renamed[tensor.name]] = own.astype(np.int32)
        added.append(helper.make_tensor_value_info(renamed[tensor.name], tensor.data_type, values.shape))
    kept_only(made, [tensor for tensor in made.graph.initializer if tensor.name not in renamed])
    for node in made.graph.node:
        inputs = [renamed.get(name, name) for name in node.input]
        del node.input[:]
        node.input.extend(inputs)
    unique = {one.name: one for one in added}
    restated(made, [*(one for one in model.graph.input if one.name not in starts), *unique.values()])
    return Settled(made, places)
