"""One contract over every optimizer, PyTorch as the reference where it is installed, and hand numbers."""

import numpy as np
import pytest

from baffle.errors import SettingsError
from baffle.optimizers import Adam, Sgd

SETTINGS = [
    Sgd(rate=0.05),
    Sgd(rate=0.05, momentum=0.9),
    Sgd(rate=0.05, momentum=0.5, weight_decay=0.1),
    Adam(rate=0.02),
    Adam(rate=0.02, beta1=0.9, beta2=0.999, eps=1e-6),
    Adam(rate=0.02, beta1=0.5, beta2=0.9, weight_decay=0.1),
    Adam(rate=0.02, beta1=0.0, beta2=0.0),
]
GENERATOR = np.random.default_rng(3)
START = GENERATOR.normal(size=40).astype(np.float32)
GRADIENTS = GENERATOR.normal(size=(50, 40)).astype(np.float32)


def walk(optimizer, gradients, factor=1.0):
    parameters, memory = START, optimizer.init(START.size)
    for gradient in gradients:
        parameters, memory = optimizer(parameters, gradient, memory, factor)
    return parameters, memory


@pytest.mark.parametrize("optimizer", SETTINGS, ids=repr)
def test_fifty_steps_are_pytorchs(optimizer):
    torch = pytest.importorskip("torch")
    parameter = torch.nn.Parameter(torch.from_numpy(START.copy()))
    common = {"lr": optimizer.rate, "weight_decay": optimizer.weight_decay}
    if isinstance(optimizer, Sgd):
        theirs = torch.optim.SGD([parameter], momentum=optimizer.momentum, **common)
    else:
        theirs = torch.optim.Adam([parameter], betas=(optimizer.beta1, optimizer.beta2), eps=optimizer.eps, **common)
    ours, memory = START, optimizer.init(START.size)
    for gradient in GRADIENTS:
        ours, memory = optimizer(ours, gradient, memory)
        parameter.grad = torch.from_numpy(gradient.copy())
        theirs.step()
        np.testing.assert_allclose(ours, parameter.detach().numpy(), rtol=1e-6, atol=2e-6)


@pytest.mark.parametrize("optimizer", SETTINGS, ids=repr)
def test_nothing_is_changed_in_place(optimizer):
    parameters, gradient = START.copy(), GRADIENTS[0].copy()
    _, memory = walk(optimizer, GRADIENTS[:3])
    before = {name: array.copy() for name, array in memory.items()}
    for array in (parameters, gradient, *memory.values()):
        array.flags.writeable = False
    first, left = optimizer(parameters, gradient, memory)
    again, _ = optimizer(parameters, gradient, memory)
    assert np.array_equal(first, again)
    assert not np.array_equal(first, parameters)
    assert left.keys() == before.keys() == memory.keys()
    assert all(np.array_equal(memory[name], before[name]) for name in before)


@pytest.mark.parametrize("optimizer", SETTINGS, ids=repr)
def test_parameters_stay_float32_and_memory_keeps_its_types(optimizer):
    parameters, memory = walk(optimizer, GRADIENTS[:3])
    assert parameters.dtype == np.float32
    for name, array in optimizer.init(START.size).items():
        assert array.dtype == memory[name].dtype
        assert array.shape == memory[name].shape
        assert array.dtype == (np.float32 if array.shape == START.shape else np.float64)


@pytest.mark.parametrize("optimizer", SETTINGS, ids=repr)
def test_a_factor_scales_the_rate(optimizer):
    kind = type(optimizer)
    fields = {name: getattr(optimizer, name) for name in optimizer.__struct_fields__}
    quarter = kind(**(fields | {"rate": optimizer.rate / 4}))
    assert np.array_equal(walk(optimizer, GRADIENTS[:5], 0.25)[0], walk(quarter, GRADIENTS[:5])[0])


def step_by_step(optimizer, gradients):
    """Return θ by scalars, each operation rounded to float32 where the docstrings say so."""
    f32, result = np.float32, []
    for i, theta in enumerate(START):
        first = second = velocity = f32(0)
        for t, gradient in enumerate(gradients[:, i], start=1):
            g = gradient
            if optimizer.weight_decay:
                g = gradient + f32(optimizer.weight_decay) * theta
            if isinstance(optimizer, Sgd):
                velocity = f32(optimizer.momentum) * velocity + g
                theta = theta - f32(optimizer.rate) * velocity
                continue
            power1 = power2 = 1.0
            for _ in range(t):
                power1, power2 = power1 * optimizer.beta1, power2 * optimizer.beta2
            first = f32(optimizer.beta1) * first + f32(1 - optimizer.beta1) * g
            second = f32(optimizer.beta2) * second + f32(1 - optimizer.beta2) * (g * g)
            root = np.sqrt(second) / f32(np.sqrt(1 - power2)) + f32(optimizer.eps)
            theta = theta - f32(optimizer.rate / (1 - power1)) * (first / root)
        result.append(theta)
    return np.array(result, np.float32)


@pytest.mark.parametrize("optimizer", SETTINGS, ids=repr)
def test_every_operation_rounds_once_in_the_stated_order(optimizer):
    ours = walk(optimizer, GRADIENTS[:20])[0]
    assert np.array_equal(ours.view(np.uint32), step_by_step(optimizer, GRADIENTS[:20]).view(np.uint32))


def one(value):
    return np.array([value], np.float32)


def test_sgd_by_hand():
    sgd = Sgd(rate=0.5, momentum=0.5, weight_decay=0.25)
    parameters, memory = sgd(one(4.0), one(1.0), sgd.init(1))  # g = 2, v = 2
    assert (parameters[0], memory["momentum"][0]) == (3.0, 2.0)
    parameters, memory = sgd(parameters, one(1.0), memory)  # g = 1.75, v = 2.75
    assert (parameters[0], memory["momentum"][0]) == (1.625, 2.75)


def test_sgd_without_momentum_remembers_nothing():
    assert Sgd().init(5) == {}
    assert Sgd(rate=0.5)(one(1.0), one(3.0), {}) == (one(-0.5), {})


@pytest.mark.parametrize("gradient", [1e-3, 0.5, -40.0])
def test_adams_first_step_is_the_rate_whatever_the_gradients_size(gradient):
    adam = Adam(rate=0.125)
    parameters, _ = adam(one(1.0), one(gradient), adam.init(1))
    assert parameters[0] == pytest.approx(1.0 - 0.125 * np.sign(gradient), rel=2e-5)


def test_adams_second_step_by_hand():
    adam = Adam(rate=1.0, beta1=0.5, beta2=0.75, eps=1.0)
    parameters, memory = adam(one(0.0), one(4.0), adam.init(1))  # m = 2, v = 4; 2/(2/0.5 + 1) / 0.5
    assert parameters[0] == pytest.approx(-0.8, rel=1e-6)
    parameters, memory = adam(parameters, one(0.0), memory)  # m = 1, v = 3, powers ¼ and 9/16
    expected = -0.8 - 1 / (np.sqrt(3) / np.sqrt(7 / 16) + 1) / 0.75
    assert parameters[0] == pytest.approx(expected, rel=1e-6)
    assert (memory["power1"][0], memory["power2"][0]) == (0.25, 0.5625)


@pytest.mark.parametrize(
    ("kind", "field", "value", "rule"),
    [
        (Sgd, "rate", 0.0, "must be a finite number > 0"),
        (Sgd, "rate", float("inf"), "must be a finite number > 0"),
        (Sgd, "momentum", 1.0, "must be at least 0 and below 1"),
        (Sgd, "momentum", -0.1, "must be at least 0 and below 1"),
        (Sgd, "weight_decay", -1e-9, "must be 0 or more"),
        (Adam, "rate", -1.0, "must be a finite number > 0"),
        (Adam, "beta1", 1.0, "must be at least 0 and below 1"),
        (Adam, "beta2", float("nan"), "must be at least 0 and below 1"),
        (Adam, "eps", 0.0, "must be a finite number > 0"),
        (Adam, "weight_decay", float("inf"), "must be 0 or more"),
    ],
)
def test_a_setting_out_of_range_is_named_with_its_value_and_rule(kind, field, value, rule):
    with pytest.raises(SettingsError) as caught:
        kind(**{field: value})
    assert (caught.value.field, caught.value.rule) == (field, rule)
    assert str(caught.value) == f"{field} = {value!r}: {rule}"
