"""ONNX models as their owners have them: read, checked, and brought to one form."""

# pyright: standard
from __future__ import annotations

import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, get_args

import numpy as np
import onnx
from google.protobuf.message import DecodeError
from numpy.typing import NDArray
from onnx import ModelProto, NodeProto, TensorProto, helper, inliner, numpy_helper

from baffle.bundle import Feature, Kind
from baffle.errors import ModelError
from baffle.storage import write_files

OLDEST = 13
"""Opset from which on quantised tensors may have a scale for each channel."""
_RANDOM = {"Bernoulli", "Multinomial", "RandomNormal", "RandomNormalLike", "RandomUniform", "RandomUniformLike"}
_VALUES = ("value", "value_float", "value_floats", "value_int", "value_ints")
_MOST_BYTES = (1 << 31) - 1


def read(path: Path) -> ModelProto:
    """Return the model in an ONNX file.

    Raises:
        ModelError: it can't be read, is no ONNX model, or one that forward passes can't train; says why.
    """
    try:
        model = onnx.load(path, format="protobuf")  # not what the file's name says
    except OSError as error:
        raise ModelError(f"{path} can't be read: {error.strerror or error}") from None
    except (DecodeError, onnx.checker.ValidationError, ValueError) as error:
        raise ModelError(f"{path} is no ONNX model: {_told(error)}") from None
    if not model.graph.node or not model.opset_import:
        raise ModelError(f"{path} is no ONNX model: it has no operations")
    try:
        return normal(model)
    except ModelError as error:
        raise ModelError(f"{path}: {error}") from None


def normal(model: ModelProto) -> ModelProto:
    """Return a copy in which every constant is an initialiser and no initialiser an input.

    Raises:
        ModelError: forward passes can't train such a model; says why.
    """
    if model.ByteSize() > _MOST_BYTES:
        raise ModelError("it is larger than 2 GB, which is more than an ONNX file can hold")
    opset = next((one.version for one in model.opset_import if one.domain in ("", "ai.onnx")), 0)
    if opset < OLDEST:
        raise ModelError(
            f"it uses opset {opset}, and {OLDEST} or newer is needed: export it anew, or try onnx.version_converter"
        )
    made = inliner.inline_local_functions(model) if model.functions else ModelProto.FromString(_bytes(model))
    _lift_constants(made)
    known = {tensor.name for tensor in made.graph.initializer}
    _keep(made.graph.input, [one for one in made.graph.input if one.name not in known])
    del made.graph.value_info[:]
    _refuse_chance(made)
    return made


def _bytes(model: ModelProto) -> bytes:
    return model.SerializeToString()


def _lift_constants(model: ModelProto) -> None:
    kept: list[NodeProto] = []
    for node in model.graph.node:
        value = next((a for a in node.attribute if a.name in _VALUES), None)
        if node.op_type != "Constant" or node.domain not in ("", "ai.onnx") or value is None:
            kept.append(node)
            continue
        if value.HasField("t"):
            tensor = TensorProto()
            tensor.CopyFrom(value.t)
            tensor.name = node.output[0]
        else:
            kind = np.float32 if "float" in value.name else np.int64
            tensor = numpy_helper.from_array(np.array(helper.get_attribute_value(value), kind), node.output[0])
        model.graph.initializer.append(tensor)
    _keep(model.graph.node, kept)


def _refuse_chance(model: ModelProto) -> None:
    """Refuse what makes two forward passes differ, or one sample depend on another."""
    constants = {tensor.name: tensor for tensor in model.graph.initializer}
    for node in nodes(model.graph):
        if node.op_type in _RANDOM:
            raise ModelError(f"{node.op_type} ({node.name or node.output[0]}) draws at random: remove it")
        if node.op_type == "Dropout" and len(node.input) > 2 and node.input[2]:
            mode = constants.get(node.input[2])
            if mode is None or numpy_helper.to_array(mode).any():
                raise ModelError(
                    f"Dropout ({node.name or node.output[0]}) is in training mode: export the model for inference"
                )
        if node.op_type == "BatchNormalization" and any(a.name == "training_mode" and a.i for a in node.attribute):
            raise ModelError(
                f"BatchNormalization ({node.name or node.output[0]}) is in training mode, so samples depend on each "
                "other: export the model for inference, or use group normalisation"
            )


def nodes(graph: onnx.GraphProto) -> Iterator[NodeProto]:
    """Yield the operations of a graph and of the graphs within it."""
    for node in graph.node:
        yield node
        for inner in _inner(node):
            yield from nodes(inner)


def _inner(node: NodeProto) -> list[onnx.GraphProto]:
    return [a.g for a in node.attribute if a.HasField("g")] + [g for a in node.attribute for g in a.graphs]


def reads(node: NodeProto) -> set[str]:
    """Return the names of the values that an operation reads, those that graphs within it reach for included."""
    found = {name for name in node.input if name}
    for inner in _inner(node):
        own = {one.name for one in (*inner.input, *inner.initializer)}
        own |= {name for one in inner.node for name in one.output}
        found |= {name for one in inner.node for name in reads(one)} - own
        found |= {one.name for one in inner.output} - own
    return found


def first(node: NodeProto) -> str:
    """Return the name of an operation's first value that has one: what it is known by."""
    return next((name for name in node.output if name), "")


def features(model: ModelProto) -> tuple[Feature, ...]:
    """Return a sample's arrays.

    Raises:
        ModelError: there are none, or one's first axis is not free.
    """
    if not model.graph.input:
        raise ModelError("it takes no input")
    return tuple(_feature(one) for one in model.graph.input)


def _feature(value: onnx.ValueInfoProto) -> Feature:
    kind = value.type.tensor_type
    if not value.type.HasField("tensor_type") or not kind.HasField("shape"):
        raise ModelError(f"input {value.name} is no tensor of a known number of axes")
    sizes = [d.dim_value if d.HasField("dim_value") else -1 for d in kind.shape.dim]
    if not sizes or sizes[0] != -1:
        told = "no axes" if not sizes else f"a first axis of {sizes[0]}"
        raise ModelError(
            f"input {value.name} has {told}: its first axis must be a free one, for samples; export it with a dynamic "
            "batch axis"
        )
    dtype: Any = helper.tensor_dtype_to_np_dtype(kind.elem_type).name
    if dtype not in get_args(Kind):
        raise ModelError(f"input {value.name} is of {dtype}, and must be of one of {', '.join(get_args(Kind))}")
    return Feature(value.name, dtype, tuple(sizes[1:]))


def output_of(model: ModelProto, name: str | None) -> str:
    """Return the output that losses are made from: `name`, or the first.

    Raises:
        ModelError: there is no such output.
    """
    names = [one.name for one in model.graph.output]
    if not names:
        raise ModelError("it has no output")
    if name is not None and name not in names:
        raise ModelError(f"it has no output {name}; there are {', '.join(names)}")
    return name or names[0]


def value(tensor: TensorProto) -> NDArray[Any]:
    """Return an initialiser's numbers."""
    return numpy_helper.to_array(tensor)


def reduced(model: ModelProto, inputs: Iterable[str], outputs: Iterable[str]) -> ModelProto:
    """Return the part of a model that computes `outputs` from `inputs`, which may be any values of it."""
    given, wanted = set(inputs), set(outputs)
    kept: list[NodeProto] = []
    for node in reversed(model.graph.node):
        if wanted & set(node.output) - given:
            kept.append(node)
            wanted |= reads(node)
    made = ModelProto()
    made.CopyFrom(model)
    _keep(made.graph.node, list(reversed(kept)))
    used = {name for node in kept for name in reads(node)} | set(outputs)
    _keep(made.graph.initializer, [t for t in model.graph.initializer if t.name in used and t.name not in given])
    _keep(made.graph.input, [one for one in model.graph.input if one.name in used])
    _keep(made.graph.output, [one for one in model.graph.output if one.name in set(outputs)])
    return made


def kept_only(model: ModelProto, constants: list[TensorProto]) -> None:
    """Have a model hold just these constants."""
    _keep(model.graph.initializer, constants)


def restated(
    model: ModelProto, inputs: list[onnx.ValueInfoProto], outputs: list[onnx.ValueInfoProto] | None = None
) -> None:
    """Have a model say that it takes these inputs, and gives these outputs."""
    _keep(model.graph.input, inputs)
    if outputs is not None:
        _keep(model.graph.output, outputs)


def _keep(field: Any, items: list[Any]) -> None:
    """Have a repeated field hold just `items`."""
    items = [type(item).FromString(item.SerializeToString()) for item in items]
    del field[:]
    field.extend(items)


def session(model: ModelProto, *, plain: bool = False) -> Any:
    """Return ONNX Runtime's session of a model; with `plain`, as it is written.

    Raises:
        ModelError: it can't be run.
    """
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.onnx"
        write_files({path: _bytes(model)})
        return open_session(path, plain=plain)


def open_session(path: Path, *, plain: bool = False) -> Any:
    """Return ONNX Runtime's session of a file; with `plain`, as it is written.

    Raises:
        ModelError: it can't be run.
    """
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    options.add_session_config_entry("session.qdq_matmulnbits_accuracy_level", "0")  # else it rounds activations, too
    if plain:
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    try:
        return onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # ONNX Runtime's own kinds are no public names
        raise ModelError(f"ONNX Runtime can't load it: {_told(error)}") from None


def _told(error: Exception) -> str:
    return str(error).strip().split("\n")[0][:300]
