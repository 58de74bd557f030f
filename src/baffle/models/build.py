"""A model by its name, with initial weights that its key decides. Importing this imports no torch."""

# pyright: standard
from __future__ import annotations

import importlib
import inspect
import math
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from baffle.errors import SettingsError
from baffle.extras import require
from baffle.keys import Key

if TYPE_CHECKING:
    import torch

Choice = TypeVar("Choice")

NAMES = ("lenet", "wrn", "mlp")


def build(
    name: str,
    shape: Sequence[int],
    classes: int,
    *,
    activation: str = "hardswish",
    norm: str | None = None,
    hidden: Sequence[int] = (32,),
    key: Key,
) -> torch.nn.Module:
    """Return the model `name` for samples of `shape`, with fresh weights in float32 on the CPU.

    torch draws them from its global generator, which is seeded from `key` and put back: equal keys give equal
    weights with one version of torch, and the caller's stream is untouched.

    Args:
        name: lenet, wrn (both take images [channels, height, width]), mlp, or "module:function" of one's own. The
            module may lie in the current directory; the function is called with (shape, classes), as a tuple and an
            integer, and returns a torch.nn.Module from samples [B, *shape] to logits [B, classes].
        shape: the shape of one sample.
        classes: number of classes, ≥ 1.
        activation: hardswish, relu, selu or gelu; of the named models, as are `norm` and `hidden`.
        norm: group, none, or None for the paper's: group for wrn, none for the others. An mlp has none.
        hidden: the widths of mlp's hidden layers, each ≥ 1.
        key: names the random stream of the weights.

    Raises:
        SettingsError: an argument is not one of the above; the text says what is allowed.
        MissingExtraError: torch is not installed.
    """
    require("torch", "train")
    if classes < 1:
        raise SettingsError("classes", classes, "must be at least 1")
    with _seeded(key):
        if ":" in name:
            return _own(name, tuple(shape), classes)
        return _named(name, tuple(shape), classes, activation, norm, tuple(hidden))


@contextmanager
def _seeded(key: Key) -> Iterator[None]:
    import torch

    with torch.random.fork_rng(devices=[]):
        # torch.manual_seed would seed the accelerators too, and fork_rng does not put those back.
        torch.default_generator.manual_seed(int.from_bytes(key.fold("torch").secret[:8], "little"))
        yield


def _named(
    name: str, shape: tuple[int, ...], classes: int, activation: str, norm: str | None, hidden: tuple[int, ...]
) -> torch.nn.Module:
    from baffle.models.layers import ACTIVATIONS, NORMS
    from baffle.models.lenet import lenet
    from baffle.models.mlp import mlp
    from baffle.models.wide_resnet import wide_resnet

    if name not in NAMES:
        raise SettingsError("model", name, f"must be {', '.join(NAMES)}, or module:function of your own")
    activate = _choose("activation", activation, ACTIVATIONS)
    normalise = _choose("norm", ("group" if name == "wrn" else "none") if norm is None else norm, NORMS)
    if name == "mlp":
        if norm == "group":
            raise SettingsError("norm", norm, "must be none with model mlp, which has no channels to group")
        if min(hidden, default=1) < 1:
            raise SettingsError("hidden", hidden, "must be widths of at least 1")
        return mlp(math.prod(shape), classes, hidden, activate)
    if len(shape) != 3 or min(shape[1:]) < 2:
        raise SettingsError("model", name, f"takes images [channels, height, width], 2 x 2 or more, not {list(shape)}")
    return (lenet if name == "lenet" else wide_resnet)(shape[0], classes, activate, normalise)


def _choose(field: str, name: str, choices: Mapping[str, Choice]) -> Choice:
    if name not in choices:
        raise SettingsError(field, name, f"must be {' or '.join(choices)}")
    return choices[name]


def _own(name: str, shape: tuple[int, ...], classes: int) -> torch.nn.Module:
    import torch

    with _current_directory_first():
        model = _function(name)(shape, classes)
    if not isinstance(model, torch.nn.Module):
        raise SettingsError("model", name, f"must return a torch.nn.Module, returned {type(model).__name__}")
    return model


def _function(name: str) -> Callable[[tuple[int, ...], int], object]:
    module_name, _, function_name = name.partition(":")
    if not all(part.isidentifier() for part in (*module_name.split("."), function_name)):
        raise SettingsError("model", name, "must be module:function, like networks:small")
    try:
        module = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        if error.name is None or not f"{module_name}.".startswith(f"{error.name}."):
            raise  # the module is there and lacks a package of its own
        raise SettingsError("model", name, f"no module {module_name} in {Path.cwd()} nor installed") from None
    function = getattr(module, function_name, None)
    if not callable(function):
        where = getattr(module, "__file__", None) or "built in"
        raise SettingsError("model", name, f"{module_name} ({where}) has no function {function_name}")
    try:
        inspect.signature(function).bind((), 1)
    except (TypeError, ValueError) as error:
        raise SettingsError("model", name, f"must be callable as {function_name}(shape, classes): {error}") from None
    return function


@contextmanager
def _current_directory_first() -> Iterator[None]:
    folder = str(Path.cwd())
    sys.path.insert(0, folder)
    try:
        yield
    finally:
        sys.path.remove(folder)
