"""From a comparison to files: the one place here that writes."""

from __future__ import annotations

from pathlib import Path

from baffle.report.comparison.charts import accuracy_chart
from baffle.report.comparison.entries import Comparison
from baffle.report.comparison.files import as_csv, as_json
from baffle.report.comparison.memory import NAME, bars, memory_png
from baffle.report.comparison.page import page
from baffle.report.figures import png
from baffle.storage import write_files


def write_comparison(comparison: Comparison, folder: Path) -> tuple[Path, ...]:
    """Write comparison.html, .json and .csv, accuracy.png and memory.png into `folder`; nothing before all is drawn.

    Returns:
        The paths written, the page first. A picture without anything to show is left out.

    Raises:
        MissingExtraError: Matplotlib is not installed.
        StorageError: a file can't be written.
    """
    chart = accuracy_chart(comparison)
    texts = {
        "comparison.html": page(comparison, (chart,)),
        "comparison.json": as_json(comparison),
        "comparison.csv": as_csv(comparison),
    }
    # A name from a file may hold half a surrogate pair, which UTF-8 can't.
    files = {name: text.encode("utf-8", "replace") for name, text in texts.items()}
    if chart.series:
        files[f"{chart.name}.png"] = png(chart)
    if bars(comparison):
        files[f"{NAME}.png"] = memory_png(comparison)
    write_files({folder / name: content for name, content in files.items()})
    return tuple(folder / name for name in files)
