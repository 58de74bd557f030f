import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from baffle.allocation import equal
from baffle.errors import SettingsError


@pytest.mark.parametrize(
    ("directions", "blocks", "least", "budgets"),
    [(10, 3, 1, (4, 3, 3)), (11, 3, 2, (4, 4, 3)), (12, 3, 4, (4, 4, 4)), (7, 1, 1, (7,)), (3, 3, 1, (1, 1, 1))],
)
def test_budgets_by_hand(directions, blocks, least, budgets):
    assert equal(directions, blocks, least) == budgets


@given(st.integers(0, 10_000), st.integers(1, 60), st.integers(1, 3))
def test_nothing_is_lost_and_shares_differ_by_one_at_most(directions, blocks, least):
    assume(directions >= blocks * least)
    budgets = equal(directions, blocks, least)
    assert (len(budgets), sum(budgets)) == (blocks, directions)
    assert list(budgets) == sorted(budgets, reverse=True)
    assert budgets[0] - budgets[-1] <= 1
    assert budgets[-1] >= least


@given(st.integers(-5, 200), st.integers(1, 60), st.integers(1, 3))
def test_a_block_with_too_few_is_refused_exactly_when_there_is_one(directions, blocks, least):
    assume(directions < blocks * least)
    with pytest.raises(SettingsError) as caught:
        equal(directions, blocks, least)
    assert (caught.value.field, caught.value.value) == ("forwards", directions)


def test_the_refusal_says_how_many_are_needed():
    with pytest.raises(SettingsError, match=r"leaves K = 1 directions a block; 3 block\(s\) need at least 2 each"):
        equal(5, 3, 2)
