"""From an experiment's settings to the objects that run it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from baffle import extras
from baffle.data import Dataset, Indices, by_owner, dirichlet, iid, load, shards
from baffle.errors import BaffleError, ModelError, SettingsError
from baffle.experiment import Experiment
from baffle.keys import Key
from baffle.processors import cores
from baffle.runtimes import Runtime
from baffle.simulation import Share, Simulation

if TYPE_CHECKING:
    from torch import nn


_SMALL = 20_000
"""Weights below which a model's calls are too short to share: threads would mostly wait for each other."""


def assemble(experiment: Experiment) -> Simulation:
    """Return the simulated federation that `experiment` describes: data loaded and shared out, model built.

    Raises:
        SettingsError, DataError, ModelError: something can't be used; says what and why.
        MissingExtraError: an extra is not installed.
    """
    extras.require("torch", "train")
    key = Key.root(experiment.seed)
    split = load(
        experiment.dataset,
        data_dir=Path(experiment.data_dir).expanduser() if experiment.data_dir else None,
        image_size=None if experiment.image_size < 0 else experiment.image_size,
        key=key.fold("held out"),
        label_column=experiment.label_column,
        client_column=experiment.client_column,
        download=not experiment.data_dir,
    )
    return Simulation(
        runtime=_runtime(experiment, split.train, key),
        shares=[Share(split.train, indices) for indices in _partition(experiment, split.train, key.fold("partition"))],
        algorithm=experiment.baffle(),
        test=split.test,
        seed=experiment.seed,
        participation=experiment.participation,
        quorum=experiment.quorum,
        weight=experiment.weight,
        unavailable=experiment.unavailable,
        engine=experiment.engine,
        workers=experiment.workers,
        address=experiment.address,
        evaluate_every=experiment.evaluate_every,
        snapshot_every=experiment.snapshot_every,
    )


def _partition(experiment: Experiment, data: Dataset, key: Key) -> Indices:
    match experiment.partition:
        case "iid":
            return iid(data.targets, experiment.clients, key)
        case "dirichlet":
            return dirichlet(data.targets, experiment.clients, experiment.alpha, key)
        case "shards":
            return shards(data.targets, experiment.clients, experiment.shards, key)
        case "owner":
            if data.owners is None:
                raise SettingsError("partition", "owner", f"{experiment.dataset} does not say whose each sample is")
            return by_owner(data.owners)


def _runtime(experiment: Experiment, data: Dataset, key: Key) -> Runtime:
    from baffle.runtimes.torch import TorchRuntime

    model = _model(experiment, data, key)
    weights = sum(parameter.numel() for parameter in model.parameters())
    own = ":" in experiment.model
    try:
        runtime = TorchRuntime(
            model,
            device=experiment.device,
            precision=experiment.precision,
            drawn=experiment.initial == "key" and not own,
            chunk=experiment.chunk,
            memory=experiment.memory,
            threads=experiment.threads or (1 if weights < _SMALL else cores()),
        )
    except (RuntimeError, AssertionError) as error:  # PyTorch asserts that CUDA is there
        raise SettingsError("device", experiment.device, f"can't be used: {_first_line(error)}") from None
    _try(experiment, runtime, data)
    return runtime


def _model(experiment: Experiment, data: Dataset, key: Key) -> nn.Module:
    from baffle.models.build import build

    try:
        return build(
            experiment.model,
            data.shape,
            data.classes,
            activation=experiment.activation,
            norm=None if experiment.norm == "auto" else experiment.norm,
            hidden=experiment.hidden,
            key=key.fold("model"),
        )
    except BaffleError:
        raise
    except Exception as error:  # a user's own module may fail in any way
        raise ModelError(
            f"{experiment.model} fails when it is built: {type(error).__name__}: {_first_line(error)}"
        ) from error


def _try(experiment: Experiment, runtime: Runtime, data: Dataset) -> None:
    """Fail now, in words, rather than in the first round."""
    one_of_each_class = data.take(np.unique(data.targets, return_index=True)[1])
    try:
        runtime.losses([np.zeros(runtime.layout.size, runtime.precision)], [one_of_each_class])
    except ModelError as error:
        raise ModelError(f"{experiment.model}: {error}") from error


def _first_line(error: Exception) -> str:
    return str(error).strip().split("\n")[0]
