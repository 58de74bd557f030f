"""From an experiment's settings, as a server tells them, to what a client of it answers with."""

from __future__ import annotations

import math
from collections.abc import Mapping
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from baffle.assembly import runtime_of, simulation_of
from baffle.bundle import MANIFEST
from baffle.data.own import load_own
from baffle.engines.network.dialogue import Welcome
from baffle.engines.network.member import Equipment
from baffle.errors import MissingExtraError, SettingsError
from baffle.experiment import Experiment, read
from baffle.keys import Key
from baffle.simulation import Share

BUILT_IN_MODELS = ("mlp", "lenet", "wrn")
BUILT_IN_DATA = ("digits", "mnist", "fashion", "cifar10", "cifar100")
_MOST = {"chunk": 4096, "memory": 4096}
"""The largest values of settings that a server may choose for this machine: what they bound is memory here."""
_MOST_SHARED = {"clients": 1 << 16, "shards": 1 << 16, "image_size": 64}
"""The same where the client's samples are a share of a built-in data set."""
_MOST_WEIGHTS = 1 << 26
"""Of a built-in model that a server names."""
_MINE = {"data_dir": "", "engine": "local", "workers": 0, "address": "", "out": "", "threads": 0, "device": "auto"}
"""Settings that are a machine's own affair."""


def equip(
    welcome: Welcome, number: int, private: Key, own: Mapping[str, Any], *, data: Path | None, reproducible: bool
) -> Equipment:
    """Return what client `number` answers with.

    Args:
        welcome: the server's words, untrusted: they can name neither code nor files of this machine.
        number: the client's.
        private: the key of its own randomness.
        own: settings that this machine's user gave, which overrule the server's.
        data: a file of the client's samples; None takes its share of the experiment's data set.
        reproducible: whether batches and rounding follow the experiment's seed, for tests and research.

    Raises:
        SettingsError, DataError, ModelError: something can't be used; says what and why.
        MissingExtraError: an extra is not installed.
    """
    experiment = _experiment(welcome, own)
    _refuse_large(welcome, experiment, own, shared=data is None)
    try:
        return _equipment(welcome, experiment, number, private, data=data, reproducible=reproducible)
    except MissingExtraError as error:
        if error.package != "torch":
            raise
        rule = (
            "needs PyTorch, which is not here: name a folder of `baffle export` with --model, or install baffle[train]"
        )
        raise SettingsError("model", experiment.model, rule) from None


def _equipment(
    welcome: Welcome, experiment: Experiment, number: int, private: Key, *, data: Path | None, reproducible: bool
) -> Equipment:
    key = Key.root(experiment.seed)
    if data is not None:
        samples = load_own(
            data,
            classes=welcome.kind.classes,
            class_names=welcome.kind.class_names,
            shape=welcome.kind.shape,
            label_column=experiment.label_column,
            client_column=experiment.client_column,
        )
        runtime, share = runtime_of(experiment, samples, key), Share(samples, np.arange(len(samples)))
    else:
        simulation = _simulated(experiment)
        if number >= len(simulation.shares):
            rule = f"must be below {len(simulation.shares)}, the clients among whom the data are shared out"
            raise SettingsError("number", number, rule)
        runtime, share = simulation.runtime, simulation.shares[number]
    if reproducible:
        private = key.fold("clients").fold(number)
    return Equipment(runtime, share.indices.size, share.draw, private, reproducible=reproducible)


def _experiment(welcome: Welcome, own: Mapping[str, Any]) -> Experiment:
    if "model" not in own and welcome.settings.get("model") not in BUILT_IN_MODELS:
        rule = "is the server's, and not built in: name this machine's copy of it with --model"
        raise SettingsError("model", welcome.settings.get("model"), rule)
    model = str(own.get("model", "mlp"))
    if model not in BUILT_IN_MODELS and ":" not in model and not (Path(model) / MANIFEST).is_file():
        raise SettingsError("model", model, "is no folder that `baffle export` made")
    return read(welcome.settings, _MINE, own)


def _refuse_large(welcome: Welcome, experiment: Experiment, own: Mapping[str, Any], *, shared: bool) -> None:
    """Refuse what would fill this machine's memory only because a server says so."""
    for name, most in (_MOST | (_MOST_SHARED if shared else {})).items():
        value = getattr(experiment, name)
        if name not in own and value > most:
            advice = f"; choose it with --{name}" if name in _MOST else ""
            raise SettingsError(name, value, f"is the server's, and must be at most {most} where it is{advice}")
    if "model" in own:
        return
    hidden = experiment.hidden if experiment.model == "mlp" else (1024,)
    widths = (math.prod(welcome.kind.shape), *hidden, welcome.kind.classes)
    weights = sum((before + 1) * after for before, after in pairwise(widths))
    if weights > _MOST_WEIGHTS:
        rule = f"is the server's, and would have {weights} weights, where at most {_MOST_WEIGHTS} are made at its word"
        raise SettingsError("model", experiment.model, f"{rule}; name this machine's copy of it with --model")


def _simulated(experiment: Experiment) -> Any:
    if experiment.dataset not in BUILT_IN_DATA:
        rule = "is the server's, and not built in: name this client's file with --data"
        raise SettingsError("dataset", experiment.dataset, rule)
    return simulation_of(experiment)
