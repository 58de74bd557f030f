"""The masked sum is the plain one, to the last bit, whoever drops out; or there is none."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from baffle.errors import ReportError
from baffle.mechanisms import MISSING
from baffle.secure import AbandonedError, Ring, Slot
from secured import Round, epoch, inputs

SLOT = Slot(2, 1)


def check(round_: Round, slopes, weights, reported, answering) -> None:
    places = {number: at for at, number in enumerate(round_.roster.members)}
    for number in reported:
        round_.report(number, slopes[places[number]], int(weights[places[number]]))
    found = round_.unmask(answering)
    rows = [places[number] for number in sorted(reported)]
    assert found.reported == tuple(sorted(reported))
    assert found.weight == weights[rows].sum()
    np.testing.assert_array_equal(found.slopes, (slopes[rows] * weights[rows, None]).sum(0))


@pytest.mark.parametrize(("n", "weight"), [(2, 1), (3, 1000), (10, 60_000), (40, 1)])
def test_all_report_and_t_answer(n, weight) -> None:
    roster, members = epoch(n)
    ring = Ring(n, weight, 127)
    slopes, weights = inputs(n, 33, ring)
    round_ = Round.begin(members, SLOT, ring, 34)
    check(round_, slopes, weights, roster.members, roster.members[-roster.terms.threshold :])


def test_two_hundred_clients_in_sixteen_bits_with_drop_outs() -> None:
    roster, members = epoch(200)
    ring = Ring(200, 1, 127)
    assert (ring.bits, roster.terms.threshold) == (16, 134)
    slopes, weights = inputs(200, 100, ring)
    round_ = Round.begin(members, SLOT, ring, 101)
    reported = [number for number in roster.members if number % 5]
    check(round_, slopes, weights, reported, reported[:134])


@given(st.data())
@settings(max_examples=60)
def test_any_pattern_of_drop_outs_that_leaves_t_answers(data) -> None:
    n = data.draw(st.integers(2, 7))
    threshold = data.draw(st.integers(max(2, n // 2 + 1), n))
    minimum = data.draw(st.integers(2, n))
    roster, members = epoch(n, threshold, minimum)
    least = max(threshold, minimum)
    some = st.lists(st.sampled_from(roster.members), unique=True, max_size=n)
    cohort = sorted(data.draw(some.filter(lambda x: len(x) >= least)))
    reported = data.draw(st.permutations(cohort))[: data.draw(st.integers(0, len(cohort)))]
    ring = Ring(n, data.draw(st.sampled_from([1, 37])), data.draw(st.sampled_from([1, 127, 32_767])))
    slopes, weights = inputs(n, 5, ring, data.draw(st.integers(0, 99)))
    round_ = Round.begin(members, SLOT, ring, 6, cohort)
    if len(reported) < least:
        with pytest.raises(AbandonedError, match="reports where at least"):
            check(round_, slopes, weights, reported, ())
        return
    # Some that were late, so that they are dropouts to the server, answer nevertheless.
    late = [number for number in cohort if number not in reported and data.draw(st.booleans())]
    for number in late:
        round_.mask(number, slopes[0], 1)
    answering = data.draw(st.permutations([*reported, *late]))
    answering = answering[: data.draw(st.integers(0, len(answering)))]
    if len(answering) < threshold:
        with pytest.raises(AbandonedError, match="answers do not tell"):
            check(round_, slopes, weights, reported, answering)
        assert not round_.server.enough
        return
    check(round_, slopes, weights, reported, answering)


def test_a_missing_slope_counts_as_nought() -> None:
    roster, members = epoch(3)
    ring = Ring(3, 10, 7)
    slopes = np.array([[1, MISSING], [2, 7], [3, -7]])
    round_ = Round.begin(members, SLOT, ring, 3)
    for number, row in zip(roster.members, slopes, strict=True):
        round_.report(number, row, 10)
    found = round_.unmask(roster.members)
    assert (found.slopes.tolist(), found.weight) == ([60, 0], 30)


def test_many_rounds_of_one_epoch_and_attempts_that_fail() -> None:
    roster, members = epoch(4, 3)
    ring = Ring(4, 1, 127)
    for number, dropped in enumerate([(), (3,), (10,), ()]):
        failed = Round.begin(members, Slot(number, 0), ring, 9, seed=100 + number)
        failed.report(3, np.ones(8, np.int64))
        with pytest.raises(AbandonedError):
            failed.unmask(())
        slopes, weights = inputs(4, 8, ring, number)
        round_ = Round.begin(failed.members.values(), Slot(number, 1), ring, 9, seed=200 + number)
        check(
            round_, slopes, weights, [i for i in roster.members if i not in dropped], (17, 24, 3 + 7 * (3 in dropped))
        )
        members = tuple(member.forget(number + 1) for member in round_.members.values())
        assert all(not member.held and member.round == number + 1 for member in members)


def test_reports_that_break_the_rules_are_not_added_up_quietly() -> None:
    roster, members = epoch(3)
    round_ = Round.begin(members, SLOT, Ring(3, 1, 127), 5)
    for number in roster.members[:2]:
        round_.report(number, np.zeros(4, np.int64))
    masked = round_.mask(17, np.zeros(4, np.int64))
    round_.server = round_.server.report(replace(masked, words=bytes(len(masked.words))))
    with pytest.raises(ReportError, match="breaks the rules"):
        round_.unmask(roster.members)
