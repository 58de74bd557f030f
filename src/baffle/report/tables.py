"""The page's tables."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from baffle.report.markup import Markup, cell, escape, header, number, row_header, swatch, table
from baffle.report.palette import stroke
from baffle.report.quantities import count, duration, percent, plain, size
from baffle.report.records import Client
from baffle.report.runs import Run

CLIENTS_SHOWN = 100
"""More clients than these are counted, not listed."""

_SUMMARY_NUMBERS = ("Accuracy", "Loss", "Rounds", "Forwards", "Upload", "Download", "Time", "Peak memory")
_SUMMARY = ("Run", "Dataset", "Model", *_SUMMARY_NUMBERS, "Digest")
_CLIENT_NUMBERS = ("Samples", "Answered", "Left out", "Upload", "Download")
_CLIENTS = ("Client", *_CLIENT_NUMBERS)


def summary_table(runs: Sequence[Run]) -> Markup:
    """Return the table of runs: a line each, with the sample of its line in the charts."""
    rows = [_summary_row(index, run) for index, run in enumerate(runs)]
    return table("Outcome. Counts are means for one client.", heads(_SUMMARY, _SUMMARY_NUMBERS), rows)


def differences_table(runs: Sequence[Run], names: Sequence[str]) -> Markup:
    """Return the table of the settings `names`: a line each, a column a run."""
    rows = [[row_header(escape(name)), *(setting_cell(run.settings.get(name)) for run in runs)] for name in names]
    return table("Settings that differ between the runs.", heads(["Setting", *(run.name for run in runs)]), rows)


def settings_table(run: Run, highlighted: Collection[str]) -> Markup:
    """Return one run's settings, those in `highlighted` marked by more than a colour."""
    rows = [
        [row_header(escape(name)), setting_cell(value, differs=name in highlighted)]
        for name, value in run.settings.items()
    ]
    note = " ◆ marks what differs between the runs." if highlighted else ""
    return table(f"Settings.{note}", heads(("Setting", "Value")), rows)


def clients_table(clients: Sequence[Client]) -> Markup:
    """Return what each client did, the first `CLIENTS_SHOWN` of them, and how many more there are."""
    shown = clients[:CLIENTS_SHOWN]
    rows = [_client_row(client) for client in shown]
    made = table("Clients. Answered and left out count rounds.", heads(_CLIENTS, _CLIENT_NUMBERS), rows)
    return Markup(made + unlisted(len(clients)))


def unlisted(clients: int) -> Markup:
    """Return how many of `clients` a table of the first `CLIENTS_SHOWN` leaves out; nothing where it has them all."""
    rest = clients - CLIENTS_SHOWN
    if rest <= 0:
        return Markup("")
    note = f"The first {CLIENTS_SHOWN:,} of {clients:,} clients; {rest:,} are not listed here."
    return Markup(f'\n<p class="note">{note}</p>')


def heads(names: Sequence[str], numeric: Collection[str] = ()) -> list[Markup]:
    """Return columns' heads, those in `numeric` over numbers."""
    return [header(name, numeric=name in numeric) for name in names]


def _summary_row(index: int, run: Run) -> list[Markup]:
    outcome = run.outcome
    link = f'{swatch(stroke(index))}<a href="#run-{index + 1}">{escape(run.name)}</a>'
    return [
        row_header(Markup(link + ("" if run.finished else ' <span class="badge">unfinished</span>'))),
        cell(run.dataset or "—"),
        cell(run.model or "—"),
        number(percent(outcome.accuracy)),
        number(plain(outcome.loss)),
        number(count(outcome.rounds, "rounds")),
        number(count(outcome.forward_equivalents, "forward equivalents")),
        number(size(outcome.upload_bytes)),
        number(size(outcome.download_bytes)),
        number(duration(outcome.seconds)),
        number(size(outcome.peak_memory_bytes)),
        _digest(outcome.digest),
    ]


def _digest(digest: str) -> Markup:
    return Markup(f'<td title="{escape(digest or "not known")}"><code>{escape(digest[:8] or "—")}</code></td>')


def setting_cell(value: str | None, *, differs: bool = False) -> Markup:
    """Return the cell of a setting; marked, by more than a colour, where it differs."""
    if value is None:
        return Markup('<td class="absent">not set</td>')
    mark = '<span role="img" aria-label="differs between the runs">◆</span> ' if differs else ""
    kind = ' class="differs"' if differs else ""
    return Markup(f"<td{kind}>{mark}<code>{escape(value)}</code></td>")


def _client_row(client: Client) -> list[Markup]:
    answered = f"{client.answered:,} of {client.sampled:,}"
    return [
        row_header(escape(client.client)),
        number(count(client.samples, "samples")),
        Markup(f'<td class="number">{answered}</td>'),
        number(count(client.left_out, "rounds")),
        number(size(client.upload_bytes)),
        number(size(client.download_bytes)),
    ]
