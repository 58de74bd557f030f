"""`baffle train`."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from baffle.cli.daemon import Interrupted
from baffle.cli.settings import flags_of
from baffle.cli.show import Display, make_report, show_result
from baffle.errors import SettingsError
from baffle.experiment import Experiment, read, read_toml

_ONLY_WITH_RESUME = {"rounds"}


def train(options: argparse.Namespace) -> None:
    """Train, or go on training, and leave a run's folder behind."""
    flags = flags_of(options)
    if options.resume is not None:
        experiment, out = _resumed(options, flags), options.resume
    else:
        experiment = read(read_toml(options.experiment) if options.experiment else {}, flags)
        out = Path(experiment.out) if experiment.out else _free(Path("runs"), experiment)
    _run(experiment, out, resume=options.resume is not None)
    if not options.no_report:
        make_report(out)


def _run(experiment: Experiment, out: Path, *, resume: bool) -> None:
    from baffle.assembly import assemble

    simulation = assemble(experiment)
    settings = experiment.told() | {"out": str(out)}
    with Display(experiment, simulation.runtime.layout.size, len(simulation.shares), out) as display:
        try:
            result = simulation.run(
                experiment.rounds, out=out, resume=resume, settings=settings, progress=display.update
            )
        except KeyboardInterrupt:
            raise Interrupted(f"interrupted; go on with: baffle train --resume {out}") from None
    show_result(result, out)


def _resumed(options: argparse.Namespace, flags: dict[str, Any]) -> Experiment:
    """Return the settings of the run in a folder, with more rounds if so asked."""
    if options.experiment is not None:
        raise SettingsError("resume", str(options.resume), "has its own settings; leave EXPERIMENT.toml out")
    other = sorted(flags.keys() - _ONLY_WITH_RESUME)
    if other:
        raise SettingsError(other[0], flags[other[0]], "can't change when a run is resumed; only rounds can")
    settings = options.resume / "settings.toml"
    found = read_toml(settings) if settings.exists() else {}
    if not isinstance(found.get("algorithm"), str):
        raise SettingsError("resume", str(options.resume), "holds no run that `baffle train` began")
    experiment = read(found, flags)
    if experiment.schedule != "constant" and "rounds" in flags:
        raise SettingsError("rounds", flags["rounds"], f"can't change with schedule = '{experiment.schedule}'")
    if experiment.epsilon and "rounds" in flags and flags["rounds"] != found.get("rounds"):
        raise SettingsError("rounds", flags["rounds"], f"can't change with epsilon: its noise is for {found['rounds']}")
    return experiment


def _free(folder: Path, experiment: Experiment) -> Path:
    """Return a folder's name that says what runs there and is not taken."""
    model = Path(experiment.model).resolve().name if Path(experiment.model).is_dir() else experiment.model
    name = f"{Path(experiment.dataset).stem}-{model.replace(':', '.')}-{experiment.algorithm}"
    return next(path for i in range(1, 1_000_000) if not (path := folder / f"{name}-{i}").exists())
