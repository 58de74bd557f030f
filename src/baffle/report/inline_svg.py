"""Matplotlib's SVG made fit to stand inside a page, with the page's fonts and colours."""

from __future__ import annotations

import re
from html import escape

from baffle.report.palette import GRID, INK, LIGHT

_VARIABLES = {INK: "var(--ink)", GRID: "var(--line)"} | {
    colour: f"var(--run-{index})" for index, colour in enumerate(LIGHT)
}


def inline(document: str, description: str) -> str:
    """Return an SVG document as an element for an HTML page.

    Prolog, namespaces, fixed size, style sheet (it would reach the whole page), fonts and idle ids are dropped, the
    palette's colours become the page's variables, and `description` is what a screen reader says.
    """
    body = document[document.index("<svg") :].partition(">")[2]
    box = re.search(r'viewBox="([\d. -]+)"', document)
    body = re.sub(r"<style.*?</style>", "", body, flags=re.DOTALL)
    body = re.sub(r"font-family: [^;\"]*;? ?", "", body).replace("xlink:href", "href")
    body = re.sub(r"\s*\n\s*", "\n", _without_idle_ids(body))
    for colour, variable in _VARIABLES.items():
        body = body.replace(colour, variable)
    view = box[1] if box else ""
    return f'<svg class="panel" viewBox="{view}" role="img" aria-label="{escape(description)}">{body.strip()}'


def _without_idle_ids(body: str) -> str:
    used = set(re.findall(r"#([\w.-]+)", body))
    return re.sub(r' id="([^"]*)"', lambda found: found[0] if found[1] in used else "", body)
