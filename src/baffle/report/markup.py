"""The few HTML pieces the page is made of. Text becomes `Markup` by `escape` alone."""

from __future__ import annotations

import html
from collections.abc import Mapping, Sequence
from typing import NewType

from baffle.report.palette import Stroke
from baffle.report.quantities import Quantity

Markup = NewType("Markup", str)
"""HTML that is safe to put in a page."""


def escape(text: object) -> Markup:
    """Return text as HTML that shows it letter for letter."""
    return Markup(html.escape(str(text)))


def header(text: str, *, numeric: bool = False) -> Markup:
    """Return a column's head, to the right over numbers."""
    kind = ' class="number"' if numeric else ""
    return Markup(f'<th scope="col"{kind}>{escape(text)}</th>')


def row_header(content: Markup) -> Markup:
    """Return the cell that names its row."""
    return Markup(f'<th scope="row">{content}</th>')


def cell(text: str) -> Markup:
    """Return a cell of text."""
    return Markup(f"<td>{escape(text)}</td>")


def number(quantity: Quantity) -> Markup:
    """Return a cell with a number in short; the exact one shows under the pointer."""
    return Markup(f'<td class="number" title="{escape(quantity.exact)}">{escape(quantity.text)}</td>')


def table(caption: str, head: Sequence[Markup], rows: Sequence[Sequence[Markup]]) -> Markup:
    """Return a table inside a frame that scrolls, by keyboard too, where the table is larger than its place."""
    body = "\n".join(f"<tr>{''.join(row)}</tr>" for row in rows)
    return Markup(
        f'<div class="scroll" role="region" tabindex="0" aria-label="{escape(caption)}">\n'
        f"<table><caption>{escape(caption)}</caption>\n"
        f"<thead><tr>{''.join(head)}</tr></thead>\n<tbody>\n{body}\n</tbody></table></div>"
    )


def facts(told: Mapping[str, str]) -> Markup:
    """Return a list of names and what is told of each."""
    items = "".join(f"<div><dt>{escape(name)}</dt><dd>{escape(value)}</dd></div>" for name, value in told.items())
    return Markup(f'<dl class="facts">{items}</dl>')


def swatch(stroke: Stroke) -> Markup:
    """Return a line sample, as the line is drawn in the charts."""
    dashes = " ".join(f"{length:g}" for length in stroke.dashes)
    return Markup(
        '<svg class="swatch" viewBox="0 0 30 8" aria-hidden="true">'
        f'<line x1="0" y1="4" x2="26" y2="4" stroke="var(--run-{stroke.colour})" stroke-width="{stroke.width:g}" '
        f'stroke-dasharray="{dashes or "none"}"/>'
        f'<circle cx="26" cy="4" r="{1.6 * stroke.width:g}" fill="var(--run-{stroke.colour})"/></svg>'
    )
