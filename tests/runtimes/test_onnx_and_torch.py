"""Two runtimes of one model: the same integers leave a client, pruned or not, from the same plan."""

from __future__ import annotations

import copy

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")

from torch import nn  # noqa: E402

from baffle import Baffle, CentralDifference, server  # noqa: E402
from baffle.client import Client, answers  # noqa: E402
from baffle.engines import Local  # noqa: E402
from baffle.export import Choice, Source, export, prepared  # noqa: E402
from baffle.kernels import fastest  # noqa: E402
from baffle.keys import Key  # noqa: E402
from baffle.mechanisms import MISSING  # noqa: E402
from baffle.runtimes.onnx import OnnxRuntime  # noqa: E402
from baffle.runtimes.torch import TorchRuntime  # noqa: E402
from runtimes.networks import probes_of, spans_of  # noqa: E402

KEY = Key.root(77)


def data(shape, sizes, classes: int = 10):
    rng = np.random.default_rng(0)
    return [(rng.random((size, *shape), np.float32), rng.integers(0, classes, size)) for size in sizes]


def clients(batches):
    return [
        Client(number, len(batch[1]), KEY.fold("client", number), lambda _generator, _size, batch=batch: batch)
        for number, batch in enumerate(batches)
    ]


def federation(layout, batches, costs) -> server.Federation:
    return server.Federation(
        key=KEY.secret,
        layout=layout,
        clients=len(batches),
        most_samples=max(len(own[1]) for own in batches),
        costs=costs,
    )


def integers(runtime, plan, theta, batches) -> np.ndarray:
    reports = answers(plan, theta, clients(batches), runtime, fastest())
    return np.stack([report.integers(plan) for report in reports])


@pytest.mark.parametrize(
    "method",
    [Baffle(forwards=400), Baffle(forwards=400, estimator=CentralDifference(1e-2))],
    ids=["centred", "central"],
)
@pytest.mark.parametrize("kind", ["lenet", "mlp"])
def test_of_a_hundred_slopes_in_eight_bits_99_are_the_same(kind, method, exported) -> None:
    """In the first round, by the first bound, and in the second, by the slopes seen."""
    made = exported(kind)
    ours, theirs = OnnxRuntime(made.folder), TorchRuntime(made.module, device="cpu")
    assert ours.layout == theirs.layout
    batches, kernels = data(made.shape, (4, 4, 3)), fastest()
    costs = theirs.costs(theirs.layout.blocks("layers"), batches[0])
    world = federation(ours.layout, batches, costs)
    state = method.start(ours.layout.flatten(ours.given))
    for _ in range(2):
        plan = server.plan(method, world, state)
        found = [integers(runtime, plan, state.parameters, batches) for runtime in (ours, theirs)]
        assert not (found[0] == MISSING).any()
        assert (found[0] == found[1]).mean() >= 0.99
        assert np.abs(found[0] - found[1]).max() <= 2
        reports = Local(clients(batches), theirs, kernels).gather(plan, state.parameters)
        state = server.advance(method, state, plan, reports, kernels).state
    assert len(np.unique(found[1])) > 60  # of 255 that 8 bits have


@pytest.mark.parametrize("kind", ["lenet", "mlp", "wrn"])
def test_losses_and_evaluations_agree(kind, exported) -> None:
    made = exported(kind)
    ours, theirs = OnnxRuntime(made.folder), TorchRuntime(made.module, device="cpu")
    batches = data(made.shape, (5, 2))
    point = ours.layout.flatten(ours.given)
    there = theirs.layout.flatten(ours.layout.unflatten(point))  # the order of tensors may be another
    np.testing.assert_allclose(ours.losses([point], batches), theirs.losses([there], batches), rtol=3e-6)
    one, other = ours.evaluate(point, batches), theirs.evaluate(there, batches)
    assert (one.loss, one.accuracy) == (pytest.approx(other.loss, rel=3e-6), other.accuracy)


def test_the_wide_resnet_is_cut_and_swept(exported) -> None:
    ours = OnnxRuntime(exported("wrn").folder)
    blocks = probes_of(ours, spans_of(ours.layout, "layers"), budget=2, signs=(1,))
    batches = data((3, 8, 8), (2, 1))
    costs = ours.costs(ours.layout.blocks("layers"), batches[0])
    assert costs[0] == 1.0
    assert min(costs) < 0.01
    for probes, found in zip(blocks, ours.sweep(blocks, batches), strict=True):
        np.testing.assert_allclose(found, ours.losses(probes, batches), rtol=3e-6)


# Pruned.


@pytest.fixture(scope="module")
def pruned(exported, tmp_path_factory):
    """A LeNet of whose weights nine in ten are zero, by both runtimes."""
    made = exported("lenet")
    module, rng = copy.deepcopy(made.module), np.random.default_rng(5)
    weights = {}
    for name, parameter in module.named_parameters():
        mask = torch.from_numpy(rng.random(parameter.shape) < (0.1 if parameter.ndim > 1 else 1.0))
        parameter.data *= mask
        weights[name] = parameter.detach().numpy()
    from baffle.export import with_weights

    source = with_weights(made.source, weights)
    trainable, expected = prepared(source, Choice(pruned=True))
    folder = tmp_path_factory.mktemp("pruned") / "model"
    export(trainable, folder, expected=expected)
    return OnnxRuntime(folder), TorchRuntime(module, device="cpu", pruned=True), module


def zeros_of(module) -> dict[str, np.ndarray]:
    return {name: parameter.detach().numpy() == 0 for name, parameter in module.named_parameters()}


def test_both_leave_out_the_same_weights(pruned) -> None:
    ours, theirs, module = pruned
    assert ours.layout == theirs.layout
    live = sum(int((~zero).sum()) for zero in zeros_of(module).values())
    assert ours.layout.size == live < 0.12 * sum(parameter.numel() for parameter in module.parameters())
    np.testing.assert_array_equal(ours.layout.flatten(ours.given), theirs.layout.flatten(theirs.given))
    stored = ours.bundle.given()
    assert sum(values.size for values in stored.values()) == live


def test_both_give_the_same_losses_and_slopes(pruned) -> None:
    ours, theirs, module = pruned
    batches, method = data((1, 12, 12), (4, 4, 3)), Baffle(forwards=600)
    point = ours.layout.flatten(ours.given)
    plain = TorchRuntime(module, device="cpu")
    expected = plain.losses([plain.layout.flatten(plain.given)], batches)
    for runtime in (ours, theirs):
        np.testing.assert_allclose(runtime.losses([point], batches), expected, rtol=3e-6)
    blocks = [(block.start, block.stop) for block in ours.layout.blocks("layers")]
    for budget in (3, 40):
        probes = probes_of(ours, blocks, budget)
        for one, other in zip(ours.sweep(probes, batches), theirs.sweep(probes, batches), strict=True):
            np.testing.assert_allclose(one, other, rtol=3e-6)
    world = federation(ours.layout, batches, theirs.costs(theirs.layout.blocks("layers"), batches[0]))
    plan = server.plan(method, world, method.start(point))
    found = [integers(runtime, plan, point, batches) for runtime in (ours, theirs)]
    assert (found[0] == found[1]).mean() >= 0.99


@pytest.mark.parametrize("which", [0, 1], ids=["onnx", "torch"])
def test_zeros_stay_zero_through_rounds(which, pruned) -> None:
    runtime, module = pruned[which], pruned[2]
    batches, method, kernels = data((1, 12, 12), (4, 4)), Baffle(forwards=400), fastest()
    world = federation(runtime.layout, batches, runtime.costs(runtime.layout.blocks("layers"), batches[0]))
    state = method.start(runtime.layout.flatten(runtime.given))
    before = state.parameters
    for _ in range(3):
        plan = server.plan(method, world, state)
        reports = Local(clients(batches), runtime, kernels).gather(plan, state.parameters)
        state = server.advance(method, state, plan, reports, kernels).state
    assert np.abs(state.parameters - before).min() > 0  # every weight that is there has moved
    for vector in (state.parameters, state.average):
        for name, tensor in runtime.layout.unflatten(vector).items():
            np.testing.assert_array_equal(tensor == 0, zeros_of(module)[name])


def test_a_pruned_module_that_is_called_whole_gives_the_same(pruned) -> None:
    _, theirs, module = pruned
    whole = TorchRuntime(module, device="cpu", pruned=True, capture=False)
    batches = data((1, 12, 12), (4, 2))
    probes = probes_of(theirs, [(0, theirs.layout.size)], 3)
    for one, other in zip(whole.sweep(probes, batches), theirs.sweep(probes, batches), strict=True):
        np.testing.assert_allclose(one, other, rtol=3e-6)
    point = theirs.layout.flatten(theirs.given)
    assert whole.evaluate(point, batches).loss == pytest.approx(theirs.evaluate(point, batches).loss, rel=3e-6)


def test_a_tensor_of_nothing_but_zeros_is_left_out() -> None:
    module = nn.Sequential(nn.Linear(5, 4), nn.Tanh(), nn.Linear(4, 3))
    nn.init.zeros_(module[0].bias)
    runtime = TorchRuntime(module, device="cpu", pruned=True)
    assert runtime.layout.size == 20 + 12 + 3
    rng = np.random.default_rng(0)
    batches = [(rng.normal(size=(4, 5)).astype(np.float32), rng.integers(0, 3, 4))]
    probes = probes_of(runtime, spans_of(runtime.layout, "layers"), 2)
    for block, found in zip(probes, runtime.sweep(probes, batches), strict=True):
        np.testing.assert_allclose(found, runtime.losses(block, batches), rtol=2e-6)


def test_a_pruned_runtime_travels(pruned) -> None:
    import pickle

    for runtime in pruned[:2]:
        again = pickle.loads(pickle.dumps(runtime))
        assert again.layout == runtime.layout
        point, batches = runtime.layout.flatten(runtime.given), data((1, 12, 12), (4,))
        np.testing.assert_array_equal(again.losses([point], batches), runtime.losses([point], batches))


def test_a_source_without_zeros_is_not_pruned(exported) -> None:
    made = exported("mlp")
    trainable, _ = prepared(made.source, Choice(pruned=True))
    assert all(tensor.live == b"" for tensor in trainable.tensors)
    assert isinstance(made.source, Source)
