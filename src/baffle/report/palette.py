"""Colours and dashes of the runs' lines, on paper and on a dark screen.

The seven colours keep a CIE76 distance of at least 30 from one another in each theme, to normal sight and under
Machado's full protanopia, deuteranopia and tritanopia, and a contrast of at least 3 with the background (WCAG 1.4.11).
"""

from __future__ import annotations

from dataclasses import dataclass

LIGHT = ("#0052ec", "#c88716", "#19a974", "#770043", "#654b14", "#2a0b78", "#9c84bb")
DARK = ("#62a2ea", "#e6543c", "#00ffa0", "#bc6d8e", "#ffd94e", "#845aff", "#d4f7ff")
INK = "#343a40"
"""Text and axes in a picture."""
GRID = "#e3e6e8"

# Four dashes and seven colours have no common factor: 28 runs look different, and neighbours differ in grey print.
_DASHES: tuple[tuple[float, ...], ...] = ((), (5, 2), (7, 2, 1.5, 2), (1.5, 1.5))


@dataclass(frozen=True, slots=True)
class Stroke:
    """How one line is drawn."""

    colour: int
    """Index into LIGHT and DARK."""
    dashes: tuple[float, ...]
    """On and off lengths in points; empty is solid."""
    width: float = 1.6
    """In points."""


def stroke(run: int) -> Stroke:
    """Return the stroke of the run with that index, counted from 0."""
    return Stroke(run % len(LIGHT), _DASHES[run % len(_DASHES)])
