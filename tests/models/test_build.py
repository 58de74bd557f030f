import subprocess
import sys

import pytest
import torch
from torch import nn

from baffle.errors import MissingExtraError, SettingsError
from baffle.keys import Key
from baffle.models.build import build

KEY = Key.root(0)
IMAGE = (1, 8, 8)


def weights(model):
    return torch.cat([parameter.detach().flatten() for parameter in model.parameters()])


@pytest.fixture
def own(tmp_path, monkeypatch):
    """Write a module into the current directory; return its name, new each time: Python keeps what it imported."""
    monkeypatch.chdir(tmp_path)
    before = set(sys.modules)
    name = f"own_{tmp_path.name}"

    def write(text):
        (tmp_path / f"{name}.py").write_text(text)
        return name

    yield write
    for module in set(sys.modules) - before:
        if module == name:
            del sys.modules[module]


@pytest.mark.parametrize("name", ["lenet", "wrn", "mlp"])
def test_the_key_alone_decides_the_weights(name):
    first = weights(build(name, IMAGE, 10, key=KEY))
    torch.manual_seed(5)
    assert torch.equal(weights(build(name, IMAGE, 10, key=KEY)), first)
    assert not torch.equal(weights(build(name, IMAGE, 10, key=Key.root(1))), first)
    assert first.dtype == torch.float32


def test_the_callers_generator_is_untouched():
    before = torch.get_rng_state()
    build("mlp", IMAGE, 10, key=KEY)
    assert torch.equal(torch.get_rng_state(), before)


def test_the_callers_generator_is_untouched_by_a_failure():
    before = torch.get_rng_state()
    with pytest.raises(SettingsError):
        build("none", IMAGE, 10, key=KEY)
    assert torch.equal(torch.get_rng_state(), before)


def layers(model, kind):
    return [layer for layer in model.modules() if isinstance(layer, kind)]


@pytest.mark.parametrize(
    ("activation", "kind"),
    [("hardswish", nn.Hardswish), ("relu", nn.ReLU), ("selu", nn.SELU), ("gelu", nn.GELU)],
)
@pytest.mark.parametrize(("name", "places"), [("lenet", 2), ("wrn", 7), ("mlp", 2)])
def test_the_activation_stands_everywhere(name, places, activation, kind):
    assert len(layers(build(name, IMAGE, 10, activation=activation, hidden=(8, 8), key=KEY), kind)) == places


@pytest.mark.parametrize(
    ("name", "norm", "places"),
    [("lenet", None, 0), ("lenet", "group", 2), ("wrn", None, 7), ("wrn", "none", 0), ("mlp", "none", 0)],
)
def test_the_norm_is_the_papers_unless_told_otherwise(name, norm, places):
    assert len(layers(build(name, IMAGE, 10, norm=norm, key=KEY), nn.GroupNorm)) == places


def test_a_perceptron_takes_samples_of_any_shape():
    for shape in ((7,), (3, 4), IMAGE):
        assert build("mlp", shape, 5, hidden=(6,), key=KEY)(torch.zeros(2, *shape)).shape == (2, 5)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"name": "resnet"}, "model = 'resnet': must be lenet, wrn, mlp, or module:function of your own"),
        ({"classes": 0}, "classes = 0: must be at least 1"),
        ({"activation": "swish"}, "activation = 'swish': must be hardswish or relu or selu or gelu"),
        ({"norm": "batch"}, "norm = 'batch': must be group or none"),
        ({"name": "mlp", "norm": "group"}, "norm = 'group': must be none with model mlp"),
        ({"name": "mlp", "hidden": (8, 0)}, r"hidden = \(8, 0\): must be widths of at least 1"),
        ({"shape": (64,)}, r"takes images \[channels, height, width\], 2 x 2 or more, not \[64\]"),
        ({"name": "wrn", "shape": (3, 1, 8)}, r"not \[3, 1, 8\]"),
        ({"name": ":f"}, "must be module:function, like networks:small"),
        ({"name": "a.py:f"}, r"model = 'a\.py:f': no module a\.py in "),
        ({"name": "a/b:f"}, "must be module:function"),
        ({"name": "a:b:c"}, "must be module:function"),
        ({"name": "no_such_module_here:f"}, "no module no_such_module_here in .* nor installed"),
        ({"name": "collections.none:f"}, r"no module collections\.none"),
        ({"name": "math:none"}, r"math \(.*\) has no function none"),
        ({"name": "sys:maxsize"}, r"sys \(built in\) has no function maxsize"),
        ({"name": "math:sqrt"}, r"must be callable as sqrt\(shape, classes\)"),
        ({"name": "operator:contains"}, "must return a torch.nn.Module, returned bool"),
    ],
)
def test_a_wrong_argument_is_named_with_what_is_allowed(settings, words):
    arguments = {"name": "lenet", "shape": IMAGE, "classes": 10, **settings}
    with pytest.raises(SettingsError, match=words):
        build(**arguments, key=KEY)


SMALL = """
import torch

def small(shape, classes):
    assert isinstance(shape, tuple)
    return torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(shape[0] * shape[1], classes))
"""


def test_a_model_of_ones_own_is_found_in_the_current_directory(own):
    path = list(sys.path)
    model = build(f"{own(SMALL)}:small", (2, 3), 4, key=KEY)
    assert model(torch.zeros(5, 2, 3)).shape == (5, 4)
    assert sys.path == path


def test_its_weights_are_decided_by_the_key_too(own):
    name = f"{own(SMALL)}:small"
    first, again, other = (weights(build(name, (2, 3), 4, key=Key.root(seed))) for seed in (0, 0, 1))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_a_package_that_it_lacks_is_reported_as_such(own):
    with pytest.raises(ModuleNotFoundError, match="no_such_package_at_all"):
        build(f"{own('import no_such_package_at_all')}:small", (2,), 2, key=KEY)


def test_its_own_errors_come_through(own):
    name = own("def small(shape, classes):\n    raise ZeroDivisionError('mine')")
    with pytest.raises(ZeroDivisionError, match="mine"):
        build(f"{name}:small", (2,), 2, key=KEY)


def test_a_function_of_other_arguments_is_refused(own):
    name = own("def small(classes):\n    return None")
    with pytest.raises(SettingsError, match=r"callable as small\(shape, classes\): too many positional arguments"):
        build(f"{name}:small", (2,), 2, key=KEY)


def test_importing_it_imports_no_torch():
    check = "import sys, baffle.models, baffle.models.build; print('torch' in sys.modules)"
    run = subprocess.run([sys.executable, "-c", check], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "False"


def test_without_torch_the_error_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "torch", None)
    with pytest.raises(MissingExtraError, match=r"torch is not installed.*baffle\[train\]"):
        build("mlp", IMAGE, 10, key=KEY)
