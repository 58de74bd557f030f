"""What waits at the desk: little of anybody's, each in turn, and no notice lost."""

from __future__ import annotations

import threading
import time
from collections import Counter
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from baffle.engines.network.desk import Desk
from baffle.engines.network.dialogue import Bye, Refused, Wait, heard, sealed
from baffle.engines.network.inbox import STRANGERS, Inbox, Limits
from baffle.engines.network.roster import Entry, Roster
from baffle.errors import ReportError
from baffle.messages import encode


class Question:
    """A message of which nothing is kept but its answer."""

    def __init__(self, payload: bytes, name: object = None) -> None:
        self.payload, self.name, self.answer, self.arrived = payload, name, b"", threading.Event()

    def reply(self, payload: bytes) -> None:
        self.answer = payload
        self.arrived.set()


def session(number: int) -> bytes:
    return number.to_bytes(8, "big")


class Clock:
    """Goes on by so many seconds whenever it is looked at."""

    def __init__(self, pace: float = 1.0) -> None:
        self.now, self.pace = 0.0, pace

    def __call__(self) -> float:
        self.now += self.pace
        return self.now


def inbox_of(*joined: int, pace: float = 1.0, **limits: int) -> Inbox:
    """Return an inbox of a server where these clients have joined, and nobody waits for slow lanes."""
    roster = Roster(10, None)
    roster.entries = {number: Entry(number, session(number)) for number in joined}
    return Inbox(roster, Limits(**limits), Clock(pace))


def said(client: int, name: bytes | None = None) -> bytes:
    """Return a message of a client's process."""
    return sealed(client, session(client) if name is None else name, Bye(), lambda _: b"")


def taken(inbox: Inbox, most: int = 1 << 30) -> list:
    """Return what comes out: the number that a message came with, or a notice."""
    found = []
    while len(found) < most and (mail := inbox.get(0.0)) is not None:
        found.append(mail if isinstance(mail, str) else mail[0].name if mail[0].name is not None else mail[1])
    return found


def test_clients_are_answered_in_turn_however_much_one_of_them_sends() -> None:
    inbox = inbox_of(0, 1, 2)
    for _ in range(5):
        inbox.put(Question(b"x"), 2)
    inbox.put(Question(b"x"), 0)
    inbox.put(Question(b"x"), 1)
    assert taken(inbox) == [2, 0, 1, 2, 2, 2, 2]


def test_a_large_message_waits_a_turn_for_each_64_kilobytes() -> None:
    inbox = inbox_of(0, 1)
    inbox.put(Question(bytes(300_000)), 1)
    for _ in range(8):
        inbox.put(Question(b"x"), 0)
    assert taken(inbox) == [0, 0, 0, 0, 1, 0, 0, 0, 0]
    inbox.put(Question(bytes(1 << 20)), 1)
    assert taken(inbox) == [1], "alone it waits for nobody"


def test_those_that_have_joined_go_first_and_one_in_five_is_of_the_others() -> None:
    inbox = inbox_of(0, 1)
    for _ in range(6):
        for number in (7, 0, 1):
            inbox.put(Question(b"x"), number)
    inbox.put(Question(b"noise"), None)
    assert taken(inbox) == [0, 1, 0, 1, 7, 0, 1, 0, 1, None, 0, 1, 0, 1, 7, 7, 7, 7, 7]


def test_messages_of_one_client_keep_their_order_and_notices_their_place() -> None:
    inbox = inbox_of(0)
    inbox.put(Question(b"x", "first"), 0)
    inbox.notice(session(0).hex(), 0)
    inbox.put(Question(b"x", "second"), 0)
    inbox.notice(session(0).hex())
    assert taken(inbox) == ["first", session(0).hex(), "second", session(0).hex()]


def test_a_client_has_room_for_eight_messages_and_two_mebibytes() -> None:
    inbox = inbox_of(0, 1)
    for _ in range(20_000):
        inbox.put(Question(b"x"), 0)
    for _ in range(20):
        inbox.put(Question(bytes(1_000_000)), 1)
    assert Counter(taken(inbox)) == {0: 8, 1: 2}
    assert (inbox.dropped, inbox.dropped_strangers) == (19_992 + 18, 0)
    assert [inbox.roster.entries[number].dropped for number in (0, 1)] == [19_992, 18]
    assert inbox.peak == (10, 8 * 4097 + 2 * 1_004_096)
    assert (inbox.messages, inbox.size) == (0, 0)


def test_a_lane_that_was_too_full_is_slow_until_it_has_been_empty() -> None:
    inbox = inbox_of(0, 1, 2, pace=0.0)
    for _ in range(9):
        for number in (1, 2):
            inbox.put(Question(b"x"), number)
    assert taken(inbox) == [1]
    inbox.put(Question(b"x"), 0)
    assert taken(inbox) == [0]
    for due, expected in ((0.049, []), (0.051, [2]), (0.09, []), (0.11, [1])):
        inbox.clock.now = due
        assert taken(inbox) == expected
    inbox.clock.pace = 0.1
    assert len(taken(inbox)) == 13
    for _ in range(8):
        inbox.put(Question(b"x"), 1)
    inbox.clock.pace = 0.0
    assert taken(inbox) == [1] * 8, "forgiven"


def test_a_message_that_is_larger_than_all_the_room_gets_in_alone() -> None:
    inbox = inbox_of(0, size=10, all_size=10)
    inbox.put(Question(bytes(1000)), 0)
    inbox.put(Question(bytes(1000)), 0)
    assert taken(inbox) == [0]


def test_where_all_is_full_those_with_little_push_out_those_with_much() -> None:
    inbox = inbox_of(*range(4), all_messages=10)
    for number in (0, 0, 0, 0, 0, 0, 1, 1, 1, 1, 2, 3, 3, 0):
        inbox.put(Question(b"x"), number)
    assert Counter(taken(inbox)) == {0: 3, 1: 4, 2: 1, 3: 2}
    assert inbox.dropped == 4


def test_strangers_push_out_nobody_who_has_joined_and_are_pushed_out() -> None:
    inbox = inbox_of(0, 1, all_messages=10)
    for number in (7, 7, 7, 8, None, None, 0, 0, 0, 0):
        inbox.put(Question(b"x"), number)
    for _ in range(4):
        inbox.put(Question(b"x"), 1)
    for _ in range(4):
        inbox.put(Question(b"x"), 9)
    assert Counter(taken(inbox)) == {0: 4, 1: 4, None: 1, 8: 1}
    assert (inbox.dropped, inbox.dropped_strangers) == (0, 8)


def test_by_an_open_door_a_client_is_known_by_the_name_of_its_process_alone() -> None:
    """Another that claims to be it fills the strangers' lane, not its."""
    inbox = inbox_of(0)
    for _ in range(1000):
        inbox.put(Question(said(0, b"guessed!"), "forged"))
    inbox.put(Question(b"\xff", "noise"))
    inbox.put(Question(said(0), "honest"))
    found = taken(inbox)
    assert found[0] == "honest"
    assert Counter(found) == {"honest": 1, "forged": 256}
    assert inbox.dropped_strangers == 745


def test_no_notice_of_a_client_is_lost_in_a_flood_of_messages_and_notices() -> None:
    inbox = inbox_of(0, 1)
    for number in range(5_000):
        inbox.put(Question(b"x"), 1)
        inbox.put(Question(bytes(40)), None)
        inbox.notice(session(1000 + number).hex(), 1)
        inbox.notice(session(1000 + number).hex(), None)
        if number == 500:
            inbox.notice(session(0).hex(), 0)
            inbox.notice(session(1).hex(), 1)
    found = taken(inbox)
    assert found.count(session(0).hex()) == 1
    assert found.count(session(1).hex()) == 1
    assert len(found) < 8 + 8 + 1 + 256 + 256 + 10


def test_what_waits_is_got_when_it_is_closed_and_nothing_more_comes() -> None:
    inbox = inbox_of(0)
    inbox.put(Question(b"x"), 0)
    inbox.close()
    inbox.put(Question(b"x"), 0)
    inbox.notice("00" * 8, 0)
    assert not inbox.done
    assert taken(inbox) == [0]
    assert inbox.done


def test_who_waits_for_mail_is_woken_by_it() -> None:
    inbox = inbox_of(0)
    threading.Timer(0.05, lambda: inbox.put(Question(b"x"), 0)).start()
    began = time.monotonic()
    assert inbox.get(10.0) is not None
    assert time.monotonic() - began < 5.0


MOVES = st.lists(
    st.one_of(
        st.tuples(st.just("put"), st.sampled_from([None, 0, 1, 2, 7, 8]), st.integers(0, 3000)),
        st.tuples(st.just("notice"), st.sampled_from([None, 0, 1, 7]), st.integers(0, 3)),
        st.tuples(st.just("get"), st.just(None), st.just(0)),
    ),
    max_size=120,
)


@settings(max_examples=300, deadline=None)
@given(moves=MOVES)
def test_whatever_comes_the_counts_are_right_and_each_lane_keeps_its_order(moves) -> None:
    limits = {"messages": 3, "size": 16_000, "strangers_messages": 4, "all_messages": 7, "all_size": 30_000}
    inbox = inbox_of(0, 1, 2, **limits)
    put, out = 0, []
    for at, (move, client, size) in enumerate(moves):
        match move:
            case "put":
                inbox.put(Question(bytes(size), (client, at)), client)
                put += 1
            case "notice":
                inbox.notice(session(0 if client in (None, 0) else size).hex(), client)
            case _:
                out += taken(inbox, 1)
        assert inbox.messages <= 7
        assert inbox.size <= 30_000
    waiting = inbox.messages
    out += taken(inbox)
    mail = [name for name in out if not isinstance(name, str)]
    assert len(mail) + inbox.dropped + inbox.dropped_strangers == put
    assert waiting <= len(mail)
    assert (inbox.messages, inbox.size, inbox._lanes) == (0, 0, {})
    assert not inbox._joined
    assert not inbox._others
    for lane in {client for client, _ in mail}:
        assert all(a < b for a, b in pairwise(at for client, at in mail if client == lane))


# The desk.


class Slow:
    """A desk whose first message takes until it is let go."""

    def __init__(self, inbox: Inbox) -> None:
        self.go, self.busy, self.order = threading.Event(), threading.Event(), []
        self.desk = Desk(
            roster=inbox.roster, inbox=inbox, reply=self.reply, gone=self.order.append, look=lambda _: None
        )
        self.desk.open()

    def reply(self, message, request):
        self.busy.set()
        assert self.go.wait(30.0)
        self.order.append(request.name)
        if message.body != encode(Bye()):
            raise ReportError("nothing that is said")
        return None, Wait()


@pytest.mark.parametrize("links", [True, False], ids=["by links", "by an open door"])
def test_a_flood_at_a_busy_desk_takes_little_room_and_delays_the_others_by_few_messages(links) -> None:
    inbox = inbox_of(0, 1, 2)
    inbox.clock = time.monotonic
    slow = Slow(inbox)
    inbox.put(Question(said(1), "busy"), 1)
    assert slow.busy.wait(10.0)
    honest, junk = Question(said(0), "honest"), said(2) + b"not reached"
    for number in range(50_000):
        inbox.put(Question(junk, "flood"), 2 if links else None)
        if number == 40_000:
            inbox.put(honest, 0 if links else None)
            inbox.notice(session(0).hex(), 0)
    assert inbox.messages <= 257
    slow.go.set()
    slow.desk.close()
    assert isinstance(heard(honest.answer), Wait)
    assert "honest" in slow.order[:4]
    assert session(0).hex() in slow.order[:8]


def test_a_link_that_speaks_as_another_client_is_refused_before_anything_is_looked_at() -> None:
    inbox = inbox_of(0, 2)
    seen = []
    desk = Desk(
        roster=inbox.roster, inbox=inbox, reply=lambda *told: seen.append(told), gone=print, look=lambda _: None
    )
    desk.open()
    question = Question(said(0))
    inbox.put(question, 2)
    desk.close()
    reply = heard(question.answer)
    assert isinstance(reply, Refused)
    assert reply.reason == "client 2 speaks as client 0"
    assert seen == []
    assert [inbox.roster.entries[number].refused for number in (0, 2)] == [0, 1]
    assert STRANGERS not in inbox.roster.entries
