"""Whatever comes in, from either side, is refused in words or is harmless."""

from __future__ import annotations

from functools import cache

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from baffle.errors import ReportError
from baffle.messages import decode, encode
from baffle.secure import (
    Aggregation,
    Answer,
    Candidate,
    Enrolment,
    Masked,
    Member,
    Pledge,
    Request,
    Ring,
    Roster,
    Slot,
    consistent,
)
from secured import CA, NOW, SUBJECT, Round, drawn, enrolled, epoch, signed, terms

SLOT = Slot(1, 0)
RING = Ring(4, 1, 127)
KINDS = (Enrolment, Pledge, Masked, Request, Answer)
CANDIDATES = [Candidate.draw(number, terms(3), drawn(number)) for number in (2, 5, 8)]
ENROLMENTS = [enrolled(one) for one in CANDIDATES]


@cache
def finished() -> tuple[Round, dict[int, Member]]:
    """Return a slot with its answers, and the members as they were before they were asked."""
    round_ = Round.begin(epoch(4, 3)[1], SLOT, RING, 5)
    for number in (3, 10, 17):
        round_.report(number, np.arange(4))
    round_.mask(24, np.arange(4))
    before = dict(round_.members)
    round_.unmask(round_.roster.members)
    return round_, before


mutations = st.lists(
    st.tuples(st.sampled_from(["set", "cut", "put", "swap"]), st.integers(0, 9999), st.integers(0, 255)),
    min_size=1,
    max_size=4,
)


def mutated(data: bytes, changes) -> bytes:
    found = bytearray(data)
    for what, at, value in changes:
        at %= max(1, len(found))
        if what == "set" and found:
            found[at] = value
        elif what == "cut":
            del found[at : at + 1 + value % 4]
        elif what == "put":
            found[at:at] = bytes([value])
        elif found:
            other = value % len(found)
            found[at], found[other] = found[other], found[at]
    return bytes(found)


random_bytes = st.binary(max_size=200) | st.binary(max_size=9).map(lambda data: b"\x95\x92\x01\x00" + data)


@given(st.sampled_from(KINDS), random_bytes)
@settings(max_examples=200)
def test_random_bytes_are_no_messages(kind, data) -> None:
    try:
        decode(data, kind)
    except ReportError:
        return
    raise AssertionError("random bytes were a message")


@given(mutations, st.integers(0, 3))
@settings(max_examples=300)
def test_a_mutated_request_gets_no_share_of_another_kind(changes, which) -> None:
    round_, _ = finished()
    holder = round_.roster.members[which]
    request = round_.server.request(holder)
    try:
        _, answer = round_.members[holder].unmask(decode(mutated(encode(request), changes), Request))
    except ReportError:
        return
    # The same U, some of the deposits no longer open.
    right = next(one for one in round_.server.answers if one.number == holder)
    assert answer.slot == SLOT
    shares = {right.shares[at : at + 16] for at in range(0, 64, 16)}
    assert {answer.shares[at : at + 16] for at in range(0, len(answer.shares), 16)} <= shares


@given(mutations, st.integers(0, 3))
@settings(max_examples=200)
def test_a_mutated_answer_makes_no_other_sum(changes, which) -> None:
    round_, _ = finished()
    given_ = round_.server.answers[which]
    rest = tuple(one for one in round_.server.answers if one is not given_)[:2]
    server = Aggregation(
        SERVER.roster, SLOT, RING, 5, SUBJECT, SERVER.pledges, SERVER.reports, SERVER.reported, SERVER.consents, rest
    )
    try:
        sums = server.answer(decode(mutated(encode(given_), changes), Answer)).sums()
    except ReportError:
        return
    assert sums.slopes.tolist() == [0, 3, 6, 9]


@given(mutations, st.integers(0, 2))
@settings(max_examples=200)
def test_a_mutated_report_is_refused_or_another_report(changes, which) -> None:
    reports = SERVER.reports
    server = Aggregation(SERVER.roster, SLOT, RING, 5, SUBJECT, SERVER.pledges, reports[:which] + reports[which + 1 :])
    try:
        server.report(decode(mutated(encode(reports[which]), changes), Masked))
    except ReportError:
        return


@given(mutations, st.integers(0, 3))
@settings(max_examples=200)
def test_a_mutated_pledge_never_makes_a_wrong_sum(changes, which) -> None:
    """The reports are bound to the pledges that the members know, so no report fits another pledge."""
    pledge = SERVER.pledges[which]
    try:
        found = decode(mutated(encode(pledge), changes), Pledge)
        pledges = (*SERVER.pledges[:which], found, *SERVER.pledges[which + 1 :])
        server = Aggregation.of(SERVER.roster, SLOT, RING, 5, SUBJECT, pledges)
        consistent(SERVER.roster, {one.number: one for one in pledges})
        for masked in SERVER.reports:
            server = server.report(masked)
        server = signed(server.close())
        for answer in SERVER.answers:
            server = server.answer(answer)
        sums = server.sums()
    except ReportError:
        return
    assert sums.slopes.tolist() == [0, 3, 6, 9]


@given(mutations, st.integers(0, 2))
@settings(max_examples=100)
def test_a_mutated_enrolment_is_refused_or_the_same(changes, which) -> None:
    try:
        found = decode(mutated(encode(ENROLMENTS[which]), changes), Enrolment)
        roster = Roster.of(terms(3), [*ENROLMENTS[:which], found, *ENROLMENTS[which + 1 :]], CA.certificate, NOW)
    except ReportError:
        return
    assert roster == Roster.of(terms(3), ENROLMENTS, CA.certificate, NOW)


@given(mutations)
@settings(max_examples=100)
def test_a_mutated_state_is_refused_or_a_state(changes) -> None:
    _, before = finished()
    try:
        member = Member.restored(mutated(before[3].stored(), changes))
    except ReportError:
        return
    assert isinstance(member, Member)


SERVER = finished()[0].server
