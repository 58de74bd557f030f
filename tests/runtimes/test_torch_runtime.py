from __future__ import annotations

import copy
import math
import pickle

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from torch import nn  # noqa: E402
from torch.func import functional_call  # noqa: E402

from baffle.errors import ModelError, SettingsError  # noqa: E402
from baffle.keys import Key  # noqa: E402
from baffle.models.lenet import lenet  # noqa: E402
from baffle.parameters import Constant, Given, Uniform  # noqa: E402
from baffle.runtimes.torch import TorchRuntime, cross_entropy, layout_of  # noqa: E402
from runtimes.networks import EXPORTED, REFUSED, TRACED, batches_of, head, probes_of, spans_of, told  # noqa: E402


def mlp() -> nn.Module:
    return nn.Sequential(nn.Linear(5, 7), nn.Hardswish(), nn.Linear(7, 3))


def conv() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(2, 4, 3, padding=1), nn.ReLU(), nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(16, 3)
    )


def batch(shape, count: int, seed: int):
    rng = np.random.default_rng(seed)
    return rng.normal(size=(count, *shape)).astype(np.float32), rng.integers(0, 3, count)


def points(runtime: TorchRuntime, count: int) -> list[np.ndarray]:
    rng = np.random.default_rng(9)
    return [rng.normal(scale=0.3, size=runtime.layout.size).astype(runtime.precision) for _ in range(count)]


def naive(model: nn.Module, runtime: TorchRuntime, point: np.ndarray, data, loss) -> float:
    """One call of the user's own module, with its parameters replaced, in float64."""
    model = copy.deepcopy(model).double().eval()
    tensors = {name: torch.from_numpy(t.astype(np.float64)) for name, t in runtime.layout.unflatten(point).items()}
    inputs, targets = (torch.from_numpy(part) for part in data)
    inputs = inputs.double() if inputs.is_floating_point() else inputs
    with torch.no_grad():
        return float(loss(functional_call(model, tensors, (inputs,)), targets).mean())


MODELS = {"mlp": (mlp, (5,)), "conv": (conv, (2, 6, 6)), "lenet": (lambda: lenet(1, 3), (1, 8, 8))}


@pytest.mark.parametrize("kind", MODELS)
@pytest.mark.parametrize("precision", ["float32", "float64"])
@pytest.mark.parametrize("channels_last", [False, True])
@pytest.mark.parametrize("sizes", [(6, 6), (6, 1, 4), (3,)])
def test_losses_are_those_of_one_functional_call_after_another(kind, precision, channels_last, sizes) -> None:
    make, shape = MODELS[kind]
    model = make()
    runtime = TorchRuntime(model, device="cpu", precision=precision, channels_last=channels_last)
    batches = [batch(shape, size, seed) for seed, size in enumerate(sizes)]
    some = points(runtime, 4)
    losses = runtime.losses(iter(some), batches)
    assert losses.dtype == np.float64
    assert losses.shape == (4, len(sizes))
    expected = [[naive(model, runtime, point, data, cross_entropy) for data in batches] for point in some]
    np.testing.assert_allclose(losses, expected, rtol=1e-12 if precision == "float64" else 2e-6)


def test_a_point_is_read_before_the_next_is_drawn() -> None:
    """Probes share one buffer: what is given must be used at once."""
    runtime = TorchRuntime(mlp(), device="cpu", precision="float64")
    some = points(runtime, 5)

    def buffered():
        buffer = np.empty_like(some[0])
        for point in some:
            buffer[:] = point
            yield buffer

    data = [batch((5,), 6, 0)]
    np.testing.assert_array_equal(runtime.losses(buffered(), data), runtime.losses(some, data))


@pytest.mark.parametrize("chunk", [1, 2, 3, 7, 100])
@pytest.mark.parametrize("kind", ["mlp", "conv"])
def test_chunks_bound_memory_and_nothing_else(kind, chunk) -> None:
    make, shape = MODELS[kind]
    model, seen = make(), []
    batches = [batch(shape, size, size) for size in (4, 3)]
    whole = TorchRuntime(model, device="cpu", precision="float64")
    parts = TorchRuntime(model, device="cpu", precision="float64", chunk=chunk)
    parts._model.register_forward_pre_hook(lambda _, inputs: seen.append(len(inputs[0])))
    some = points(whole, 2)
    np.testing.assert_allclose(parts.losses(some, batches), whole.losses(some, batches), rtol=1e-13)
    assert max(seen) == min(chunk, 7)
    assert sum(seen) == 14


@pytest.mark.parametrize("precision", ["float32", "float64"])
def test_channels_last_changes_the_layout_in_memory_and_no_loss(precision) -> None:
    model, data = lenet(2, 3), [batch((2, 9, 7), 5, 1), batch((2, 9, 7), 5, 2)]
    plain = TorchRuntime(model, device="cpu", precision=precision)
    last = TorchRuntime(model, device="cpu", precision=precision, channels_last=True)
    some = points(plain, 3)
    bound = 1e-12 if precision == "float64" else 2e-6
    np.testing.assert_allclose(last.losses(some, data), plain.losses(some, data), rtol=bound)


def test_per_sample_and_scalar_losses_agree() -> None:
    model = mlp()
    each = TorchRuntime(
        model, lambda o, t: nn.functional.cross_entropy(o, t, reduction="none"), precision="float64", device="cpu"
    )
    mean = TorchRuntime(model, nn.functional.cross_entropy, precision="float64", device="cpu")
    some = points(each, 3)
    for sizes in ((4, 4), (6, 1, 3), (5,)):
        data = [batch((5,), size, size) for size in sizes]
        np.testing.assert_allclose(mean.losses(some, data), each.losses(some, data), rtol=1e-13)
    data = [batch((5,), size, size) for size in (4, 2)]
    assert mean.evaluate(some[0], data).loss == pytest.approx(each.evaluate(some[0], data).loss, rel=1e-13)


def test_a_loss_of_many_numbers_a_sample_is_their_mean() -> None:
    """Regression of two outputs, [B, 2], uneven batches."""
    model = nn.Linear(4, 2)
    runtime = TorchRuntime(model, lambda o, t: (o - t) ** 2, precision="float64", device="cpu")
    rng = np.random.default_rng(2)
    data = [(rng.normal(size=(size, 4)), rng.normal(size=(size, 2))) for size in (5, 2)]
    point = points(runtime, 1)[0]
    tensors = runtime.layout.unflatten(point)
    expected = [((x @ tensors["weight"].T + tensors["bias"] - y) ** 2).mean() for x, y in data]
    np.testing.assert_allclose(runtime.losses([point], data)[0], expected, rtol=1e-13)
    np.testing.assert_allclose(runtime.losses([point], [data[0], data[0]])[0], [expected[0]] * 2, rtol=1e-13)


def test_losses_are_computed_in_float64_from_float32_logits() -> None:
    """A displacement of 1e-4 moves the loss smoothly: steps of a float32 near 2.3 are 2.4e-7, of these far less."""
    outputs = torch.tensor([[0.1, 0.2, 0.3]])
    assert cross_entropy(outputs, torch.tensor([1])).dtype == torch.float64
    runtime = TorchRuntime(mlp(), device="cpu")
    losses = runtime.losses(points(runtime, 1), [batch((5,), 6, 0)])
    assert losses[0, 0] != np.float32(losses[0, 0])


def test_a_loss_that_is_not_finite_is_told_and_not_raised() -> None:
    runtime = TorchRuntime(mlp(), device="cpu")
    good, bad = points(runtime, 2)
    bad = np.full_like(bad, np.inf)
    losses = runtime.losses([bad, good], [batch((5,), 6, 0)])
    assert not np.isfinite(losses[0, 0])
    assert np.isfinite(losses[1, 0])


def test_evaluation_is_the_mean_over_samples_not_over_batches() -> None:
    model = mlp()
    runtime = TorchRuntime(model, device="cpu", precision="float64")
    point = points(runtime, 1)[0]
    parts = [batch((5,), size, size) for size in (9, 2, 1)]
    whole = tuple(np.concatenate(part) for part in zip(*parts, strict=True))
    got = runtime.evaluate(point, iter(parts))
    assert got.loss == pytest.approx(naive(model, runtime, point, whole, cross_entropy), rel=1e-12)
    tensors = {name: torch.from_numpy(t) for name, t in runtime.layout.unflatten(point).items()}
    outputs = functional_call(copy.deepcopy(model).double(), tensors, (torch.from_numpy(whole[0]).double(),))
    assert got.accuracy == (outputs.argmax(1).numpy() == whole[1]).mean()


@pytest.mark.parametrize("kind", [*TRACED, "batch norm", "in place", "images in place", "data"])
def test_an_evaluation_is_the_modules_own(kind) -> None:
    """As the first call, and after others that left other values behind."""
    make, shape = (TRACED | EXPORTED | REFUSED)[kind]
    model = make()
    runtime = TorchRuntime(model, device="cpu", precision="float64", chunk=4, threads=2)
    parts = batches_of(shape, (9, 1, 2))
    whole = tuple(np.concatenate(part) for part in zip(*parts, strict=True))
    for point in points(runtime, 2):
        evaluation = runtime.evaluate(point, parts)
        if kind != "data":  # it looks at what samples come together
            assert evaluation.loss == pytest.approx(naive(model, runtime, point, whole, cross_entropy), rel=1e-12)
        assert evaluation.loss == pytest.approx(runtime.losses([point], [whole])[0, 0], rel=1e-12) or kind == "data"
        runtime.sweep(probes_of(runtime, spans_of(runtime.layout, "layers"), budget=1), parts)


def test_an_evaluation_takes_images_in_any_layout() -> None:
    model, data = lenet(1, 3), [batch((1, 9, 7), 5, 1), batch((1, 9, 7), 2, 2)]
    found = {
        TorchRuntime(model, device="cpu", channels_last=last, capture=capture).evaluate(
            np.concatenate([parameter.detach().ravel() for parameter in model.parameters()]), data
        )
        for last in (None, False, True)
        for capture in (False, True)
    }
    losses, accuracies = zip(*found, strict=True)
    assert losses == pytest.approx([losses[0]] * len(losses), rel=2e-6)
    assert len(set(accuracies)) == 1


def test_where_targets_are_no_classes_there_is_no_accuracy() -> None:
    runtime = TorchRuntime(nn.Linear(4, 1), nn.functional.mse_loss, device="cpu")
    data = [(np.ones((3, 4), np.float32), np.ones((3, 1), np.float32))]
    assert math.isnan(runtime.evaluate(points(runtime, 1)[0], data).accuracy)


# The model.


def test_the_model_is_copied_and_stays_as_it_was() -> None:
    model = nn.Sequential(mlp(), nn.Dropout(0.5)).train()
    before = copy.deepcopy(model.state_dict())
    runtime = TorchRuntime(model, device="cpu", precision="float64")
    data = [batch((5,), 6, 0)]
    some = points(runtime, 2)
    losses, given = runtime.losses(some, data), {name: array.copy() for name, array in runtime.given.items()}
    assert all(torch.equal(before[name], tensor) for name, tensor in model.state_dict().items())
    assert all(parameter.requires_grad and parameter.dtype == torch.float32 for parameter in model.parameters())
    assert model.training
    assert all(module.training for module in model.modules())
    # And what happens to it afterwards does not reach the runtime.
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(1.0)
    np.testing.assert_array_equal(runtime.losses(some, data), losses)
    for name, array in runtime.given.items():
        np.testing.assert_array_equal(array, given[name])


def state_of(model):
    """Return all that a module is made of, the names of its attributes included."""
    return {
        path: (
            module.training,
            sorted(vars(module)),
            {name: (tensor.clone(), tensor.requires_grad) for name, tensor in module.named_parameters(recurse=False)},
            {name: tensor.clone() for name, tensor in module.named_buffers(recurse=False)},
            len(module._forward_hooks) + len(module._forward_pre_hooks) + len(module._backward_hooks),
        )
        for path, module in model.named_modules()
    }


def assert_as_it_was(model, before) -> None:
    for path, (training, attributes, parameters, buffers, hooks) in state_of(model).items():
        assert (training, attributes, hooks) == (before[path][0], before[path][1], before[path][4])
        for name, (tensor, wanted) in parameters.items():
            assert torch.equal(tensor, before[path][2][name][0])
            assert wanted == before[path][2][name][1]
        for name, tensor in buffers.items():
            assert torch.equal(tensor, before[path][3][name])


@pytest.mark.parametrize("kind", ["hook", "frozen", "batch norm", "constants", "in place", "weight norm", "data"])
def test_capture_leaves_the_users_module_and_random_stream_as_they_were(kind) -> None:
    make, shape = (TRACED | EXPORTED | REFUSED)[kind]
    model = make()
    before, stream = state_of(model), torch.get_rng_state()
    runtime = TorchRuntime(model, device="cpu")
    data = batches_of(shape, (6, 3))
    runtime.costs(runtime.layout.blocks("layers"), data[0])
    runtime.sweep(probes_of(runtime, spans_of(runtime.layout, "layers"), budget=2), data)
    runtime.evaluate(points(runtime, 1)[0], data)
    assert_as_it_was(model, before)
    assert torch.equal(torch.get_rng_state(), stream)


def test_dropout_is_off() -> None:
    model = nn.Sequential(nn.Dropout(0.9), nn.Linear(5, 3))
    runtime = TorchRuntime(model, device="cpu", precision="float64")
    bare = TorchRuntime(nn.Sequential(nn.Identity(), model[1]), device="cpu", precision="float64")
    some, data = points(runtime, 3), [batch((5,), 6, 0)]
    np.testing.assert_array_equal(runtime.losses(some, data), bare.losses(some, data))


def test_frozen_parameters_are_constants_outside_the_layout() -> None:
    model = mlp()
    model[0].requires_grad_(False)
    runtime = TorchRuntime(model, device="cpu", precision="float64")
    assert [tensor.name for tensor in runtime.layout.tensors] == ["2.weight", "2.bias"]
    assert runtime.layout.size == 24
    assert set(runtime.given) == {"2.weight", "2.bias"}
    point, data = points(runtime, 1)[0], batch((5,), 6, 0)
    assert runtime.losses([point], [data])[0, 0] == pytest.approx(
        naive(model, runtime, point, data, cross_entropy), rel=1e-12
    )


def test_a_tied_parameter_is_one_parameter() -> None:
    class Tied(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.one, self.two = nn.Linear(5, 5), nn.Linear(5, 5)
            self.two.weight = self.one.weight

        def forward(self, x):
            return self.two(torch.tanh(self.one(x)))

    model = Tied()
    runtime = TorchRuntime(model, lambda o, _: o.square().mean(1), device="cpu", precision="float64")
    assert runtime.layout.size == 25 + 5 + 5
    point, data = points(runtime, 1)[0], batch((5,), 6, 0)
    expected = naive(model, runtime, point, data, lambda o, _: o.square().mean(1))
    assert runtime.losses([point], [data])[0, 0] == pytest.approx(expected, rel=1e-12)


def test_buffers_are_the_models_own() -> None:
    model = nn.Sequential(nn.Linear(5, 4), nn.BatchNorm1d(4), nn.Linear(4, 3)).eval()
    model[1].running_mean += 3.0
    runtime = TorchRuntime(model, device="cpu", precision="float64")
    point, data = points(runtime, 1)[0], [batch((5,), 6, 0)]
    expected = naive(model, runtime, point, data[0], cross_entropy)
    assert runtime.losses([point], data)[0, 0] == pytest.approx(expected, rel=1e-12)
    runtime.losses(points(runtime, 3), data)
    assert runtime.losses([point], data)[0, 0] == pytest.approx(expected, rel=1e-12)  # no statistics were taken


def test_batch_norm_in_training_mode_is_refused_with_advice() -> None:
    model = nn.Sequential(nn.Linear(5, 4), nn.BatchNorm1d(4))
    with pytest.raises(ModelError, match=r"^1 is BatchNorm in training mode.*GroupNorm, or freeze .* with \.eval\(\)"):
        TorchRuntime(model, device="cpu")
    with pytest.raises(ModelError, match="the model is BatchNorm"):
        TorchRuntime(nn.BatchNorm1d(4), device="cpu")
    TorchRuntime(model.eval(), device="cpu")


@pytest.mark.parametrize("model", [nn.ReLU(), nn.Linear(3, 2).requires_grad_(False)], ids=["none", "frozen"])
def test_a_model_with_nothing_to_train_is_refused(model) -> None:
    with pytest.raises(ModelError, match="no trainable parameters: at least one must have requires_grad"):
        TorchRuntime(model, device="cpu")


def test_a_model_that_gives_too_few_outputs_is_told_so() -> None:
    class Pooled(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Linear(5, 3)

        def forward(self, x):
            return self.layer(x).mean(0, keepdim=True)

    runtime = TorchRuntime(Pooled(), device="cpu")
    with pytest.raises(ModelError, match="the model gave 1 outputs for 6 samples"):
        runtime.losses(points(runtime, 1), [batch((5,), 6, 0)])


@pytest.mark.parametrize("number", [0, -3])
@pytest.mark.parametrize("name", ["chunk", "threads", "memory"])
def test_a_chunk_of_no_sample_no_thread_and_no_memory_are_refused(name, number) -> None:
    with pytest.raises(SettingsError, match=name):
        TorchRuntime(mlp(), device="cpu", **{name: number})


def test_token_inputs_stay_whole_numbers() -> None:
    model = nn.Sequential(nn.Embedding(7, 4), nn.Flatten(), nn.Linear(12, 3))
    runtime = TorchRuntime(model, device="cpu", precision="float64")
    data = np.arange(12).reshape(4, 3) % 7, np.array([0, 1, 2, 0])
    point = points(runtime, 1)[0]
    assert runtime.losses([point], [data])[0, 0] == pytest.approx(
        naive(model, runtime, point, data, cross_entropy), rel=1e-12
    )


# How it begins.


def test_given_values_are_the_models_own_and_make_theta_zero() -> None:
    model = mlp()
    runtime = TorchRuntime(model, device="cpu")
    assert all(tensor.initial == Given() for tensor in runtime.layout.tensors)
    start = runtime.layout.initial(Key.root(0), runtime.given)
    expected = torch.cat([parameter.detach().ravel() for parameter in model.parameters()]).numpy()
    np.testing.assert_array_equal(start, expected)
    assert start.dtype == np.float32


def test_given_values_of_a_float64_model_are_rounded_once() -> None:
    model = mlp().double()
    runtime = TorchRuntime(model, device="cpu", precision="float64")
    np.testing.assert_array_equal(runtime.given["0.weight"], model[0].weight.detach().numpy().astype(np.float32))


@pytest.mark.parametrize(
    "make",
    [
        lambda: nn.Linear(19, 50),
        lambda: nn.Conv2d(3, 40, 5),
        lambda: nn.Conv1d(6, 40, 3, groups=2),
        lambda: nn.Conv2d(8, 40, (1, 3), dilation=2),
    ],
    ids=["linear", "conv2d", "grouped", "dilated"],
)
def test_drawn_bounds_are_the_ranges_from_which_pytorch_draws(make) -> None:
    """The largest of 200 fresh layers' weights lies within a thousandth below the bound and never above it."""
    layout = layout_of(make(), drawn=True)
    largest = {tensor.name: 0.0 for tensor in layout.tensors}
    for _ in range(200):
        for name, parameter in make().named_parameters():
            largest[name] = max(largest[name], float(parameter.detach().abs().max()))
    for tensor in layout.tensors:
        assert isinstance(tensor.initial, Uniform)
        assert 0.998 * tensor.initial.bound < largest[tensor.name] <= tensor.initial.bound * (1 + 1e-6)


def test_norms_begin_at_one_and_zero_and_other_layers_as_they_are() -> None:
    model = nn.Sequential(nn.Conv2d(1, 4, 3), nn.GroupNorm(2, 4), nn.Flatten(), nn.LayerNorm(4), nn.PReLU())
    initials = {tensor.name: tensor.initial for tensor in layout_of(model, drawn=True).tensors}
    assert initials == {
        "0.weight": Uniform(1 / 3),
        "0.bias": Uniform(1 / 3),
        "1.weight": Constant(1.0),
        "1.bias": Constant(0.0),
        "3.weight": Constant(1.0),
        "3.bias": Constant(0.0),
        "4.weight": Given(),
    }


def test_a_convolution_that_is_transposed_draws_from_pytorchs_range() -> None:
    """PyTorch counts a transposed kernel's fan-in over its second axis."""
    layer = nn.ConvTranspose2d(4, 30, 3)
    (weight, _) = layout_of(layer, drawn=True).tensors
    largest = max(float(nn.ConvTranspose2d(4, 30, 3).weight.detach().abs().max()) for _ in range(100))
    assert weight.initial.bound == pytest.approx(largest, rel=2e-3)


def test_drawn_values_lie_within_their_bounds_and_repeat() -> None:
    layout = layout_of(lenet(1, 10), drawn=True)
    assert not layout.given
    start = layout.initial(Key.root(3))
    np.testing.assert_array_equal(start, layout.initial(Key.root(3)))
    for name, tensor in layout.unflatten(start).items():
        bound = next(t.initial.bound for t in layout.tensors if t.name == name)
        assert np.abs(tensor).max() <= bound
    assert np.abs(start - layout.initial(Key.root(4))).max() > 0.01


def test_an_unknown_device_is_an_error_when_it_is_named() -> None:
    with pytest.raises(RuntimeError, match="tpu9"):
        TorchRuntime(mlp(), device="tpu9")


def test_auto_takes_a_gpu_where_there_is_one() -> None:
    assert TorchRuntime(mlp()).device.type == ("cuda" if torch.cuda.is_available() else "cpu")


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU that PyTorch can use")
@pytest.mark.parametrize("kind", MODELS)
def test_a_gpu_gives_the_cpus_losses(kind) -> None:
    make, shape = MODELS[kind]
    model = make()
    batches = [batch(shape, size, size) for size in (5, 2)]
    cpu = TorchRuntime(model, device="cpu", precision="float64")
    gpu = TorchRuntime(model, device="cuda", precision="float64")
    some = points(cpu, 3)
    np.testing.assert_allclose(gpu.losses(some, batches), cpu.losses(some, batches), rtol=1e-10)
    assert gpu.evaluate(some[0], batches).loss == pytest.approx(cpu.evaluate(some[0], batches).loss, rel=1e-10)


def test_the_runtime_is_one_as_the_protocol_says() -> None:
    from baffle.runtimes import Runtime

    runtime: Runtime = TorchRuntime(mlp(), device="cpu")
    for name in ("layout", "given", "precision", "losses", "evaluate"):
        assert hasattr(runtime, name)
    assert runtime.precision == np.float32


# How it travels.


@pytest.mark.parametrize("precision", ["float32", "float64"])
@pytest.mark.parametrize("used", [False, True])
@pytest.mark.parametrize("kind", ["lenet", "tied", "frozen", "batch norm", "constants", "tokens", "in place"])
def test_a_runtime_travels_with_all_that_it_is(kind, used, precision) -> None:
    make, shape = (TRACED | EXPORTED)[kind]
    runtime = TorchRuntime(make(), device="cpu", precision=precision, drawn=True, threads=2, chunk=5)
    data, blocks = batches_of(shape, (6, 3)), None
    if used:
        runtime.sweep(probes_of(runtime, spans_of(runtime.layout, "layers")), data)
    again = pickle.loads(pickle.dumps(runtime))
    assert again.layout == runtime.layout
    assert (again.precision, again.chunk, again.threads) == (runtime.precision, 5, 2)
    assert again.given.keys() == runtime.given.keys()
    for name, array in runtime.given.items():
        np.testing.assert_array_equal(again.given[name], array)
    some = points(runtime, 2)
    np.testing.assert_array_equal(again.losses(some, data), runtime.losses(some, data))
    blocks = probes_of(runtime, spans_of(runtime.layout, "layers"))
    for one, other in zip(again.sweep(blocks, data), runtime.sweep(blocks, data), strict=True):
        np.testing.assert_array_equal(one, other)
    assert again.evaluate(some[0], data) == runtime.evaluate(some[0], data)
    assert again.costs(runtime.layout.blocks("layers"), data[0]) == runtime.costs(
        runtime.layout.blocks("layers"), data[0]
    )


def test_constants_in_float64_travel_in_float64() -> None:
    """Buffers and frozen parameters are no part of θ: nothing rounds them."""
    model = nn.Sequential(nn.Linear(5, 4), nn.BatchNorm1d(4), nn.Linear(4, 3)).double().eval()
    model[0].requires_grad_(False)
    model[1].running_mean += torch.rand(4, dtype=torch.float64)
    runtime = TorchRuntime(model, device="cpu", precision="float64")
    again = pickle.loads(pickle.dumps(runtime))
    some, data = points(runtime, 2), [batch((5,), 6, 0)]
    np.testing.assert_array_equal(again.losses(some, data), runtime.losses(some, data))


@pytest.mark.parametrize("used", [False, True])
def test_a_module_that_keeps_what_it_has_seen_travels(used, caplog) -> None:
    """Capture shows a module what can't be copied."""
    model = Watching()
    runtime, data = TorchRuntime(model, device="cpu"), [batch((5,), 6, 0)]
    blocks = probes_of(runtime, spans_of(runtime.layout, "layers"))
    expected = runtime.losses(blocks[0], data)
    if used:
        np.testing.assert_allclose(runtime.sweep(blocks, data)[0], expected, rtol=2e-6)
        runtime.evaluate(blocks[0].parameters, data)
    again = pickle.loads(pickle.dumps(runtime))
    np.testing.assert_array_equal(again.losses(blocks[0], data), expected)
    assert model.last is None
    assert not model.seen
    assert not told(caplog)


class Watching(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.head = nn.Linear(5, 4), head()
        self.last, self.seen = None, []

    def forward(self, x):
        self.last = torch.tanh(self.first(x))
        self.seen.append(self.last)
        return self.head(self.last)
