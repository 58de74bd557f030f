"""What the page says of privacy."""

from __future__ import annotations

from baffle.exposure import UNPROTECTED, views
from baffle.report.markup import Markup, cell, escape, row_header, table
from baffle.report.runs import Run
from baffle.report.tables import heads

_HEADS = ("Who", "Sees", "What that tells of one client is bounded by")


def privacy_section(run: Run) -> Markup:
    """Return who sees what of a client's data, or nothing where the run's settings do not say how it hides them."""
    said = run.settings
    if "secure" not in said or "mechanism" not in said:
        return Markup("")
    epsilon, delta, size = float(said.get("epsilon", 0)), float(said.get("delta", 0)), int(said.get("sum_size", 0))
    seen = views(said["secure"], said["mechanism"], epsilon, delta, size)
    rows = [[row_header(escape(view.who)), cell(view.sees), cell(view.bounded)] for view in seen]
    made = table("Who sees what, as over a network with keys.", heads(_HEADS), rows)
    return Markup(f'{made}\n<p class="note">Not hidden by any setting: {escape(UNPROTECTED)}.</p>\n')
