"""A model cut where blocks of its trained tensors begin to matter."""

# pyright: standard
from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from onnx import ModelProto, ValueInfoProto, helper

from baffle.export.model import first, reads, reduced, restated


class Part(NamedTuple):
    """What has to be run again when some tensors are displaced."""

    displaced: tuple[str, ...]
    model: ModelProto
    operations: int
    """Floating-point operations a sample."""
    values: tuple[str, ...]
    """What it needs from before."""


def parts(
    model: ModelProto,
    groups: Iterable[Sequence[str]],
    values: Mapping[str, NDArray[Any]],
    work: Mapping[str, int],
    output: str,
) -> list[Part]:
    """Return the part of each group of tensors that is smaller than the model, the largest first.

    Args:
        model: with trained tensors as inputs.
        groups: names of tensors that are displaced together.
        values: some value of everything that operations read and write.
        work: floating-point operations of each operation, by the name of its first value.
        output: what the loss is made from.
    """
    depends = dependences(model)
    found: dict[frozenset[str], Part] = {}
    for names in groups:
        touched = {first(node) for node in model.graph.node if depends[first(node)] & set(names)}
        part = _part(model, tuple(names), touched, values, work, output)
        if part is not None and frozenset(names) not in found:
            found[frozenset(names)] = part
    return sorted(found.values(), key=lambda part: -part.operations)


def dependences(model: ModelProto) -> dict[str, frozenset[str]]:
    """Return the inputs of the model on which each value depends."""
    depends = {one.name: frozenset({one.name}) for one in model.graph.input}
    for node in model.graph.node:
        own = frozenset[str]().union(*(depends.get(name, frozenset[str]()) for name in reads(node)))
        depends |= dict.fromkeys(node.output, own)
    return depends


def _part(
    model: ModelProto,
    names: tuple[str, ...],
    touched: set[str],
    values: Mapping[str, NDArray[Any]],
    work: Mapping[str, int],
    output: str,
) -> Part | None:
    """Return the operations whose first outputs are `touched`, or None if nothing lies before them that can be kept."""
    own = [node for node in model.graph.node if first(node) in touched]
    if len(own) == len(model.graph.node) or not own:
        return None
    inputs = {one.name for one in model.graph.input}
    made = {name for node in own for name in node.output}
    constants = {tensor.name for tensor in model.graph.initializer}
    needed = {name for node in own for name in reads(node)}
    before = sorted(needed - made - inputs - constants)
    if not all(isinstance(values[name], np.ndarray) for name in before):  # a sequence can't be handed over
        return None
    graph = reduced(model, before, [output])
    kept = [one for one in model.graph.input if one.name in needed]
    restated(graph, inputs=[*kept, *(_typed(name, values) for name in before)])
    return Part(names, graph, sum(work[first(node)] for node in own), tuple(before))


def trunk(model: ModelProto, wanted: Iterable[str], values: Mapping[str, NDArray[Any]]) -> ModelProto:
    """Return the part of the model that computes values `wanted`."""
    names = sorted(set(wanted))
    made = reduced(model, [], names)
    read = {name for node in made.graph.node for name in reads(node)} | set(names)
    restated(
        made,
        inputs=[one for one in model.graph.input if one.name in read],
        outputs=[_typed(name, values) for name in names],
    )
    return made


def _typed(name: str, values: Mapping[str, NDArray[Any]]) -> ValueInfoProto:
    kind = helper.np_dtype_to_tensor_dtype(values[name].dtype)
    return helper.make_tensor_value_info(name, kind, [None] * values[name].ndim)
