"""Charts as pictures: a PNG of all panels, or each panel as an SVG that takes its colours from the page.

Matplotlib's `Figure` is used without pyplot: no window, no global list of figures.
"""

# pyright: standard
from __future__ import annotations

import io
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

from baffle.extras import require
from baffle.report.charts import Axis, Chart, Series
from baffle.report.inline_svg import inline
from baffle.report.palette import GRID, INK, LIGHT

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.axis import Axis as Edge
    from matplotlib.figure import Figure

_PANEL_INCHES = (3.4, 2.6)
_DOTS_PER_INCH = 160
_LEGEND_COLUMNS = 3
_PANEL_COLUMNS = 3
_LEGEND_LETTERS = 48
_STYLE = {
    "axes.edgecolor": INK,
    "axes.facecolor": "none",
    "axes.grid": True,
    "axes.labelcolor": INK,
    "axes.linewidth": 0.8,
    "axes.spines.right": False,
    "axes.spines.top": False,
    "figure.facecolor": "none",
    "font.family": "DejaVu Sans",
    "font.size": 9.0,
    "grid.color": GRID,
    "grid.linewidth": 0.8,
    "lines.scale_dashes": False,
    "path.simplify_threshold": 0.3,
    "svg.fonttype": "none",
    "text.color": INK,
    "text.parse_math": False,
    "xtick.color": INK,
    "ytick.color": INK,
}


def png(chart: Chart) -> bytes:
    """Return the chart's panels side by side, on white, with a legend where there are several series.

    Raises:
        MissingExtraError: Matplotlib is not installed.
    """
    with style():
        legend = -(-len(chart.series) // _LEGEND_COLUMNS) if len(chart.series) > 1 else 0
        columns = min(len(chart.abscissae), _PANEL_COLUMNS)
        rows = -(-len(chart.abscissae) // columns)
        width, height = _PANEL_INCHES
        figure = empty(width * columns, height * rows + 0.2 * legend)
        places = figure.subplots(rows, columns, sharey=True, squeeze=False).ravel()
        for place, (axes, axis) in enumerate(zip(places, chart.abscissae, strict=False)):
            _draw(axes, chart, axis)
            if place % columns:
                axes.set_ylabel("")
                axes.tick_params(labelleft=False)
        for axes in places[len(chart.abscissae) :]:
            axes.remove()
        if legend:
            _add_legend(figure, chart)
        return as_png(figure)


def panels(chart: Chart) -> tuple[str, ...]:
    """Return each of the chart's panels as an `<svg>` element for a page with the palette's variables.

    Raises:
        MissingExtraError: Matplotlib is not installed.
    """
    return tuple(_panel(chart, axis) for axis in chart.abscissae)


def _panel(chart: Chart, axis: Axis) -> str:
    # The salt keeps the ids of two pictures on one page apart, and alike from one call to the next.
    with style({"svg.hashsalt": f"{chart.name}/{axis.title}"}):
        figure = empty(*_PANEL_INCHES)
        _draw(figure.subplots(), chart, axis)
        return inline(as_svg(figure), chart.describe(axis))


def as_png(figure: Figure) -> bytes:
    """Return a picture on white."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=_DOTS_PER_INCH, facecolor="white", metadata={"Software": None})
    return buffer.getvalue()


def as_svg(figure: Figure) -> str:
    """Return a picture as an SVG document."""
    buffer = io.StringIO()
    figure.savefig(buffer, format="svg", metadata=dict.fromkeys(("Creator", "Date", "Format", "Type")))
    return buffer.getvalue()


@contextmanager
def style(more: dict[str, str] | None = None) -> Iterator[None]:
    """Draw as all of the report's pictures are drawn, and leave Matplotlib as it was."""
    matplotlib = require("matplotlib", "train")
    with matplotlib.rc_context(), warnings.catch_warnings():
        # A run's name may hold letters that the font has not; they become boxes.
        warnings.filterwarnings("ignore", message="Glyph .* missing from font", category=UserWarning)
        matplotlib.rcdefaults()
        matplotlib.rcParams.update(_STYLE | (more or {}))
        yield


def empty(width: float, height: float) -> Figure:
    """Return a picture without anything in it, of that size in inches."""
    return require("matplotlib.figure", "train").Figure(figsize=(width, height), layout="constrained")


def _draw(axes: Axes, chart: Chart, axis: Axis) -> None:
    for level in chart.levels:
        axes.axhline(level, color=INK, linewidth=0.8, dashes=(1.5, 2.5))
    for line in chart.series:
        _draw_line(axes, line, axis)
    axes.set(xlabel=axis.label, ylabel=chart.height.label)
    axes.tick_params(which="both", length=0)
    # What lies at zero, such as round 0, has no place on a logarithmic axis.
    if chart.is_log_x(axis):
        axes.set_xscale("log", nonpositive="mask")
    if chart.is_log_y():
        axes.set_yscale("log", nonpositive="mask")
    _set_ticks(axes.xaxis, axis.unit, most=5, integer=True)
    _set_ticks(axes.yaxis, chart.height.unit, most=6)
    _trim(axes, chart)


def _draw_line(axes: Axes, line: Series, axis: Axis) -> None:
    colour = LIGHT[line.stroke.colour]
    along = [axis.read(point) for point in line.points]
    if line.band:
        low, high = zip(*line.band, strict=True)
        axes.fill_between(along, low, high, color=colour, alpha=0.16, linewidth=0)
    axes.plot(
        along,
        [line.read(point) for point in line.points],
        color=colour,
        dashes=line.stroke.dashes,
        linewidth=line.stroke.width,
        marker="o",
        markevery=[-1],
        markersize=3 * line.stroke.width,
        gid="series",
    )


def _set_ticks(edge: Edge, unit: str, most: int, *, integer: bool = False) -> None:
    ticker = require("matplotlib.ticker", "train")
    if edge.get_scale() == "log":
        edge.set_minor_formatter(ticker.NullFormatter())
    else:
        edge.set_major_locator(ticker.MaxNLocator(nbins=most, steps=[1, 2, 2.5, 5, 10], integer=integer))
    formats = {
        "%": ticker.PercentFormatter(xmax=1, symbol=""),
        "B": ticker.EngFormatter(unit="B", sep=" "),
        "k": ticker.EngFormatter(sep=""),
        "": ticker.FuncFormatter(lambda value, _: f"{value:g}"),
    }
    edge.set_major_formatter(formats[unit])


def _trim(axes: Axes, chart: Chart) -> None:
    """Let linear axes begin at zero at the earliest, if no value is below, and an accuracy end just above 100 %."""
    if axes.get_xscale() == "linear":
        axes.set_xlim(0, max(1.0, axes.get_xlim()[1]))
    if axes.get_yscale() == "linear" and axes.dataLim.ymin >= 0:
        axes.set_ylim(bottom=max(0.0, axes.get_ylim()[0]))
    if chart.height.unit == "%":
        axes.set_ylim(top=min(1.01, axes.get_ylim()[1]))


def _add_legend(figure: Figure, chart: Chart) -> None:
    lines: Sequence = [line for line in figure.axes[0].get_lines() if line.get_gid() == "series"]
    legend = figure.legend(
        lines,
        [str(index) for index in range(len(lines))],
        loc="outside lower center",
        ncols=min(len(lines), _LEGEND_COLUMNS),
        frameon=False,
        handlelength=3,
    )
    # Given above, a name that begins with an underscore would be left out.
    for handle, text, line in zip(legend.get_lines(), legend.get_texts(), chart.series, strict=True):
        handle.set_marker("")
        text.set_text(shortened(line.name))


def shortened(name: str) -> str:
    """Return a name as long as a picture has room for: its begin and its end."""
    half = _LEGEND_LETTERS // 2
    return name if len(name) <= _LEGEND_LETTERS else f"{name[:half]}…{name[-half:]}"
