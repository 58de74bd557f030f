from __future__ import annotations

import re
from dataclasses import replace

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from baffle import (
    CentralDifference,
    CentredDifference,
    DivergenceError,
    ForwardDifference,
    Gaussian,
    ReportError,
    SettingsError,
    Sgd,
    server,
)
from baffle.bits import words
from baffle.client import answer
from baffle.directions import Orthogonal
from baffle.keys import Key
from baffle.messages import Aggregate, Report, decode, encode
from baffle.packing import pack
from baffle.parameters import digest
from baffle.reconstruction import local_gradient, reconstruct
from federation import FEATURES, KERNELS, METHOD, Layered, Network, play, simulation


def with_(method=METHOD, **changes):
    return msgspec.structs.replace(method, **changes)


def integers_of(played, data):
    return decode(data, Report).integers(played.plan)


def dense(plan, group: int, step: int) -> np.ndarray:
    """Return the directions [K, n] of a group and step, with unit variance, 0 outside their block."""
    size = max(block.stop for block in plan.blocks)
    rows = []
    for number, block in enumerate(plan.blocks):
        for k in range(block.budget):
            row = np.zeros(size)
            z = block.law.entries(plan.stream(group, step, number), k, 0, block.stop - block.start)
            row[block.start : block.stop] = z / block.law.deviation
            rows.append(row)
    return np.stack(rows)


def budgets(plan) -> np.ndarray:
    return np.repeat([block.budget for block in plan.blocks], [block.budget for block in plan.blocks])


# What is asked.


def test_a_plan_repeats_exactly_and_says_what_the_settings_say() -> None:
    made = simulation(with_(groups=2, local_steps=2, forwards=112, batch=7), (12, 8, 4, 12), quorum=0.6)
    header = made.header()
    state = header.start({})
    plan = server.plan(made.algorithm, header.federation, state)
    assert plan == server.plan(made.algorithm, header.federation, state)
    assert (plan.round, plan.attempt, plan.protocol) == (0, 0, 1)
    assert plan.cohort == (0, 1, 2, 3)
    assert plan.quorum == 3  # ⌈0.6 · 4⌉
    assert plan.shape == (2, 2, 8)  # 112 passes: 8 over 7 samples in each of two steps
    assert [(block.start, block.stop, block.budget) for block in plan.blocks] == [(0, 15, 4), (15, 27, 4)]
    assert plan.batch == 7
    assert plan.most_samples == 12
    assert plan.forwards == 112
    assert decode(encode(plan), server.Plan) == plan


def test_every_round_and_attempt_has_directions_of_its_own() -> None:
    made = simulation()
    header = made.header()
    state = header.start({})
    plans = [
        server.plan(made.algorithm, header.federation, server.replace(state, round=round_, attempt=attempt))
        for round_ in range(3)
        for attempt in range(3)
    ]
    assert len({plan.key for plan in plans}) == 9


@pytest.mark.parametrize("groups", [1, 2, 3, 4, 5, 9])
def test_the_ith_client_of_the_cohort_is_in_group_i_modulo_g(groups) -> None:
    made = simulation(with_(groups=groups), (12,) * 10, participation=0.5)
    plan = play(made).plan
    count = min(groups, 5)  # no more groups than clients
    assert plan.groups == count
    assert [plan.group(client) for client in plan.cohort] == [i % count for i in range(5)]


def test_groups_steps_and_blocks_have_directions_that_share_nothing() -> None:
    played = play(simulation(with_(groups=3, local_steps=2, forwards=120)))
    keys = [played.plan.stream(g, h, b) for g in range(3) for h in range(2) for b in range(2)]
    assert len({words(key, 0, 0, 64) for key in keys}) == 12


def test_reports_of_equal_clients_differ_with_own_directions_and_agree_with_shared_ones() -> None:
    """Slopes of 32 bits and one sample: what differs is the directions, beyond a quantum of rounding."""
    for groups in (1, 3):
        made = simulation(with_(groups=groups, bits=32, forwards=8, batch=1), (1, 1, 1))
        made = server.replace(made, shares=[made.shares[0]] * 3)
        played = play(made)
        first, second, third = (integers_of(played, data) for data in played.reports)
        apart = max(np.abs(first - second).max(), np.abs(first - third).max())
        assert apart <= 1 if groups == 1 else apart > 1e6


@pytest.mark.parametrize(
    ("share", "clients", "size"), [(0.1, 10, 1), (0.25, 10, 2), (0.3, 10, 3), (0.01, 10, 1), (0.5, 3, 2)]
)
def test_a_cohort_has_its_share_of_distinct_clients(share, clients, size) -> None:
    header = simulation(sizes=(3,) * clients, participation=share).header()
    state = header.start({})
    met, cohorts = set(), set()
    for round_ in range(150):
        plan = server.plan(METHOD, header.federation, server.replace(state, round=round_))
        assert plan == server.plan(METHOD, header.federation, server.replace(state, round=round_))
        assert len(set(plan.cohort)) == len(plan.cohort) == size
        assert list(plan.cohort) == sorted(plan.cohort)
        met |= set(plan.cohort)
        cohorts.add(plan.cohort)
    # The chance that a client of ten is never drawn in 150 rounds is 0.9¹⁵⁰ = 1.4e-7.
    assert met == set(range(clients))
    assert len(cohorts) > 1


def test_a_plan_that_could_overflow_is_refused_and_the_largest_that_cannot_is_not() -> None:
    """32 bits · 2 clients · w samples · K · 17715 against 2⁶³."""
    method = with_(bits=32, law=Gaussian(), forwards=320, blocks="whole")
    largest = ((1 << 63) - 1) // (2 * 64 * 17715 * (2**31 - 1))
    header = simulation(method, (3, 3)).header()
    for most, fits in ((largest, True), (largest + 1, False)):
        federation = msgspec.structs.replace(header.federation, most_samples=most)
        if fits:
            assert server.plan(method, federation, header.start({})).most_samples == most
        else:
            with pytest.raises(SettingsError, match=r"bits = 32: sums could reach 2\^63\.0 .* below 2\^63"):
                server.plan(method, federation, header.start({}))


# What comes of the answers.


@pytest.mark.parametrize("groups", [1, 2, 3])
@pytest.mark.parametrize("steps", [1, 2])
@pytest.mark.parametrize("weight", ["samples", "equal"])
def test_the_step_is_the_weighted_mean_of_the_clients_own_estimates(groups, steps, weight) -> None:
    """θ' = θ − η Σ_c w_c ĝ_c / Σ_c w_c with dense float64 directions, in which each client's ĝ_c is written out."""
    method = with_(
        groups=groups, local_steps=steps, forwards=80 * steps, optimizer=Sgd(rate=0.5), bits=16, law=Gaussian()
    )
    sizes = (12, 7, 3)
    played = play(simulation(method, sizes, weight=weight))
    outcome = played.advance()
    plan, unit = played.plan, 2.0**15 - 1
    weights = np.array(sizes if weight == "samples" else (1, 1, 1), np.float64)
    estimates = []
    for client, data in enumerate(played.reports):
        slopes = integers_of(played, data) * plan.bounds / unit
        parts = [slopes[h] / budgets(plan) @ dense(plan, plan.group(client), h) for h in range(steps)]
        estimates.append(np.mean(parts, axis=0))
    expected = np.average(estimates, axis=0, weights=weights)
    moved = (played.state.parameters.astype(np.float64) - outcome.state.parameters) / 0.5
    np.testing.assert_allclose(moved, expected, rtol=1e-4, atol=1e-6)
    assert outcome.record.aggregate.weight == weights.sum()


@pytest.mark.parametrize("steps", [1, 3, 5])
def test_local_steps_replayed_from_a_clients_integers_are_what_the_server_rebuilds(steps) -> None:
    method = with_(local_steps=steps, forwards=40 * steps, local_rate=0.2, optimizer=Sgd(rate=0.2 * steps))
    made = simulation(method, (12,))
    played = play(made)
    plan, theta = played.plan, played.state.parameters
    own = integers_of(played, played.reports[0])
    locals_ = [local_gradient(plan, 0, h, own[h], theta.size, KERNELS) for h in range(steps)]
    record = played.advance().record
    rebuilt = reconstruct(plan, record.aggregate.integers(plan), record.aggregate.weight, theta.size, KERNELS)
    np.testing.assert_allclose(rebuilt, np.mean(locals_, axis=0, dtype=np.float64), rtol=1e-6, atol=1e-9)
    # With one client and SGD at H · η, the server ends where the client is after its H steps.
    client = theta
    for gradient in locals_:
        client = client - np.float32(0.2) * gradient
    np.testing.assert_allclose(played.advance().state.parameters, client, rtol=1e-6, atol=1e-7)
    assert np.abs(client - theta).max() > 1e-3


def test_the_clients_own_step_lies_on_the_way_of_its_integers() -> None:
    """The second local step is measured at θ₀ − η ĝ₀: its slopes there, by an answer to a plan of one step."""
    method = with_(local_steps=2, forwards=80, bits=32)
    made = simulation(method, (12,))
    played = play(made)
    own = integers_of(played, played.reports[0])
    after = played.state.parameters - np.float32(played.plan.rate) * local_gradient(
        played.plan, 0, 0, own[0], played.state.parameters.size, KERNELS
    )

    def moved(index):
        """Return the mean loss of the batch of step 1 at θ + σ z of that step's first direction, from `after`."""
        client = made.clients()[0]
        block = played.plan.blocks[0]
        batch, losses = client.batch(played.plan, 1), []
        for k in range(block.budget):
            point = index.astype(np.float64).copy()
            z = block.law.entries(played.plan.stream(0, 1, 0), k, 0, block.stop - block.start)
            point[block.start : block.stop] += played.plan.estimator.scale * z
            losses.append(Network().loss(point, batch))
        losses = np.array(losses)
        return len(losses) / (len(losses) - 1) * (losses - losses.mean()) / played.plan.estimator.scale

    first = slice(0, played.plan.blocks[0].budget)
    slopes = own[1][first] * played.plan.bounds[first] / (2.0**31 - 1)
    np.testing.assert_allclose(slopes, moved(after), atol=1e-7)
    assert np.abs(slopes - moved(played.state.parameters)).max() > 1e-4


def test_the_estimate_points_where_the_gradient_does() -> None:
    """K = 100 n directions: the cosine to a difference quotient's gradient is √(K/(K + n)) = 0.995, or nearly so."""
    method = with_(forwards=2700 * 12, batch=12, blocks="whole", bits=16, optimizer=Sgd(rate=1.0), bound=4.0)
    made = simulation(method, (12,))
    played = play(made)
    estimate = played.state.parameters - played.advance().state.parameters
    batch = made.shares[0].data.take(np.arange(12))
    exact = exact_gradient(played.state.parameters, batch)
    cosine = estimate @ exact / np.linalg.norm(estimate) / np.linalg.norm(exact)
    assert cosine > 0.985
    assert np.linalg.norm(estimate) == pytest.approx(np.linalg.norm(exact), rel=0.1)


def exact_gradient(parameters, batch) -> np.ndarray:
    """Return difference quotients in float64, good to 1e-9."""
    theta, network = parameters.astype(np.float64), Network()
    return np.array(
        [(network.loss(theta + 1e-5 * e, batch) - network.loss(theta - 1e-5 * e, batch)) / 2e-5 for e in np.eye(27)]
    )


@pytest.mark.parametrize("local_steps", [1, 2])
@pytest.mark.parametrize("estimator", [CentralDifference(1e-4), ForwardDifference(1e-7)], ids=["central", "forward"])
def test_a_block_with_all_its_orthogonal_directions_gets_the_gradient_itself(estimator, local_steps) -> None:
    """Probes of the second layer cost less: there all sixteen are paid for, of the first layer seven or less."""
    method = with_(
        estimator=estimator, orthogonal=True, local_steps=local_steps, local_rate=1e-9, bits=32, bound=4.0, batch=12
    )
    passes = len(estimator.signs) * 14 + estimator.base + 1
    method = with_(method, forwards=passes * 12 * local_steps, optimizer=Sgd(rate=1.0, momentum=0.0))
    played = play(simulation(method, (12,), runtime=Layered()))
    first, second = played.plan.blocks
    assert (first.law, second.law, second.budget) == (Orthogonal(4), Orthogonal(4), 16)
    assert 4 <= first.budget <= 7
    estimate = (played.state.parameters.astype(np.float64) - played.advance().state.parameters)[15:]
    sums = played.advance().record.aggregate.integers(played.plan)
    rebuilt = reconstruct(played.plan, sums, 12, 27, KERNELS)
    exact = exact_gradient(played.state.parameters, played.simulation.shares[0].data.take(np.arange(12)))
    np.testing.assert_allclose(rebuilt[15:], exact[15:], rtol=1e-6, atol=3e-8)
    np.testing.assert_allclose(estimate, exact[15:], atol=2e-7)  # through θ in float32
    assert np.abs(rebuilt[:15] - exact[:15]).max() > 1e-2
    assert np.abs(exact[15:]).min() > 1e-4


@pytest.mark.parametrize(
    "estimator",
    [ForwardDifference(1e-6), CentralDifference(1e-4), CentredDifference(1e-3)],
    ids=["forward", "central", "centred"],
)
@pytest.mark.parametrize("budget", [8, 16])
def test_orthogonal_directions_leave_no_weight_out(estimator, budget) -> None:
    """The mean over 120 rounds' keys is the gradient, weight by weight, the first of a block as well as any other."""
    method = with_(orthogonal=True, estimator=estimator, bits=32, bound=4.0, batch=12)
    method = with_(method, forwards=12 * (2 * budget * len(estimator.signs) + estimator.base))
    made = simulation(method, (12,))
    header, client = made.header(), made.clients()[0]
    state, estimates = header.start({}), []
    for number in range(120):
        federation = msgspec.structs.replace(header.federation, key=Key.root(number).secret)
        plan = server.plan(method, federation, state)
        assert [(block.law, block.budget) for block in plan.blocks] == [(Orthogonal(4), budget)] * 2
        integers = answer(plan, state.parameters, client, made.runtime, KERNELS).integers(plan)
        estimates.append(reconstruct(plan, integers[None], 1, 27, KERNELS))
    exact = exact_gradient(state.parameters, made.shares[0].data.take(np.arange(12)))
    errors = np.abs(np.mean(estimates, axis=0, dtype=np.float64) - exact)
    assert (errors <= 4.5 * np.std(estimates, axis=0, dtype=np.float64) / np.sqrt(120) + 1e-5).all(), errors


def test_mean_squares_rise_at_once_and_fall_by_a_tenth_by_hand() -> None:
    """Two slopes a block of 3 and 4 in 127ths of a bound of 16, weight 2: (16/254)² · (9 + 16)/2."""
    played = play(simulation(with_(law=Gaussian(), forwards=12, batch=1)))
    plan = msgspec.structs.replace(
        played.plan, blocks=tuple(msgspec.structs.replace(one, budget=2, bound=16.0) for one in played.plan.blocks)
    )
    now = (16 / 254) ** 2 * 12.5
    for before, after in (
        ((), (now, now)),
        ((now / 2, now), (now, now)),
        ((now / 4, now * 11), (now, now * 10)),
        ((now * 2, now * 21), (now * 1.9, now * 19)),
    ):
        sums = np.array([[[3, -4, -4, 3]]])
        aggregate = Aggregate.of(2, sums, plan.bits)
        state = replace(played.state, squares=before)
        moved = server.apply(played.simulation.algorithm, state, plan, aggregate, KERNELS)
        assert moved.squares == pytest.approx(after, rel=1e-12)


@given(st.permutations(range(6)))
def test_the_order_of_reports_changes_nothing(order) -> None:
    played = _mixed()
    expected = played.advance()
    got = played.advance([played.reports[i] for i in order])
    assert encode(got.record) == encode(expected.record)
    assert got.state.parameters.tobytes() == expected.state.parameters.tobytes()
    assert got.state.average.tobytes() == expected.state.average.tobytes()
    assert got.state.squares == expected.state.squares


def _mixed():
    """Four good reports, garbage, and one of another round."""
    played = play(simulation(with_(groups=2), (12, 5, 9, 2)))
    odd = msgspec.structs.replace(decode(played.reports[0], Report), round=9)
    return type(played)(played.simulation, played.state, played.plan, [*played.reports, b"garbage", encode(odd)])


def _report(played, **changes) -> bytes:
    return encode(msgspec.structs.replace(decode(played.reports[1], Report), **changes))


def _spare(played) -> bytes:
    """One integer of 5 bits a byte and three spare bits, the last of which is set."""
    slopes = decode(played.reports[1], Report).slopes
    return _report(played, slopes=slopes[:-1] + bytes([slopes[-1] | 0x80]))


BAD = {
    "too short": (
        lambda p: _report(p, slopes=decode(p.reports[1], Report).slopes[:-1]),
        1,
        "4 bytes of slopes where 5",
    ),
    "too long": (
        lambda p: _report(p, slopes=decode(p.reports[1], Report).slopes + b"\0"),
        1,
        "6 bytes of slopes where 5",
    ),
    "another round": (lambda p: _report(p, round=7), 1, "round 7, attempt 0 where 1, 0, 0"),
    "another attempt": (lambda p: _report(p, attempt=1), 1, "round 0, attempt 1 where 1, 0, 0"),
    "another protocol": (lambda p: _report(p, protocol=2), 1, "protocol 2, round 0, attempt 0 where 1, 0, 0"),
    "not in the cohort": (lambda p: _report(p, client=17), 17, "client 17 is not in the cohort of round 0"),
    "too many samples": (lambda p: _report(p, samples=13), 1, "13 samples where at most 12 are admitted"),
    "spare bits": (_spare, 1, "spare bits are not zero"),
    "only missing slopes": (
        lambda p: _report(p, slopes=pack(np.full(7, -16), 5)),
        1,
        "no probe had a finite loss",
    ),
    "garbage": (lambda _: b"\xff\x00garbage", None, "not a report"),
    "nothing": (lambda _: b"", None, "not a report"),
    "a map": (lambda _: msgspec.msgpack.encode({"client": 1}), None, "not a report"),
    "no sample": (lambda p: _raw(p, 4, 0), None, "not a report"),
    "a negative client": (lambda p: _raw(p, 3, -1), None, "not a report"),
    "a number too large": (lambda p: _raw(p, 4, 2**64 - 1), None, "not a report"),
    "a text of slopes": (lambda p: _raw(p, 5, "abc"), None, "not a report"),
    "a float round": (lambda p: _raw(p, 1, 0.5), None, "not a report"),
    "cut off": (lambda p: p.reports[1][:-1], None, "not a report"),
    "more behind it": (lambda p: p.reports[1] + b"\0", None, "not a report"),
    "one field too many": (lambda p: _raw(p, 6, b"x" * 1000), None, "not a report"),
    "nested without end": (lambda p: b"\x97" + p.reports[1][1:] + b"\x91" * 100_000 + b"\xc0", None, "not a report"),
}


def _raw(played, position: int, value) -> bytes:
    fields = list(msgspec.structs.astuple(decode(played.reports[1], Report)))
    fields[position : position + 1] = [value]
    return msgspec.msgpack.encode(fields)


@pytest.mark.parametrize("kind", BAD)
def test_a_bad_report_is_left_out_with_its_reason_and_the_round_goes_on(kind) -> None:
    make, client, reason = BAD[kind]
    played = play(simulation(with_(bits=5, forwards=35, blocks="whole")))
    without = played.advance([played.reports[0], played.reports[2]])
    outcome = played.advance([make(played), played.reports[0], played.reports[2]])
    told = [why for who, why in outcome.record.left_out if who == client and re.search(re.escape(reason), why)]
    assert told, outcome.record.left_out
    assert outcome.record.answered == (0, 2)
    assert outcome.record.uploads == (len(played.reports[0]), len(played.reports[2]))
    assert digest(outcome.state.parameters) == digest(without.state.parameters) == outcome.record.digest
    decode(encode(outcome.record), server.Round)  # the ledger can hold it


def test_a_second_report_of_a_client_is_left_out() -> None:
    played = play(simulation())
    outcome = played.advance([*played.reports, played.reports[1]])
    assert outcome.record.answered == (0, 1, 2)
    assert outcome.record.left_out == ((1, "a second report of the round"),)
    assert digest(outcome.state.parameters) == digest(played.advance().state.parameters)


def test_of_two_reports_of_a_client_the_same_one_counts_in_any_order() -> None:
    played = play(simulation())
    report = decode(played.reports[1], Report)
    other = encode(msgspec.structs.replace(report, slopes=bytes(len(report.slopes))))
    one = played.advance([*played.reports, other])
    two = played.advance([other, *played.reports[::-1]])
    assert encode(one.record) == encode(two.record)
    assert digest(one.state.parameters) == digest(two.state.parameters)


def test_a_bad_report_does_not_keep_out_a_good_one_of_the_same_client() -> None:
    played = play(simulation())
    outcome = played.advance([_report(played, samples=13), *played.reports])
    assert outcome.record.answered == (0, 1, 2)
    assert digest(outcome.state.parameters) == digest(played.advance().state.parameters)


def test_bad_reports_alone_neither_crash_nor_move_the_model() -> None:
    played = play(simulation(with_(bits=5, forwards=35, blocks="whole")))
    outcome = played.advance([make(played) for make, _, _ in BAD.values()])
    assert outcome.record.aggregate is None
    assert len(outcome.record.left_out) == len(BAD) + 2  # and clients 0 and 2, who did not answer
    assert outcome.state.parameters is played.state.parameters


@given(st.binary(max_size=60))
def test_any_bytes_are_a_reason_and_never_a_crash(data) -> None:
    played = _mixed()
    outcome = played.advance([data, *played.reports[:4]])
    assert outcome.record.answered == (0, 1, 2, 3)
    assert len(outcome.record.left_out) == 1


@given(st.integers(0, 200), st.integers(0, 255))
def test_a_changed_byte_of_a_report_is_refused_or_stays_within_its_bounds(position, value) -> None:
    played = _mixed()
    data = bytearray(played.reports[2])
    data[position % len(data)] = value
    outcome = played.advance([bytes(data), *(r for i, r in enumerate(played.reports[:4]) if i != 2)])
    assert set(outcome.record.answered) >= {0, 1, 3}
    assert outcome.record.aggregate.weight <= 12 * 4
    assert np.isfinite(outcome.state.parameters).all()


def test_clients_that_do_not_answer_are_named() -> None:
    played = play(simulation(sizes=(12,) * 5, quorum=0.4))
    outcome = played.advance([played.reports[3], played.reports[0]])
    assert outcome.record.answered == (0, 3)
    assert outcome.record.left_out == ((1, "no answer"), (2, "no answer"), (4, "no answer"))
    assert outcome.record.aggregate.weight == 24


def test_below_the_quorum_only_the_attempt_counts_on_and_the_next_key_is_new() -> None:
    played = play(simulation(sizes=(12,) * 5, quorum=0.6))
    outcome = played.advance(played.reports[:2])
    assert outcome.record.aggregate is None
    assert outcome.record.digest is None
    assert outcome.state == server.replace(played.state, attempt=1)
    again = play(played.simulation, outcome.state)
    assert (again.plan.round, again.plan.attempt) == (0, 1)
    assert again.plan.key != played.plan.key
    assert [decode(data, Report).attempt for data in again.reports] == [1] * 5
    # Reports of the first attempt are refused in the second.
    mixed = again.advance(played.reports[:1] + again.reports[1:])
    assert mixed.record.answered == (1, 2, 3, 4)
    done = again.advance()
    assert (done.state.round, done.state.attempt) == (1, 0)


def test_the_quorum_is_met_exactly() -> None:
    played = play(simulation(sizes=(12,) * 5, quorum=0.6))
    assert played.advance(played.reports[:3]).record.aggregate is not None
    assert played.advance(played.reports[:2]).record.aggregate is None


def test_a_missing_probe_does_not_change_what_the_others_mean() -> None:
    """One client of two lacks probe 0: the sum there is the other's alone, scaled up to the weight of both."""
    played = play(simulation(sizes=(12, 4)))
    integers = [integers_of(played, data).copy() for data in played.reports]
    whole = played.advance().record.aggregate.integers(played.plan)[0, 0]
    spoilt = integers[0].copy()
    spoilt[0, 0] = np.iinfo(np.int64).min
    data = encode(Report.of(played.plan, 0, 12, spoilt))
    sums = played.advance([data, played.reports[1]]).record.aggregate.integers(played.plan)[0, 0]
    assert sums[0] == 16 * integers[1][0, 0]
    np.testing.assert_array_equal(sums[1:], whole[1:])


def test_a_step_that_leaves_the_finite_numbers_is_refused_and_the_state_stays() -> None:
    played = play(simulation(with_(optimizer=Sgd(rate=1e40))))
    before = played.state.parameters.copy()
    with pytest.raises(DivergenceError, match=r"round 0 would make a weight infinite; the model .* before is kept"):
        played.advance()
    np.testing.assert_array_equal(played.state.parameters, before)


def test_advance_leaves_the_state_that_it_was_given_as_it_was() -> None:
    played = play(simulation())
    copy = played.state.parameters.copy(), played.state.average.copy(), played.state.memory["momentum"].copy()
    played.advance()
    for kept, now in zip(
        copy, (played.state.parameters, played.state.average, played.state.memory["momentum"]), strict=True
    ):
        np.testing.assert_array_equal(kept, now)


def test_a_record_of_an_aggregate_for_another_model_is_refused_in_words() -> None:
    """Someone who writes a ledger may claim any block; who replays it is told so."""
    played = play(simulation())
    record = played.advance().record
    first, second = played.plan.blocks
    wide = (first, msgspec.structs.replace(second, stop=second.stop + 1))
    plan = msgspec.structs.replace(played.plan, blocks=wide)
    with pytest.raises(ReportError, match="the plan displaces parameter 27 of a model of 27"):
        server.apply(played.simulation.algorithm, played.state, plan, record.aggregate, KERNELS)


def test_bounds_follow_the_slopes_that_were_seen() -> None:
    """c = spread · √(clients a group) · root mean square of the averaged slopes, block by block."""
    method = with_(spread=6.0, bits=16)
    played = play(simulation(method))
    outcome = played.advance()
    sums = outcome.record.aggregate.integers(played.plan)[0, 0]
    slopes = sums * played.plan.bounds / (2**15 - 1) / 36
    next_plan = play(played.simulation, outcome.state).plan
    for number, block in enumerate(next_plan.blocks):
        part = slice(4 * number, 4 * number + 4)
        assert block.bound == pytest.approx(6.0 * np.sqrt(3 * np.mean(slopes[part] ** 2)))
    kept = play(simulation(with_(method, spread=0.0)))
    again = play(kept.simulation, kept.advance().state).plan
    assert [block.bound for block in again.blocks] == [16.0, 16.0]


def test_answers_do_not_depend_on_who_else_is_in_the_cohort() -> None:
    """A client's report is a function of plan, θ and itself."""
    made = simulation(sizes=(12, 12, 12))
    played = play(made)
    assert FEATURES == 4
    for number, client in enumerate(made.clients()):
        alone = answer(played.plan, played.state.parameters, client, made.runtime, KERNELS)
        assert encode(alone) == played.reports[number]
