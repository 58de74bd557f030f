"""A sweep is the plain evaluation of the whole module at every probe, done in less work."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

torch = pytest.importorskip("torch")

from torch import nn  # noqa: E402

from baffle.directions import Gaussian, Orthogonal, Rademacher  # noqa: E402
from baffle.errors import ModelError  # noqa: E402
from baffle.models.lenet import lenet  # noqa: E402
from baffle.models.mlp import mlp  # noqa: E402
from baffle.models.wide_resnet import wide_resnet  # noqa: E402
from baffle.runtimes import BlockRuntime  # noqa: E402
from baffle.runtimes.torch import TorchRuntime  # noqa: E402
from runtimes.networks import (  # noqa: E402
    CLASSES,
    EXPORTED,
    REFUSED,
    TRACED,
    Module,
    Spy,
    batches_of,
    head,
    linear,
    naive,
    probes_of,
    spans_of,
    told,
)

BOUND = {"float32": 2e-6, "float64": 1e-12}
CAPTURED = TRACED | EXPORTED
RULES = ("layers", "whole", "tensors", "ragged")


def runtime_of(model, *loss, **settings):
    return TorchRuntime(model, *loss, **({"device": "cpu", "precision": "float64"} | settings))


def assert_plain(runtime, blocks, batches, bound=1e-12) -> list[np.ndarray]:
    found = runtime.sweep(blocks, batches)
    assert [losses.shape for losses in found] == [(len(probes), len(batches)) for probes in blocks]
    for losses, probes in zip(found, blocks, strict=True):
        assert losses.dtype == np.float64
        np.testing.assert_allclose(losses, runtime.losses(probes, batches), rtol=bound)
    return found


# Every kind of module.


@pytest.mark.parametrize("kind", CAPTURED)
def test_a_sweep_gives_the_losses_of_the_whole_module(kind, caplog) -> None:
    """Of the user's own with its parameters replaced, and of the runtime's, which takes every probe by itself."""
    make, shape = CAPTURED[kind]
    model = make()
    runtime = runtime_of(model)
    batches = batches_of(shape, (4, 1, 6))
    for rule in RULES:
        blocks = probes_of(runtime, spans_of(runtime.layout, rule), budget=2 if rule == "layers" else 1)
        for probes, found in zip(blocks, assert_plain(runtime, blocks, batches), strict=True):
            point = next(iter(probes))
            expected = [naive(model, runtime, point, data) for data in batches]
            np.testing.assert_allclose(found[0], expected, rtol=1e-12)
    assert not [text for text in told(caplog) if "whole model" in text]


@pytest.mark.parametrize("kind", [*TRACED, "in place", "images in place"])
def test_in_float32_a_sweep_gives_them_to_a_few_roundings(kind) -> None:
    make, shape = CAPTURED[kind]
    runtime = runtime_of(make(), precision="float32")
    spans = spans_of(runtime.layout, "layers") + spans_of(runtime.layout, "ragged")
    assert_plain(runtime, probes_of(runtime, spans, budget=2), batches_of(shape, (4, 1, 6)), 2e-6)


@pytest.mark.parametrize("kind", REFUSED)
def test_a_module_that_is_no_graph_is_called_whole_and_that_is_said_once(kind, caplog) -> None:
    make, shape = REFUSED[kind]
    runtime = runtime_of(make())
    blocks, batches = probes_of(runtime, spans_of(runtime.layout, "layers")), batches_of(shape, (6, 3))
    for _ in range(2):
        assert_plain(runtime, blocks, batches)
    assert runtime.costs(runtime.layout.blocks("layers"), batches[0]) == (1.0,) * len(blocks)
    runtime.evaluate(blocks[0].parameters, [batches_of(shape, (9,))[0]])
    (text,) = told(caplog)
    assert text.startswith("every probe runs the whole model: it can't be captured as a graph, ")
    assert "\n" not in text


@pytest.mark.parametrize("kind", ["several", "one batch size"])
def test_a_first_batch_of_one_sample_hides_nothing(kind) -> None:
    """Three copies of it look alike wherever samples are mistaken for something else."""
    make, shape = REFUSED[kind]
    runtime = runtime_of(make())
    runtime.costs(runtime.layout.blocks("layers"), batches_of(shape, (1,))[0])
    assert_plain(runtime, probes_of(runtime, [(0, runtime.layout.size)]), batches_of(shape, (6, 3)))


def test_capture_can_be_left_out(caplog) -> None:
    runtime = runtime_of(mlp(5, CLASSES), capture=False)
    batches, blocks = batches_of((5,), (4, 2)), probes_of(runtime, spans_of(runtime.layout, "layers"))
    assert_plain(runtime, blocks, batches, bound=0)
    assert runtime.costs(runtime.layout.blocks("layers"), batches[0]) == (1.0, 1.0)
    assert not told(caplog)


def test_a_module_of_two_outputs_is_refused_as_it_always_was() -> None:
    runtime = runtime_of(Module(lambda m, x: (m.head(x), x), head=head(5)))
    blocks, batches = probes_of(runtime, [(0, 5)]), batches_of((5,), (4,))
    for evaluate in (runtime.sweep, lambda blocks, batches: runtime.losses(blocks[0], batches)):
        with pytest.raises(ModelError, match=r"the model fails on samples of shape \[5\]: TypeError"):
            evaluate(blocks, batches)


@pytest.mark.parametrize("budget", [1, 5])
def test_a_module_that_mixes_samples_to_one_is_refused_as_it_always_was(budget) -> None:
    """A loss that broadcasts would take its one output for every sample's."""
    model = Module(lambda m, x: m.head(x).mean(0, keepdim=True), head=head(5))
    runtime = runtime_of(model, lambda o, t: (o - t[:, None]) ** 2)
    with pytest.raises(ModelError, match="the model gave 1 outputs for 6 samples"):
        runtime.sweep(probes_of(runtime, [(0, 5)], budget, signs=(1,)), batches_of((5,), (6,)))


def test_a_module_of_three_samples_at_a_time_is_told_as_ever() -> None:
    """Modules are captured with as many."""
    runtime = runtime_of(Module(lambda m, x: m.head(x.view(3, 5)), head=head(5)))
    blocks = probes_of(runtime, [(0, runtime.layout.size)])
    assert_plain(runtime, blocks, batches_of((5,), (2, 1)))
    with pytest.raises(ModelError, match=r"the model fails on samples of shape \[5\]: RuntimeError"):
        runtime.sweep(blocks, batches_of((5,), (6,)))


def test_samples_that_do_not_fit_are_told_as_ever() -> None:
    runtime = runtime_of(mlp(5, CLASSES))
    with pytest.raises(ModelError, match=r"the model fails on samples of shape \[6\]: RuntimeError"):
        runtime.sweep(probes_of(runtime, [(0, 5)]), batches_of((6,), (4,)))


def test_a_loss_that_fails_is_told_with_its_shapes() -> None:
    runtime = runtime_of(mlp(5, CLASSES))
    inputs, _ = batches_of((5,), (4,))[0]
    with pytest.raises(ModelError, match=r"the loss fails on outputs of shape \[12, 3\]"):
        runtime.sweep(probes_of(runtime, spans_of(runtime.layout, "layers")[-1:]), [(inputs, np.full((4, 2), 1))])


# Samples of other shapes.


def test_a_graph_is_used_for_no_other_shape_than_it_was_made_for() -> None:
    """The exporter follows the branch that the samples take which it is shown."""
    model = Module(lambda m, x: m.head((x if x.shape[1] > 4 else x**2).sum(1, keepdim=True)), head=head(1))
    runtime = runtime_of(model)
    for width in (3, 5, 3):
        assert_plain(runtime, probes_of(runtime, [(0, runtime.layout.size)]), batches_of((width,), (4, 2)))


def test_images_of_two_sizes() -> None:
    runtime = runtime_of(lenet(1, CLASSES))
    for size in (8, 13, 2, 8):
        blocks = probes_of(runtime, spans_of(runtime.layout, "layers"))
        assert_plain(runtime, blocks, batches_of((1, size, size + 1), (3, 2)))


# How blocks, directions and clients are cut.


@settings(max_examples=15)
@given(data=st.data())
def test_however_parameters_directions_and_clients_are_cut(data) -> None:
    model = Module(
        lambda m, x: m.head(torch.tanh(m.second(torch.tanh(m.first(x)) * m.scale))),
        first=linear(),
        scale=nn.Parameter(torch.tensor(1.5)),
        second=nn.Linear(4, 4),
        head=head(),
    )
    runtime = runtime_of(model, chunk=data.draw(st.integers(1, 12), "chunk"), threads=data.draw(st.integers(1, 2)))
    edges = sorted(data.draw(st.sets(st.integers(0, runtime.layout.size), min_size=2, max_size=6), "edges"))
    spans = list(pairwise(edges))
    signs = data.draw(st.sampled_from([(1,), (1, -1), (-1, 1)]), "signs")
    blocks = probes_of(runtime, spans, data.draw(st.integers(1, 9), "budget"), signs)
    sizes = data.draw(st.lists(st.integers(1, 9), min_size=1, max_size=4), "sizes")
    assert_plain(runtime, blocks, batches_of((5,), sizes))


def test_blocks_may_come_in_any_order() -> None:
    runtime = runtime_of(lenet(1, CLASSES))
    batches = batches_of((1, 8, 8), (3, 2))
    blocks = probes_of(runtime, spans_of(runtime.layout, "tensors"))
    for order in ([5, 0, 3, 1, 4, 2], [5, 4, 3, 2, 1, 0], [2, 2, 0]):
        assert_plain(runtime, [blocks[number] for number in order], batches)


@pytest.mark.parametrize("law", [Gaussian(), Rademacher(), Orthogonal(8)], ids=repr)
def test_the_two_signs_are_those_of_the_probes(law) -> None:
    """A linear loss: each sign moves it by as much, to the other side."""
    model = nn.Linear(5, 1)
    runtime = runtime_of(model, lambda o, _: o)
    rng = np.random.default_rng(0)
    data = [(rng.normal(size=(4, 5)), np.zeros(4))]
    blocks = probes_of(runtime, [(0, 6)], budget=7, law=law)
    (found,) = assert_plain(runtime, blocks, data)
    (base,) = runtime.losses([blocks[0].parameters], data)
    np.testing.assert_allclose(found[0::2] - base, base - found[1::2], rtol=1e-9)
    mean = np.append(data[0][0].mean(0), 1.0)
    moves = np.array([law.entries(blocks[0].key, k, 0, 6) for k in range(7)]) * blocks[0].step
    np.testing.assert_allclose((found[0::2] - base)[:, 0], moves @ mean, rtol=1e-9)


@pytest.mark.parametrize("chunk", [1, 3, 4, 7, 100])
def test_a_client_that_is_larger_than_a_pass_is_taken_in_pieces(chunk) -> None:
    runtime = runtime_of(mlp(5, CLASSES), chunk=chunk)
    whole = runtime_of(mlp(5, CLASSES), chunk=1000)
    whole.given.update(runtime.given)
    seen = []
    runtime._model.register_forward_pre_hook(lambda _, inputs: seen.append(len(inputs[0])))
    blocks, batches = probes_of(runtime, spans_of(runtime.layout, "layers")), batches_of((5,), (10, 2, 1, 6))
    for losses, probes in zip(runtime.sweep(blocks, batches), blocks, strict=True):
        np.testing.assert_allclose(losses, runtime.losses(probes, batches), rtol=1e-12)
    assert max(seen) <= max(chunk, 3)  # 3: the samples that a module is captured with


def test_no_pass_is_larger_than_chunk() -> None:
    sizes: list[int] = []

    def loss(outputs, targets):
        sizes.append(len(targets))
        return nn.functional.cross_entropy(outputs, targets, reduction="none")

    runtime = runtime_of(lenet(1, CLASSES), loss, chunk=4)
    blocks = probes_of(runtime, [spans_of(runtime.layout, "layers")[0]], budget=1, signs=(1,))
    runtime.sweep(blocks, batches_of((1, 28, 28), (3, 2, 9, 1, 1, 4)))
    assert sizes == [3, 2, 4, 4, 1, 2, 4]


# Losses.


def test_per_sample_and_scalar_losses_agree() -> None:
    model = mlp(5, CLASSES)
    each = runtime_of(model, lambda o, t: nn.functional.cross_entropy(o, t, reduction="none"))
    mean = runtime_of(model, nn.functional.cross_entropy)
    for sizes in ((4, 4), (6, 1, 3), (5,)):
        batches, blocks = batches_of((5,), sizes), probes_of(each, spans_of(each.layout, "layers"))
        for one, other in zip(assert_plain(each, blocks, batches), assert_plain(mean, blocks, batches), strict=True):
            np.testing.assert_allclose(one, other, rtol=1e-13)


@pytest.mark.parametrize("chunk", [3, 100])
def test_a_scalar_loss_of_a_client_in_pieces_is_weighed_by_samples(chunk) -> None:
    runtime = runtime_of(mlp(5, CLASSES), nn.functional.cross_entropy, chunk=chunk)
    assert_plain(runtime, probes_of(runtime, spans_of(runtime.layout, "layers")), batches_of((5,), (7, 2, 5)))


@pytest.mark.parametrize("sizes", [(4, 4), (6, 1, 3), (5,)])
def test_losses_of_many_numbers_a_sample_are_their_mean(sizes) -> None:
    """Regression of images: outputs and targets [B, 2, H, W]."""
    model = nn.Sequential(nn.Conv2d(2, 4, 3, padding=1), nn.Tanh(), nn.Conv2d(4, 2, 3, padding=1))
    runtime = runtime_of(model, lambda o, t: (o - t) ** 2)
    rng = np.random.default_rng(4)
    batches = [(rng.normal(size=(size, 2, 5, 5)), rng.normal(size=(size, 2, 5, 5))) for size in sizes]
    assert_plain(runtime, probes_of(runtime, spans_of(runtime.layout, "layers")), batches)


def test_classes_of_every_pixel() -> None:
    model = nn.Sequential(nn.Conv2d(2, 4, 3, padding=1), nn.Tanh(), nn.Conv2d(4, CLASSES, 1))
    runtime = runtime_of(model)
    rng = np.random.default_rng(4)
    batches = [(rng.normal(size=(size, 2, 5, 5)), rng.integers(0, CLASSES, (size, 5, 5))) for size in (3, 1)]
    assert_plain(runtime, probes_of(runtime, spans_of(runtime.layout, "layers")), batches)


def test_outputs_of_one_number_a_sample() -> None:
    model = Module(lambda m, x: m.second(torch.tanh(m.first(x))).squeeze(1), first=linear(), second=nn.Linear(4, 1))
    runtime = runtime_of(model, lambda o, t: nn.functional.binary_cross_entropy_with_logits(o, t, reduction="none"))
    rng = np.random.default_rng(4)
    batches = [(rng.normal(size=(size, 5)), rng.integers(0, 2, size).astype(float)) for size in (3, 1, 5)]
    assert_plain(runtime, probes_of(runtime, spans_of(runtime.layout, "layers")), batches)


def test_losses_that_are_not_finite_are_the_same() -> None:
    runtime = runtime_of(nn.Sequential(linear(), nn.Tanh(), head()))
    batches = batches_of((5,), (3, 2))
    for value in (np.inf, np.nan, 1e308):
        theta = runtime.layout.flatten(runtime.given).astype(np.float64)
        theta[-2] = value
        with np.errstate(all="ignore"):
            blocks = probes_of(runtime, spans_of(runtime.layout, "layers"), theta=theta)
            found = assert_plain(runtime, blocks, batches)
        assert not np.isfinite(found[0]).all()


def test_theta_may_be_read_only() -> None:
    runtime = runtime_of(mlp(5, CLASSES))
    theta = runtime.layout.flatten(runtime.given).astype(np.float64)
    theta.flags.writeable = False
    batches = batches_of((5,), (3, 2))
    assert_plain(runtime, probes_of(runtime, [(0, 20)], theta=theta), batches)
    runtime.evaluate(theta, batches)


# Images.


@pytest.mark.parametrize("precision", BOUND)
@pytest.mark.parametrize("channels_last", [None, False, True])
@pytest.mark.parametrize("channels", [1, 2])
@pytest.mark.parametrize("make", [lenet, wide_resnet])
def test_the_layout_of_images_changes_no_loss(make, channels, channels_last, precision) -> None:
    model = make(channels, CLASSES)
    runtime = runtime_of(model, channels_last=channels_last, precision=precision)
    plain = runtime_of(model, channels_last=False, precision=precision, capture=False)
    batches = batches_of((channels, 8, 6), (3, 2))
    blocks = probes_of(runtime, spans_of(runtime.layout, "layers"), budget=2, signs=(1,))
    for found, probes in zip(runtime.sweep(blocks, batches), blocks, strict=True):
        np.testing.assert_allclose(found, plain.losses(probes, batches), rtol=BOUND[precision])


def flattened(m, x):
    """Takes a view that images laid out channels last have for one sample and not for two."""
    h = m.first(x)
    samples, channels, height, width = h.shape
    return m.head(h.view(samples * channels, height * width).mean(1).view(samples, channels))


@pytest.mark.parametrize("first", [1, 4])
def test_a_module_that_takes_views_of_images_is_given_them_as_it_needs_them(first, caplog) -> None:
    runtime = runtime_of(Module(flattened, first=nn.Conv2d(2, 4, 3, padding=1), head=head()))
    blocks = probes_of(runtime, spans_of(runtime.layout, "layers"))
    runtime.costs(runtime.layout.blocks("layers"), batches_of((2, 6, 6), (first,))[0])
    assert_plain(runtime, blocks, batches_of((2, 6, 6), (4, 1)))
    assert not [text for text in told(caplog) if "whole model" in text]


def test_a_module_that_takes_a_view_of_a_feature_map_is_given_it_as_it_needs_it(caplog) -> None:
    model = Module(
        lambda m, x: m.head(m.first(x).view(x.shape[0], -1)), first=nn.Conv2d(2, 4, 3, padding=1), head=head(144)
    )
    runtime = runtime_of(model)
    assert_plain(runtime, probes_of(runtime, spans_of(runtime.layout, "layers")), batches_of((2, 6, 6), (4, 1)))
    assert not told(caplog)


# Many probes at a time.


def taken(m, x):
    """Reads a parameter as a Python number, which can't be vectorised."""
    return m.head(torch.tanh(m.first(x))) * m.scale.item()


def test_what_can_not_be_vectorised_is_evaluated_one_by_one_and_that_is_said(caplog) -> None:
    runtime = runtime_of(Module(taken, first=linear(), scale=nn.Parameter(torch.tensor(1.5)), head=head()))
    blocks, batches = probes_of(runtime, spans_of(runtime.layout, "tensors"), budget=9), batches_of((5,), (4, 2))
    for _ in range(2):
        assert_plain(runtime, blocks, batches)
    (text,) = told(caplog)
    assert text.startswith("probes of scale are evaluated one by one: ")


def test_what_can_not_be_vectorised_is_said_once_by_many_threads(caplog) -> None:
    runtime = runtime_of(Module(taken, first=linear(), scale=nn.Parameter(torch.tensor(1.5)), head=head()), threads=3)
    blocks = probes_of(runtime, spans_of(runtime.layout, "tensors"), budget=1000, signs=(1,))
    assert_plain(runtime, blocks[:1], batches_of((5,), (4, 2)))
    assert len(told(caplog)) == 1


@pytest.mark.parametrize("affine", [True, False])
def test_group_normalisation_of_channels_last_images_is_evaluated_for_many_probes_at_a_time(affine, caplog) -> None:
    body = nn.Sequential(
        nn.Conv2d(2, 8, 1, bias=False), nn.GroupNorm(2, 8, affine=affine), nn.Flatten(), nn.Linear(8 * 16, CLASSES)
    )
    runtime = runtime_of(body, channels_last=True)
    blocks = probes_of(runtime, spans_of(runtime.layout, "layers"), budget=9)
    assert_plain(runtime, blocks, batches_of((2, 4, 4), (4, 2)))
    assert not told(caplog)


def test_a_failure_of_vmap_changes_no_loss(caplog, monkeypatch) -> None:
    runtime, batches = runtime_of(mlp(5, CLASSES, (6, 4)), threads=2), batches_of((5,), (4, 2))
    blocks = probes_of(runtime, spans_of(runtime.layout, "layers"), budget=6)

    def refuse(*_, **__):
        raise RuntimeError("no batching rule")

    monkeypatch.setattr(torch, "vmap", refuse)
    assert_plain(runtime, blocks, batches)
    assert set(told(caplog)) == {
        f"probes of {number}.weight, {number}.bias are evaluated one by one: no batching rule" for number in (1, 3, 5)
    }


@pytest.mark.parametrize("signs", [(1,), (1, -1)])
def test_cheap_probes_are_evaluated_together_and_dear_ones_are_not(signs) -> None:
    spy, runtime = Spy(), runtime_of(wide_resnet(3, CLASSES), precision="float32")
    first, *_, last = spans_of(runtime.layout, "layers")
    batches = batches_of((3, 16, 16), (64,))
    runtime.sweep(probes_of(runtime, [last], 300, signs, kernels=spy), batches)
    assert [count for count, _ in spy.seen] == [count for count in (128, 128, 44) for _ in signs]
    spy.seen.clear()
    runtime.sweep(probes_of(runtime, [first], 3, signs, kernels=spy), batches)
    assert [count for count, _ in spy.seen] == [1] * 3 * len(signs)


@pytest.mark.parametrize("kind", ["wide layer", "large table"])
def test_memory_bounds_how_many_probes_go_together(kind) -> None:
    """Bytes of float32 of what a probe must hold at the least: a layer's outputs for each sample, its own weights."""
    if kind == "wide layer":
        model, shape, least = (
            nn.Sequential(linear(), nn.Tanh(), nn.Linear(4, 500), nn.Linear(500, CLASSES)),
            (5,),
            500 * 64,
        )
    else:
        model, shape, least = (
            nn.Sequential(nn.Embedding(10_000, 4), nn.Flatten(), nn.Linear(12, CLASSES)),
            "tokens",
            40_000,
        )
    counts = {}
    for memory in (1, 4, 64):
        spy, runtime = Spy(), runtime_of(model, precision="float32", memory=memory)
        span = spans_of(runtime.layout, "layers")[0]
        blocks = probes_of(runtime, [span], 128, (1,), kernels=spy)
        assert_plain(runtime, blocks, batches_of(shape, (60, 4)), bound=2e-6)
        counts[memory] = max(count for count, _ in spy.seen)
        assert counts[memory] * least * 4 <= memory << 20
    assert counts[1] < counts[4] < counts[64]


def test_how_much_memory_there_is_changes_no_loss() -> None:
    model = mlp(5, CLASSES, (300,))
    batches = batches_of((5,), (60, 4))
    found = []
    for memory in (1, 2, 64):
        runtime = runtime_of(model, memory=memory)
        found.append(runtime.sweep(probes_of(runtime, spans_of(runtime.layout, "layers"), 50), batches))
    for other in found[1:]:
        for one, two in zip(found[0], other, strict=True):
            np.testing.assert_allclose(one, two, rtol=1e-13)


# The machine.


def test_the_runtime_is_one_of_blocks() -> None:
    assert isinstance(runtime_of(mlp(5, CLASSES)), BlockRuntime)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU that PyTorch can use")
@pytest.mark.parametrize("kind", ["mlp", "lenet", "wide resnet", "tokens", "tied", "in place"])
def test_a_gpu_sweeps_to_the_cpus_losses(kind) -> None:
    make, shape = CAPTURED[kind]
    model, batches = make(), batches_of(shape, (5, 2))
    cpu, gpu = runtime_of(model), runtime_of(model, device="cuda")
    blocks = probes_of(cpu, spans_of(cpu.layout, "layers"), budget=140)
    for one, other in zip(cpu.sweep(blocks, batches), gpu.sweep(blocks, batches), strict=True):
        np.testing.assert_allclose(other, one, rtol=1e-10)
