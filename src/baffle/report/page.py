"""The report's page: one HTML document that loads nothing and runs no script."""

from __future__ import annotations

import math
from collections.abc import Sequence

from baffle.report.charts import Chart
from baffle.report.document import document, figure
from baffle.report.markup import Markup, escape, facts
from baffle.report.network import network_section
from baffle.report.privacy import privacy_section
from baffle.report.quantities import count, percent, size
from baffle.report.runs import Run, differing
from baffle.report.tables import clients_table, differences_table, settings_table, summary_table

_WORDS = """\
<dt>For one client</dt><dd>Forwards, upload and download are totals since the run began, averaged over all
clients, those that were never asked included. What each one did is in its run's table of clients.</dd>
<dt>Forward equivalent</dt><dd>One full forward pass of the model over one sample. A probe of a block counts the share
of the pass that it runs again.</dd>
<dt>Upload and download</dt><dd>Bytes of the messages a client sends and receives. 1 kB is 1,000 bytes,
1 MB is 1,000,000.</dd>
<dt>Accuracy and loss</dt><dd>Of the averaged weights (an exponential moving average over rounds) on the test data. The
plain weights are those of the last round alone.</dd>
<dt>Time and peak memory</dt><dd>Seconds of wall clock and the most memory that the run's process held. They tell
about the machine it ran on; the other counts are the same on any.</dd>
<dt>Digest</dt><dd>A fingerprint of the final plain weights: two runs with the same digest ended with the same
model, bit for bit. Only its first digits stand in the first table.</dd>
<dt>Exact values</dt><dd>Point at a rounded number to see it in full.</dd>
"""

_NETWORK_WORDS = """\
<dt>Clients over the network</dt><dd>As the server saw them at the time that is given. Version is the number of
rounds in a client's weights. Upload and download are the bytes of all messages, signatures and questions included.
Latency is the median time from a call to its report; evaluation is how long the last report took to make, by the
client's own clock. Late reports came after their round had closed; duplicates are messages that came again.</dd>
"""


def page(runs: Sequence[Run], charts: Sequence[Chart]) -> str:
    """Return the HTML document about `runs` with the pictures of `charts`.

    Raises:
        MissingExtraError: Matplotlib is not installed.
    """
    title = escape(f"Baffle: {runs[0].name if len(runs) == 1 else f'{len(runs)} runs'}")
    differences = differing(runs)
    parts = [
        f"<header><h1>{title}</h1>\n<p>{_lede(runs)}</p></header>",
        f'<section id="runs"><h2>Runs</h2>\n{summary_table(runs)}</section>',
        *(figure(chart) for chart in charts),
        *([_comparison(runs, differences)] if len(runs) > 1 else []),
        *(_section(index, run, differences) for index, run in enumerate(runs, 1)),
        _reading(runs),
    ]
    return document(title, parts)


def _lede(runs: Sequence[Run]) -> Markup:
    best = max(runs, key=lambda run: -math.inf if math.isnan(run.outcome.accuracy) else run.outcome.accuracy)
    outcome = best.outcome
    known = not math.isnan(outcome.accuracy)
    accuracy = f"{percent(outcome.accuracy).text} accuracy" if known else "Accuracy not known"
    which = f" (best: {best.name})" if known and len(runs) > 1 else ""
    return escape(
        f"{accuracy} after {count(outcome.rounds, '').text} rounds{which}, for "
        f"{count(outcome.forward_equivalents, '').text} forward equivalents, {size(outcome.upload_bytes).text} of "
        f"upload and {size(outcome.download_bytes).text} of download per client."
    )


def _comparison(runs: Sequence[Run], differences: Sequence[str]) -> Markup:
    same = Markup("<p>All runs have the same settings.</p>")
    content = differences_table(runs, differences) if differences else same
    return Markup(f'<section id="differences"><h2>What differs</h2>\n{content}</section>')


def _section(index: int, run: Run, differences: Sequence[str]) -> Markup:
    clients = run.outcome.clients
    none = "It has not written its summary yet." if not run.finished else "Its summary lists no clients."
    listed = clients_table(clients) if clients else f'<p class="note">No table of clients. {none}</p>'
    return Markup(
        f'<section id="run-{index}" class="run"><h2>{escape(run.name)}</h2>\n{_facts(run)}\n'
        f'<div class="pair"><div>{settings_table(run, differences)}</div>\n'
        f'<div class="clients">{listed}</div></div>\n{privacy_section(run)}{network_section(run)}</section>'
    )


def _reading(runs: Sequence[Run]) -> Markup:
    words = _WORDS + (_NETWORK_WORDS if any(run.status for run in runs) else "")
    return Markup(f'<section id="reading"><h2>What the numbers mean</h2>\n<dl class="words">\n{words}</dl></section>')


def _facts(run: Run) -> Markup:
    outcome = run.outcome
    told = {
        "Folder": str(run.folder),
        "Trained parameters": count(outcome.parameters, "").exact.strip(),
        "Accuracy of the plain weights": percent(run.points[-1].accuracy_last).text,
        "Digest": outcome.digest or "not known",
        "Ledger's digest": outcome.ledger_digest or "not known",
    }
    return facts(told)
