"""PyTorch modules as ONNX: the same outputs at any weights, trained parameters inputs from the start, or words."""

from __future__ import annotations

import copy

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")
pytest.importorskip("onnxscript")

from torch import nn  # noqa: E402
from torch.func import functional_call  # noqa: E402

from baffle.errors import ModelError  # noqa: E402
from baffle.export import Choice, export, prepared  # noqa: E402
from baffle.export.from_torch import OUTPUTS, SAMPLES, from_torch  # noqa: E402
from baffle.parameters import Constant, Given, Uniform  # noqa: E402
from baffle.runtimes.onnx import OnnxRuntime  # noqa: E402
from baffle.runtimes.torch_layout import layout_of  # noqa: E402
from export.graphs import run  # noqa: E402
from runtimes.networks import CLASSES, REFUSED, TRACED, Module, head, samples  # noqa: E402


def moved(given, seed: int = 0):
    rng = np.random.default_rng(seed)
    return {
        name: np.array(value + rng.normal(scale=0.1, size=value.shape), np.float32) for name, value in given.items()
    }


def assert_same(module, trainable, inputs) -> None:
    """Claim that an exported module gives what the module gives, at its own weights and at others."""
    module = copy.deepcopy(module).eval()
    for tensors in (dict(trainable.given), moved(trainable.given)):
        with torch.no_grad():
            named = {name: torch.from_numpy(np.array(value)) for name, value in tensors.items()}
            expected = functional_call(module, named, (torch.from_numpy(inputs),)).numpy()
        found = run(trainable.model, {SAMPLES: inputs} | tensors, [OUTPUTS])[0]
        np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)


def choice_of(module, sample, **settings):
    return prepared(from_torch(module, sample, **settings), Choice())[0]


# The built-in models.


@pytest.mark.parametrize("kind", ["lenet", "mlp"])
def test_built_in_models_give_their_outputs_at_any_weights(kind, exported) -> None:
    made = exported(kind)
    trainable, _ = prepared(made.source, Choice())
    inputs = np.random.default_rng(0).normal(size=(5, *made.shape)).astype(np.float32)
    assert_same(made.module, trainable, inputs)
    names = [name for name, _ in made.module.named_parameters()]
    assert sorted(tensor.name for tensor in trainable.tensors) == sorted(names)
    assert trainable.model.graph.input[0].name == SAMPLES
    assert {one.name for one in trainable.model.graph.input} == {SAMPLES, *names}
    assert trainable.features[0].shape == made.shape
    for name, parameter in made.module.named_parameters():
        np.testing.assert_array_equal(trainable.given[name], parameter.detach().numpy())


@pytest.mark.parametrize("kind", ["lenet", "mlp"])
def test_built_in_models_have_the_layout_that_pytorchs_runtime_has(kind, exported) -> None:
    made = exported(kind)
    assert OnnxRuntime(made.folder).layout == layout_of(made.module, drawn=False)


def test_cuts_lie_where_layers_begin(exported) -> None:
    manifest = OnnxRuntime(exported("lenet").folder).bundle.manifest
    layers = ["4.weight", "4.bias"], ["9.weight", "9.bias"]
    assert [list(cut.displaced) for cut in manifest.cuts] == list(layers)  # before the first, nothing lies
    operations = [manifest.whole.operations, *(cut.operations for cut in manifest.cuts)]
    assert operations == sorted(operations, reverse=True)


# Modules of one's own.


def test_a_weight_that_is_used_at_two_depths_is_one_weight(tmp_path) -> None:
    make, shape = TRACED["reused"]
    torch.manual_seed(1)
    module = make()
    inputs, _ = samples(shape, 6, 0)
    trainable, expected = prepared(from_torch(module, inputs[0]), Choice())
    assert_same(module, trainable, inputs)
    bundle = export(trainable, tmp_path / "model", expected=expected)
    assert {t.name for t in bundle.manifest.layout.tensors} == {name for name, _ in module.named_parameters()}


def test_a_norm_with_weights_is_trained_with_the_others() -> None:
    module = nn.Sequential(nn.Conv2d(2, 4, 3), nn.GroupNorm(2, 4), nn.ReLU(), nn.Flatten(), nn.Linear(64, 3))
    trainable = choice_of(module, np.zeros((2, 6, 6), np.float32), drawn=True)
    starts = {tensor.name: tensor.initial for tensor in trainable.tensors}
    assert starts["1.weight"] == Constant(1.0)
    assert starts["1.bias"] == Constant(0.0)
    assert isinstance(starts["0.weight"], Uniform)
    assert starts == {tensor.name: tensor.initial for tensor in layout_of(module, drawn=True).tensors}
    assert_same(module, trainable, np.random.default_rng(0).normal(size=(3, 2, 6, 6)).astype(np.float32))


def test_frozen_parameters_are_constants_that_can_be_asked_for() -> None:
    module = nn.Sequential(nn.Linear(5, 4), nn.Tanh(), nn.Linear(4, 3))
    module[0].requires_grad_(False)
    source = from_torch(module, np.zeros(5, np.float32))
    trainable, _ = prepared(source, Choice())
    assert [tensor.name for tensor in trainable.tensors] == ["2.weight", "2.bias"]
    assert {tensor.initial for tensor in trainable.tensors} == {Given()}
    assert_same(module, trainable, np.ones((3, 5), np.float32))
    asked, _ = prepared(source, Choice(train=("0.*",)))
    assert [tensor.name for tensor in asked.tensors] == ["0.weight", "0.bias"]


def test_the_module_stays_as_it_was() -> None:
    module = nn.Sequential(nn.Linear(5, 4), nn.Dropout(0.5), nn.BatchNorm1d(4), nn.Linear(4, 3)).double().train()
    before, stream = copy.deepcopy(module.state_dict()), torch.get_rng_state()
    trainable = choice_of(module, np.ones(5, np.float32))
    assert all(torch.equal(before[name], value) for name, value in module.state_dict().items())
    assert all(parameter.requires_grad and parameter.dtype == torch.float64 for parameter in module.parameters())
    assert all(part.training for part in module.modules())
    assert torch.equal(torch.get_rng_state(), stream)
    assert "Dropout" not in {one.op_type for one in trainable.model.graph.node}


def test_whole_numbers_stay_whole() -> None:
    module = nn.Sequential(nn.Embedding(7, 4), nn.Flatten(), nn.Linear(12, CLASSES))
    inputs, _ = samples("tokens", 5, 0)
    trainable = choice_of(module, inputs[0])
    assert trainable.features[0].dtype == "int64"
    assert [tensor.name for tensor in trainable.tensors] == ["0.weight", "2.weight", "2.bias"]
    assert_same(module, trainable, inputs)


def test_parameters_may_have_any_names() -> None:
    """Also those that the graph has for its ends, and the exporter for values in between."""
    names = ("samples", "outputs", "mean", "add", "linear", "val_0")

    def forward(m, x):
        h = m.layer(x)
        for name in names:
            h = h + getattr(m, name) * h.mean(1, keepdim=True)
        return h

    torch.manual_seed(0)
    module = Module(
        forward,
        layer=nn.Linear(5, 3),
        **{name: nn.Parameter(torch.randn(3 if name != "add" else ())) for name in names},
    )
    trainable = choice_of(module, np.zeros(5, np.float32))
    assert {tensor.name for tensor in trainable.tensors} == {"layer.weight", "layer.bias", *names}
    assert_same(module, trainable, np.random.default_rng(0).normal(size=(4, 5)).astype(np.float32))


def test_a_parameter_that_is_not_used_can_be_left_out() -> None:
    make, _ = TRACED["unused"]
    module = make()
    source = from_torch(module, np.zeros(5, np.float32))
    with pytest.raises(ModelError, match="spare"):
        prepared(source, Choice())
    trainable, _ = prepared(source, Choice(train=("first.*",)))
    assert_same(module, trainable, np.ones((3, 5), np.float32))


# Refused in words.


def told(module, sample) -> str:
    with pytest.raises(ModelError) as found:
        prepared(from_torch(module, sample), Choice())
    assert "\n" not in str(found.value)
    assert "\x1b" not in str(found.value)
    return str(found.value)


def test_a_module_that_can_not_be_exported_is_told_why() -> None:
    """The exporter's own reason, which stands at the end of what it says."""
    make, shape = REFUSED["data"]
    assert told(make(), np.zeros(shape, np.float32)).startswith("it can't be written as ONNX: ")
    make, shape = TRACED["attention"]
    assert "only 4D query, key, and value are supported" in told(make(), np.zeros(shape, np.float32))


def test_a_module_of_two_outputs_is_told_so() -> None:
    assert "output" in told(Module(lambda m, x: (m.head(x), x), head=head(5)), np.zeros(5, np.float32))


def test_a_module_with_nothing_to_train_is_told_so() -> None:
    assert "requires_grad" in told(nn.Linear(5, 3).requires_grad_(False), np.zeros(5, np.float32))
    assert "requires_grad" in told(nn.ReLU(), np.zeros(5, np.float32))
