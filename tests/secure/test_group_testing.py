"""Group testing: liars are named within a stated number of spoilt sums, and nobody is because of one other."""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass
from math import ceil, comb, log2

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from baffle.keys import Key
from baffle.secure import GroupTesting
from baffle.secure.group_testing import CALM, PATIENCE

Lies = Callable[[int, frozenset[int]], bool]


@dataclass
class Search:
    """Attempts, one after another, until all liars are found or the search says that it is in vain."""

    state: GroupTesting
    least: int
    spoilt: int = 0
    sound: int = 0
    vain: bool = False

    def attempt(self, members: Collection[int], liars: Collection[int], gone: Collection[int] = ()) -> bool:
        """Try one sum; return whether it was spoilt."""
        asked = [number for number in members if number not in self.state.found]
        without = self.state.left_out(asked, self.least)
        if without is None:
            self.vain = True
            return False
        assert without <= set(asked)
        assert not without or len(asked) - len(without) >= self.least
        among = frozenset(asked) - without - frozenset(gone)
        if among & set(liars):
            self.state, self.spoilt = self.state.after_spoilt(among), self.spoilt + 1
        elif len(among) >= self.least:
            self.state, self.sound = self.state.after_sound(among), self.sound + 1
        return bool(among & set(liars))


def two_thirds(n: int) -> int:
    return -(-2 * n // 3)


def lost_to_one(n: int, room: int) -> int:
    """Return how many sums one liar spoils: the suspects shrink by half, or by as many as can be left out."""
    spoilt, suspects = 1, n
    while suspects > 1:
        suspects -= min(room, -(-suspects // 2))
        spoilt += 1
    return spoilt


def lost_to(liars: int, n: int, room: int) -> int:
    """Return how many sums so many liars spoil at most, who always lie."""
    parts = sum(comb(ceil(n / (room // f)), f) for f in range(1, liars + 1)) if liars > 1 else 0
    return lost_to_one(n, room) + parts + liars * (ceil(log2(n)) + 1)


@pytest.mark.parametrize("n", range(3, 51))
def test_one_liar_is_named_after_as_many_spoilt_sums_as_are_stated(n) -> None:
    least = two_thirds(n)
    room = n - least
    for liar in range(n):
        search = Search(GroupTesting(Key.root(liar)), least)
        while liar not in search.state.found:
            search.attempt(range(n), {liar})
            assert not search.vain
            assert search.state.found <= {liar}
        assert search.spoilt == lost_to_one(n, room) <= 1 + ceil(n / room) + int(log2(room))
        assert search.sound <= search.spoilt  # rounds that counted meanwhile
        assert not search.state.searching
        assert search.state.left_out([i for i in range(n) if i != liar], least) == frozenset()


@settings(max_examples=50)
@given(st.integers(3, 50), st.integers(0, 1000), st.data())
def test_several_liars_are_all_named_and_nobody_else(n, seed, data) -> None:
    least = two_thirds(n)
    room = n - least
    liars = data.draw(st.sets(st.integers(0, n - 1), min_size=1, max_size=min(3, room)))
    search = Search(GroupTesting(Key.root(seed)), least)
    while not liars <= search.state.found:
        search.attempt(range(n), liars)
        assert not search.vain
        assert search.state.found <= liars
    assert search.spoilt <= (lost_to_one(n, room) if len(liars) == 1 else lost_to(len(liars), n, room))


@given(st.integers(3, 30), st.integers(0, 1000), st.lists(st.booleans(), max_size=200), st.data())
def test_one_liar_gets_nobody_else_named_whatever_it_does(n, seed, lies, data) -> None:
    """It lies when it likes, in cohorts that change, from which members go; and it can't spoil more than n sums."""
    least, liar = two_thirds(n), data.draw(st.integers(0, n - 1))
    search = Search(GroupTesting(Key.root(seed)), least)
    everybody = st.sets(st.integers(0, n - 1), min_size=least)
    for lie in lies:
        members = data.draw(everybody) | {liar} if data.draw(st.booleans()) else set(range(n))
        gone = data.draw(st.sets(st.integers(0, n - 1), max_size=n - least)) if data.draw(st.booleans()) else set()
        search.attempt(members, {liar} if lie else set(), gone)
        assert search.state.found <= {liar}
        if liar in search.state.found or search.vain:
            break
        assert len(search.state.spoilt) <= 2 * n


@given(st.integers(6, 40), st.integers(0, 1000), st.lists(st.booleans(), min_size=300, max_size=300))
def test_one_liar_that_lies_now_and_then_spoils_no_more_sums_than_there_are_members(n, seed, lies) -> None:
    search = Search(GroupTesting(Key.root(seed)), two_thirds(n))
    for lie in lies:
        search.attempt(range(n), {0} if lie else set())
        assert len(search.state.spoilt) <= n
        assert search.state.found <= {0}


@pytest.mark.parametrize(("n", "liars"), [(3, 2), (4, 2), (5, 3), (6, 3), (8, 3)])
def test_more_liars_than_can_be_left_out_end_in_vain(n, liars) -> None:
    search = Search(GroupTesting(Key.root(0)), two_thirds(n))
    while not search.vain:
        search.attempt(range(n), range(liars))
        assert search.state.found <= set(range(liars))
        assert search.spoilt <= lost_to(n - two_thirds(n), n, n - two_thirds(n))
    assert search.state.several


@pytest.mark.parametrize("n", [2, 3, 10])
def test_where_nobody_can_be_left_out_all_are_suspects_and_three_sums_are_lost(n) -> None:
    search = Search(GroupTesting(Key.root(0)), n)
    while not search.vain:
        search.attempt(range(n), {1})
    assert (search.spoilt, search.sound) == (3, 0)
    assert search.state.suspects == frozenset(range(n))
    assert search.state.found == frozenset()


def test_nobody_is_left_out_where_no_sum_was_spoilt() -> None:
    search = Search(GroupTesting(Key.root(0)), 6)
    for _ in range(5):
        search.attempt(range(9), set())
    assert search.state == GroupTesting(Key.root(0))
    assert not search.state.searching


def test_whoever_lied_once_costs_the_others_ever_less_and_is_forgotten() -> None:
    search = Search(GroupTesting(Key.root(0)), 20)
    search.attempt(range(30), {3})
    left_out = []
    while search.state.searching:
        left_out.append(len(search.state.left_out(range(30), 20)))
        search.attempt(range(30), set())
    assert left_out == [10] * (PATIENCE + 1) + [5, 2] + [1] * (CALM - PATIENCE - 3)
    assert search.state == GroupTesting(Key.root(0))


def test_who_is_left_out_follows_from_the_key() -> None:
    first, again, other = (GroupTesting(Key.root(seed)).after_spoilt(range(30)) for seed in (1, 1, 2))
    assert first.left_out(range(30), 20) == again.left_out(list(range(30))[::-1], 20)
    assert first.left_out(range(30), 20) != other.left_out(range(30), 20)
