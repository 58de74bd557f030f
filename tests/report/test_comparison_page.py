"""The comparison's page and pictures: whole, self-contained, true to the numbers."""

from __future__ import annotations

import re
from xml.etree import ElementTree

import pytest

from baffle.report.comparison import Comparison, Entry, Trial, write_comparison
from baffle.report.comparison.charts import accuracy_chart
from baffle.report.comparison.memory import memory_panel
from baffle.report.comparison.page import page
from baffle.report.figures import panels
from comparisons import curve, entry

pytest.importorskip("matplotlib")


@pytest.fixture
def comparison(make_run) -> Comparison:
    return Comparison(
        (
            entry(
                make_run, "ours", [curve(0.1, 0.5, 0.9), curve(0.1, 0.6, 0.95)], settings={"rate": "1", "model": "mlp"}
            ),
            entry(
                make_run,
                "paper <b>",
                [curve(0.1, 0.2, 0.3)],
                failed="θ left the finite numbers <script>",
                settings={"rate": "2", "model": "mlp"},
                cost=20_000.0,
            ),
        ),
        (0.5,),
        ("The models differ.",),
    )


@pytest.fixture
def shown(parse):
    """Returns a function that makes the page, and parses it."""

    def make(comparison: Comparison):
        text = page(comparison, (accuracy_chart(comparison),))
        return text, parse(text)

    return make


def test_the_page_is_whole_and_needs_nothing_from_outside(comparison, shown) -> None:
    text, made = shown(comparison)
    assert not re.search(r"https?:|//|@import|url\((?!#)", text.replace("<!--", ""))
    assert not made.tags.keys() & {"script", "link", "iframe", "object", "img", "base", "form"}
    assert not [name for _, name, _ in made.attributes if name.startswith("on") or name == "src"]
    ids = made.values("id")
    assert len(ids) == len(set(ids))
    assert {target.removeprefix("#") for target in made.values("href")} <= set(ids)


def test_the_page_says_who_wins_first_and_then_the_numbers(comparison, shown) -> None:
    text, made = shown(comparison)
    assert (
        "Only ours reaches 50 % with every seed, after 9"
        in re.sub("<.*?>", "", text[text.index('class="lede"') :])[:80]
    )
    for told in ("not reached in 20 rounds", "0 of 2", "92.50%", "90.00% to 95.00%", "The models differ."):
        assert told in made.text
    assert "θ left the finite numbers <script>" in made.words
    assert "paper <b>" in made.words
    assert made.tags["details"] == 2
    differing = made.text[made.text.index("Settings that differ.") : made.text.index("1 settings that all")]
    assert "rate" in differing
    assert "mlp" not in differing


def test_pictures_have_five_panels_and_bars_with_the_pages_colours(comparison) -> None:
    drawn = panels(accuracy_chart(comparison))
    assert len(drawn) == 5
    for panel in (*drawn, memory_panel(comparison)):
        assert ElementTree.fromstring(panel).tag == "svg"
        assert "var(--run-0)" in panel
        assert "var(--run-1)" in panel
    assert "ours: 92.50% at 20" in drawn[0]


def test_files_are_written_and_the_same_comparison_gives_the_same_bytes(comparison, tmp_path) -> None:
    paths = write_comparison(comparison, tmp_path / "a" / "b")
    names = ["comparison.html", "comparison.json", "comparison.csv", "accuracy.png", "memory.png"]
    assert [path.name for path in paths] == names
    first = [path.read_bytes() for path in paths]
    assert first[3][:8] == first[4][:8] == b"\x89PNG\r\n\x1a\n"
    assert [path.read_bytes() for path in write_comparison(comparison, tmp_path / "c")] == first


def test_one_experiment_alone_has_a_page(make_run, shown) -> None:
    _, made = shown(Comparison((entry(make_run, "ours", [curve(0.1, 0.5)]),), (0.4, 0.9)))
    assert "ours reaches 40 % after 7.5 rounds" in made.text
    assert "No experiment reaches 90 %" in made.text


def test_where_no_run_finished_the_page_says_why(tmp_path, shown) -> None:
    comparison = Comparison((Entry("ours", {"rate": "1"}, (Trial("0", None, "its process ended by signal 9"),)),))
    _, made = shown(comparison)
    assert "No run finished." in made.text
    assert "its process ended by signal 9" in made.text
    assert [path.name for path in write_comparison(comparison, tmp_path)] == [
        "comparison.html",
        "comparison.json",
        "comparison.csv",
    ]
