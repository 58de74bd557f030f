"""Run folders written for the tests: the form is the library's, the numbers are made up and known."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path

import pytest

from baffle.report.charts import accuracy_chart, loss_chart
from baffle.report.page import page
from baffle.report.runs import read_runs

VOID = {"meta", "br", "hr", "img", "link", "input"}

SETTINGS = (
    'dataset = "digits"\nmodel = "lenet"\nseed = 0\nshared = true\nbudgets = [64, 32]\n[optimizer]\nrate = 1e-2\n'
)


def point(done: int, cost: float = 101.0) -> dict[str, object]:
    return {
        "round": done,
        "accuracy": 0.1 + 0.02 * done,
        "accuracy_last": 0.1 + 0.019 * done,
        "loss": 2.3 / (1 + done),
        "answered": 10,
        "forward_equivalents": cost * done,
        "upload_bytes": 228.0 * done,
        "download_bytes": 510.0 * done,
        "seconds": 0.32 * done,
    }


def client(index: int) -> dict[str, object]:
    return {
        "client": index,
        "samples": 143 + index,
        "sampled": 400,
        "answered": 398,
        "left_out": 1,
        "upload_bytes": 51_000,
        "download_bytes": 99_000,
    }


def summary(clients: int = 3) -> dict[str, object]:
    return {
        "accuracy": 0.9137,
        "loss": 0.31,
        "rounds": 40,
        "forward_equivalents": 40_404.0,
        "upload_bytes": 9_120.0,
        "download_bytes": 20_400.0,
        "seconds": 132.4,
        "peak_memory_bytes": 412_316_860,
        "digest": "c0ffee" * 10,
        "ledger_digest": "decade" * 10,
        "parameters": 26_730,
        "clients": [client(index) for index in range(clients)],
    }


class Page(HTMLParser):
    """The page's elements, text and targets; refuses tags that do not nest."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: Counter[str] = Counter()
        self.attributes: list[tuple[str, str, str]] = []
        self.words: list[str] = []
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        self.tags[tag] += 1
        self.attributes += [(tag, name, value or "") for name, value in attrs]
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.tags[tag] += 1
        self.attributes += [(tag, name, value or "") for name, value in attrs]

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.words.append(data)

    def values(self, attribute: str) -> list[str]:
        return [value for _, name, value in self.attributes if name == attribute]

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.words).split())


MakeRun = Callable[..., Path]


@pytest.fixture
def make_run(tmp_path: Path) -> MakeRun:
    """Returns a function that writes a run folder and returns its path."""

    def make(
        name: str = "run-a",
        *,
        settings: str = SETTINGS,
        cost: float = 101.0,
        clients: int = 3,
        finished: bool = True,
        metrics: str | None = None,
    ) -> Path:
        folder = tmp_path / "runs" / name
        folder.mkdir(parents=True)
        lines = "".join(json.dumps(point(done, cost)) + "\n" for done in range(0, 41, 10))
        (folder / "settings.toml").write_text(settings, encoding="utf-8")
        (folder / "metrics.jsonl").write_text(lines if metrics is None else metrics, encoding="utf-8")
        if finished:
            (folder / "summary.json").write_text(json.dumps(summary(clients)), encoding="utf-8")
        return folder

    return make


@pytest.fixture
def report():
    """Returns a function that makes the page, by default without its slow pictures, and parses it."""

    def make(*folders: Path, pictures: bool = False) -> tuple[str, Page]:
        runs = read_runs(folders)
        text = page(runs, (accuracy_chart(runs), loss_chart(runs)) if pictures else ())
        return text, Page(text)

    return make


@pytest.fixture
def parse() -> Callable[[str], Page]:
    """Returns a function: a page's text -> its elements, text and targets."""
    return Page
