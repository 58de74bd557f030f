from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from baffle.aggregators import weighted_mean
from baffle.mechanisms import MISSING

ONE_BLOCK = np.zeros(3, np.int64)


def mean(rows, weights, blocks=ONE_BLOCK):
    return weighted_mean(np.array(rows, np.int64)[:, None], np.array(weights), np.array(blocks))[0].tolist()


def test_sums_by_hand():
    assert mean([[1, -2, 3], [10, 20, -30]], [1, 3]) == [31, 58, -87]


def test_a_client_stands_in_for_one_whose_probe_is_missing():
    assert mean([[5, 1, 1], [MISSING, 1, 1]], [1, 3]) == [20, 4, 4]  # 5 · (1 + 3)/1
    assert mean([[MISSING, 1, 1], [5, 1, 1]], [1, 3]) == [20, 4, 4]  # 15 · 4/3


def test_a_blocks_other_probes_stand_in_for_one_that_nobody_has():
    assert mean([[4, -6, MISSING], [4, -6, MISSING]], [1, 1]) == [12, -18, 0]  # ×3/2


def test_both_at_once_and_another_block_beside_them():
    rows = [[6, MISSING, MISSING, 7], [MISSING, MISSING, 8, 9]]
    assert mean(rows, [1, 2], [0, 0, 0, 1]) == [27, 0, 36, 25]  # 6·3/1·3/2, 16·3/2·3/2; 7 + 18


@pytest.mark.parametrize(("q", "scaled"), [(1, 2), (3, 4), (5, 8), (-1, -2), (-3, -4), (-5, -8), (2, 3), (-2, -3)])
def test_halves_go_to_the_even_neighbour(q, scaled):
    assert mean([[q, 0, MISSING]], [1]) == [scaled, 0, 0]  # ×3/2


@given(
    st.lists(st.lists(st.one_of(st.just(MISSING), st.integers(-(2**31), 2**31)), min_size=4, max_size=4), min_size=1),
    st.data(),
)
def test_scaling_is_the_exact_rational_rounded_once(rows, data):
    weights = data.draw(st.lists(st.integers(1, 2**20), min_size=len(rows), max_size=len(rows)))
    blocks = [0, 0, 0, 1]
    expected = []
    for k, block in enumerate(blocks):
        columns = [[row[j] for row in rows] for j in range(4) if blocks[j] == block]
        measured = sum(any(q != MISSING for q in column) for column in columns)
        present = [(w, row[k]) for w, row in zip(weights, rows, strict=True) if row[k] != MISSING]
        if not present:
            expected.append(0)
            continue
        sum_present, seen = sum(w * q for w, q in present), sum(w for w, _ in present)
        expected.append(round(Fraction(sum_present * sum(weights) * len(columns), seen * measured)))
    assert mean(rows, weights, blocks) == expected


@given(st.lists(st.tuples(st.integers(1, 1000), st.integers(-127, 127)), min_size=1, max_size=8))
def test_divided_by_the_weight_it_is_the_mean(pairs):
    weights, values = zip(*pairs, strict=True)
    total = mean([[value] * 3 for value in values], weights)[0]
    assert total / sum(weights) == pytest.approx(np.average(values, weights=weights), abs=1e-12)


def test_sums_beyond_float64_are_exact():
    big = 2**61 + 1
    assert mean([[big, 1, 1], [big, 1, 1]], [1, 1]) == [2**62 + 2, 2, 2]
    assert mean([[big, 1, 1], [MISSING, 1, 1]], [1, 1]) == [2**62 + 2, 2, 2]
