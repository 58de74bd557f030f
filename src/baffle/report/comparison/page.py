"""The comparison's page: one HTML document that loads nothing and runs no script."""

from __future__ import annotations

from collections.abc import Sequence

from baffle.report.charts import Chart
from baffle.report.comparison.entries import Comparison, Entry, Trial, differing
from baffle.report.comparison.listings import Cell, Listing, Row, listings
from baffle.report.comparison.memory import bars, memory_panel
from baffle.report.comparison.verdict import verdict
from baffle.report.document import document, figure
from baffle.report.markup import Markup, cell, escape, header, row_header, swatch, table
from baffle.report.palette import stroke
from baffle.report.tables import setting_cell

_WORDS = """\
<dt>Mean and spread</dt><dd>Over the seeds whose run finished: the mean, and beside it the sample standard deviation; of
two seeds the least and the largest value; nothing where there is one seed, or all are alike. Point at a number to
see each seed's own.</dd>
<dt>To an accuracy</dt><dd>What was spent when the accuracy on the test data first stood there, between two evaluations
by a straight line. Means are over the seeds that reached it, so that they flatter an experiment that did not with
each. A run that failed counts as not reached. The best of those that reached it with every seed is bold.</dd>
<dt>For one client</dt><dd>Forwards, upload and download are totals since the run began, averaged over all clients. Of
centralised training they are those of the one place that has all data; how these came there is not counted, and they
are not held against the others. 1 kB is 1,000 bytes.</dd>
<dt>Forward equivalent</dt><dd>One full forward pass of the model over one sample.</dd>
<dt>Bands</dt><dd>Lines are means over seeds at the same round; the band reaches from the least to the largest
accuracy there.</dd>
<dt>Accuracy</dt><dd>Of the averaged weights (an exponential moving average over rounds) on the test data.</dd>
<dt>Time and peak memory</dt><dd>Seconds of wall clock and the most memory that a run's own process held. They tell
about the machine it ran on; the other counts are the same on any.</dd>
"""


def page(comparison: Comparison, charts: Sequence[Chart]) -> str:
    """Return the HTML document about `comparison` with the pictures of `charts`.

    Raises:
        MissingExtraError: Matplotlib is not installed.
    """
    names = [entry.name for entry in comparison.entries]
    title = escape("Baffle: " + (" against ".join(names) if len(names) <= 3 else f"{len(names)} experiments"))
    band = "Mean over seeds; the band reaches from the least to the largest. A dot ends each line."
    parts = [
        f"<header><h1>{title}</h1>\n{_verdict(comparison)}</header>",
        *(_listing(comparison, listing) for listing in listings(comparison)),
        _failures(comparison),
        *(figure(chart, band) for chart in charts if chart.series),
        _memory(comparison),
        _settings(comparison),
        _seeds(comparison),
        f'<section id="reading"><h2>What the numbers mean</h2>\n<dl class="words">\n{_WORDS}</dl></section>',
    ]
    return document(title, [part for part in parts if part])


def _verdict(comparison: Comparison) -> Markup:
    lines = (*verdict(comparison), *comparison.remarks)
    if not lines:
        return Markup("<p>No run finished.</p>")
    first, *rest = lines
    more = "".join(f"<li>{escape(line)}</li>" for line in rest)
    return Markup(f'<p class="lede">{escape(first)}</p>' + (f'\n<ul class="verdict">{more}</ul>' if rest else ""))


def _listing(comparison: Comparison, listing: Listing) -> Markup:
    heads = [header("Experiment"), *(header(name, numeric=True) for name in listing.columns)]
    rows = [_row(comparison.entries[row.entry], row, len(listing.columns)) for row in listing.rows]
    caption = "Mean and spread over seeds; counts are means for one client."
    return Markup(f'<section class="figures"><h2>{escape(listing.title)}</h2>\n{table(caption, heads, rows)}</section>')


def _row(entry: Entry, row: Row, columns: int) -> list[Markup]:
    head = row_header(Markup(f"{swatch(stroke(row.entry))}{escape(entry.name)}"))
    cells = [_number(made) for made in row.cells]
    if row.note:
        cells.append(Markup(f'<td class="absent number" colspan="{columns - len(cells)}">{escape(row.note)}</td>'))
    return [head, *cells]


def _number(made: Cell) -> Markup:
    text = f"<strong>{escape(made.text)}</strong>" if made.best else escape(made.text)
    about = f'<span class="about">{escape(made.about)}</span>' if made.about else ""
    return Markup(f'<td class="number" title="{escape(made.exact or made.text)}">{text}{about}</td>')


def _failures(comparison: Comparison) -> Markup:
    rows = [
        [row_header(escape(entry.name)), cell(trial.seed), cell(trial.reason)]
        for entry in comparison.entries
        for trial in entry.failed
    ]
    if not rows:
        return Markup("")
    heads = [header("Experiment"), header("Seed"), header("Reason")]
    made = table("Runs that did not finish; the numbers on this page leave them out.", heads, rows)
    return Markup(f'<section id="failed"><h2>Not finished</h2>\n{made}</section>')


def _memory(comparison: Comparison) -> Markup:
    if not bars(comparison):
        return Markup("")
    caption = "Mean over seeds; a thin line reaches from the least to the largest. Each run had a process of its own."
    return Markup(
        f'<section id="memory"><h2>Peak memory</h2>\n<figure class="wide">\n{memory_panel(comparison)}\n'
        f"<figcaption>{caption}</figcaption>\n</figure></section>"
    )


def _settings(comparison: Comparison) -> Markup:
    entries = comparison.entries
    differ = differing(entries)
    heads = [header("Setting"), *(header(entry.name) for entry in entries)]
    rows = [
        [row_header(escape(name)), *(setting_cell(entry.settings.get(name)) for entry in entries)] for name in differ
    ]
    shown = table("Settings that differ.", heads, rows) if differ else ""
    if not differ and len(entries) > 1:
        shown = Markup("<p>All experiments have the same settings.</p>")
    common = [
        [row_header(escape(name)), setting_cell(value)]
        for name, value in (entries[0].settings.items() if entries else ())
        if name not in differ
    ]
    folded = table("Settings of all.", [header("Setting"), header("Value")], common)
    count = f"{len(common)} settings{' that all have in common' if len(entries) > 1 else ''}"
    return Markup(
        f'<section id="differences"><h2>Settings</h2>\n{shown}\n'
        f"<details><summary>{count}</summary>\n{folded}</details></section>"
    )


def _seeds(comparison: Comparison) -> Markup:
    rows = [
        [row_header(escape(entry.name)), cell(trial.seed), *_kept(trial)]
        for entry in comparison.entries
        for trial in entry.trials
    ]
    heads = [header(name) for name in ("Experiment", "Seed", "Folder", "Digest of the weights")]
    made = table("Every run.", heads, rows)
    return Markup(
        f'<section id="seeds"><h2>Runs</h2>\n<details><summary>{len(rows)} runs</summary>\n{made}</details></section>'
    )


def _kept(trial: Trial) -> list[Markup]:
    told = ("—", "—") if trial.run is None else (str(trial.run.folder), trial.run.outcome.digest or "—")
    return [Markup(f"<td><code>{escape(text)}</code></td>") for text in told]
