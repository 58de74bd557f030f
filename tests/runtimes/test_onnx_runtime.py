"""ONNX Runtime held to what every runtime is held to: losses of points, sweeps of blocks, and refusals in words."""

from __future__ import annotations

import math
import pickle
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")

from baffle.directions import Gaussian, Orthogonal, Rademacher, Sparse
from baffle.errors import MissingExtraError, ModelError, SettingsError
from baffle.export import Choice, Source, export, prepared
from baffle.export.model import normal
from baffle.export.prepare import runs
from baffle.runtimes import BlockRuntime
from baffle.runtimes.onnx import OnnxRuntime, cross_entropy
from export.graphs import CLASSES, FEATURES, HIDDEN, INT64, draw, mlp, model, node, residual
from runtimes.networks import probes_of, spans_of

RULES = ("layers", "whole", "tensors", "ragged")
LAWS = [Gaussian(), Rademacher(), Orthogonal(8), Sparse(40)]


def two_features():
    """Return a model of two arrays a sample: numbers, and a word."""
    nodes = [
        node("Gather", ["table", "word"], ["e"]),
        node("MatMul", ["x", "first.weight"], ["h"]),
        node("Add", ["h", "e"], ["s"]),
        node("Tanh", ["s"], ["t"]),
        node("MatMul", ["t", "second.weight"], ["p"]),
        node("Add", ["p", "second.bias"], ["y"]),
    ]
    constants = {
        "table": draw(7, HIDDEN),
        "first.weight": draw(FEATURES, HIDDEN),
        "second.weight": draw(HIDDEN, CLASSES),
        "second.bias": draw(CLASSES),
    }
    return model(nodes, constants, (("x", ["batch", FEATURES]), ("word", ["batch"], INT64)))


MODELS = {"mlp": mlp, "residual": residual, "two features": two_features}


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """Returns a function: a model's name -> its folder, made once."""
    made = {}

    def of(kind: str):
        if kind not in made:
            whole = normal(MODELS[kind]())
            trainable, expected = prepared(Source(whole, runs(whole, "y"), ("*",)), Choice())
            made[kind] = tmp_path_factory.mktemp("onnx") / "model"
            export(trainable, made[kind], expected=expected)
        return made[kind]

    return of


@pytest.fixture
def runtime(folders) -> OnnxRuntime:
    return OnnxRuntime(folders("residual"))


def batches_of(kind: str, sizes, seed: int = 0):
    found = []
    for number, size in enumerate(sizes):
        rng = np.random.default_rng(seed + number)
        inputs = rng.normal(size=(size, FEATURES)).astype(np.float32)
        if kind == "two features":
            both = np.empty(size, np.dtype([("word", np.int64), ("x", np.float32, FEATURES)]))
            both["x"], both["word"] = inputs, rng.integers(0, 7, size)
            inputs = both
        found.append((inputs, rng.integers(0, CLASSES, size)))
    return found


def naive(kind: str, tensors, inputs) -> np.ndarray:
    """Return a model's outputs in NumPy, float64."""
    t = {name: value.astype(np.float64) for name, value in tensors.items()}
    if kind == "mlp":
        h = np.maximum(inputs @ t["first.weight"].T + t["first.bias"], 0)
        return h @ t["second.weight"] + t["second.bias"]
    if kind == "two features":
        h = np.tanh(inputs["x"] @ t["first.weight"] + t["table"][inputs["word"]])
        return h @ t["second.weight"] + t["second.bias"]
    s = np.tanh(inputs @ t["stem.weight"])
    r = np.tanh(s @ t["shared.weight"]) @ t["shared.weight"] + s
    return (r * t["scale.weight"]) @ t["head.weight"] + t["head.bias"]


def naive_loss(kind: str, runtime, point, batch) -> float:
    inputs, targets = batch
    outputs = naive(kind, runtime.layout.unflatten(point), inputs)
    return float((np.log(np.exp(outputs).sum(1)) - outputs[np.arange(len(targets)), targets]).mean())


def points(runtime, count: int) -> list[np.ndarray]:
    rng = np.random.default_rng(9)
    return [rng.normal(scale=0.3, size=runtime.layout.size).astype(np.float32) for _ in range(count)]


def assert_plain(runtime, blocks, batches, bound=2e-6) -> list[np.ndarray]:
    found = runtime.sweep(blocks, batches)
    assert [losses.shape for losses in found] == [(len(probes), len(batches)) for probes in blocks]
    for losses, probes in zip(found, blocks, strict=True):
        assert losses.dtype == np.float64
        np.testing.assert_allclose(losses, runtime.losses(probes, batches), rtol=bound)
    return found


def assert_same(one, other) -> None:
    for left, right in zip(one, other, strict=True):
        np.testing.assert_array_equal(left, right)


# Losses.


@pytest.mark.parametrize("sizes", [(6, 6), (6, 1, 4), (3,)])
@pytest.mark.parametrize("kind", MODELS)
def test_losses_are_those_of_the_network_in_numpy(kind, sizes, folders) -> None:
    runtime = OnnxRuntime(folders(kind))
    batches, some = batches_of(kind, sizes), points(runtime, 4)
    losses = runtime.losses(iter(some), batches)
    assert losses.dtype == np.float64
    expected = [[naive_loss(kind, runtime, point, batch) for batch in batches] for point in some]
    np.testing.assert_allclose(losses, expected, rtol=2e-6)


def test_a_point_is_read_before_the_next_is_drawn(runtime) -> None:
    some = points(runtime, 5)

    def buffered():
        buffer = np.empty_like(some[0])
        for point in some:
            buffer[:] = point
            yield buffer

    data = batches_of("residual", (6,))
    np.testing.assert_array_equal(runtime.losses(buffered(), data), runtime.losses(some, data))


def test_points_in_float64_are_rounded_as_other_runtimes_do(runtime) -> None:
    some, data = points(runtime, 2), batches_of("residual", (6,))
    found = runtime.losses([point.astype(np.float64) for point in some], data)
    np.testing.assert_array_equal(found, runtime.losses(some, data))


@pytest.mark.parametrize("chunk", [1, 2, 3, 7, 100])
def test_chunks_bound_memory_and_nothing_else(chunk, folders) -> None:
    sizes = []

    def loss(outputs, targets):
        sizes.append(len(outputs))
        return cross_entropy(outputs, targets)

    whole, parts = OnnxRuntime(folders("residual")), OnnxRuntime(folders("residual"), loss=loss, chunk=chunk)
    data, some = batches_of("residual", (10, 2, 1, 6)), points(whole, 2)
    np.testing.assert_allclose(parts.losses(some, data), whole.losses(some, data), rtol=2e-6)
    for probes in (
        probes_of(parts, spans_of(parts.layout, "layers")),
        probes_of(parts, spans_of(parts.layout, "whole")),
    ):
        assert_plain(parts, probes, data)
    one = whole.evaluate(some[0], data)
    other = parts.evaluate(some[0], data)
    assert (one.accuracy, pytest.approx(one.loss, rel=2e-6)) == (other.accuracy, other.loss)


def test_losses_are_computed_in_float64_from_float32_logits(runtime) -> None:
    losses = runtime.losses(points(runtime, 1), batches_of("residual", (6,)))
    assert losses[0, 0] != np.float32(losses[0, 0])
    outputs = np.float32([[0.1, 0.2, 0.3], [1e4, -1e4, 0]])
    found = cross_entropy(outputs, np.array([1, 1]))
    assert found.dtype == np.float64
    assert found[1] == pytest.approx(2e4)
    assert outputs[1, 0] == np.float32(1e4)  # nobody's outputs are written to


def test_a_loss_that_is_not_finite_is_told_and_not_raised(runtime) -> None:
    good = points(runtime, 1)[0]
    for bad in (np.full_like(good, np.inf), np.full_like(good, np.nan), np.full_like(good, 1e30)):
        losses = runtime.losses([bad, good], batches_of("residual", (6,)))
        assert not np.isfinite(losses[0, 0])
        assert np.isfinite(losses[1, 0])


# Sweeps.


@pytest.mark.parametrize("law", LAWS, ids=repr)
@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("kind", MODELS)
def test_a_sweep_gives_the_losses_of_the_whole_model(kind, rule, law, folders) -> None:
    runtime = OnnxRuntime(folders(kind))
    law = None if isinstance(law, Orthogonal) else law
    blocks = probes_of(runtime, spans_of(runtime.layout, rule), budget=3, law=law)
    batches = batches_of(kind, (4, 1, 6))
    for probes, found in zip(blocks, assert_plain(runtime, blocks, batches), strict=True):
        expected = [naive_loss(kind, runtime, next(iter(probes)), batch) for batch in batches]
        np.testing.assert_allclose(found[0], expected, rtol=2e-6)


@settings(max_examples=12)
@given(data=st.data())
def test_however_parameters_directions_and_clients_are_cut(data, folders) -> None:
    chunk, threads = data.draw(st.integers(1, 12), "chunk"), data.draw(st.integers(1, 2), "threads")
    runtime = OnnxRuntime(folders("residual"), chunk=chunk, threads=threads)
    edges = sorted(data.draw(st.sets(st.integers(0, runtime.layout.size), min_size=2, max_size=6), "edges"))
    signs = data.draw(st.sampled_from([(1,), (1, -1), (-1, 1)]), "signs")
    blocks = probes_of(runtime, list(pairwise(edges)), data.draw(st.integers(1, 40), "budget"), signs)
    sizes = data.draw(st.lists(st.integers(1, 9), min_size=1, max_size=4), "sizes")
    assert_plain(runtime, blocks, batches_of("residual", sizes))


def test_blocks_may_come_in_any_order(runtime) -> None:
    blocks = probes_of(runtime, spans_of(runtime.layout, "tensors"))
    for order in ([4, 0, 3, 1, 2], [4, 3, 2, 1, 0], [2, 2, 0]):
        assert_plain(runtime, [blocks[number] for number in order], batches_of("residual", (3, 2)))


@pytest.mark.parametrize("law", [Gaussian(), Rademacher(), Orthogonal(8), Sparse(40)], ids=repr)
def test_the_two_signs_are_those_of_the_probes(law, folders) -> None:
    """A loss that is linear in the head's bias: each sign moves it by as much, to the other side."""
    runtime = OnnxRuntime(folders("residual"), loss=lambda outputs, _: outputs.astype(np.float64).sum(1))
    own = runtime.layout.slices()["head.bias"]
    (probes,) = probes_of(runtime, [(own.start, own.stop)], budget=7, law=law)
    data = batches_of("residual", (4,))
    (found,) = runtime.sweep([probes], data)
    (base,) = runtime.losses([probes.parameters], data)
    moves = np.array([law.entries(probes.key, k, 0, CLASSES).sum() for k in range(7)]) * probes.step
    np.testing.assert_allclose((found[0::2] - base)[:, 0], moves, atol=3e-6)
    np.testing.assert_allclose((found[1::2] - base)[:, 0], -moves, atol=3e-6)


@pytest.mark.parametrize("threads", [2, 3])
@pytest.mark.parametrize("kind", MODELS)
def test_any_number_of_threads_gives_the_same_bits(kind, threads, folders) -> None:
    one, several = (OnnxRuntime(folders(kind), threads=count, chunk=11) for count in (1, threads))
    blocks = probes_of(one, spans_of(one.layout, "layers"), budget=70)
    batches = batches_of(kind, (7, 3, 13))
    assert_same(one.sweep(blocks, batches), several.sweep(blocks, batches))
    point = points(one, 1)[0]
    assert one.evaluate(point, batches) == several.evaluate(point, batches)


@pytest.mark.parametrize("law", [Gaussian(), Rademacher(), Orthogonal(8), Sparse(40)], ids=repr)
def test_a_range_of_directions_gives_the_same_bits_by_itself(law, runtime) -> None:
    """Beginning at a multiple of what the runtime says it evaluates together."""
    batches = batches_of("residual", (17, 3))
    for probes in probes_of(runtime, spans_of(runtime.layout, "layers"), 90, (1, -1), law=law):
        together = runtime.together(probes, batches)
        (whole,) = runtime.sweep([probes], batches)
        for first, stop in ((0, 64), (64, 90), (together, 2 * together + 1), (3 * together, 90), (0, 5)):
            if first < stop <= 90:
                (part,) = runtime.sweep([probes.part(first, stop)], batches)
                np.testing.assert_array_equal(part, whole[2 * first : 2 * stop])


def test_a_sweep_repeats_to_the_bit(runtime) -> None:
    blocks, batches = probes_of(runtime, spans_of(runtime.layout, "layers"), 9), batches_of("residual", (9, 2))
    first = runtime.sweep(blocks, batches)
    runtime.evaluate(points(runtime, 1)[0], batches)
    assert_same(first, runtime.sweep(blocks, batches))
    assert_same(first[::-1], runtime.sweep(blocks[::-1], batches))


def test_shares_of_a_forward_pass_are_those_counted(runtime) -> None:
    manifest = runtime.bundle.manifest
    blocks = runtime.layout.blocks("layers")
    batch = batches_of("residual", (3,))[0]
    found = runtime.costs(blocks, batch)
    assert [block.name for block in blocks] == ["stem", "shared", "scale", "head"]
    assert found[0] == 1.0
    assert list(found[1:]) == [cut.operations / manifest.whole.operations for cut in manifest.cuts]
    assert list(found) == sorted(found, reverse=True)
    assert runtime.costs(runtime.layout.blocks("whole"), batch) == (1.0,)
    # A block for which no cut was made takes the smallest that follows it.
    assert runtime.costs(runtime.layout.blocks(("*.bias",)), batch)[-1] == found[-1]


def test_the_runtime_is_one_as_the_protocols_say(runtime) -> None:
    assert isinstance(runtime, BlockRuntime)
    assert runtime.precision == np.float32
    assert set(runtime.given) == {tensor.name for tensor in runtime.layout.tensors}
    for name in ("layout", "given", "precision", "losses", "evaluate"):
        assert hasattr(runtime, name)


# Evaluation.


def test_evaluation_is_the_mean_over_samples_not_over_batches(runtime) -> None:
    parts, point = batches_of("residual", (9, 2, 1)), points(runtime, 1)[0]
    whole = tuple(np.concatenate(part) for part in zip(*parts, strict=True))
    found = runtime.evaluate(point, iter(parts))
    assert found.loss == pytest.approx(naive_loss("residual", runtime, point, whole), rel=2e-6)
    outputs = naive("residual", runtime.layout.unflatten(point), whole[0])
    assert found.accuracy == (outputs.argmax(1) == whole[1]).mean()
    assert runtime.evaluate(point.astype(np.float64), parts) == found


def test_where_targets_are_no_classes_there_is_no_accuracy(folders) -> None:
    runtime = OnnxRuntime(folders("residual"), loss=lambda o, t: (o - t) ** 2)
    inputs = batches_of("residual", (4,))[0][0]
    found = runtime.evaluate(points(runtime, 1)[0], [(inputs, np.ones((4, CLASSES)))])
    assert math.isnan(found.accuracy)
    assert math.isfinite(found.loss)


# Losses of one's own.


@pytest.mark.parametrize("sizes", [(4, 4), (6, 1, 3), (5,)])
def test_losses_of_many_numbers_a_sample_are_their_mean(sizes, folders) -> None:
    runtime = OnnxRuntime(folders("residual"), loss=lambda o, t: (o - t) ** 2, chunk=4)
    rng = np.random.default_rng(1)
    batches = [(x, rng.normal(size=(len(x), CLASSES))) for x, _ in batches_of("residual", sizes)]
    point = points(runtime, 1)[0]
    expected = [((naive("residual", runtime.layout.unflatten(point), x) - t) ** 2).mean() for x, t in batches]
    np.testing.assert_allclose(runtime.losses([point], batches)[0], expected, rtol=1e-5)
    assert_plain(runtime, probes_of(runtime, spans_of(runtime.layout, "layers")), batches)


def fails(*_):
    raise ValueError("not\ntoday")


def test_a_loss_that_fails_is_told_with_its_shapes(folders) -> None:
    data = batches_of("residual", (4,))
    runtime = OnnxRuntime(folders("residual"), loss=fails)
    with pytest.raises(ModelError, match=r"the loss fails on outputs of shape \[4, 3\] and targets .* \[4\]: not$"):
        runtime.losses(points(runtime, 1), data)
    with pytest.raises(ModelError, match=r"the loss fails on outputs of shape \[\d+, 3\]"):
        runtime.sweep(probes_of(runtime, [(0, 9)]), data)
    with pytest.raises(ModelError, match="the loss fails on"):
        runtime.evaluate(points(runtime, 1)[0], data)


def test_targets_that_are_no_class_are_told(runtime) -> None:
    inputs = batches_of("residual", (4,))[0][0]
    for targets in (np.full(4, CLASSES), np.zeros((4, 2), int), np.full(4, 0.5)):
        with pytest.raises(ModelError, match=r"the loss fails on outputs of shape \[4, 3\]"):
            runtime.losses(points(runtime, 1), [(inputs, targets)])


@pytest.mark.parametrize("loss", [lambda o, _: o.mean(), lambda o, _: o[:2].sum(1)], ids=["mean", "some"])
def test_a_loss_that_is_not_one_for_each_sample_is_told(loss, folders) -> None:
    runtime = OnnxRuntime(folders("residual"), loss=loss)
    with pytest.raises(ModelError, match=r"the loss gives \[2?\] for .*: it must give one for each sample"):
        runtime.losses(points(runtime, 1), batches_of("residual", (4,)))
    with pytest.raises(ModelError, match="must give one for each sample"):
        runtime.sweep(probes_of(runtime, [(0, 9)]), batches_of("residual", (4,)))


# Samples.


@pytest.mark.parametrize(
    ("inputs", "words"),
    [
        (np.zeros((4, 5), np.float32), r"float32 of shape \[4\], not float32 \[5\]"),
        (np.zeros((4, 4, 1), np.float32), r"not float32 \[4, 1\]"),
        (np.zeros(4, np.float32), r"not float32 \[\]"),
        (np.zeros((4, 4), np.complex64), r"not complex64 \[4\]"),
        (np.full((4, 4), "a"), r"not <U1 \[4\]"),
    ],
    ids=["wide", "deep", "flat", "complex", "text"],
)
def test_samples_of_another_shape_or_kind_are_told(inputs, words, runtime) -> None:
    with pytest.raises(ModelError, match=rf"the model takes samples \(x\) of .*{words}"):
        runtime.losses(points(runtime, 1), [(inputs, np.zeros(4, int))])


@pytest.mark.parametrize("kind", [np.float64, np.float16, np.uint8, np.int64, np.bool_, ">f4"])
def test_numbers_of_the_same_kind_are_converted(kind, runtime) -> None:
    inputs = np.random.default_rng(0).integers(0, 2, (4, FEATURES))
    data, plain = (inputs.astype(kind), np.zeros(4, int)), (inputs.astype(np.float32), np.zeros(4, int))
    some = points(runtime, 1)
    np.testing.assert_array_equal(runtime.losses(some, [data]), runtime.losses(some, [plain]))


def test_samples_in_any_memory_layout_are_taken(runtime) -> None:
    (inputs, targets) = batches_of("residual", (8,))[0]
    some = points(runtime, 1)
    expected = runtime.losses(some, [(inputs, targets)])
    for turned in (np.asfortranarray(inputs), np.repeat(inputs, 2, axis=1)[:, ::2], inputs[::-1][::-1]):
        np.testing.assert_array_equal(runtime.losses(some, [(turned, targets)]), expected)
    inputs.flags.writeable = False
    np.testing.assert_array_equal(runtime.losses(some, [(inputs, targets)]), expected)


def test_several_arrays_a_sample_come_as_fields(folders) -> None:
    runtime = OnnxRuntime(folders("two features"))
    (inputs, targets) = batches_of("two features", (4,))[0]
    some = points(runtime, 1)
    more = np.empty(4, [*inputs.dtype.descr, ("aside", np.int8)])
    for name in ("x", "word"):
        more[name] = inputs[name]
    np.testing.assert_array_equal(runtime.losses(some, [(more, targets)]), runtime.losses(some, [(inputs, targets)]))
    for wrong, words in ((inputs["x"], "x, word"), (inputs[["x"]], "word")):
        with pytest.raises(ModelError, match=f"samples must be a structured array with fields {words}$"):
            runtime.losses(some, [(wrong, targets)])
    floats = inputs.astype([("x", np.float32, FEATURES), ("word", np.float32)])
    with pytest.raises(ModelError, match=r"the model takes samples \(word\) of int64 of shape \[\], not float32"):
        runtime.losses(some, [(floats, targets)])


def test_what_onnx_runtime_refuses_is_told(folders) -> None:
    """A word that is not in the table."""
    runtime = OnnxRuntime(folders("two features"))
    (inputs, targets) = batches_of("two features", (4,))[0]
    inputs["word"] = 7
    with pytest.raises(ModelError, match=r"ONNX Runtime fails on .*model: .*out of"):
        runtime.losses(points(runtime, 1), [(inputs, targets)])


# How it is made, and how it travels.


@pytest.mark.parametrize("number", [0, -3])
@pytest.mark.parametrize("name", ["chunk", "threads"])
def test_a_chunk_of_no_sample_and_no_thread_are_refused(name, number, folders) -> None:
    with pytest.raises(SettingsError, match=name):
        OnnxRuntime(folders("mlp"), **{name: number})


def test_a_folder_may_be_named_by_a_text(folders) -> None:
    assert OnnxRuntime(str(folders("mlp"))).layout == OnnxRuntime(folders("mlp")).layout


def test_a_folder_that_holds_none_is_refused(tmp_path) -> None:
    with pytest.raises(ModelError, match="is no exported model"):
        OnnxRuntime(tmp_path)


def test_without_onnx_runtime_the_extra_is_named(monkeypatch, folders) -> None:
    import sys

    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(MissingExtraError, match=r"onnxruntime is not installed; .*baffle\[client\]"):
        OnnxRuntime(folders("mlp"))


def square(outputs, targets):
    return ((outputs - 1.0) ** 2).mean(1) + 0.0 * targets


@pytest.mark.parametrize("used", [False, True])
@pytest.mark.parametrize("kind", ["residual", "two features"])
def test_a_runtime_travels_with_all_that_it_is(kind, used, folders) -> None:
    runtime = OnnxRuntime(folders(kind), loss=square, chunk=5, threads=2)
    data, blocks = batches_of(kind, (6, 3)), probes_of(runtime, spans_of(runtime.layout, "layers"))
    if used:
        runtime.sweep(blocks, data)
    again = pickle.loads(pickle.dumps(runtime))
    assert (again.layout, again.chunk, again.threads) == (runtime.layout, 5, 2)
    assert_same(again.given.values(), runtime.given.values())
    assert_same(again.sweep(blocks, data), runtime.sweep(blocks, data))
    assert again.evaluate(blocks[0].parameters, data) == runtime.evaluate(blocks[0].parameters, data)


def test_a_runtime_travels_to_a_process_that_works_elsewhere(folders, monkeypatch, tmp_path) -> None:
    """A worker's folder is not the one that a relative path was meant from."""
    monkeypatch.chdir(folders("mlp").parent)
    data = pickle.dumps(OnnxRuntime("model"))
    monkeypatch.chdir(tmp_path)
    assert pickle.loads(data).layout == OnnxRuntime(folders("mlp")).layout


def test_given_values_make_theta_zero(runtime) -> None:
    from baffle.keys import Key

    start = runtime.layout.initial(Key.root(0), runtime.given)
    assert start.dtype == np.float32
    found = runtime.evaluate(start, batches_of("residual", (4,)))
    expected = naive_loss("residual", runtime, start, batches_of("residual", (4,))[0])
    assert found.loss == pytest.approx(expected, rel=2e-6)
