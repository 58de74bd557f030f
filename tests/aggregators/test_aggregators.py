"""One contract over every aggregator; what only the mean promises is in test_weighted_mean.py."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from baffle.aggregators import weighted_mean
from baffle.mechanisms import MISSING

AGGREGATORS = [weighted_mean]


@st.composite
def reports(draw, missing=True):
    clients, steps, budget = draw(st.integers(1, 4)), draw(st.integers(1, 2)), draw(st.integers(1, 4))
    number = st.integers(-127, 127)
    number = st.one_of(number, st.just(MISSING)) if missing else number
    shape = (clients, steps, budget + 2)
    flat = draw(st.lists(number, min_size=int(np.prod(shape)), max_size=int(np.prod(shape))))
    weights = draw(st.lists(st.integers(1, 1000), min_size=clients, max_size=clients))
    return np.array(flat, np.int64).reshape(shape), np.array(weights, np.int64), np.repeat([0, 1], [budget, 2])


@pytest.mark.parametrize("aggregate", AGGREGATORS)
@given(case=reports(), data=st.data())
def test_the_order_of_clients_does_not_matter(aggregate, case, data):
    integers, weights, blocks = case
    order = np.array(data.draw(st.permutations(range(weights.size))))
    assert np.array_equal(aggregate(integers[order], weights[order], blocks), aggregate(integers, weights, blocks))


@pytest.mark.parametrize("aggregate", AGGREGATORS)
@given(case=reports())
def test_the_result_is_one_integer_a_probe_and_nothing_is_changed_in_place(aggregate, case):
    integers, weights, blocks = case
    before = integers.copy()
    for array in case:
        array.flags.writeable = False
    result = aggregate(integers, weights, blocks)
    assert (result.dtype, result.shape) == (np.int64, integers.shape[1:])
    assert np.array_equal(integers, before)
    assert not (result == MISSING).any()


@pytest.mark.parametrize("aggregate", AGGREGATORS)
@given(case=reports(missing=False))
def test_clients_that_agree_are_taken_at_their_word(aggregate, case):
    integers, weights, blocks = case
    integers = np.repeat(integers[:1], weights.size, axis=0)
    assert np.array_equal(aggregate(integers, weights, blocks), integers[0] * weights.sum())


@pytest.mark.parametrize("aggregate", AGGREGATORS)
def test_a_block_that_nobody_measured_stays_0_and_the_others_do_not_care(aggregate):
    integers = np.array([[[5, 7, MISSING, MISSING], [1, 2, 3, 4]]], np.int64)
    result = aggregate(integers, np.array([2]), np.array([0, 0, 1, 1]))
    assert result.tolist() == [[10, 14, 0, 0], [2, 4, 6, 8]]


@pytest.mark.parametrize("aggregate", AGGREGATORS)
@given(case=reports())
def test_what_is_missing_in_one_block_or_step_touches_no_other(aggregate, case):
    integers, weights, blocks = case
    spoilt = integers.copy()
    spoilt[0, 0, blocks == 0] = MISSING
    before, after = aggregate(integers, weights, blocks), aggregate(spoilt, weights, blocks)
    assert np.array_equal(before[0, blocks == 1], after[0, blocks == 1])
    assert np.array_equal(before[1:], after[1:])
