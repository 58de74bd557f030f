"""Keeping in step: what the server's records become on a client, to the bit."""

from __future__ import annotations

from dataclasses import replace

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from baffle.engines.network.dialogue import PART, Call, check_of
from baffle.engines.network.steps import OutOfStepError, Window, asked, bitmap, follow, numbers_of, step_of
from baffle.errors import ReportError
from baffle.messages import encode
from baffle.parameters import digest
from federation import KERNELS, play, simulation


def records(rounds: int, **changes):
    """Return a simulation's header, first state, records and states."""
    made = simulation(**changes)
    header = made.header()
    state = header.start({})
    found, states = [], [state]
    for _ in range(rounds):
        outcome = play(made, state).advance()
        state = outcome.state
        found.append(outcome.record)
        states.append(state)
    return header, found, states


@given(st.sets(st.integers(0, 40)), st.integers(41, 60))
def test_a_bitmap_says_who(numbers, clients) -> None:
    assert set(numbers_of(bitmap(numbers, clients), clients)) == numbers
    assert len(bitmap(numbers, clients)) == -(-clients // 8)


def test_everyone_takes_no_bytes() -> None:
    assert bitmap(range(9), 9) == b""
    assert list(numbers_of(b"", 9)) == list(range(9))


def test_a_bitmap_of_other_clients_is_refused() -> None:
    with pytest.raises(ReportError, match="2 bytes are no bitmap of 4 clients"):
        numbers_of(b"\1\0", 4)


@pytest.mark.parametrize("participation", [1.0, 0.5])
def test_steps_move_a_state_as_the_server_moved_its_own(participation) -> None:
    header, found, states = records(6, sizes=(12, 12, 12, 12), participation=participation)
    state = states[0]
    for record, after in zip(found, states[1:], strict=True):
        state = follow(header, state, step_of(record, 4), KERNELS)
        assert digest(state.parameters) == digest(after.parameters)
        assert state.squares == after.squares
        np.testing.assert_array_equal(state.average, after.average)
        for name, values in after.memory.items():
            np.testing.assert_array_equal(state.memory[name], values)


def test_a_step_of_another_round_is_out_of_step() -> None:
    header, found, states = records(2)
    with pytest.raises(OutOfStepError, match="round 1 where 0 follows"):
        follow(header, states[0], step_of(found[1], 3), KERNELS)


def test_a_step_from_another_state_is_out_of_step() -> None:
    header, found, states = records(1)
    other = replace(states[0], parameters=states[0].parameters + np.float32(0.5))
    with pytest.raises(OutOfStepError, match="leads to another model than the server's"):
        follow(header, other, step_of(found[0], 3), KERNELS)


def test_a_step_whose_sums_do_not_fit_is_out_of_step() -> None:
    header, found, states = records(1)
    step = step_of(found[0], 3)
    step = msgspec.structs.replace(step, aggregate=msgspec.structs.replace(step.aggregate, sums=b"\0"))
    with pytest.raises(OutOfStepError, match="bytes of slopes where"):
        follow(header, states[0], step, KERNELS)


def test_a_call_means_the_servers_plan() -> None:
    header, found, states = records(3)
    plan = found[2].plan
    call = Call((), plan.round, plan.attempt, b"", check_of(encode(plan)))
    assert asked(header, states[2], call) == plan
    with pytest.raises(OutOfStepError, match="round 2 is asked where 1 follows"):
        asked(header, states[1], call)
    with pytest.raises(OutOfStepError, match="planned in another way"):
        asked(header, states[2], msgspec.structs.replace(call, attempt=1))
    with pytest.raises(OutOfStepError, match="no bitmap"):
        asked(header, states[2], msgspec.structs.replace(call, cohort=b"\1\1"))


def test_a_window_keeps_what_is_cheaper_than_a_snapshot_and_what_follows_one() -> None:
    _, found, _ = records(8)
    steps = [step_of(record, 3) for record in found]
    size = len(encode(steps[0]))
    window = Window(most_bytes=3 * size + 20)
    for step in steps:
        window.append(step)
    window.trim(0)
    assert window.reaches(0)
    window.trim(7)
    assert not window.reaches(4)
    assert window.reaches(5)
    assert [step.round for step in window.since(6)] == [6, 7]
    assert window.since(8) == ()
    window.trim(100)
    assert window.reaches(5)


def test_an_empty_window_reaches_nothing() -> None:
    assert not Window(100).reaches(0)


def test_steps_come_in_parts() -> None:
    _, found, _ = records(1)
    step = step_of(found[0], 3)
    large = msgspec.structs.replace(step, aggregate=msgspec.structs.replace(step.aggregate, sums=bytes(PART // 2)))
    window = Window(1 << 30)
    for number in range(4):
        window.append(msgspec.structs.replace(large, round=number))
    assert [step.round for step in window.since(0)] == [0]
    assert [step.round for step in window.since(2)] == [2]
