"""`baffle status`."""

from __future__ import annotations

import argparse
import json
import os
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from rich.cells import cell_len
from rich.console import Console
from rich.table import Table
from rich.text import Text

from baffle.cli.keys import SOON
from baffle.cli.show import size
from baffle.status import Client, Status, Waiting, printable, read_both

_WIDE = 10_000
"""Cells in a line of a file or a pipe."""
_GAP = 2
"""Cells between columns."""
_NAMED = 20
"""More clients than these are counted, not named."""
_REASON = 300
"""Characters shown of a refusal's reason; --json shows all."""
_DAY = 86_400


@dataclass(frozen=True, slots=True)
class _Column:
    head: str
    text: Callable[[Client, float], str]
    """Of a client and the time, seconds since 1970."""
    drop: int = 0
    """On a narrow terminal the column with the greatest is left out first; one with 0 never is."""
    left: bool = False
    style: Callable[[Client], str] = lambda _: ""


def status(options: argparse.Namespace) -> None:
    """Show where a run over a network is and how each client does."""
    found, source = read_both(options.folder)
    now = time.time()
    if options.json:
        print(json.dumps(source | {"age": found.age(now)}))
        return
    console = Console(highlight=False)
    if not console.is_terminal and "COLUMNS" not in os.environ:
        console = Console(highlight=False, width=_WIDE)
    _show(console, options.folder, found, now)


def _show(console: Console, folder: Path, found: Status, now: float) -> None:
    for name, value in _heading(folder, found, now):
        _print(console, f"{name:<12}{value}")
    if found.clients:
        console.print()
        _show_clients(console, found.clients, now)
    if notes := [*_notes(found)]:
        console.print()
        for note in notes:
            _print(console, note)


def _print(console: Console, line: str, style: str = "") -> None:
    console.print(Text(_sayable(line, console), style), soft_wrap=True)


def _sayable(text: str, console: Console) -> str:
    """Return `text` with what the output's encoding lacks as escapes."""
    return text.encode(console.encoding, "backslashreplace").decode(console.encoding)


def _heading(folder: Path, found: Status, now: float) -> list[tuple[str, str]]:
    total = "" if found.rounds is None else f" of {found.rounds}"
    attempt = f", attempt {found.attempt}" if found.attempt else ""
    lines = [("run", printable(str(folder))), ("round", f"{found.round}{total}{attempt}")]
    if not found.finished:
        lines.append(("pace", f"{found.rounds_a_minute:.1f} rounds a minute"))
        lines.append(("waiting for", _awaited(found)))
    if found.listen:
        process = "" if found.pid is None or found.finished or found.stale(now) else f", process {found.pid}"
        lines.append(("server", ", ".join(found.listen) + process))
    if found.certificate_days is not None:
        soon = " !" if _ends_soon(found) else ""
        lines.append(("certificate", f"{_many(found.certificate_days, 'day')} left{soon}"))
    if found.strangers:
        lines.append(("strangers", f"{_many(found.strangers, 'message')} of no client refused"))
    if found.inbox.dropped or found.inbox.dropped_strangers:
        lines.append(("inbox", _waiting(found.inbox)))
    return [*lines, ("status", _standing(found, now))]


def _waiting(inbox: Waiting) -> str:
    dropped = f"{_many(inbox.dropped, 'message')} of clients and {inbox.dropped_strangers} of strangers dropped"
    return f"{inbox.messages} waiting, {inbox.peak_messages} ({size(inbox.peak_bytes)}) at most; {dropped}"


def _awaited(found: Status) -> str:
    if not found.asked:
        return "nobody: no round is open"
    if not found.waiting_for:
        return f"nobody: all {found.asked} have answered"
    which = "client" if len(found.waiting_for) == 1 else "clients"
    answered = found.asked - len(found.waiting_for)
    return f"{which} {_listed(found.waiting_for)} ({answered} of {found.asked} have answered)"


def _standing(found: Status, now: float) -> str:
    age = found.age(now)
    if found.finished:
        return f"finished {_span(age)} ago"
    if not found.stale(now):
        return f"{_span(age)} old"
    return f"{_span(age)} old: the server is not running, or busy since {_clock(found.time, age)}"


def _notes(found: Status) -> list[str]:
    notes: list[str] = []
    if unseen := found.unseen():
        notes.append(f"never seen: {'client' if len(unseen) == 1 else 'clients'} {_listed(unseen)}")
    ending = [("the server", found), *((f"client {row.client}", row) for row in found.clients)]
    if soon := [f"{name} ({of.certificate_days} d)" for name, of in ending if _ends_soon(of)]:
        notes.append(f"! certificates that end soon: {_listed(soon)}; make new ones with `baffle keys`")
    for client in found.clients:
        if client.dropped:
            notes.append(f"client {client.client}: {_many(client.dropped, 'message')} dropped, more than it may send")
        if client.last_refusal:
            cut = len(client.last_refusal) > _REASON
            reason = client.last_refusal[: _REASON - 3] + "..." if cut else client.last_refusal
            notes.append(f"client {client.client}, refused last: {reason}")
    return notes


def _show_clients(console: Console, clients: Sequence[Client], now: float) -> None:
    """Print a row a client, with as many columns as there is room for."""
    cells = {column.head: [_sayable(column.text(client, now), console) for client in clients] for column in _COLUMNS}
    shown = _fitting({head: max(map(cell_len, [head, *texts])) for head, texts in cells.items()}, console.width)
    table = Table(box=None, padding=(0, _GAP, 0, 0), pad_edge=False, header_style="bold")
    for column in shown:
        table.add_column(column.head, justify="left" if column.left else "right", no_wrap=True)
    for index, client in enumerate(clients):
        table.add_row(*(Text(cells[column.head][index], column.style(client)) for column in shown))
    console.print(table)
    if absent := [column.head for column in _COLUMNS if column not in shown]:
        _print(console, f"no room for: {', '.join(absent)}", "dim")


def _fitting(widths: dict[str, int], room: int) -> list[_Column]:
    """Return the columns that fit into `room` cells, the least important ones left out."""
    shown = list(_COLUMNS)
    while sum(widths[column.head] + _GAP for column in shown) - _GAP > room:
        last = max(shown, key=lambda column: column.drop)
        if not last.drop:
            break
        shown.remove(last)
    return shown


def _state(client: Client, _: float) -> str:
    away = client.state == "away" and client.missing_for is not None
    return f"away {_span(client.missing_for or 0.0)}" if away else client.state


def _state_style(client: Client) -> str:
    return {"away": "yellow", "never seen": "dim", "done": "green", "revoked": "red"}.get(client.state, "")


def _reported(client: Client, now: float) -> str:
    return "-" if client.last_report is None else f"{_span(max(0.0, now - client.last_report))} ago"


def _certificate(client: Client, _: float) -> str:
    if client.certificate_days is None:
        return "-"
    return f"{client.certificate_days} d{' !' if _ends_soon(client) else ''}"


def _ends_soon(of: Client | Status) -> bool:
    return of.certificate_days is not None and of.certificate_days < SOON


def _warned(wrong: bool) -> str:
    return "yellow" if wrong else ""


_COLUMNS = (
    _Column("client", lambda client, _: str(client.client)),
    _Column("state", _state, left=True, style=_state_style),
    _Column("version", lambda client, _: "-" if client.version is None else str(client.version), 7),
    _Column("last report", _reported, 3),
    _Column("latency", lambda client, _: _brief(client.latency), 2),
    _Column("evaluation", lambda client, _: _brief(client.evaluation if client.answered else None), 10),
    _Column("up", lambda client, _: size(client.up), 5),
    _Column("down", lambda client, _: size(client.down), 6),
    _Column("answered", lambda client, _: str(client.answered), 4),
    _Column("late", lambda client, _: str(client.late), 8),
    _Column("duplicates", lambda client, _: str(client.duplicate), 11),
    _Column("refused", lambda client, _: str(client.refused), 1, style=lambda client: _warned(client.refused > 0)),
    _Column("certificate", _certificate, 9, style=lambda client: _warned(_ends_soon(client))),
)


def _brief(seconds: float | None) -> str:
    """Return a short time as text: milliseconds below ten seconds."""
    if seconds is None:
        return "-"
    return f"{1000 * seconds:.0f} ms" if seconds < 10 else _span(seconds)


def _span(seconds: float) -> str:
    """Return a time as text, in the largest unit that leaves two of it or more."""
    for unit, length in (("d", _DAY), ("h", 3600), ("min", 60)):
        if seconds >= 2 * length:
            return f"{seconds // length:.0f} {unit}"
    return f"{seconds:.0f} s"


def _clock(moment: float, age: float) -> str:
    """Return a time of day here, with its date where it is not of the last day."""
    return f"{datetime.fromtimestamp(moment).astimezone():{'%Y-%m-%d ' if age >= _DAY else ''}%H:%M:%S}"


def _listed(names: Sequence[object]) -> str:
    named = ", ".join(map(str, names[:_NAMED]))
    return named if len(names) <= _NAMED else f"{named} and {len(names) - _NAMED} more"


def _many(number: int, what: str) -> str:
    return f"{number} {what}{'' if number == 1 else 's'}"


__all__ = ["status"]
