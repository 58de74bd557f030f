"""What `baffle train` shows while it runs and when it is done."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from types import TracebackType
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
from rich.progress import Progress as Bar
from rich.table import Table

from baffle.baselines.presets import TITLES
from baffle.experiment import Experiment
from baffle.progress import Progress, Result

_UNITS = ("B", "kB", "MB", "GB")


def size(count: float) -> str:
    """Return bytes in a unit that a person reads at a glance."""
    power = 0
    while count >= 1000 and power + 1 < len(_UNITS):
        count /= 1000
        power += 1
    return f"{count:.4g} {_UNITS[power]}"


class Display:
    """A progress bar on a terminal; on anything else a line for each evaluation."""

    def __init__(self, experiment: Experiment, parameters: int, clients: int, out: Path) -> None:
        self._console = Console(highlight=False)
        self._rounds = experiment.rounds
        self._measured = ""
        name = {**TITLES, "paper": "paper's BAFFLE"}.get(experiment.algorithm, "Baffle")
        cost = "" if experiment.algorithm in TITLES else f", {experiment.forwards:,} forward passes a client and round"
        among = "all in one place" if experiment.algorithm == "centralised" else f"{clients} clients"
        self._console.print(
            f"{name}: {experiment.model} of {parameters:,} weights on {experiment.dataset}, {among}{cost} → {out}",
            soft_wrap=True,
        )
        self._bar = Bar(
            TextColumn("round"),
            MofNCompleteColumn(),
            BarColumn(bar_width=24),
            TextColumn("{task.description}"),
            TimeRemainingColumn(),
            console=self._console,
            disable=not self._console.is_terminal,
        )
        self._task = self._bar.add_task("", total=self._rounds)

    def __enter__(self) -> Display:
        self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bar.stop()

    def update(self, progress: Progress) -> None:
        """Show where the run is."""
        if progress.loss is not None:
            self._measured = f"loss {progress.loss:.3f}"
            spent = "" if progress.epsilon is None else f"  ε {progress.epsilon:.3g}"
            if progress.accuracy is not None:
                self._measured += f"  accuracy {100 * progress.accuracy:.1f} %"
            self._measured += spent
        spent = f"{progress.forward_equivalents:,.0f} forwards  {size(progress.upload_bytes)} up"
        self._bar.update(self._task, completed=progress.round, description=f"{self._measured}  {spent}")
        if not self._console.is_terminal and progress.loss is not None:
            left = progress.seconds / progress.round * (self._rounds - progress.round) if progress.round else None
            remaining = "" if left is None else f"  {left:.0f} s left"
            self._console.print(
                f"round {progress.round:>5}/{self._rounds}  {self._measured}  {spent}{remaining}", soft_wrap=True
            )


def show_result(result: Result, out: Path) -> None:
    """Print what came of a run."""
    table = Table.grid(padding=(0, 2))
    for name, value in _rows(result, out):
        table.add_row(name, str(value))
    Console(highlight=False).print(table, soft_wrap=True)


def make_report(out: Path) -> None:
    """Make a run's page, where the packages for it are installed."""
    if find_spec("matplotlib") is not None:
        from baffle.report import write_report

        print(f"report      {write_report([out], out / 'report.html')[0]}")


def _rows(result: Result, out: Path) -> list[tuple[str, Any]]:
    accuracy = "not measured" if result.accuracy is None else f"{100 * result.accuracy:.2f} %"
    return [
        ("accuracy", accuracy),
        ("loss", "not measured" if result.loss is None else f"{result.loss:.4f}"),
        ("rounds", result.rounds),
        ("forwards", f"{result.forward_equivalents:,.0f} a client"),
        ("upload", f"{size(result.upload_bytes)} a client"),
        ("download", f"{size(result.download_bytes)} a client"),
        ("seconds", f"{result.seconds:.1f}"),
        ("peak memory", size(result.peak_memory_bytes)),
        *([] if result.epsilon is None else [("privacy", f"ε = {result.epsilon:.4g} at δ = {result.delta:g}")]),
        ("digest", result.digest),
        ("folder", out),
    ]
