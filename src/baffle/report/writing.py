"""From run folders to files: the one place here that writes."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from baffle.errors import DataError
from baffle.report.charts import accuracy_chart, loss_chart
from baffle.report.figures import png
from baffle.report.page import page
from baffle.report.runs import read_runs
from baffle.storage import write_files


def write_report(folders: Sequence[Path], out: Path) -> tuple[Path, ...]:
    """Write the page `out` about the runs in `folders`, and `accuracy.png` and `loss.png` next to it.

    The page is one file: it loads nothing and runs no script. The same folders give the same bytes. Nothing is
    written before everything was read and drawn.

    Args:
        folders: one or several run folders, in the page's order; one given twice counts once.
        out: the page's path, ending in .html; its folder is made where it is missing.

    Returns:
        The paths written: the page, then the pictures.

    Raises:
        DataError: `out` is no .html file, or a run can't be read; the text names the file and, where there is one,
            the line.
        MissingExtraError: Matplotlib is not installed.
        StorageError: a file can't be written.
    """
    if out.suffix.lower() != ".html" or out.is_dir():
        raise DataError(f"{out}: the report is one file whose name ends in .html")
    runs = read_runs(folders)
    charts = (accuracy_chart(runs), loss_chart(runs))
    pictures = {out.with_name(f"{chart.name}.png"): png(chart) for chart in charts}
    # A name from a file may hold half a surrogate pair, which UTF-8 can't.
    files = {out: page(runs, charts).encode("utf-8", "replace"), **pictures}
    write_files(files)
    return tuple(files)
