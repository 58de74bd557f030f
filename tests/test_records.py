"""The order in which a ledger's records may come, in both versions, and what an intent looks like on the disk."""

from __future__ import annotations

import hashlib

import msgspec
import pytest

from baffle import LedgerError, ReportError
from baffle.messages import Aggregate, Intent, Plan, Round, encode, plan_digest
from baffle.records import Course, decode_record, encode_record


def aggregate() -> Aggregate:
    return Aggregate(9, 8, bytes(14))


@pytest.fixture
def plan_at(make_plan):
    """Returns a function: round, attempt -> a plan."""
    return lambda number, attempt: make_plan(round=number, attempt=attempt)


def done(plan: Plan) -> Round:
    return Round(plan, (0, 2), (30, 30), (), aggregate(), "ab" * 32, None, "cd" * 32)


def failed(plan: Plan) -> Round:
    return Round(plan, (), (), ((0, "no answer"),), None, None)


def taken(records: list, *, guarded: bool) -> tuple[int, int]:
    course = Course(guarded)
    for number, record in enumerate(records, 1):
        course.take(record, number)
    return course.round, course.attempt


def test_an_intent_on_the_disk_is_a_tagged_array(plan_at) -> None:
    plan = plan_at(3, 1)
    digest = hashlib.blake2b(encode(plan), digest_size=32, person=b"baffle-plan").digest()
    assert plan_digest(plan) == digest
    payload = encode_record(Intent.of(plan), 2)
    assert msgspec.msgpack.decode(payload) == ["intent", 3, 1, [0, 2, 5], digest]
    assert decode_record(payload, 2) == Intent.of(plan)


def test_a_round_on_the_disk_is_tagged_in_version_2_and_bare_in_version_1(plan_at) -> None:
    record = done(plan_at(3, 1))
    second = msgspec.msgpack.decode(encode_record(record, 2))
    first = msgspec.msgpack.decode(encode_record(record, 1))
    assert second == ["round", *first, "cd" * 32]
    assert decode_record(encode_record(record, 2), 2) == record
    assert decode_record(encode_record(record, 1), 1) == msgspec.structs.replace(record, average=None)


def test_version_1_has_no_room_for_intents(plan_at) -> None:
    with pytest.raises(LedgerError, match="a ledger of version 1 has no room for intents"):
        encode_record(Intent.of(plan_at(0, 0)), 1)
    with pytest.raises(ReportError, match="not a record: Expected `array` of at least length 6"):
        decode_record(encode_record(Intent.of(plan_at(0, 0)), 2), 1)


@pytest.mark.parametrize("payload", [b"", b"\x93nonsense", b"\xc0", b"\x92\xa6intent\x00", b"\x91\xa5other"])
def test_other_bytes_are_no_record(payload) -> None:
    with pytest.raises(ReportError, match="not a record: "):
        decode_record(payload, 2)


def test_rounds_and_attempts_follow_each_other(plan_at) -> None:
    records = [failed(plan_at(0, 0)), done(plan_at(0, 1)), done(plan_at(1, 0)), failed(plan_at(2, 0))]
    assert taken(records, guarded=False) == (2, 1)


def test_a_guarded_run_has_an_intent_before_each_attempt(plan_at) -> None:
    records = []
    for place, close in [((0, 0), failed), ((0, 1), done), ((1, 0), done)]:
        records += [Intent.of(plan_at(*place)), close(plan_at(*place))]
    assert taken(records, guarded=True) == (2, 0)
    assert taken(records[:-1], guarded=True) == (1, 1)  # asked and not closed: spent


def test_an_attempt_that_was_cut_off_is_never_asked_again(plan_at) -> None:
    cut = [Intent.of(plan_at(0, 0)), Intent.of(plan_at(0, 1)), Intent.of(plan_at(0, 2))]
    assert taken(cut, guarded=True) == (0, 3)
    assert taken([*cut, done(plan_at(0, 2)), Intent.of(plan_at(1, 0))], guarded=True) == (1, 1)


@pytest.mark.parametrize(
    ("guarded", "make", "reason"),
    [
        (False, lambda at: [done(at(1, 0))], "round 1, attempt 0 where round 0, attempt 0 follows"),
        (False, lambda at: [done(at(0, 0)), done(at(1, 1))], "round 1, attempt 1 where round 1, attempt 0 follows"),
        (False, lambda at: [Intent.of(at(0, 0))], "an intent in a run that has neither a budget nor secure sums"),
        (True, lambda at: [done(at(0, 0))], "round 0, attempt 0 has no intent with this plan"),
        (
            True,
            lambda at: [Intent.of(at(0, 0)), failed(at(0, 0)), failed(at(0, 1))],
            "round 0, attempt 1 has no intent with this plan",
        ),
        (
            True,
            lambda at: [Intent.of(at(0, 0)), done(msgspec.structs.replace(at(0, 0), batch=33))],
            "round 0, attempt 0 has no intent with this plan",
        ),
        (True, lambda at: [Intent.of(at(0, 1))], "round 0, attempt 1 where round 0, attempt 0 follows"),
        (
            True,
            lambda at: [Intent.of(at(0, 0)), Intent.of(at(0, 0))],
            "round 0, attempt 0 where round 0, attempt 1 follows",
        ),
        (
            True,  # a crash moves on for good: the attempt that was cut off can't be closed later
            lambda at: [Intent.of(at(0, 0)), Intent.of(at(0, 1)), done(at(0, 0))],
            "round 0, attempt 0 where round 0, attempt 1 follows",
        ),
    ],
)
def test_what_does_not_follow_is_refused_with_its_number(guarded, make, reason, plan_at) -> None:
    records = make(plan_at)
    with pytest.raises(LedgerError) as caught:
        taken(records, guarded=guarded)
    assert (caught.value.record, caught.value.reason) == (len(records), reason)
