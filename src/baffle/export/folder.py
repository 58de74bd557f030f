"""An exported model's folder: graphs that share their constants."""

# pyright: standard
from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
from numpy.typing import NDArray
from onnx import ModelProto
from safetensors.numpy import save

from baffle import checks
from baffle.bundle import LAID_OUT, LAYOUTS, WEIGHTS, Bundle, Cut, clear, this_processor, write
from baffle.errors import ModelError
from baffle.export import trace
from baffle.export.choose import Trainable
from baffle.export.constants import shared
from baffle.export.cut import parts, trunk
from baffle.export.model import open_session, output_of, reduced, session, value
from baffle.export.prepare import Outputs, coupled
from baffle.export.settled import Settled, settled
from baffle.parameters import BlockRule, Layout

_SETTLED = "settled-"
TOLERANCE = 1e-3
"""Largest difference of two graphs' outputs, as a share of the largest output."""


def export(
    trainable: Trainable,
    folder: Path,
    *,
    expected: Outputs,
    blocks: BlockRule = "layers",
    output: str | None = None,
    free: int = 32,
) -> Bundle:
    """Write a model with trained tensors as inputs to `folder`, cut where its blocks begin.

    Args:
        trainable: the model.
        folder: where to; what an earlier export left there is replaced.
        expected: what the graphs' outputs at the first weights are compared with.
        blocks: what will be displaced together; a run may use other blocks, whose probes then run a larger part.
        output: what the loss is made from; by default the first.
        free: entries of axes of any length, in the samples that operations are counted on.

    Raises:
        ModelError: the model can't be run, or its graphs give other outputs than `expected`.
        SettingsError: a pattern of `blocks` matches nothing.
    """
    checks.at_least("free", free, 1)
    layout, name = Layout(trainable.tensors), output_of(trainable.model, output)
    taken = trainable.features
    given = trace.samples(taken, trace.SAMPLES, free)
    model = reduced(trainable.model, [], [name])
    known = _values(model, trainable, given)
    if known[name].shape[:1] != (trace.SAMPLES,):
        shape = list(known[name].shape)
        raise ModelError(
            f"output {name} has shape {shape} for {trace.SAMPLES} samples: it must have one entry for each"
        )
    work = trace.operations(model, known, {tensor.name for tensor in model.graph.initializer} | trainable.given.keys())
    groups = [list(layout.within(block.start, block.stop)) for block in layout.blocks(blocks)]
    cuts, loss = parts(model, groups, known, work, name), trace.loss(known[name])
    wanted = {value for part in cuts for value in part.values}
    before = {"trunk.onnx": trunk(model, wanted, known)} if wanted else {}
    graphs = {"model.onnx": model, **{_file(i): part.model for i, part in enumerate(cuts)}}
    fast = {} if coupled(model) else _fast(graphs, trainable, known, name)
    places = {name: own for made in fast.values() for name, own in made.places.items()}
    weights = {t.name: np.ascontiguousarray(trainable.given[t.name].ravel()[t.places()]) for t in layout.tensors}
    write(
        folder,
        {
            **shared({**graphs, **before, **{file: made.model for file, made in fast.items()}}),
            **({LAYOUTS: save(places)} if places else {}),
            WEIGHTS: save(weights),
        },
        layout=layout,
        features=taken,
        output=name,
        whole=Cut("model.onnx", tuple(weights), sum(work.values()) + loss, _found("model.onnx", fast)),
        trunk="".join(before),
        cuts=tuple(
            Cut(_file(i), part.displaced, part.operations + loss, _found(_file(i), fast)) for i, part in enumerate(cuts)
        ),
        settled_for=this_processor(onnxruntime.__version__) if fast else "",
        coupled=coupled(model),
        grid=trainable.grid,
    )
    bundle = Bundle.read(folder)
    try:
        _compare(bundle, given, trainable.given, expected(given))
    except ModelError:
        clear(folder)
        raise
    return bundle


def _values(model: ModelProto, trainable: Trainable, given: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
    """Return everything that the model's operations read and write on samples `given`."""
    constants = {tensor.name: value(tensor) for tensor in model.graph.initializer}
    inputs = {one.name for one in model.graph.input}
    own = {name: array for name, array in (dict(given) | dict(trainable.given)).items() if name in inputs}
    return constants | own | trace.traced(model, own)


def _fast(
    graphs: Mapping[str, ModelProto], trainable: Trainable, known: Mapping[str, NDArray[Any]], output: str
) -> dict[str, Settled]:
    """Return the graphs that this processor has a better form for, by the names of its files."""
    made = {_SETTLED + file: settled(graph, trainable.given) for file, graph in graphs.items()}
    return {
        file: one
        for file, one in made.items()
        if one is not None and _near(_outputs(one.model, known, one.places), known[output])
    }


def _found(file: str, fast: Mapping[str, Any]) -> str:
    """Return the name of a graph's settled form, or nothing where there is none."""
    return _SETTLED + file if _SETTLED + file in fast else ""


def _file(number: int) -> str:
    return f"block-{number}.onnx"


def _compare(
    bundle: Bundle, given: Mapping[str, NDArray[Any]], weights: Mapping[str, NDArray[Any]], expected: NDArray[Any]
) -> None:
    """Raise ModelError if a graph of the folder gives other outputs."""
    manifest, held = bundle.manifest, dict(given) | dict(weights)
    if manifest.trunk:
        held |= _run(open_session(bundle.folder / manifest.trunk, plain=manifest.coupled), held)
    held |= _laid_out(weights, bundle.layouts())
    for file in filter(None, (name for cut in manifest.graphs for name in (cut.file, cut.settled))):
        made = _run(open_session(bundle.folder / file, plain=manifest.coupled), held)[manifest.output]
        if not _near(made, expected):
            raise ModelError(f"{bundle.folder / file} gives other outputs than the model it was made from")


def _outputs(
    model: ModelProto, known: Mapping[str, NDArray[Any]], places: Mapping[str, NDArray[np.int32]]
) -> NDArray[Any]:
    """Return the output of a settled graph."""
    try:
        return next(iter(_run(session(model), {**known, **_laid_out(known, places)}).values()))
    except Exception:  # of whatever kind: it is not taken
        return np.empty(0)


def _laid_out(tensors: Mapping[str, NDArray[Any]], places: Mapping[str, NDArray[np.int32]]) -> dict[str, NDArray[Any]]:
    """Return tensors in the layouts that graphs take them in."""
    return {
        name: np.append(tensors[name.rpartition(LAID_OUT)[0]].ravel(), np.float32(0))[own]
        for name, own in places.items()
    }


def _near(made: NDArray[Any], expected: NDArray[Any]) -> bool:
    size = float(np.abs(expected).max(initial=1e-6))
    return made.shape == expected.shape and bool(np.abs(made - expected).max(initial=0.0) <= TOLERANCE * size)


def _run(opened: Any, held: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
    names = [one.name for one in opened.get_outputs()]
    found = opened.run(names, {one.name: held[one.name] for one in opened.get_inputs()})
    return dict(zip(names, found, strict=True))
