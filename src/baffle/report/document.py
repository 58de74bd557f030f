"""The frame of every page: one HTML document that loads nothing and runs no script, and how a chart stands in it."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.resources import files

from baffle.report.charts import Chart
from baffle.report.figures import panels
from baffle.report.markup import Markup, escape, swatch
from baffle.report.palette import DARK, LIGHT

# The browser itself then refuses whatever a slip might let through.
_POLICY = "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'"


def document(title: Markup, parts: Sequence[str]) -> str:
    """Return the HTML document with `parts` one below the other."""
    return (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f'<meta name="color-scheme" content="light dark">\n<title>{title}</title>\n<style>\n{_style()}</style>\n'
        "</head>\n<body>\n<main>\n" + "\n".join(parts) + "\n</main>\n</body>\n</html>\n"
    )


def figure(chart: Chart, note: str = "A dot ends each line.") -> Markup:
    """Return a chart's section: heading, legend, panels, and what they show in words that end with a `note`.

    Raises:
        MissingExtraError: Matplotlib is not installed.
    """
    *most, last = [axis.title for axis in chart.abscissae]
    scales = [axis.title for axis in chart.abscissae if chart.is_log_x(axis)]
    scales += [chart.height.title] if chart.is_log_y() else []
    spans = f" Logarithmic, for what they span: {', '.join(scales)}." if scales else ""
    caption = f"{chart.height.title.capitalize()} against {', '.join(most)} and {last}. {note}"
    drawn = "\n".join(panels(chart))
    return Markup(
        f'<section id="{chart.name}"><h2>{chart.height.title.capitalize()}</h2>\n<figure>\n{_legend(chart)}'
        f'<div class="panels{" many" if len(chart.abscissae) > 3 else ""}">\n{drawn}\n</div>\n'
        f"<figcaption>{caption}{spans}</figcaption>\n</figure></section>"
    )


def _legend(chart: Chart) -> Markup:
    if len(chart.series) == 1:
        return Markup("")
    items = "".join(f"<li>{swatch(line.stroke)}{escape(line.name)}</li>" for line in chart.series)
    return Markup(f'<ul class="legend">{items}</ul>\n')


def _style() -> str:
    """Return the style sheet, which a browser needs inside the page, with the palette's colours as variables."""
    light, dark = ("".join(f"--run-{index}:{colour};" for index, colour in enumerate(p)) for p in (LIGHT, DARK))
    sheet = files("baffle.report").joinpath("page.css").read_text("utf-8")
    return f":root{{{light}}}\n@media screen and (prefers-color-scheme: dark){{:root{{{dark}}}}}\n{sheet}"
