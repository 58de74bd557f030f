import re
from dataclasses import replace
from math import inf, nan
from xml.etree import ElementTree

import matplotlib
import pytest

from baffle.report.charts import accuracy_chart, loss_chart
from baffle.report.figures import panels, png
from baffle.report.inline_svg import inline
from baffle.report.palette import LIGHT
from baffle.report.records import Point
from baffle.report.runs import Run, read_runs


def width_and_height(picture: bytes) -> tuple[int, int]:
    assert picture.startswith(b"\x89PNG\r\n\x1a\n")
    return int.from_bytes(picture[16:20]), int.from_bytes(picture[20:24])


def test_a_picture_is_a_png_of_three_panels(make_run):
    width, height = width_and_height(png(loss_chart(read_runs([make_run()]))))
    assert (width, height) == (1632, 416)


def test_a_panel_is_an_element_with_the_pages_colours_and_a_description(make_run):
    runs = read_runs([make_run("a"), make_run('b <&">', cost=1e6)])
    for panel in panels(accuracy_chart(runs)):
        assert ElementTree.fromstring(panel).tag == "svg"
        assert "var(--run-0)" in panel
        assert "var(--run-1)" in panel
        assert "b &lt;&amp;&quot;&gt;: 90.00%" in panel
        assert not re.search("|".join(LIGHT) + "|https?:|<style|font-family|xlink", panel)


def test_panels_use_ids_that_no_other_panel_has(make_run):
    runs = read_runs([make_run()])
    ids = [
        re.findall(r'id="(.*?)"', panel)
        for chart in (accuracy_chart(runs), loss_chart(runs))
        for panel in panels(chart)
    ]
    flat = [name for names in ids for name in names]
    assert len(flat) == len(set(flat))


def test_drawing_leaves_matplotlib_as_it_was(make_run):
    before = dict(matplotlib.rcParams)
    png(loss_chart(read_runs([make_run()])))
    assert dict(matplotlib.rcParams) == before


def test_any_name_can_stand_in_a_legend(make_run):
    (run,) = read_runs([make_run()])
    runs = [replace(run, name=name) for name in ("_hidden", "$x_{", "日本", "%s", "x" * 300)]
    assert width_and_height(png(loss_chart(runs))) == (1632, 480)


@pytest.mark.parametrize(
    "points",
    [
        (Point(0),),
        (Point(0, 0.1, 0.1, -5.0, 0, 0, 0, 0), Point(10, nan, nan, inf, 10, 10, 10)),
        (Point(0, 1.0, 1.0, 0.0, 0, 0, 0, 0), Point(10, 1.0, 1.0, 0.0, 10, 10, 10)),
        (Point(0, 0.1, 0.1, 1e-9, 0, 0, 0, 0), Point(10, 0.1, 0.1, 1e30, 1e18, 1e18, 1e18)),
    ],
)
def test_any_points_can_be_drawn(make_run, points):
    run: Run = replace(read_runs([make_run()])[0], points=points)
    far = replace(run, points=(Point(9, 0.5, 0.5, 0.5, 1e9, 1e9, 1e9),))
    assert len(panels(accuracy_chart([run]))) == 3
    assert width_and_height(png(loss_chart([run, far])))[0] == 1632


def test_a_loss_below_zero_is_in_the_picture(make_run):
    (run,) = read_runs([make_run()])
    below = loss_chart([replace(run, points=(Point(0, loss=-5.0), Point(9, loss=-1.0)))])
    assert {"-4", "-2"} <= set(re.findall(r">(-\d)<", panels(below)[0]))


def test_inline_keeps_ids_that_are_used_and_drops_the_others():
    body = '<defs><path id="m1"/></defs><g id="axes_1"><use xlink:href="#m1"/></g></svg>'
    assert inline(f'<?xml?><svg viewBox="0 0 4 3" width="4pt">{body}', "a & b") == (
        '<svg class="panel" viewBox="0 0 4 3" role="img" aria-label="a &amp; b">'
        '<defs><path id="m1"/></defs><g><use href="#m1"/></g></svg>'
    )
