"""From an experiment's settings to the objects that run it."""

from __future__ import annotations

import atexit
import shutil
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from baffle import extras
from baffle.algorithms import Baffle
from baffle.baselines import Centralised
from baffle.baselines.baseline import Baseline, pooled
from baffle.bundle import MANIFEST
from baffle.data import Dataset, Indices, Split, by_owner, dirichlet, iid, load, shards
from baffle.errors import BaffleError, ModelError, SettingsError
from baffle.experiment import Experiment
from baffle.keys import Key
from baffle.processors import cores
from baffle.progress import Progress, Result
from baffle.runtimes import Runtime
from baffle.simulation import Share, Simulation

if TYPE_CHECKING:
    from torch import nn

    from baffle.export import Source


_SMALL = 20_000
"""Weights below which a model's calls are too short to share: threads would mostly wait for each other."""


class Trainable(Protocol):
    """A federation in this process with what it does in a round."""

    @property
    def runtime(self) -> Runtime:
        """What evaluates losses."""
        ...

    @property
    def shares(self) -> Sequence[Share]:
        """Of each client."""
        ...

    def run(
        self,
        rounds: int,
        *,
        out: Path | None = None,
        resume: bool = False,
        settings: Mapping[str, Any] | None = None,
        progress: Callable[[Progress], None] = ...,
    ) -> Result:
        """Return the result after `rounds` rounds in all, as `Simulation.run` does."""
        ...


def assemble(experiment: Experiment) -> Trainable:
    """Return what `experiment` describes: Baffle or a baseline on a simulated federation.

    Raises:
        SettingsError, DataError, ModelError: something can't be used; says what and why.
        MissingExtraError: an extra is not installed.
    """
    method = experiment.baseline()
    if method is None:
        return simulation_of(experiment)
    federation = _simulation(experiment, Baffle())
    return Baseline(method, pooled(federation) if isinstance(method, Centralised) else federation)


def simulation_of(experiment: Experiment) -> Simulation:
    """Return the simulated federation that `experiment` describes: data loaded and shared out, model built.

    Raises:
        SettingsError, DataError, ModelError: something can't be used; says what and why. So is a baseline.
        MissingExtraError: an extra is not installed.
    """
    return _simulation(experiment, experiment.baffle())


def _simulation(experiment: Experiment, algorithm: Baffle) -> Simulation:
    key = Key.root(experiment.seed)
    split = _load(experiment, key)
    return Simulation(
        runtime=runtime_of(experiment, split.train, key),
        shares=[Share(split.train, indices) for indices in _partition(experiment, split.train, key.fold("partition"))],
        algorithm=algorithm,
        test=split.test,
        seed=experiment.seed,
        participation=experiment.participation,
        quorum=experiment.quorum,
        weight=experiment.weight,
        unavailable=experiment.unavailable,
        engine=experiment.engine,
        workers=experiment.workers,
        address=experiment.address,
        secure=experiment.secure,
        minimum=experiment.minimum,
        sum_size=experiment.sum_size,
        privacy=experiment.target(),
        evaluate_every=experiment.evaluate_every,
        snapshot_every=experiment.snapshot_every,
    )


def _load(experiment: Experiment, key: Key) -> Split:
    """Return the data, read or downloaded."""
    return load(
        experiment.dataset,
        data_dir=Path(experiment.data_dir).expanduser() if experiment.data_dir else None,
        image_size=None if experiment.image_size < 0 else experiment.image_size,
        key=key.fold("held out"),
        label_column=experiment.label_column,
        client_column=experiment.client_column,
        download=not experiment.data_dir,
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


def runtime_of(experiment: Experiment, data: Dataset, key: Key) -> Runtime:
    """Return what evaluates the experiment's model on samples like `data`.

    Raises:
        SettingsError, DataError, ModelError: something can't be used; says what and why.
        MissingExtraError: an extra is not installed.
    """
    if (Path(experiment.model) / MANIFEST).exists() or experiment.runtime == "onnx":
        runtime = _onnx_runtime(experiment, data, key)
    else:
        runtime = _torch_runtime(experiment, data, key)
    _try(experiment, runtime, data)
    return runtime


def _torch_runtime(experiment: Experiment, data: Dataset, key: Key) -> Runtime:
    extras.require("torch", "train")
    from baffle.runtimes.torch import TorchRuntime

    model = _model(experiment, data, key)
    weights = sum(parameter.numel() for parameter in model.parameters())
    try:
        return TorchRuntime(
            model,
            device=experiment.device,
            precision=experiment.precision,
            drawn=_drawn(experiment),
            chunk=experiment.chunk,
            memory=experiment.memory,
            threads=experiment.threads or (1 if weights < _SMALL else cores()),
            pruned=experiment.pruned,
        )
    except (RuntimeError, AssertionError) as error:  # PyTorch asserts that CUDA is there
        raise SettingsError("device", experiment.device, f"can't be used: {_first_line(error)}") from None


def _onnx_runtime(experiment: Experiment, data: Dataset, key: Key) -> Runtime:
    from baffle.runtimes.onnx import OnnxRuntime

    if experiment.precision != "float32":
        raise SettingsError("precision", experiment.precision, "must be float32 with ONNX Runtime")
    if experiment.device not in ("auto", "cpu"):
        raise SettingsError("device", experiment.device, "must be cpu or auto with ONNX Runtime")
    folder = Path(experiment.model)
    if not (folder / MANIFEST).exists():
        folder = _temporary()
        extras.require("onnx", "onnx")
        from baffle.export import Choice, export, prepared

        trainable, expected = prepared(_source(experiment, data, key), Choice(pruned=experiment.pruned))
        export(trainable, folder, expected=expected, blocks=experiment.blocks)
    return OnnxRuntime(folder, chunk=experiment.chunk, threads=experiment.threads or cores())


def _temporary() -> Path:
    """Return a folder that lasts as long as this process."""
    folder = tempfile.mkdtemp(prefix="baffle-")
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return Path(folder)


def module(experiment: Experiment) -> tuple[nn.Module, Dataset] | None:
    """Return the PyTorch model that `experiment` describes and its training data; None for an exported model.

    Raises:
        SettingsError, DataError, ModelError: something can't be used; says what and why.
        MissingExtraError: an extra is not installed.
    """
    if (Path(experiment.model) / MANIFEST).exists():
        return None
    extras.require("torch", "train")
    key = Key.root(experiment.seed)
    data = _load(experiment, key).train
    return _model(experiment, data, key), data


def source(experiment: Experiment) -> Source:
    """Return the PyTorch model that `experiment` describes, as something to be exported.

    Raises:
        SettingsError, DataError, ModelError: something can't be used; says what and why.
        MissingExtraError: an extra is not installed.
    """
    key = Key.root(experiment.seed)
    return _source(experiment, _load(experiment, key).train, key)


def _source(experiment: Experiment, data: Dataset, key: Key) -> Source:
    extras.require("torch", "train")
    extras.require("onnx", "onnx")
    from baffle.export.from_torch import from_torch

    inputs, _ = data.take(np.arange(1))
    try:
        return from_torch(_model(experiment, data, key), inputs[0], drawn=_drawn(experiment))
    except ModelError as error:
        raise ModelError(f"{experiment.model}: {error}") from error


def _drawn(experiment: Experiment) -> bool:
    """Return whether first weights come from the run's key."""
    return experiment.initial == "key" and ":" not in experiment.model


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
