"""`baffle replay`, `baffle verify` and `baffle report`."""

from __future__ import annotations

import argparse
from pathlib import Path

from baffle import run as runs
from baffle.baselines.presets import BASELINES
from baffle.errors import SettingsError
from baffle.experiment import read_toml
from baffle.kernels import PlainKernels
from baffle.parameters import digest


def replay(options: argparse.Namespace) -> None:
    """Rebuild θ from the ledger; every digest in it is compared on the way."""
    refuse_baseline(options.folder)
    header, state = runs.replay(options.folder, PlainKernels())
    print(f"{header.federation.layout.size} parameters rebuilt from {state.round} rounds; every digest agrees")
    print(f"digest      {digest(state.parameters)}")


def verify(options: argparse.Namespace) -> None:
    """Check the ledger's chain."""
    refuse_baseline(options.folder)
    header, rounds = runs.verify(options.folder)
    print(f"{rounds} rounds of {header.federation.clients} clients: every record is as it was written")


def report(options: argparse.Namespace) -> None:
    """Write a page about one or several runs."""
    from baffle.report import write_report

    out: Path = options.out or options.folder[0] / "report.html"
    for path in write_report(options.folder, out):
        print(path)


def refuse_baseline(folder: Path) -> None:
    """Refuse the folder of a run that keeps no ledger.

    Raises:
        SettingsError: it is a baseline's.
    """
    settings = folder / "settings.toml"
    name = read_toml(settings).get("algorithm") if settings.exists() else None
    if isinstance(name, str) and name in BASELINES:
        raise SettingsError(
            "folder", str(folder), f"holds a run of {name}, which keeps no ledger: metrics.jsonl is its record"
        )
