"""Which tensors of an ONNX model are trained: they become inputs of its graph."""

# pyright: standard
from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from fnmatch import fnmatchcase
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from onnx import ModelProto, TensorProto, helper

from baffle.bundle import Feature
from baffle.errors import ModelError
from baffle.export.model import features, reads, value
from baffle.parameters import Given, Initial, Tensor

QUANTISED = "_quantized"
"""What ONNX Runtime's quantiser puts behind the name of a tensor."""
_SHOWN = 20


class Trainable(NamedTuple):
    """A model whose trained tensors are inputs of its graph."""

    model: ModelProto
    features: tuple[Feature, ...]
    """A sample's arrays."""
    tensors: tuple[Tensor, ...]
    """In the order of the vector."""
    given: Mapping[str, NDArray[Any]]
    """Their first values."""
    grid: tuple[str, ...] = ()
    """Those that are int8, trained in steps of their grid."""


def trained(
    model: ModelProto,
    patterns: Iterable[str],
    grid: Iterable[str] = (),
    *,
    initial: Mapping[str, Initial] | None = None,
    order: Sequence[str] = (),
    live: Mapping[str, bytes] | None = None,
) -> Trainable:
    """Return `model` with the initialisers that `patterns` match as inputs.

    Args:
        model: as `normal` returns it.
        patterns: of names of float32 tensors, as file names have them.
        grid: patterns of names of int8 matrices and kernels.
        initial: how tensors begin that don't begin as they are.
        order: of tensors' names in the vector; those that are not in it follow as the graph comes to use them.
        live: masks of the tensors of which not every weight is trained.

    Raises:
        ModelError: a pattern matches nothing, or tensors of another type only.
    """
    known = {tensor.name: tensor for tensor in model.graph.initializer}
    floats = _matching(known, patterns, TensorProto.FLOAT, "float32", "--train")
    steps = _matching({n: t for n, t in known.items() if len(t.dims) > 1}, grid, TensorProto.INT8, "int8", "--grid")
    used: dict[str, int] = {}
    for node in model.graph.node:
        for name in [*node.input, *sorted(reads(node))]:
            used.setdefault(name, len(used))
    places = {name: place for place, name in enumerate(order)}
    chosen = sorted({*floats, *steps}, key=lambda name: (places.get(name, len(places)), used.get(name, len(used))))
    if unused := [name for name in chosen if name not in used]:
        raise ModelError(f"{unused[0]} is used by no operation, so it can't be trained")
    given = {name: value(known[name]) for name in chosen}
    made = ModelProto()
    made.CopyFrom(model)
    del made.graph.initializer[:]
    made.graph.initializer.extend(tensor for tensor in model.graph.initializer if tensor.name not in given)
    made.graph.input.extend(
        helper.make_tensor_value_info(name, known[name].data_type, given[name].shape) for name in chosen
    )
    starts, masks = initial or {}, live or {}
    tensors = tuple(
        Tensor(
            name,
            tuple(given[name].shape),
            starts.get(name, Given()),
            masks.get(name, b""),
        )
        for name in chosen
    )
    return Trainable(made, features(model), tensors, given, tuple(name for name in chosen if name in set(steps)))


def _matching(
    known: Mapping[str, TensorProto], patterns: Iterable[str], kind: int, told: str, flag: str
) -> Sequence[str]:
    """Return the names of the tensors of a type that some pattern matches.

    Raises:
        ModelError: a pattern matches none of that type.
    """
    found: list[str] = []
    for pattern in patterns:
        names = [name for name in known if _fits(name, pattern)]
        own = [name for name in names if known[name].data_type == kind and np.prod(known[name].dims) > 0]
        if names and not own:
            other = helper.tensor_dtype_to_np_dtype(known[names[0]].data_type).name
            advice = {"int8": "; int8 tensors are trained with --grid", "float32": "; those are trained with --train"}
            raise ModelError(
                f"{flag} {pattern!r} matches {names[0]}, which is {other}: only {told} tensors can be trained so"
                + advice.get(other, "")
            )
        if not own:
            there = [name for name, tensor in known.items() if tensor.data_type == kind]
            raise ModelError(f"{flag} {pattern!r} matches no tensor; {_listed(there, told)}")
        found += own
    return found


def _fits(name: str, pattern: str) -> bool:
    return fnmatchcase(name, pattern) or fnmatchcase(name.removesuffix(QUANTISED), pattern)


def _listed(names: Sequence[str], told: str) -> str:
    if not names:
        return f"the model has none of type {told}"
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return f"{told} tensors are {', '.join(names[:_SHOWN])}{more}"
