"""What the page says of a run's clients over a network."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime

from baffle.report.markup import Markup, cell, escape, facts, number, row_header, table
from baffle.report.quantities import brief, count, duration, size
from baffle.report.records import UNKNOWN
from baffle.report.runs import Run
from baffle.report.tables import CLIENTS_SHOWN, heads, unlisted
from baffle.status import Client, Status

_TIMES = ("Since last report", "Latency", "Evaluation")
_COUNTS = ("Answered", "Late", "Duplicates", "Refused")
_NUMBERS = ("Version", *_TIMES, "Upload", "Download", *_COUNTS, "Certificate, days")
_COLUMNS = ("Client", "State", *_NUMBERS)


def network_section(run: Run) -> Markup:
    """Return what the server told of its clients; nothing for a run without one."""
    if run.status is None:
        note = f'<p class="note">No status of clients over the network. {escape(run.without)}</p>'
        return Markup(note if run.without else "")
    status = run.status
    tables = [_members(status) if status.clients else Markup('<p class="note">No client has joined.</p>')]
    if refused := [member for member in status.clients if member.last_refusal]:
        tables.append(_refusals(refused))
    listed = "\n".join(f'<div class="clients">{made}</div>' for made in tables)
    return Markup(f'<div class="network"><h3>Clients over the network</h3>\n{_told(status)}\n{listed}</div>')


def _told(status: Status) -> Markup:
    rounds = f"{status.round:,}" if status.rounds is None else f"{status.round:,} of {status.rounds:,}"
    told = {"As of": f"{datetime.fromtimestamp(status.time, UTC):%Y-%m-%d %H:%M:%S} UTC", "Rounds": rounds}
    if status.attempt:
        told["Attempt"] = str(status.attempt)
    told["State"] = "finished" if status.finished else "not finished"
    if not status.finished:
        told["Pace"] = f"{status.rounds_a_minute:.1f} rounds a minute"
        told["Waiting for"] = _some(status.waiting_for) or "nobody"
    if status.certificate_days is not None:
        told["Server's certificate"] = f"{status.certificate_days:,} days left"
    if status.strangers:
        told["Strangers' messages refused"] = f"{status.strangers:,}"
    if unseen := status.unseen():
        told["Never seen"] = _some(unseen)
    return facts(told)


def _some(clients: Sequence[int]) -> str:
    rest = len(clients) - CLIENTS_SHOWN
    return ", ".join(map(str, clients[:CLIENTS_SHOWN])) + (f" and {rest:,} more" if rest > 0 else "")


def _members(status: Status) -> Markup:
    rows = [_row(member, status.time) for member in status.clients[:CLIENTS_SHOWN]]
    caption = "Clients as the server saw them. Counts are of messages since it began."
    return Markup(table(caption, heads(_COLUMNS, _NUMBERS), rows) + unlisted(len(status.clients)))


def _refusals(refused: Sequence[Client]) -> Markup:
    rows = [[row_header(escape(member.client)), cell(member.last_refusal)] for member in refused[:CLIENTS_SHOWN]]
    return Markup(table("Refused last, and why.", heads(("Client", "Reason")), rows) + unlisted(len(refused)))


def _row(member: Client, time: float) -> list[Markup]:
    away = member.state == "away" and member.missing_for is not None
    state = f"away {duration(member.missing_for or 0.0).text}" if away else member.state
    return [
        row_header(escape(member.client)),
        cell(state or "—"),
        number(count(_known(member.version), "rounds")),
        number(duration(UNKNOWN if member.last_report is None else max(0.0, time - member.last_report))),
        number(brief(_known(member.latency))),
        number(brief(member.evaluation if member.answered else UNKNOWN)),
        number(size(member.up)),
        number(size(member.down)),
        number(count(member.answered, "reports")),
        number(count(member.late, "reports")),
        number(count(member.duplicate, "messages")),
        number(count(member.refused, "messages")),
        number(count(_known(member.certificate_days), "days left")),
    ]


def _known(value: float | None) -> float:
    return UNKNOWN if value is None else value
