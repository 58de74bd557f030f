"""What `baffle compare` shows while runs go on and when they are done."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from threading import Lock
from time import monotonic
from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TaskID, TextColumn, TimeRemainingColumn
from rich.progress import Progress as Bar
from rich.table import Table
from rich.text import Text

from baffle.report.comparison import Comparison, Entry, Listing, listings, verdict
from baffle.trials import Job, Where

_WIDE = 200
"""Cells of a table in a file or a pipe."""


class Display:
    """Bars on a terminal, for each run that goes on; a line for each run that ends."""

    def __init__(self, jobs: Sequence[Job], out: Path) -> None:
        self._console = Console(highlight=False)
        self._all = len(jobs)
        self._done = sum(job.state == "finished" for job in jobs)
        self._lock = Lock()
        self._began: dict[Job, float] = {}
        self._tasks: dict[Job, TaskID] = {}
        self._accuracy: dict[Job, float] = {}
        if jobs:
            there = f", {self._done} finished before" if self._done else ""
            self._print(f"{self._all} runs{there} → {out}")
        self._bar = Bar(
            TextColumn("{task.fields[name]}", markup=False),
            MofNCompleteColumn(),
            BarColumn(bar_width=24),
            TextColumn("{task.description}", markup=False),
            TimeRemainingColumn(),
            console=self._console,
            disable=not self._console.is_terminal,
        )

    def __enter__(self) -> Display:
        self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bar.stop()

    def began(self, job: Job) -> None:
        """Show a bar."""
        with self._lock:
            self._began[job] = monotonic()
            self._tasks[job] = self._bar.add_task("", total=job.experiment.rounds, name=_name(job))

    def went_on(self, job: Job, where: Where) -> None:
        """Move the bar."""
        if where.accuracy is not None:
            self._accuracy[job] = where.accuracy
        told = f"accuracy {100 * self._accuracy[job]:.1f} %" if job in self._accuracy else ""
        self._bar.update(self._tasks[job], completed=where.round, description=told)

    def ended(self, job: Job, reason: str) -> None:
        """Leave a line in place of the bar."""
        with self._lock:
            self._done += 1
            self._bar.remove_task(self._tasks.pop(job))
            accuracy = f"accuracy {100 * self._accuracy[job]:.2f} %, " if job in self._accuracy else ""
            told = f"did not finish: {reason}" if reason else f"{accuracy}{monotonic() - self._began[job]:.0f} s"
            self._print(f"{self._done}/{self._all}  {_name(job)}  {told}")

    def _print(self, line: str) -> None:
        self._console.print(Text(line), soft_wrap=True)


def show_jobs(jobs: Sequence[Job], folders: Sequence[Entry]) -> None:
    """Print which runs there are, and how far each is."""
    console = Console(highlight=False)
    for job in jobs:
        console.print(Text(f"{job.state:<8}  {_name(job)}  {job.folder}"), soft_wrap=True)
    for entry in folders:
        for trial in entry.trials:
            folder = "" if trial.run is None else trial.run.folder
            console.print(Text(f"finished  {entry.name} seed {trial.seed}  {folder}"), soft_wrap=True)


def show_comparison(comparison: Comparison, paths: Sequence[Path]) -> None:
    """Print the tables, who wins on what, and where the page is."""
    console = Console(highlight=False)
    if not console.is_terminal and "COLUMNS" not in os.environ:
        console = Console(highlight=False, width=_WIDE)
    for listing in listings(comparison):
        console.print()
        console.print(_table(comparison, listing))
    console.print()
    for entry in comparison.entries:
        for trial in entry.failed:
            console.print(Text(f"{entry.name} seed {trial.seed} did not finish: {trial.reason}"), soft_wrap=True)
    for line in (*verdict(comparison), *comparison.remarks):
        console.print(Text(line), soft_wrap=True)
    console.print()
    console.print(Text(f"page        {paths[0]}"), soft_wrap=True)


def _table(comparison: Comparison, listing: Listing) -> Table:
    table = Table(title=listing.title, title_justify="left", title_style="bold", box=None, pad_edge=False)
    table.add_column("")
    for name in listing.columns:
        table.add_column(name, justify="right")
    for row in listing.rows:
        cells = [_text(cell.text, cell.about, best=cell.best) for cell in row.cells]
        note = [Text(row.note, "dim")] if row.note else []
        table.add_row(Text(comparison.entries[row.entry].name), *cells, *note)
    return table


def _text(text: str, about: str, *, best: bool) -> Text:
    made = Text(text, "bold" if best else "")
    return made.append(f"\n{about}", "not bold dim") if about else made


def _name(job: Job) -> str:
    return f"{job.label} seed {job.experiment.seed}"
