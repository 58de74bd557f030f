"""From a model as its owner has it to one whose chosen tensors are trained."""

# pyright: standard
from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from fnmatch import fnmatchcase
from glob import escape
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import ModelProto, numpy_helper

from baffle import checks
from baffle.bundle import Bundle, on_grid
from baffle.errors import ModelError
from baffle.export.adapters import adapted
from baffle.export.choose import Trainable, trained
from baffle.export.model import nodes, output_of, read, reduced, restated, session, value
from baffle.export.quantise import quantised
from baffle.keys import Key
from baffle.parameters import Initial, Layout, mask_of
from baffle.storage import write_files

Outputs = Callable[[Mapping[str, NDArray[Any]]], NDArray[Any]]
"""Samples, by the names of their arrays, to a model's outputs."""


_COUPLING = {"DynamicQuantizeLinear", "DynamicQuantizeMatMul", "DynamicQuantizeLSTM"}


@dataclass(frozen=True, slots=True)
class Source:
    """A model to be exported."""

    model: ModelProto
    outputs: Outputs
    """Of the model as its owner has it."""
    train: tuple[str, ...] = ()
    """Patterns of the tensors that are trained where nobody says otherwise."""
    grid: tuple[str, ...] = ()
    """Patterns of those that are int8."""
    initial: Mapping[str, Initial] = field(default_factory=dict[str, Initial])
    """How tensors begin that don't begin as they are."""
    order: tuple[str, ...] = ()
    """Of the tensors in the vector; empty is as the graph comes to use them."""
    live: Mapping[str, bytes] = field(default_factory=dict[str, bytes])
    """Masks of tensors that are pruned already."""


def from_onnx(path: Path, output: str | None = None) -> Source:
    """Return the model in an ONNX file.

    Raises:
        ModelError: it can't be read, or forward passes can't train it; says why.
    """
    model = read(path)
    try:
        return Source(model, runs(model, output_of(model, output)))
    except ModelError as error:
        raise ModelError(f"{path}: {error}") from None


def from_bundle(folder: Path) -> Source:
    """Return an exported model again as one model, its first weights in it.

    Raises:
        ModelError: the folder holds no exported model.
    """
    bundle = Bundle.read(folder)
    manifest = bundle.manifest
    model = onnx.load(folder / manifest.whole.file)
    trained = {tensor.name for tensor in manifest.layout.tensors}
    restated(model, [one for one in model.graph.input if one.name not in trained])
    floats = tuple(escape(name) for name in sorted(trained - set(manifest.grid)))
    source = Source(model, _none, floats, tuple(escape(name) for name in manifest.grid))
    given = bundle.given()
    weights = {t.name: t.dense(given[t.name].ravel()) for t in manifest.layout.tensors}
    return with_weights(source, weights, manifest.layout)


def with_weights(source: Source, weights: Mapping[str, NDArray[Any]], layout: Layout | None = None) -> Source:
    """Return the source with other values of some tensors, from which training would go on in the order of `layout`."""
    kinds = {tensor.name: value(tensor).dtype for tensor in source.model.graph.initializer}
    grid = {name for name, kind in kinds.items() if kind == np.int8}
    grid |= {name for name in weights if any(fnmatchcase(name, pattern) for pattern in source.grid)}
    model = ModelProto()
    model.CopyFrom(source.model)
    kept = [tensor for tensor in source.model.graph.initializer if tensor.name not in weights]
    del model.graph.initializer[:]
    model.graph.initializer.extend(kept)
    for name, own in weights.items():
        settled = on_grid(own) if name in grid else np.asarray(own, np.float32)
        model.graph.initializer.append(numpy_helper.from_array(np.ascontiguousarray(settled), name))
    return replace(
        source,
        model=model,
        outputs=runs(model, model.graph.output[0].name),
        initial={},
        order=tuple(tensor.name for tensor in layout.tensors) if layout else source.order,
        live={tensor.name: tensor.live for tensor in layout.tensors if tensor.live} if layout else source.live,
    )


def _none(given: Mapping[str, NDArray[Any]]) -> NDArray[Any]:
    raise ModelError(f"a model without weights has no outputs for {', '.join(given)}")


def coupled(model: ModelProto) -> bool:
    """Return whether samples of one pass share the range of their quantised activations."""
    return any(node.op_type in _COUPLING for node in nodes(model.graph))


def write_plain(trainable: Trainable, path: Path) -> None:
    """Write the model with its weights in it: an ONNX file for any runtime.

    Raises:
        StorageError: the file can't be written.
    """
    model = with_constants(trainable.model, trainable.given)
    write_files({path: model.SerializeToString()})


def runs(model: ModelProto, output: str) -> Outputs:
    """Return a model as a function, run by ONNX Runtime.

    Where activations are quantised as they come, a rounding more or less in a fused operation grows from layer to
    layer, so that such a model is run as it is written.
    """
    opened = session(model, plain=coupled(model))
    names = [one.name for one in opened.get_inputs()]
    return lambda given: opened.run([output], {name: given[name] for name in names})[0]


@dataclass(frozen=True, slots=True, kw_only=True)
class Choice:
    """What of a model is trained, and how the rest is kept.

    Raises:
        SettingsError: a field is out of its range.
    """

    train: tuple[str, ...] = ()
    """Patterns of float32 tensors; empty takes what the source says, or nothing beside adapters and grids."""
    grid: tuple[str, ...] = ()
    """Patterns of int8 tensors, trained in steps of their grid; with `int8`, of tensors that become so."""
    int8: bool = False
    """Whether weights that are not trained become int8."""
    lora: int = 0
    """Rank of adapters beside linear layers, ≥ 0; 0 is none."""
    lora_on: tuple[str, ...] = ("*",)
    """Patterns of those layers."""
    lora_b_only: bool = False
    """Whether A is drawn from `seed` and stays."""
    pruned: bool = False
    """Whether weights that are zero stay zero."""
    seed: int = 0
    """Of fixed A."""

    def __post_init__(self) -> None:
        checks.at_least("lora", self.lora, 0)


def prepared(source: Source, choice: Choice, output: str | None = None) -> tuple[Trainable, Outputs]:
    """Return the source's model with the chosen tensors as inputs, and what its outputs at first weights must be.

    Raises:
        ModelError: a pattern matches nothing that can be trained so, or nothing is trained.
    """
    model, expected = reduced(source.model, [], [output_of(source.model, output)]), source.outputs
    extra, starts = (), {}
    if choice.lora:
        fixed = Key.root(choice.seed).fold("lora") if choice.lora_b_only else None
        model, extra, starts = adapted(model, choice.lora, choice.lora_on, fixed=fixed)
    only_added = bool(extra or choice.grid)
    train = choice.train or (() if only_added else source.train)
    grid = choice.grid or (() if choice.train or only_added else source.grid)
    if not (train or grid or extra):
        raise ModelError("say which tensors to train: --train with patterns of their names, or --lora")
    patterns = (*train, *(escape(name) for name in extra))
    if choice.int8:
        floats = trained(model, patterns)
        model = with_constants(quantised(floats.model, floats.given.keys()), floats.given)
        patterns = tuple(escape(name) for name in floats.given)
        expected = runs(model, output_of(model, output))
    live = dict(source.live)
    if choice.pruned:
        live |= {t.name: mask_of(value(t)) for t in model.graph.initializer if t.name not in extra}
    made = trained(model, patterns, grid, initial={**source.initial, **starts}, order=source.order, live=live)
    return made, expected


def with_constants(model: ModelProto, tensors: Mapping[str, NDArray[Any]]) -> ModelProto:
    """Return a model with values in place of some of its inputs."""
    made = ModelProto()
    made.CopyFrom(model)
    restated(made, [one for one in model.graph.input if one.name not in tensors])
    made.graph.initializer.extend(
        numpy_helper.from_array(np.ascontiguousarray(own), name) for name, own in tensors.items()
    )
    return made
