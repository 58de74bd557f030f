"""Graphs settled for a processor: trained tensors still inputs, whatever ONNX Runtime makes of them."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")

from baffle.directions import Rademacher
from baffle.export import Choice, Source, export, prepared
from baffle.export.model import normal
from baffle.export.prepare import runs
from baffle.kernels import PlainKernels
from baffle.keys import Key
from baffle.messages import BlockPlan
from baffle.probes import Probes
from baffle.runtimes.onnx import OnnxRuntime
from export.graphs import CLASSES, draw, initialisers, model, node

CHANNELS = 16
"""As many as are laid out in blocks on any processor."""


def network(between=(), constants=None, *, group: int = 1):
    """Return two convolutions with something between them, a mean over the image, and a head."""
    nodes = [
        node("Conv", ["x", "one.weight", "one.bias"], ["a"], pads=[1, 1, 1, 1]),
        *between,
        node("Relu", ["b" if between else "a"], ["c"]),
        node("Conv", ["c", "two.weight", "two.bias"], ["d"], pads=[1, 1, 1, 1], group=group),
        node("Relu", ["d"], ["e"]),
        node("GlobalAveragePool", ["e"], ["f"]),
        node("Flatten", ["f"], ["g"]),
        node("Gemm", ["g", "head.weight", "head.bias"], ["y"]),
    ]
    weights = {
        "one.weight": draw(CHANNELS, 3, 3, 3),
        "one.bias": draw(CHANNELS),
        "two.weight": draw(2 * CHANNELS, CHANNELS // group, 3, 3) / 4,
        "two.bias": draw(2 * CHANNELS),
        "head.weight": draw(2 * CHANNELS, CLASSES),
        "head.bias": draw(CLASSES),
    }
    return model(nodes, weights | (constants or {}), (("x", ["batch", 3, 8, 8]),))


def batch_norm(scale: float):
    names = ["norm.scale", "norm.shift", "norm.mean", "norm.var"]
    values = {
        "norm.scale": np.full(CHANNELS, scale, np.float32),
        "norm.shift": draw(CHANNELS, seed=1),
        "norm.mean": draw(CHANNELS, seed=2),
        "norm.var": np.abs(draw(CHANNELS, seed=3)) + np.float32(0.5),
    }
    return [node("BatchNormalization", ["a", *names], ["b"])], values


NETWORKS = {
    "plain": lambda: network(),
    "grouped": lambda: network(group=4),
    "a norm that shrinks": lambda: network(*batch_norm(0.3)),
    "a norm that stretches": lambda: network(*batch_norm(5.0)),
    "a factor": lambda: network([node("Mul", ["a", "k"], ["b"])], {"k": np.float32(3.0)}),
    "a factor a channel": lambda: network([node("Mul", ["a", "k"], ["b"])], {"k": draw(CHANNELS, 1, 1) + 3}),
    "a large constant": lambda: network([node("Min", ["a", "top"], ["b"])], {"top": np.float32(1e9)}),
    "the largest constant": lambda: network(
        [node("Clip", ["a", "low", "top"], ["b"])], {"low": np.float32(0), "top": np.finfo(np.float32).max}
    ),
    "a large constant a channel": lambda: network(
        [node("Min", ["a", "top"], ["b"])], {"top": np.full((CHANNELS, 1, 1), 2**23 + 5, np.float32)}
    ),
}
TRAINED = ("one.*", "two.*", "head.*")


@pytest.mark.parametrize("pruned", [False, True])
@pytest.mark.parametrize("kind", NETWORKS)
def test_settled_graphs_follow_every_weight(kind, pruned, tmp_path) -> None:
    """Losses as on a processor for which nothing is settled, of points and of probes of every block."""
    made = NETWORKS[kind]()
    if pruned:
        rng = np.random.default_rng(0)
        for tensor in made.graph.initializer:
            if tensor.name in ("one.weight", "two.weight"):
                values = initialisers(made)[tensor.name]
                tensor.raw_data = (values * (rng.random(values.shape) < 0.2)).astype(np.float32).tobytes()
    made = normal(made)
    trainable, expected = prepared(Source(made, runs(made, "y")), Choice(train=TRAINED, pruned=pruned))
    bundle = export(trainable, tmp_path / "model", expected=expected)
    here, plain = OnnxRuntime(bundle.folder), OnnxRuntime(bundle.folder)
    without = [cut.__class__(cut.file, cut.displaced, cut.operations) for cut in bundle.manifest.graphs]
    import msgspec

    manifest = msgspec.structs.replace(bundle.manifest, whole=without[0], cuts=tuple(without[1:]), settled_for="")
    plain.bundle = dataclasses.replace(bundle, manifest=manifest)
    rng = np.random.default_rng(1)
    batches = [(rng.normal(size=(size, 3, 8, 8)).astype(np.float32), rng.integers(0, 3, size)) for size in (3, 2)]
    base = here.layout.flatten(here.given)
    moved = base + rng.normal(scale=0.2, size=base.size).astype(np.float32)
    for point in (base, moved):
        np.testing.assert_allclose(here.losses([point], batches), plain.losses([point], batches), rtol=1e-5)
    for rule in ("layers", "whole", ("*.bias",)):
        blocks = [
            Probes(moved, BlockPlan(b.start, b.stop, 3, 1.0, Rademacher()), Key.root(i), 0.05, (1,), PlainKernels())
            for i, b in enumerate(here.layout.blocks(rule))
        ]
        for one, other in zip(here.sweep(blocks, batches), plain.sweep(blocks, batches), strict=True):
            np.testing.assert_allclose(one, other, rtol=1e-5)
