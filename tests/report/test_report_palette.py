import itertools

import pytest

from baffle.report.palette import DARK, LIGHT, stroke


def luminance(colour: str) -> float:
    shares = [int(colour[start : start + 2], 16) / 255 for start in (1, 3, 5)]
    red, green, blue = (share / 12.92 if share <= 0.04045 else ((share + 0.055) / 1.055) ** 2.4 for share in shares)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


@pytest.mark.parametrize(("colours", "ground"), [(LIGHT, "#ffffff"), (DARK, "#14171a")])
def test_every_colour_stands_out_from_its_ground(colours, ground):
    for colour in colours:
        low, high = sorted((luminance(colour), luminance(ground)))
        assert (high + 0.05) / (low + 0.05) >= 3


def test_28_strokes_differ_and_neighbours_differ_in_dashes():
    strokes = [stroke(index) for index in range(28)]
    assert len(set(strokes)) == 28
    assert all(one.dashes != two.dashes for one, two in itertools.pairwise(strokes))
