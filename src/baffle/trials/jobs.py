"""Which runs there are to do: an experiment with a seed, each with a folder."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeAlias

import msgspec

from baffle.errors import SettingsError
from baffle.experiment import Experiment, read, read_toml
from baffle.storage import write_files

State: TypeAlias = Literal["finished", "begun", "to do"]
NOT_COMPARED = ("seed", "out")
"""Settings that each run has its own of."""


_SHARED = "at-once"
"""A file in the folder of a run that did not have the machine to itself."""


@dataclass(frozen=True, slots=True)
class Job:
    """An experiment with one seed."""

    label: str
    """Of the experiment."""
    experiment: Experiment
    folder: Path

    @property
    def state(self) -> State:
        """How far the run is, by its folder."""
        if (self.folder / "summary.json").exists():
            return "finished"
        return "begun" if (self.folder / "settings.toml").exists() else "to do"

    def settings(self) -> dict[str, Any]:
        """Return the settings that bear on the run, in the types of TOML."""
        return self.experiment.told() | {"out": str(self.folder)}


def share(folder: Path) -> None:
    """Note that a run does not have the machine to itself."""
    write_files({folder / _SHARED: b""})


def shared(folder: Path) -> bool:
    """Return whether a run was noted not to have had the machine to itself: its seconds say little."""
    return (folder / _SHARED).exists()


def labels(paths: Sequence[Path]) -> dict[Path, str]:
    """Return a name for each path, made unique by as much of the path as that takes: a file's stem or a folder's name.

    A path given twice counts once.
    """
    found = {path.resolve(): path for path in paths}
    for depth in range(1, 1 + max((len(path.parts) for path in found), default=0)):
        names = ["-".join((*path.parts[-depth:-1], _stem(path))).replace("/", "") for path in found]
        if len({name.casefold() for name in names}) == len(names):
            return dict(zip(found.values(), names, strict=True))
    return {path: f"{_stem(path)}-{number}" for number, path in enumerate(found.values(), 1)}


def _stem(path: Path) -> str:
    return path.stem if path.suffix == ".toml" else path.name


def jobs_of(label: str, experiment: Experiment, seeds: Sequence[int], out: Path) -> list[Job]:
    """Return an experiment's runs below `out`.

    Raises:
        SettingsError: one that was begun there has other settings.
    """
    folders = {seed: out / label / f"seed-{seed}" for seed in seeds}
    jobs = [Job(label, msgspec.structs.replace(experiment, seed=seed), folder) for seed, folder in folders.items()]
    for job in jobs:
        _check_kept(job)
    return jobs


def _check_kept(job: Job) -> None:
    kept = job.folder / "settings.toml"
    if not kept.exists():
        return
    found = _comparable(msgspec.structs.asdict(read(read_toml(kept))))
    for name, value in _comparable(msgspec.structs.asdict(job.experiment)).items():
        if found[name] != value:
            rule = f"is {found[name]!r} in {job.folder}, begun before; name another folder with --out"
            raise SettingsError(name, value, rule)


def _comparable(settings: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in settings.items() if name not in NOT_COMPARED}
