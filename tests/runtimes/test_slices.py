from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from baffle.runtimes import slices


def batches_of(sizes):
    return [(np.zeros((size, 2)), np.zeros(size, int)) for size in sizes]


def cut(sizes, most):
    return [(run.start, run.stop) for run in slices(batches_of(sizes), most)]


@pytest.mark.parametrize(
    ("sizes", "most", "runs"),
    [
        ([3, 3, 3], 9, [(0, 3)]),
        ([3, 3, 3], 8, [(0, 2), (2, 3)]),
        ([3, 3, 3], 3, [(0, 1), (1, 2), (2, 3)]),
        ([3, 3, 3], 1, [(0, 1), (1, 2), (2, 3)]),
        ([10], 4, [(0, 1)]),
        ([2, 10, 2, 2], 4, [(0, 1), (1, 2), (2, 4)]),
        ([10, 2, 2, 10], 4, [(0, 1), (1, 3), (3, 4)]),
        ([1, 1, 1, 1, 1], 2, [(0, 2), (2, 4), (4, 5)]),
    ],
)
def test_batches_by_hand(sizes, most, runs) -> None:
    assert cut(sizes, most) == runs


@given(st.lists(st.integers(1, 40), min_size=1, max_size=30), st.integers(1, 60))
def test_runs_are_whole_batches_in_order_as_long_as_the_bound_lets_them_be(sizes, most) -> None:
    runs = cut(sizes, most)
    assert [number for start, stop in runs for number in range(start, stop)] == list(range(len(sizes)))
    for start, stop in runs:
        assert stop - start == 1 or sum(sizes[start:stop]) <= most
    for (start, stop), _ in pairwise(runs):
        assert sum(sizes[start : stop + 1]) > most


@given(st.lists(st.integers(1, 40), min_size=1, max_size=30), st.integers(1, 60))
def test_a_run_is_cut_no_further_by_itself(sizes, most) -> None:
    """What a worker is given of a sweep is evaluated in the passes that the whole has."""
    for start, stop in cut(sizes, most):
        assert cut(sizes[start:stop], most) == [(0, stop - start)]
