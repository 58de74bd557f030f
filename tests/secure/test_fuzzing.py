"""Long plays of a server that lies to members, and of members that lie to a server, and what damage does to a state."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

import fuzzing
from baffle.errors import ReportError
from baffle.messages import decode, encode
from baffle.secure import Member, Roster, Slot
from baffle.secure.aggregation import Sums
from baffle.secure.stored import Stored
from fuzzing import RING, SLOTS, TARGETS, Choices, Liar
from secured import SUBJECT

EXAMPLES = {
    "messages": 300,
    "replies": 300,
    "enrolments": 60,
    "states": 200,
    "members": 100,
    "aggregation": 100,
    "snapshots": 200,
}


@pytest.mark.parametrize("target", TARGETS)
def test_no_promise_is_broken(target) -> None:
    @settings(max_examples=EXAMPLES[target], deadline=None)
    @given(st.binary(max_size=200))
    def holds(data) -> None:
        TARGETS[target](data)

    holds()


def finished() -> Liar:
    """Return a slot in which all masked and all answered about three of them."""
    liar = Liar.begin(Choices(b""))
    liar.shown = liar.roster.members[:3]
    for number in liar.members:
        liar._mask(SLOTS[0], number, liar.roster.members)
    for place in range(4):
        liar.ask(Choices(bytes([place])))
    return liar


def test_the_fuzzers_account_of_what_is_known_is_right() -> None:
    liar = finished()
    liar.check()
    assert liar.opened(SLOTS[0]) == [set(liar.roster.members[:3])]
    assert [liar.known(SLOTS[0], number, "self") for number in liar.roster.members] == [True, True, True, False]
    assert [liar.known(SLOTS[0], number, "escrow") for number in liar.roster.members] == [False, False, False, True]


@pytest.mark.parametrize(
    ("break_it", "words"),
    [
        (lambda liar: liar.told[SLOTS[0], 3][10].add("escrow"), "10 told both secrets of 3"),
        (lambda liar: liar.finished[10, 1].add(1), "10 finished round 1"),
        (
            lambda liar: [
                liar.told[SLOTS[0], 3].clear(),
                *[liar.told[SLOTS[0], 3].update({i: {"escrow"}}) for i in (3, 10, 17)],
            ],
            "the sum of",
        ),
    ],
    ids=["both-kinds", "two-attempts", "too-few"],
)
def test_the_fuzzer_would_see_members_tell_too_much(break_it, words) -> None:
    liar = finished()
    break_it(liar)
    with pytest.raises(AssertionError, match=words):
        liar.check()


def test_a_fuzzer_that_changes_a_sum_is_seen() -> None:
    play, *_ = fuzzing.played()
    right = play.server.sums()

    class Wrong:
        reports = play.server.reports

        def sums(self) -> Sums:
            return Sums(right.slopes + 1, right.weight, right.reported)

    fuzzing.checked_sum(play, play.server)
    with pytest.raises(AssertionError):
        fuzzing.checked_sum(play, Wrong())


@pytest.mark.parametrize(
    "changes",
    [
        {"number": 4},
        {"chains": (b"",) * 4},
        {"chains": ()},
        {"round": 9},
        {"held": "twice"},
        {"held": {"own": b""}},
        {"held": {"pledge": b"name"}},
        {"held": {"cohort": (3, 10, 17)}},
        {"held": {"reported": (3, 10, 17)}},
        {"held": {"slot": Slot(10_001, 0)}},
        {"masked": {"cohort": (17, 10, 3)}},
        {"masked": {"cohort": (10, 17, 24)}},
        {"masked": {"cohort": (3, 4, 10)}},
        {"masked": {"own": bytes(16)}},
    ],
    ids=str,
)
def test_a_state_whose_parts_do_not_fit_is_refused_when_it_is_read(changes) -> None:
    member = fuzzing.begun()[0][3]
    if "masked" in changes:
        member, _ = member.mask(SLOTS[0], member.roster.members, RING, np.arange(4), 1, SUBJECT)
        changes = {"held": changes["masked"]}
    stored = decode(member.stored(), Stored)
    last = stored.held[-1]
    held = changes.get("held")
    if held == "twice":
        changes = {"held": (last, last)}
    elif held:
        changes = {"held": (*stored.held[:-1], replace(last, **held))}
    with pytest.raises(ReportError):
        Member.restored(encode(replace(stored, **changes)))


@pytest.mark.parametrize("at", ["members", "publics"])
def test_a_roster_with_numbers_or_keys_that_are_none_is_refused_when_it_is_read(at) -> None:
    """A negative number went through, and made whoever agreed on keys with it stop with an OverflowError."""
    roster = fuzzing.begun()[0][3].roster
    wrong = {"members": (-1, *roster.members[1:]), "publics": (b"short", *roster.publics[1:])}[at]
    with pytest.raises(ReportError, match="not a roster"):
        decode(encode(replace(roster, **{at: wrong})), Roster)
