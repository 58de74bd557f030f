from __future__ import annotations

from dataclasses import replace

import msgspec
import numpy as np

from baffle.keys import Key
from baffle.messages import Report, decode
from federation import METHOD, play, simulation


def asked(played, attempt: int):
    return msgspec.structs.replace(played.plan, attempt=attempt)


def test_every_client_of_the_cohort_answers_once_in_order() -> None:
    played = play(simulation(sizes=(6,) * 8, participation=0.5))
    assert [decode(data, Report).client for data in played.reports] == list(played.plan.cohort)
    assert len(played.reports) == 4


def test_reports_carry_what_the_wire_would() -> None:
    played = play(simulation(sizes=(12, 7)))
    reports = [decode(data, Report) for data in played.reports]
    assert [(r.protocol, r.round, r.attempt, r.samples) for r in reports] == [(1, 0, 0, 12), (1, 0, 0, 7)]
    equal = play(simulation(sizes=(12, 7), weight="equal"))
    assert [decode(data, Report).samples for data in equal.reports] == [1, 1]
    # Weights travel beside the slopes; the slopes are the same.
    assert [decode(data, Report).slopes for data in equal.reports] == [r.slopes for r in reports]


def test_who_is_unavailable_follows_from_the_key_the_round_and_the_attempt() -> None:
    made = simulation(sizes=(6,) * 20, unavailable=0.5)
    engine = made.gathering()
    played = play(made)
    present = [
        tuple(decode(data, Report).client for data in engine.gather(asked(played, attempt), played.state.parameters))
        for attempt in range(10)
    ]
    again = [
        tuple(
            decode(data, Report).client for data in made.gathering().gather(asked(played, n), played.state.parameters)
        )
        for n in range(10)
    ]
    assert present == again
    assert len(set(present)) == 10
    # 200 fair draws: more than five standard deviations from 100 has a chance of 1e-6.
    assert 64 < sum(map(len, present)) < 136
    other = replace(engine, chance=Key.root(5))
    assert [decode(d, Report).client for d in other.gather(played.plan, played.state.parameters)] != list(present[0])


def test_a_client_that_answers_does_so_whoever_else_is_absent() -> None:
    whole = play(simulation(sizes=(6,) * 10))
    some = play(simulation(sizes=(6,) * 10, unavailable=0.4))
    by_client = {decode(data, Report).client: data for data in whole.reports}
    assert 0 < len(some.reports) < 10
    assert all(by_client[decode(data, Report).client] == data for data in some.reports)


def test_nobody_may_answer() -> None:
    played = play(simulation(sizes=(6, 6)))
    engine = replace(played.simulation.gathering(), unavailable=1.0)
    assert engine.gather(played.plan, played.state.parameters) == []


def test_the_engine_holds_no_state_between_rounds() -> None:
    made = simulation(msgspec.structs.replace(METHOD, local_steps=2))
    engine = made.gathering()
    played = play(made)
    before = played.state.parameters.copy()
    first = engine.gather(played.plan, played.state.parameters)
    assert engine.gather(played.plan, played.state.parameters) == first == played.reports
    np.testing.assert_array_equal(before, played.state.parameters)
