import math
import subprocess
import sys
from contextlib import nullcontext, suppress

import msgspec
import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from baffle.directions import Gaussian, Orthogonal, Rademacher, Sparse
from baffle.errors import ReportError, SettingsError
from baffle.estimators import CentralDifference, CentredDifference, ForwardDifference
from baffle.mechanisms import MISSING
from baffle.messages import (
    MOST_SLOPES,
    PROTOCOL,
    Aggregate,
    BlockPlan,
    Plan,
    Report,
    Round,
    decode,
    encode,
    report_size,
)
from baffle.records import decode_record, encode_record
from federation import simulation

LARGEST = 2**63 - 1

PLAN_BYTES = (
    "9f 01 03 01"  # 15 fields: protocol, round, attempt
    "c420 000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f"  # key
    "93 00 02 05  02 02 01"  # cohort, quorum, groups, steps
    "cb3fb999999999999a 20 64 08"  # rate, batch, most samples, bits
    "82 a9657374696d61746f72 a763656e74726564 a57363616c65 cb3f847ae147ae147b"  # estimator: centred, scale: 0.01
    "92 96 00 05 03 cb4030000000000000 81 a36c6177 aa726164656d6163686572"  # block: start, stop, budget, 16.0, law
    "      cb3ff0000000000000"  # and cost: 1.0
    "   96 05 0c 04 cb4000000000000000 81 a36c6177 a8676175737369616e cb3fd0000000000000"  # bound 2.0, cost 0.25
    "c0"  # no privacy
)
REPORT_BYTES = "96 01 03 01 05 32 c407 01 ff 7f 81 00 80 40"  # client 5, 50 samples; 80 is a missing slope
AGGREGATE_BYTES = "95 cc96 0a c412 01f83f00000000402d000000000000000000 00 90"  # weight 150, 10 bits a sum, all kept
INTEGERS = [[1, -1, 127, -127, 0, MISSING, 64]]
SUMS = [[[1, -2, 3, 0, 0, 0, -300]], [[0, 0, 0, 0, 0, 0, 0]]]


@pytest.fixture(scope="session")
def plan(make_plan):
    return make_plan()


@pytest.fixture(scope="session")
def messages(plan):
    return {
        Plan: plan,
        Report: Report.of(plan, 5, 50, np.array(INTEGERS)),
        Aggregate: Aggregate.of(150, np.array(SUMS)),
    }


GOLDEN = {Plan: PLAN_BYTES, Report: REPORT_BYTES, Aggregate: AGGREGATE_BYTES}


@pytest.mark.parametrize("kind", GOLDEN)
def test_wire_bytes_stay(kind, messages):
    data = bytes.fromhex(GOLDEN[kind])
    assert encode(messages[kind]).hex() == data.hex()
    assert decode(data, kind) == messages[kind]


def test_integers_come_out_of_the_wire_as_they_went_in(plan):
    report = decode(bytes.fromhex(REPORT_BYTES), Report)
    assert (report.client, report.samples) == (5, 50)
    assert report.integers(plan).tolist() == INTEGERS
    aggregate = decode(bytes.fromhex(AGGREGATE_BYTES), Aggregate)
    assert (aggregate.weight, aggregate.bits) == (150, 10)
    assert aggregate.integers(plan).tolist() == SUMS


def test_sums_of_ledgers_from_before_sums_were_rounded_are_understood(plan):
    old = bytes.fromhex("93" + AGGREGATE_BYTES[2:-5])
    assert decode(old, Aggregate).integers(plan).tolist() == SUMS


def test_messages_from_before_privacy_are_understood(messages):
    old = bytes.fromhex(PLAN_BYTES)
    assert decode(b"\x9e" + old[1:-1], Plan) == messages[Plan]
    old = bytes.fromhex(AGGREGATE_BYTES)
    assert decode(b"\x94" + old[1:-1], Aggregate) == messages[Aggregate]
    record = Round(messages[Plan], (0, 5), (30, 30), ((2, "no answer"),), messages[Aggregate], "00" * 32)
    first = encode_record(record, version=1)
    assert decode_record(b"\x96" + first[1:-1], version=1) == record


@pytest.mark.parametrize(
    ("sums", "most_bits", "bits", "shift", "restored"),
    [
        ([1000, -1000, 4, 3, -3, -4], 8, 8, 3, [1000, -1000, 8, 0, 0, -8]),
        ([1023, -1023, 0, 1, 2, 3], 8, 8, 3, [1016, -1016, 0, 0, 0, 0]),
        ([127, -127, 5, 0, 0, 1], 8, 8, 0, [127, -127, 5, 0, 0, 1]),
        ([7, -7, 6, 4, 2, 1], 2, 2, 2, [4, -4, 4, 4, 4, 0]),
    ],
)
def test_sums_by_hand_are_rounded_to_as_many_bits_as_a_report_has(sums, most_bits, bits, shift, restored, make_plan):
    aggregate = Aggregate.of(9, np.array([[sums]]), most_bits)
    assert (aggregate.bits, aggregate.shift) == (bits, shift)
    plan = make_plan(groups=1, blocks=(BlockPlan(0, 5, 6, 1.0, Rademacher()),))
    assert aggregate.integers(plan).ravel().tolist() == restored


@given(
    values=st.lists(st.integers(-(1 << 62), 1 << 62), min_size=7, max_size=7),
    most_bits=st.integers(2, 32),
    small=st.integers(0, 62),
)
def test_rounded_sums_are_within_half_a_unit_and_symmetric(plan, values, most_bits, small):
    sums = (np.array([values, values]) >> small).reshape(2, 1, 7)
    aggregate = Aggregate.of(1, sums, most_bits)
    assert aggregate.bits <= most_bits
    restored = aggregate.integers(plan)
    unit, largest = 1 << aggregate.shift, (2 ** (aggregate.bits - 1) - 1) << aggregate.shift
    clipped = np.abs(sums) > largest
    assert (np.abs(restored - sums)[~clipped] <= unit // 2).all()
    assert (np.abs(restored)[clipped] == largest).all()
    assert (np.abs(restored) <= np.abs(sums) + (unit >> 1)).all()
    assert np.array_equal(Aggregate.of(1, -sums, most_bits).integers(plan), -restored)


def test_sums_wider_than_64_bits_are_refused():
    data = encode(Aggregate(1, 60, b"", 4))[:-1]  # the last field may be left out
    with pytest.raises(ReportError, match=r"60 bits times 2\^5 do not fit 64 bits"):
        decode(b"\x94" + data[1:-1] + b"\x05", Aggregate)


def test_a_ledgers_record_comes_back_as_it_was(messages):
    left_out = ((7, "no answer"), (None, "not a report: €"))
    closed = Round(messages[Plan], (0, 5), (40, 41), left_out, messages[Aggregate], "ab" * 32)
    retried = Round(messages[Plan], (), (), left_out, None, None)
    for record in (closed, retried):
        assert decode(encode(record), Round) == record


@st.composite
def plans(draw):
    budgets = draw(st.lists(st.integers(1, 20), min_size=1, max_size=4))
    laws = st.sampled_from([Rademacher(), Gaussian(), Orthogonal(5), Sparse(16), Sparse(128)])
    bounds, costs = st.floats(1e-9, 1e9), st.floats(0, 1, exclude_min=True)
    blocks = tuple(
        BlockPlan(9 * i, 9 * i + 9, budget, draw(bounds), draw(laws), draw(costs)) for i, budget in enumerate(budgets)
    )
    kind = draw(st.sampled_from([ForwardDifference, CentralDifference, CentredDifference]))
    count = st.integers(0, LARGEST)
    return Plan(
        protocol=PROTOCOL,
        round=draw(count),
        attempt=draw(count),
        key=draw(st.binary(min_size=32, max_size=32)),
        cohort=tuple(sorted(draw(st.sets(count, min_size=1, max_size=5)))),
        quorum=1,
        groups=draw(st.integers(1, 5)),
        steps=draw(st.integers(1, 3)),
        rate=draw(st.floats(1e-9, 1e9)),
        batch=draw(st.integers(1, LARGEST)),
        most_samples=draw(st.integers(1, LARGEST)),
        bits=draw(st.integers(2, 32)),
        estimator=kind(draw(st.floats(1e-9, 1e9))),
        blocks=blocks,
    )


@given(plans(), st.data())
def test_plans_reports_and_aggregates_round_trip(plan, data):
    assert decode(encode(plan), Plan) == plan
    levels = 2 ** (plan.bits - 1) - 1
    generator = np.random.default_rng(data.draw(st.integers(0, 99)))
    integers = generator.integers(-levels, levels, (plan.steps, plan.directions), endpoint=True)
    integers = np.where(generator.random(integers.shape) < 0.2, MISSING, integers)
    integers[0, 0] = levels
    client, samples = data.draw(st.sampled_from(plan.cohort)), data.draw(st.integers(1, plan.most_samples))
    report = decode(encode(Report.of(plan, client, samples, integers)), Report)
    assert (report.client, report.samples) == (client, samples)
    assert np.array_equal(report.integers(plan), integers)
    sums = generator.integers(-LARGEST, LARGEST, plan.shape) >> data.draw(st.integers(0, 63))
    aggregate = decode(encode(Aggregate.of(samples, sums)), Aggregate)
    assert aggregate.weight == samples
    assert np.array_equal(aggregate.integers(plan), sums)


@given(plans(), st.data())
def test_a_report_is_its_integers_and_at_most_64_bytes(plan, data):
    integers = np.zeros((plan.steps, plan.directions), np.int64)
    size = len(encode(Report.of(plan, plan.cohort[-1], data.draw(st.integers(1, LARGEST)), integers)))
    payload = math.ceil(plan.steps * plan.directions * plan.bits / 8)
    assert report_size(plan) == payload
    assert size - payload <= 64


@pytest.mark.parametrize("budget", [1, 256, 70_000])
@pytest.mark.parametrize("bits", [2, 32])
def test_even_the_largest_fields_leave_the_envelope_below_64_bytes(make_plan, budget, bits):
    block = BlockPlan(0, 1, budget, 1.0, Rademacher())
    plan = make_plan(round=LARGEST, attempt=LARGEST, blocks=(block,), bits=bits)
    report = Report.of(plan, LARGEST, LARGEST, np.zeros((1, budget), np.int64))
    assert len(encode(report)) - math.ceil(budget * bits / 8) <= 64


@pytest.mark.parametrize(
    ("largest", "bits"), [(0, 2), (1, 2), (2, 3), (3, 3), (127, 8), (128, 9), (2**31, 33), (LARGEST, 64)]
)
def test_sums_travel_in_as_few_bits_as_hold_them(largest, bits):
    sums = np.array([[[largest, -largest, 0]]])
    aggregate = Aggregate.of(1, sums)
    assert aggregate.bits == bits
    assert len(aggregate.sums) == math.ceil(3 * bits / 8)


def test_a_plans_sums_by_hand(make_plan):
    plan = make_plan(steps=4, estimator=ForwardDifference())
    assert plan.shape == (2, 4, 7)
    assert plan.bounds.tolist() == [16.0, 16.0, 16.0, 2.0, 2.0, 2.0, 2.0]
    # 3 whole probes and 4 quarters, over 32 samples each; what lies before the quarter, once; the base pass, once.
    assert plan.forwards == 4 * 32 * (3 + 4 / 4 + 3 / 4 + 1)
    assert make_plan(estimator=CentralDifference()).forwards == 32 * (2 * 4 + 3 / 4)
    assert make_plan().forwards == 32 * (4 + 3 / 4)
    assert make_plan(batch=1).forwards == 4 + 3 / 4
    whole = tuple(msgspec.structs.replace(block, cost=1.0) for block in plan.blocks)
    assert make_plan(blocks=whole, batch=5).forwards == 5 * 7
    assert [plan.group(client) for client in (0, 2, 5)] == [0, 1, 0]


@pytest.mark.parametrize("client", [1, 3, 6])
def test_who_was_not_asked_has_no_group(plan, client):
    with pytest.raises(ReportError, match=f"^client {client} is not in the cohort of round 3$"):
        plan.group(client)


def changed(plan, place, value):
    """Return the plan's bytes with another value at a place (a path of positions)."""
    raw = msgspec.msgpack.decode(encode(plan))
    inner = raw
    for position in place[:-1]:
        inner = inner[position]
    inner[place[-1]] = value
    return msgspec.msgpack.encode(raw)


BLOCKS = "the plan's blocks are empty, overlap, or are not in ascending order"
OTHER_RULES = {
    ((0,), "0"): "protocol 0 where 1 is spoken",
    ((0,), "2"): "protocol 2 where 1 is spoken",
    ((4,), "[2, 0]"): "the cohort is not in ascending order",
    ((4,), "[2, 2]"): "the cohort is not in ascending order",
    ((12,), "{'estimator': 'centred', 'scale': 0.0}"): "scale = 0.0: must be a finite number > 0",
    ((12,), "{'estimator': 'forward', 'scale': inf}"): "scale = inf: must be a finite number > 0",
    ((13, 0, 0), "5"): BLOCKS,
    ((13, 0, 4), "{'law': 'orthogonal', 'order': -1}"): "order = -1: must be between 0 and 24",
    ((13, 0, 4), "{'law': 'orthogonal', 'order': 25}"): "order = 25: must be between 0 and 24",
    ((13, 0, 4), "{'law': 'orthogonal', 'order': 2}"): "3 directions of 5 weights where at most 4 are orthogonal",
}
"""Of a plan, by place and value, where it is not the field's type that is in the way."""


@pytest.mark.parametrize(
    ("place", "value"),
    [
        ((0,), 0),
        ((0,), 2),
        ((1,), -1),
        ((1,), 2**63),
        ((1,), 1.0),
        ((3,), bytes(31)),
        ((3,), bytes(33)),
        ((4,), []),
        ((4,), [2, 0]),
        ((4,), [2, 2]),
        ((4,), [-1, 2]),
        ((5,), 0),
        ((6,), 0),
        ((7,), 0),
        ((8,), 0.0),
        ((8,), math.nan),
        ((8,), math.inf),
        ((10,), 0),
        ((11,), 1),
        ((11,), 33),
        ((12,), {"estimator": "centred", "scale": 0.0}),
        ((12,), {"estimator": "forward", "scale": math.inf}),
        ((12,), {"estimator": "sideways"}),
        ((12,), {}),
        ((13,), []),
        ((13, 0, 0), 5),
        ((13, 0, 0), -1),
        ((13, 0, 2), 0),
        ((13, 0, 3), 0.0),
        ((13, 0, 3), -1.0),
        ((13, 0, 3), math.nan),
        ((13, 0, 3), math.inf),
        ((13, 0, 4), {"law": "cauchy"}),
        ((13, 0, 4), "gaussian"),
        ((13, 0, 4), {"law": "orthogonal"}),
        ((13, 0, 4), {"law": "orthogonal", "order": -1}),
        ((13, 0, 4), {"law": "orthogonal", "order": 25}),
        ((13, 0, 4), {"law": "orthogonal", "order": 2}),
        ((13, 0, 5), 0.0),
        ((13, 0, 5), -0.5),
        ((13, 0, 5), 1.5),
        ((13, 0, 5), math.nan),
        ((13, 0, 5), "1"),
    ],
    ids=str,
)
def test_a_plan_out_of_range_is_refused(plan, place, value):
    """By the rule of the field that is out of range, and by no other."""
    with pytest.raises(ReportError) as caught:
        decode(changed(plan, place, value), Plan)
    by_type = f" - at `${''.join(f'[{position}]' for position in place)}"
    assert OTHER_RULES.get((place, str(value)), by_type) in str(caught.value)


@pytest.mark.parametrize(
    ("stop", "budget", "words"),
    [
        (5, 9, "9 directions of 5 weights where at most 8 are orthogonal"),
        (9, 8, "8 directions of 9 weights where at most 8 are orthogonal"),
        (1 << 40, 1, "1 directions of 1099511627776 weights where at most 8 are orthogonal"),
    ],
)
def test_more_orthogonal_directions_or_weights_than_there_are_are_refused(make_plan, stop, budget, words):
    make_plan(blocks=(BlockPlan(0, 8, 8, 1.0, Orthogonal(3)),))
    block = BlockPlan(0, stop, budget, 1.0, Orthogonal(3))
    with pytest.raises(ReportError, match=f"^{words}$"):
        make_plan(blocks=(block,))
    fields = msgspec.structs.asdict(make_plan()) | {"blocks": (block,)}
    with pytest.raises(ReportError, match=words):  # as it would come over a wire
        decode(msgspec.msgpack.encode(list(fields.values())), Plan)


@pytest.mark.parametrize("other", [0, 2, 2**64 - 1])
def test_another_protocol_is_refused_with_both_numbers(plan, other):
    with pytest.raises(ReportError, match=f"protocol {other} where 1 is spoken"):
        decode(changed(plan, (0,), other), Plan)
    report = msgspec.structs.replace(decode(bytes.fromhex(REPORT_BYTES), Report), protocol=other)
    with pytest.raises(ReportError, match=f"protocol {other}, round 3, attempt 1 where 1, 3, 1 were asked"):
        decode(encode(report), Report).integers(plan)


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"round": 2}, "protocol 1, round 2, attempt 1 where 1, 3, 1 were asked"),
        ({"attempt": 0}, "protocol 1, round 3, attempt 0 where 1, 3, 1 were asked"),
        ({"samples": 101}, "101 samples where at most 100 are admitted"),
        ({"slopes": bytes(6)}, "6 bytes of slopes where 7 were due"),
        ({"slopes": bytes(8)}, "8 bytes of slopes where 7 were due"),
        ({"slopes": b"\x80" * 7}, "no probe had a finite loss"),
    ],
)
def test_a_report_that_does_not_fit_is_refused_with_its_reason(plan, messages, changes, reason):
    with pytest.raises(ReportError, match=f"^{reason}$"):
        msgspec.structs.replace(messages[Report], **changes).integers(plan)


@pytest.mark.parametrize(("samples", "fits"), [(0, False), (1, True), (LARGEST, True), (2**63, False)])
def test_a_reports_sample_count_is_in_range(messages, samples, fits):
    data = encode(msgspec.structs.replace(messages[Report], samples=samples))
    if fits:
        assert decode(data, Report).samples == samples
        return
    with pytest.raises(ReportError, match=r"^not a report: Expected `int` .* - at `\$\[4\]`$"):
        decode(data, Report)


@pytest.mark.parametrize("kind", GOLDEN)
@given(data=st.data())
@settings(max_examples=300)
def test_damaged_bytes_are_a_message_or_a_report_error(kind, data):
    damaged = bytearray.fromhex(GOLDEN[kind])
    for _ in range(data.draw(st.integers(1, 3))):
        start = data.draw(st.integers(0, len(damaged)))
        stop = min(len(damaged), start + data.draw(st.integers(0, 2)))
        damaged[start:stop] = data.draw(st.binary(max_size=3))
    never_another_error(bytes(damaged), kind)


@pytest.mark.parametrize("kind", GOLDEN)
@given(garbage=st.binary(max_size=60))
def test_garbage_is_a_report_error(kind, garbage):
    never_another_error(garbage, kind)


def never_another_error(data, kind):
    plan = decode(bytes.fromhex(PLAN_BYTES), Plan)
    with suppress(ReportError):  # any other exception fails the test
        message = decode(data, kind)
        if kind is not Plan:
            assert message.integers(plan).dtype == np.int64


@pytest.mark.parametrize("kind", GOLDEN)
def test_every_truncation_is_refused(kind):
    data = bytes.fromhex(GOLDEN[kind])
    for length in range(len(data)):
        with pytest.raises(ReportError, match=f"^not a {kind.__name__.lower()}: Input data was truncated$"):
            decode(data[:length], kind)


@pytest.mark.parametrize(("kind", "other"), [(Plan, Report), (Report, Plan), (Aggregate, Report), (Aggregate, Plan)])
def test_one_message_is_not_another(kind, other):
    with pytest.raises(ReportError, match=f"^not a {other.__name__.lower()}: Expected "):
        decode(bytes.fromhex(GOLDEN[kind]), other)


@pytest.mark.parametrize("name", ["law", "estimator", "centred", "gaussian", "rademacher"])
def test_a_text_that_is_no_utf8_is_a_report_error(name):
    data = bytes.fromhex(PLAN_BYTES)
    assert name.encode() in data
    with pytest.raises(ReportError, match=r"^not a plan: .*(utf-8|UTF-8|Invalid value|missing required field)"):
        decode(data.replace(name.encode(), b"\xff" * len(name)), Plan)


@pytest.mark.parametrize("filler", [b"\x91", b"\x81\x01"], ids=["arrays", "maps"])
def test_nesting_too_deep_to_read_is_a_report_error(filler):
    """A field that is not known here, and is passed over, of an object in a plan."""
    whole, estimator = bytes.fromhex(PLAN_BYTES), b"\xa9estimator"
    assert whole.count(b"\x82" + estimator) == 1
    for depth, words in ((10, None), (10_000, "^not a plan: maximum recursion depth exceeded")):
        data = whole.replace(b"\x82" + estimator, b"\x83\xa5later" + filler * depth + b"\x01" + estimator)
        with pytest.raises(ReportError, match=words) if words else nullcontext():
            decode(data, Plan)


def reach_of(plan):
    """Return what a sum of reconstruction can reach with unrounded sums of slopes, and what standing in may add to it.

    A sum that stands in for a missing probe is rounded to a whole number, by less than 1.
    """
    budget_times_peak = max(block.budget * (17715 if block.law == Gaussian() else 1) for block in plan.blocks)
    rounding = budget_times_peak * plan.steps
    return rounding * len(plan.cohort) * plan.most_samples * (2 ** (plan.bits - 1) - 1), rounding


def too_large(reach: int, rounding: int, bits: int) -> bool:
    """Rounding to b bits moves a sum by half a unit at most: 1/2^(b−1) of the largest."""
    total = reach + rounding
    return total + (total >> (bits - 1)) + 1 > LARGEST


def one_block(make_plan, budget, **changes):
    block = BlockPlan(0, 5, budget, 1.0, Rademacher())
    return make_plan(**({"blocks": (block,), "cohort": (0,), "bits": 2} | changes))


def test_sums_may_reach_int64s_end_and_no_further(make_plan):
    most = 878416384462359600 - 1
    assert 7 * (most + 1) * 3 // 2 + 1 <= LARGEST < 7 * (most + 2) * 3 // 2 + 1
    one_block(make_plan, 7, most_samples=most).refuse_overflow()
    for budget, samples in ((2, 2**62 - 1), (1 << 20, 2**43), (7, most + 1)):
        with pytest.raises(
            SettingsError, match=r"^bits = 2: sums could reach 2\^63\.\d and must stay below 2\^63; use"
        ):
            one_block(make_plan, budget, most_samples=samples).refuse_overflow()


@given(
    bits=st.integers(2, 32),
    budgets=st.lists(
        st.tuples(st.integers(1, 10**6), st.sampled_from([Gaussian(), Rademacher(), Orthogonal(20), Sparse(1)])),
        min_size=1,
        max_size=5,
    ),
    steps=st.integers(1, 50),
    cohort=st.integers(1, 100),
)
def test_a_plan_is_refused_exactly_from_2_to_the_63_on(make_plan, bits, budgets, steps, cohort):
    blocks = tuple(BlockPlan(i, i + 1, budget, 1.0, law) for i, (budget, law) in enumerate(budgets))
    assume(2 * steps * sum(budget for budget, _ in budgets) <= MOST_SLOPES)
    fields = {"blocks": blocks, "bits": bits, "steps": steps, "cohort": tuple(range(cohort))}
    reach, rounding = reach_of(make_plan(**fields, most_samples=1))
    most, above = 0, LARGEST
    while above - most > 1:
        middle = (most + above) // 2
        most, above = (most, middle) if too_large(middle * reach, rounding, bits) else (middle, above)
    if most > 0:
        make_plan(**fields, most_samples=most).refuse_overflow()
    with pytest.raises(SettingsError) as caught:
        make_plan(**fields, most_samples=max(most, 0) + 1).refuse_overflow()
    assert (caught.value.field, caught.value.value) == ("bits", bits)
    assert " and must stay below 2^63; use fewer bits, forwards or clients a round" in caught.value.rule


def test_threads_that_decode_a_kind_for_the_first_time_at_once_do_not_end_the_process() -> None:
    """msgspec looks at a type when it is first decoded; two threads that do so at once end in a segmentation fault."""
    program = """
import sys, threading
sys.setswitchinterval(1e-6)
from baffle.header import Header
from baffle.messages import decode
data = sys.stdin.buffer.read()
gate, told = threading.Barrier(8), []
def work():
    gate.wait()
    told.append(decode(data, Header))
threads = [threading.Thread(target=work) for _ in range(8)]
for thread in threads: thread.start()
for thread in threads: thread.join()
print(len(told))
"""
    data = encode(simulation().header())
    done = subprocess.run([sys.executable, "-c", program], input=data, capture_output=True, check=False)
    assert (done.returncode, done.stdout.strip()) == (0, b"8"), done.stderr[-2000:]
