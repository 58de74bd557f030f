"""The bars of peak memory."""

# pyright: standard
from __future__ import annotations

from typing import TYPE_CHECKING

from baffle.extras import require
from baffle.report.comparison.entries import MEMORY, Comparison, Entry
from baffle.report.figures import as_png, as_svg, empty, shortened, style
from baffle.report.inline_svg import inline
from baffle.report.palette import INK, LIGHT, stroke

if TYPE_CHECKING:
    from matplotlib.figure import Figure

NAME = "memory"
"""The picture's file name, without its ending."""
_WIDTH = 6.8
_BAR = 0.34


def bars(comparison: Comparison) -> list[tuple[int, Entry]]:
    """Return the entries that have a bar, by index: those whose memory is known."""
    return [(i, entry) for i, entry in enumerate(comparison.entries) if entry.at_end(MEMORY).mean > 0]


def memory_png(comparison: Comparison) -> bytes:
    """Return the bars on white.

    Raises:
        MissingExtraError: Matplotlib is not installed.
    """
    with style():
        return as_png(_drawn(comparison))


def memory_panel(comparison: Comparison) -> str:
    """Return the bars as an `<svg>` element for a page with the palette's variables.

    Raises:
        MissingExtraError: Matplotlib is not installed.
    """
    told = "; ".join(f"{entry.name}: {entry.at_end(MEMORY).text(MEMORY.show)}" for _, entry in bars(comparison))
    with style({"svg.hashsalt": NAME}):
        return inline(as_svg(_drawn(comparison)), f"Peak memory. {told}.")


def _drawn(comparison: Comparison) -> Figure:
    shown = bars(comparison)
    figure = empty(_WIDTH, 0.7 + _BAR * max(1, len(shown)))
    axes = figure.subplots()
    for place, (index, entry) in enumerate(shown):
        spread = entry.at_end(MEMORY)
        axes.barh(place, spread.mean, height=0.62, color=LIGHT[stroke(index).colour])
        if spread.low < spread.high:
            axes.plot([spread.low, spread.high], [place, place], color=INK, linewidth=1.2, marker="|", markersize=5)
        axes.annotate(
            MEMORY.show(spread.mean).text,
            (max(spread.mean, spread.high), place),
            (6, 0),
            textcoords="offset points",
            va="center",
            annotation_clip=False,
        )
    axes.set_yticks(range(len(shown)), [shortened(entry.name) for _, entry in shown])
    axes.set_axisbelow(True)
    axes.invert_yaxis()
    axes.grid(visible=False, axis="y")
    axes.spines["left"].set_visible(False)
    axes.tick_params(length=0)
    axes.set_xlabel("Peak memory of a run's process")
    axes.set_xlim(0, 1.15 * max((entry.at_end(MEMORY).high for _, entry in shown), default=1.0))
    axes.xaxis.set_major_formatter(require("matplotlib.ticker", "train").EngFormatter(unit="B", sep=" "))
    return figure
