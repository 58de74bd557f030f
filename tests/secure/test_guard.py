"""What a member refuses: a second kind of share, a second sum, replays, other cohorts, what is forgotten."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from baffle.errors import ReportError
from baffle.secure import Aggregation, Member, Request, Ring, Slot
from baffle.secure.epoch import LONGEST
from baffle.secure.member import AHEAD, MOST_HELD
from secured import SUBJECT, Round, drawn, epoch, signed, wired

SLOT = Slot(1, 0)
RING = Ring(9, 1, 127)
ONES = np.ones(4, np.int64)


def masked(n: int = 4, threshold: int = 3, slot: Slot = SLOT) -> Round:
    """Return a slot in which all have reported."""
    round_ = Round.begin(epoch(n, threshold)[1], slot, RING, 5)
    for number in round_.roster.members:
        round_.report(number, ONES)
    round_.close()
    return round_


def asking(round_: Round, reported: tuple[int, ...], holder: int) -> Request:
    """Return what a server would ask that says that only those have reported."""
    kept = tuple(one for one in round_.server.reports if one.number in reported)
    server = Aggregation(round_.roster, round_.slot, RING, 5, SUBJECT, round_.server.pledges, kept, reported)
    return signed(server).request(holder)


@given(st.lists(st.tuples(st.integers(0, 15), st.booleans()), min_size=1, max_size=12))
@settings(max_examples=40)
def test_never_both_kinds_of_share_whatever_is_asked_in_whatever_order(asked) -> None:
    round_ = masked()
    member, given_ = round_.members[10], {}
    for subset, restart in asked:
        reported = tuple(number for at, number in enumerate(round_.roster.members) if subset >> at & 1)
        if restart:
            member = Member.restored(member.stored())
        try:
            member, answer = member.unmask(wired(asking(round_, reported, 10)))
        except ReportError:
            continue
        assert not answer.unreadable
        for number in round_.server.cohort:
            assert given_.setdefault(number, number in reported) == (number in reported)
    assert len(member.held) == 1


def test_the_same_question_has_the_same_answer() -> None:
    round_ = masked()
    first = round_.ask(10)
    assert round_.ask(10) == first
    with pytest.raises(ReportError, match="signed or answered for other reports"):
        round_.ask(10, asking(round_, (3, 10, 17), 10))


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"reported": (3, 10)}, "where at least 3"),
        ({"reported": (3, 10, 17, 25)}, "not of the cohort"),
        ({"reported": (10, 3, 17)}, "ascending"),
        ({"reported": (3, 3, 3)}, "ascending"),
        ({"cohort": (3, 10, 17)}, "another cohort"),
        ({"digest": bytes(32)}, "another roster"),
        ({"slot": Slot(1, 1)}, "no pledge"),
        ({"slot": Slot(2, 0)}, "no pledge"),
        ({"deposits": ()}, "0 deposits"),
    ],
)
def test_requests_that_are_refused(changes, words) -> None:
    round_ = masked()
    before = round_.members[10]
    with pytest.raises(ReportError, match=words):
        round_.ask(10, replace(round_.server.request(10), **changes))
    assert round_.members[10] is before


def test_below_the_minimum_is_refused_though_above_the_threshold() -> None:
    round_ = Round.begin(epoch(5, 3, 4)[1], SLOT, RING, 5)
    for number in round_.roster.members:
        round_.report(number, ONES)
    with pytest.raises(ReportError, match="where at least 4"):
        round_.ask(10, asking(round_, (3, 10, 17), 10))


def test_one_report_a_slot_and_one_sum_a_round() -> None:
    round_ = masked()
    with pytest.raises(ReportError, match="masked already"):
        round_.mask(10, ONES)
    with pytest.raises(ReportError, match="is masked"):
        round_.members[10].pledge(SLOT, drawn(1))
    second = Round.begin(round_.members.values(), Slot(1, 1), RING, 5, seed=3)
    round_.members = second.members  # the same members, in both attempts
    second.report(3, ONES)
    round_.ask(3)
    round_.ask(10)
    with pytest.raises(ReportError, match="finished in attempt 0"):
        second.report(10, ONES)
    for number in (17, 24):
        second.report(number, ONES)
    with pytest.raises(ReportError, match="finished in attempt 0"):
        second.ask(3, asking(second, (3, 17, 24), 3))


@pytest.mark.parametrize(
    ("cohort", "words"),
    [
        ((3, 10), "a cohort of 2"),
        ((3, 17, 24), "lacks this member"),
        ((3, 10, 11), "strangers"),
        ((10, 3, 17), "ascending"),
        ((3, 10, 10), "ascending"),
    ],
)
def test_cohorts_that_are_refused(cohort, words) -> None:
    round_ = Round.begin(epoch(4, 3)[1], SLOT, RING, 5)
    with pytest.raises(ReportError, match=words):
        round_.members[10].mask(SLOT, cohort, RING, ONES, 1, SUBJECT)
    with pytest.raises(ReportError, match="3 to 3 are added up"):
        round_.members[10].mask(SLOT, round_.server.cohort, Ring(3, 1, 127), ONES, 1, SUBJECT)


def test_a_server_that_shows_cohorts_that_differ_gets_no_self_mask() -> None:
    # Else a victim masked with colluders and with members that the others take for gone would stand alone.
    round_ = Round.begin(epoch(6, 4)[1], SLOT, RING, 5)
    victim = 3
    round_.members[victim], apart = round_.members[victim].mask(SLOT, (3, 10, 17, 24), RING, ONES, 1, SUBJECT)
    for number in round_.roster.members[1:]:
        round_.report(number, ONES)
    with pytest.raises(ReportError, match="another cohort, plan, model or pledge"):
        round_.server.report(apart)
    # A server that does not mind takes it, filled up to the right length.
    told = replace(apart, witnesses=apart.witnesses.ljust(40, b"\0"))
    forged = Aggregation(
        round_.roster,
        SLOT,
        RING,
        5,
        SUBJECT,
        round_.server.pledges,
        (told, *round_.server.reports),
        round_.roster.members,
    )
    forged = signed(forged)
    for holder in round_.roster.members[1:]:
        answer = round_.ask(holder, forged.request(holder))
        assert answer.unreadable == (victim,)


def test_reports_and_pledges_of_other_rounds_are_refused_by_the_server() -> None:
    one, two = masked(), Round.begin(epoch(4, 3)[1], Slot(2, 0), RING, 5, seed=4)
    with pytest.raises(ReportError, match="another slot"):
        two.server.report(one.server.reports[0])
    with pytest.raises(ReportError, match="another cohort, plan, model or pledge"):
        two.server.report(replace(one.server.reports[0], slot=Slot(2, 0)))
    with pytest.raises(ReportError, match="another slot"):
        Aggregation.of(two.roster, Slot(2, 0), RING, 5, SUBJECT, one.server.pledges)
    with pytest.raises(ReportError, match="too late"):
        one.server.report(one.server.reports[0])
    two.report(3, ONES)
    with pytest.raises(ReportError, match="second report"):
        two.server.report(two.server.reports[0])


def test_a_pledge_of_another_round_does_not_open() -> None:
    one, two = masked(), masked(slot=Slot(2, 0))
    old, new = one.server.request(10), two.server.request(10)
    mixed = replace(new, deposits=(old.deposits[0], *new.deposits[1:]))
    assert two.ask(10, mixed).unreadable == (3,)
    swapped = replace(new, deposits=new.deposits[::-1])
    assert masked(slot=Slot(2, 0)).ask(10, swapped).unreadable == (3, 24)


def test_a_second_pledge_and_a_report_under_the_first_are_not_mixed() -> None:
    round_ = Round.begin(epoch(4, 3)[1], SLOT, RING, 5)
    round_.members[10], _ = round_.members[10].pledge(SLOT, drawn(77))
    with pytest.raises(ReportError, match="another cohort, plan, model or pledge"):
        round_.report(10, ONES)


def test_what_is_forgotten_is_answered_no_more() -> None:
    round_ = masked()
    request = round_.server.request(10)
    member = round_.members[10].forget(2)
    assert member.round == 2
    assert not member.held
    assert member.forget(1) is member
    for what in (lambda: member.unmask(request), lambda: member.pledge(SLOT, drawn(1))):
        with pytest.raises(ReportError, match=r"no pledge"):
            what()
    # Neither its chains nor anything else of before can be told from what is stored.
    stored = member.stored()
    old = round_.members[10]
    secrets = [chain for chain in old.chains if chain] + [old.held[0].shares[:16], old.held[0].shares[16:]]
    assert not any(secret in stored for secret in secrets)


def test_how_far_ahead_and_how_much() -> None:
    member = epoch(2)[1][0]
    with pytest.raises(ReportError, match="no pledge for round"):
        member.pledge(Slot(AHEAD + 1, 0), drawn(1))
    with pytest.raises(ReportError, match="longest epoch"):
        member.forget(LONGEST + 1)
    for attempt in range(MOST_HELD):
        member, _ = member.pledge(Slot(0, attempt), drawn(1))
    with pytest.raises(ReportError, match="are held"):
        member.pledge(Slot(1, 0), drawn(1))
    assert len(member.pledge(Slot(0, 5), drawn(1))[0].held) == MOST_HELD


def test_states_survive_being_stored() -> None:
    for member in masked().members.values():
        assert Member.restored(member.stored()) == member
    with pytest.raises(ReportError):
        Member.restored(b"\x90")
    assert "chains" not in repr(member)
    assert member.chains[0].hex() not in repr(member)
