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
from baffle.storage import write_files

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
    if sum(tensors[name].size for name in inputs) >= _LAST - _FIRST or any(
        tensors[n].dtype != np.float32 for n in inputs
    ):
        return None
    made = _rewritten(_marked(model, tensors, starts, _FIRST))
    other = _rewritten(_marked(model, tensors, starts, _FIRST + 1))
    if made is None or other is None or not any(node.domain == _LAYOUTS for node in made.graph.node):
        return None
    return _with_inputs(made, other, model, {name: (start, tensors[name].size) for name, start in starts.items()})


def _marked(
    model: ModelProto, tensors: Mapping[str, NDArray[Any]], starts: Mapping[str, int], first: int
) -> ModelProto:
    """Return the model with constants for its tensors, whose numbers count on from `first`."""
    marked = ModelProto()
    marked.CopyFrom(model)
    restated(marked, [one for one in model.graph.input if one.name not in starts])
    for name, start in starts.items():
        shape = tensors[name].shape
        marks = np.arange(first + start, first + start + tensors[name].size, dtype=np.float32).reshape(shape)
        marked.graph.initializer.append(numpy_helper.from_array(marks, name))
    return marked


def _rewritten(model: ModelProto) -> ModelProto | None:
    """Return what ONNX Runtime would run on this processor."""
    import onnxruntime

    with TemporaryDirectory() as folder:
        path = Path(folder) / "model.onnx"
        write_files({path: model.SerializeToString()})
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 4
        options.optimized_model_filepath = str(path.with_name("made.onnx"))
        try:
            onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
            return onnx.load(path.with_name("made.onnx"))
        except Exception:  # of whatever kind: the graph as it was written does as well
            return None


def _with_inputs(
    made: ModelProto, other: ModelProto, model: ModelProto, spans: Mapping[str, tuple[int, int]]
) -> Settled | None:
    """Return the rewritten graph with inputs in place of marks, or None if some have been mixed with anything.

    A constant that is the same whatever the marks are has nothing to do with them.
    """
    places: dict[str, NDArray[np.int32]] = {}
    renamed: dict[str, str] = {}
    added: dict[str, onnx.ValueInfoProto] = {}
    others = {tensor.name: numpy_helper.to_array(tensor) for tensor in other.graph.initializer}
    for tensor in made.graph.initializer:
        values = numpy_helper.to_array(tensor)
        if tensor.name in others and np.array_equal(values, others[tensor.name]):
            continue
        found = _source(values, spans)
        if found is None:
            return None
        name, own = found
        if tensor.name != name or own.ravel().tolist() != list(range(own.size)):
            key = hashlib.blake2b(np.ascontiguousarray(own, "<i4").tobytes(), digest_size=6).hexdigest()
            places[f"{name}{LAID_OUT}{key}"] = own
            name = f"{name}{LAID_OUT}{key}"
        renamed[tensor.name] = name
        added[name] = helper.make_tensor_value_info(name, tensor.data_type, values.shape)
    kept_only(made, [tensor for tensor in made.graph.initializer if tensor.name not in renamed])
    for node in made.graph.node:
        inputs = [renamed.get(name, name) for name in node.input]
        del node.input[:]
        node.input.extend(inputs)
    restated(made, [*(one for one in model.graph.input if one.name not in spans), *added.values()])
    return Settled(made, places)


def _source(values: NDArray[Any], spans: Mapping[str, tuple[int, int]]) -> tuple[str, NDArray[np.int32]] | None:
    """Return the tensor of which a rewritten constant has the numbers, and which of them; −1 is a zero."""
    if values.dtype != np.float32 or not np.isfinite(values).all() or (values != np.floor(values)).any():
        return None
    marks = np.where(values == 0, -1, values.astype(np.int64) - _FIRST)
    for name, (start, size) in spans.items():
        if ((values == 0) | ((marks >= start) & (marks < start + size))).all() and marks.max(initial=-1) >= 0:
            return name, np.where(values == 0, -1, marks - start).astype(np.int32)
    return None
