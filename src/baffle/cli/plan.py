"""`baffle plan`."""

from __future__ import annotations

import argparse
import os
import re
from collections.abc import Callable

import msgspec
from rich.console import Console
from rich.table import Table
from rich.text import Text

from baffle import checks
from baffle.cli.settings import flags_of
from baffle.errors import SettingsError
from baffle.experiment import read, read_toml
from baffle.planning.advice import Limits, advice, size
from baffle.planning.amount import Amount
from baffle.planning.forecast import Forecast, Way

_UNITS = {"": 1, "B": 1, "kB": 10**3, "MB": 10**6, "GB": 10**9, "KiB": 2**10, "MiB": 2**20, "GiB": 2**30}
_MOST_ROUNDS = 10_000_000
"""Beyond it counting round by round takes minutes."""
_WIDE = 200
"""Cells in a line of a file or a pipe."""


def plan(options: argparse.Namespace) -> None:
    """Tell what a run will cost, without running it."""
    limits = Limits(
        _bytes("memory-limit", options.memory_limit),
        _bytes("upload-limit", options.upload_limit),
        not options.no_backward,
    )
    checks.at_least("measure", options.measure, 0)
    checks.at_least("backward-batch", options.backward_batch, 0)
    experiment = read(read_toml(options.experiment) if options.experiment else {}, flags_of(options))
    checks.within("rounds", experiment.rounds, 1, _MOST_ROUNDS)
    from baffle.assembly import simulation_of
    from baffle.planning import forecast, measured

    simulation = simulation_of(experiment)
    found = measured(experiment, options.measure, options.backward_batch) if options.measure else None
    told = forecast(experiment, simulation, found, options.backward_batch)
    if limits.memory is not None and told.ways[0].memory is None:
        rule = "needs to know what a client holds: a PyTorch model, and --measure above 0"
        raise SettingsError("memory-limit", options.memory_limit, rule)
    if options.json:
        print(msgspec.json.encode(msgspec.to_builtins(told) | {"advice": advice(told, limits)}).decode())
        return
    console = Console(highlight=False)
    if not console.is_terminal and "COLUMNS" not in os.environ:
        console = Console(highlight=False, width=_WIDE)
    for section in SECTIONS:
        section(console, told, limits)


def _bytes(name: str, text: str | None) -> int | None:
    """Return a limit in bytes.

    Raises:
        SettingsError: it is no amount above 0.
    """
    if text is None:
        return None
    match = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([A-Za-z]*)\s*", text)
    if match is None or match[2] not in _UNITS:
        raise SettingsError(name, text, f"must be a number of {', '.join(filter(None, _UNITS))}, like 40MB")
    count = int(float(match[1]) * _UNITS[match[2]])
    checks.at_least(name, count, 1)
    return count


def _run(console: Console, told: Forecast, _: Limits) -> None:
    """Show the run as a whole."""
    run = told.run
    rows = [
        ("run", f"{told.rounds:,} rounds, {told.cohort} of {told.clients} clients each, {told.weights:,} weights"),
        ("forwards", f"{_number(run.forwards)} a client"),
        ("upload", f"{_size(run.upload)} a client, {_size(run.received)} in all"),
        ("download", f"{_size(run.download)} a client, {_size(run.sent)} in all"),
        ("ledger", _size(run.ledger)),
        ("server", f"{size(told.server_memory)} of arrays"),
    ]
    if (process := told.process) is not None:
        tried = f"from {process.tried} rounds tried" if process.tried else "from a part of one round"
        rows.append(("time", f"{_seconds(process.seconds)} and {_seconds(process.startup)} to start, {tried}"))
        rows.append(("processor", f"{_seconds(process.processor_seconds)} of a core"))
        rows.append(("memory", f"{size(process.peak_memory)} for `baffle train` here"))
    if run.stops is not None:
        why = "for want of privacy budget" if run.spent else "which never meets its quorum"
        rows.append(("stops", f"in round {run.stops}, {why}"))
    for name, value in rows:
        console.print(Text(f"{name:<12}{value}"), soft_wrap=True)


def _cosine(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"


def _blocks(console: Console, told: Forecast, _: Limits) -> None:
    """Show what each block gets and how well it is measured."""
    console.print()
    table = _table("block", "weights", "directions", "a probe costs", "of the gradient", "cosine")
    for part in told.parts:
        name = part.tensors[0] if len(part.tensors) == 1 else f"{part.tensors[0]} … {part.tensors[-1]}"
        costs, share = f"{100 * part.cost:.1f} %", f"{100 * part.share:.0f} %"
        table.add_row(Text(name), f"{part.size:,}", _number(part.budget), costs, share, _cosine(part.cosine))
    console.print(table)


def _ways(console: Console, told: Forecast, limits: Limits) -> None:
    """Show a client's round, by this method and by backpropagation."""
    console.print()
    table = _table("a client's round", *(way.name for way in told.ways))
    for name, cell in _ROWS:
        table.add_row(name, *(cell(way) for way in told.ways))
    if limits != Limits():
        table.add_row("fits", *("no" if limits.broken_by(way) else "yes" for way in told.ways))
    console.print(table)


def _privacy(console: Console, told: Forecast, _: Limits) -> None:
    """Show who sees what of a client's data."""
    console.print()
    table = Table("who", "sees", "bounded by", box=None, padding=(0, 2, 0, 0), pad_edge=False, header_style="bold")
    for view in told.views:
        table.add_row(view.who, Text(view.sees), view.bounded)
    console.print(table)


def _advice(console: Console, told: Forecast, limits: Limits) -> None:
    """Say what to do."""
    console.print()
    sentence = advice(told, limits)
    console.print(Text(sentence[0].upper() + sentence[1:]), soft_wrap=True)


SECTIONS: tuple[Callable[[Console, Forecast, Limits], None], ...] = (_run, _blocks, _ways, _privacy, _advice)
"""What is shown, in order."""

_ROWS: tuple[tuple[str, Callable[[Way], str]], ...] = (
    ("forwards", lambda way: _number(way.forwards)),
    ("bytes up", lambda way: _size(way.upload)),
    ("bytes down", lambda way: _size(way.download)),
    ("memory", lambda way: "-" if way.memory is None else size(way.memory)),
    ("cosine", lambda way: _cosine(way.cosine)),
    ("time here", lambda way: "-" if way.seconds is None else _seconds(way.seconds)),
)


def _table(first: str, *others: str) -> Table:
    table = Table(box=None, padding=(0, 2, 0, 0), pad_edge=False, header_style="bold")
    table.add_column(first)
    for head in others:
        table.add_column(head, justify="right")
    return table


def _number(amount: Amount) -> str:
    if amount.exact:
        return f"{amount.expected:,.0f}"
    return f"{amount.expected:,.0f} ({amount.least:,.0f} to {amount.most:,.0f})"


def _size(amount: Amount) -> str:
    """Return bytes, to the byte below a million where they are exact."""
    if not amount.exact:
        return f"{size(amount.expected)} ({size(amount.least)} to {size(amount.most)})"
    return f"{amount.expected:,.0f} B" if amount.expected < 10**6 else size(amount.expected)


def _seconds(seconds: float) -> str:
    if seconds < 1:
        return f"{1000 * seconds:.3g} ms"
    return f"{seconds:.3g} s" if seconds < 600 else f"{seconds / 60:.3g} min"


__all__ = ["plan"]
