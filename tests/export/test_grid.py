"""Weights on a grid: int8 inputs, counted in steps, rounded half up, never beyond 127."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")

from baffle import Baffle
from baffle.bundle import GRID, on_grid
from baffle.experiment import read
from baffle.export import Choice, export, from_bundle, from_onnx, prepared, trained, with_weights
from baffle.export.model import normal, session
from baffle.kernels import PlainKernels
from baffle.keys import Key
from baffle.messages import BlockPlan
from baffle.parameters import Layout, Tensor
from baffle.probes import Probes
from baffle.runtimes.onnx import OnnxRuntime
from export.graphs import (
    CLASSES,
    FEATURES,
    HIDDEN,
    INT8,
    initialisers,
    mlp,
    on_a_grid,
    save,
    x,
)

NAMES = ("first.weight_quantized", "second.weight_quantized")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("grid") / "model"
    trainable = trained(normal(on_a_grid()), [], ["*.weight"])
    export(trainable, folder, expected=lambda given: session(on_a_grid(), plain=True).run(None, dict(given))[0])
    return folder


def test_a_model_whose_weights_alone_are_int8_is_taken_as_it_is(tmp_path) -> None:
    """What ONNX Runtime makes of such a model when it is free to, with activations in int8, is no measure."""
    source = from_onnx(save(on_a_grid(), tmp_path / "model.onnx"))
    trainable, expected = prepared(source, Choice(grid=("*.weight",)))
    export(trainable, tmp_path / "model", expected=expected)


@pytest.fixture
def runtime(folder) -> OnnxRuntime:
    return OnnxRuntime(folder)


@pytest.mark.parametrize(
    ("weights", "steps"),
    [
        ([0.0, -0.0, 0.49, 0.5, 0.51, 1.5, 2.5], [0, 0, 0, 1, 1, 2, 3]),
        ([-0.49, -0.5, -0.51, -1.5, -2.5], [0, 0, -1, -1, -2]),
        ([126.4, 126.5, 127.0, 127.5, 128.0, 1e9], [126, 127, 127, 127, 127, 127]),
        ([-126.5, -127.0, -127.5, -128.0, -1e9], [-126, -127, -127, -127, -127]),
    ],
)
def test_weights_are_rounded_half_up_and_held_on_the_grid(weights, steps) -> None:
    for kind in (np.float32, np.float64):
        found = on_grid(np.array(weights, kind))
        assert found.dtype == np.int8
        assert found.tolist() == steps
    assert GRID == 127


@given(st.floats(-140, 140, width=32), st.integers(-1, 1))
def test_a_step_of_one_moves_a_weight_by_one(weight, step) -> None:
    """Whatever the weight's fraction: a probe's displacement is whole."""
    near = np.array([weight], np.float64)
    moved, rested = int(on_grid(near + step)[0]), int(on_grid(near)[0])
    assert moved == max(-GRID, min(GRID, int(np.floor(weight + 0.5)) + step))
    assert abs(moved - rested) <= 1


def test_a_bundle_takes_int8_and_the_vector_counts_steps(folder, runtime) -> None:
    manifest = runtime.bundle.manifest
    assert manifest.grid == NAMES
    assert manifest.layout == Layout((Tensor(NAMES[0], (FEATURES, HIDDEN)), Tensor(NAMES[1], (HIDDEN, CLASSES))))
    assert not manifest.coupled
    import onnx

    for file in (manifest.whole.file, *(cut.file for cut in manifest.cuts)):
        made = onnx.load(folder / file)
        kinds = {one.name: one.type.tensor_type.elem_type for one in made.graph.input}
        assert {kinds[name] for name in kinds.keys() & set(NAMES)} == {INT8}
        assert not initialisers(made).keys() & set(NAMES)
    assert {value.dtype for value in runtime.given.values()} == {np.dtype(np.int8)}
    point = runtime.layout.flatten(runtime.given)
    assert point.dtype == np.float32
    np.testing.assert_array_equal(point, np.rint(point))


def test_losses_are_those_of_the_rounded_weights(runtime) -> None:
    base = runtime.layout.flatten(runtime.given)
    data = [(x()["x"], np.zeros(5, np.int64))]
    rng = np.random.default_rng(0)
    off = base + rng.uniform(-0.49, 0.49, base.size).astype(np.float32)
    far = base + np.float32(1000)
    top = np.full_like(base, 127)
    found = runtime.losses([base, off, far, top], data)
    assert found[0] == found[1]
    assert found[2] == found[3]
    assert found[0] != found[2]


def test_losses_are_those_of_the_int8_model(runtime) -> None:
    base = runtime.layout.flatten(runtime.given)
    moved = base + np.random.default_rng(1).integers(-3, 4, base.size).astype(np.float32)
    targets = np.arange(5) % CLASSES
    made = on_a_grid()
    steps = {name: on_grid(tensor) for name, tensor in runtime.layout.unflatten(moved).items()}
    for tensor in made.graph.initializer:
        if tensor.name in steps:
            tensor.raw_data = np.ascontiguousarray(steps[tensor.name]).tobytes()
    outputs = session(made, plain=True).run(None, x())[0].astype(np.float64)
    expected = (np.log(np.exp(outputs).sum(1)) - outputs[np.arange(5), targets]).mean()
    assert runtime.losses([moved], [(x()["x"], targets)])[0, 0] == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("odds", [1, 16, 64, 128])
def test_a_probe_of_the_preset_moves_weights_by_one_step(odds, runtime) -> None:
    method = Baffle.grid(odds)
    base = runtime.layout.flatten(runtime.given)
    plan = BlockPlan(0, base.size, 3, 1.0, method.law)
    probes = Probes(base, plan, Key.root(1), method.estimator.scale, method.estimator.signs, PlainKernels())
    assert probes.step == 1.0
    for number, point in enumerate(probes):
        np.testing.assert_array_equal(point - base, method.law.entries(Key.root(1), number, 0, base.size))


def test_the_settings_preset_is_the_methods() -> None:
    assert read({"algorithm": "grid"}).baffle() == Baffle.grid()
    assert read({"algorithm": "grid", "rate": 0.5}).baffle().optimizer.rate == 0.5
    assert read({"law": "sparse", "odds": 128}).baffle().law.odds == 128


@pytest.mark.parametrize("odds", [1, 40, 128])
def test_other_odds_keep_the_step_of_the_preset_at_one(odds) -> None:
    """The scale goes with the law: a displacement of a part of a step would be rounded away, or up."""
    method = read({"algorithm": "grid", "odds": odds}).baffle()
    assert method.law.odds == odds
    assert method.estimator.scale / method.law.deviation == pytest.approx(1.0, rel=1e-9)


def test_slopes_along_probes_are_those_of_the_int8_model(runtime) -> None:
    method = Baffle.grid(128)
    base = runtime.layout.flatten(runtime.given)
    batches = [(x()["x"], np.zeros(5, np.int64)), (x(3, 2)["x"], np.ones(3, np.int64))]
    blocks = [
        Probes(
            base,
            BlockPlan(block.start, block.stop, 4, 1.0, method.law),
            Key.root(2).fold(i),
            method.estimator.scale,
            (1, -1),
            PlainKernels(),
        )
        for i, block in enumerate(runtime.layout.blocks("layers"))
    ]
    for probes, found in zip(blocks, runtime.sweep(blocks, batches), strict=True):
        np.testing.assert_allclose(found, runtime.losses(probes, batches), rtol=1e-6)


def test_trained_grids_come_back_from_a_bundle(folder, runtime, tmp_path) -> None:
    base = runtime.layout.flatten(runtime.given)
    moved = base + np.random.default_rng(2).uniform(-3, 3, base.size).astype(np.float32)
    source = with_weights(from_bundle(folder), runtime.layout.unflatten(moved))
    trainable, _ = prepared(source, Choice())
    assert trainable.grid == NAMES
    plain = session(source.model, plain=True)
    expected = lambda given: plain.run(None, dict(given))[0]  # noqa: E731
    again = OnnxRuntime(export(trainable, tmp_path / "again", expected=expected).folder)
    np.testing.assert_array_equal(again.layout.flatten(again.given), on_grid(moved))
    data = [(x()["x"], np.zeros(5, np.int64))]
    point = again.layout.flatten(again.given)
    np.testing.assert_allclose(again.losses([point], data), runtime.losses([moved], data), rtol=1e-6)


def test_int8_makes_a_grid_of_what_it_names(tmp_path) -> None:
    source = from_onnx(save(mlp(hidden=32), tmp_path / "model.onnx"))
    trainable, expected = prepared(source, Choice(int8=True, grid=("second.weight",)))
    bundle = export(trainable, tmp_path / "out", expected=expected)
    assert bundle.manifest.grid == ("second.weight_quantized",)
    assert bundle.manifest.coupled
    assert trainable.given["second.weight_quantized"].dtype == np.int8
