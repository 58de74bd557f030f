"""Clients whose masked reports are no reports: they are named, rounds go on, and no budget is spent for nothing."""

from __future__ import annotations

import secrets
from collections.abc import Callable
from typing import Any

import msgspec
import numpy as np
import pytest

from baffle.budget import Target
from baffle.engines.network.masker import Masker
from baffle.engines.network.roster import Roster
from baffle.engines.suspicion import LEFT, NAMED, SPOILT
from baffle.errors import StoppedError
from baffle.messages import Round
from baffle.secure import Ring
from federation import simulation
from networked import Net, hub_of
from networked_secure import authority, check, ended, keyed, odd, records, secured

QUICK = {"settle": 0.3, "park": 0.3}
Words = Callable[[Ring, np.ndarray], np.ndarray]


def false(words: Words) -> type[Masker]:
    """Return a client that sends other words than it has masked."""

    def mask(self: Masker, plan: Any, *rest: Any) -> Any:
        told, ring = Masker.mask(self, plan, *rest), Ring.of(plan)
        masked = told.masked
        packed = ring.pack(words(ring, ring.unpack(masked.words, plan.words + 1)))
        return msgspec.structs.replace(told, masked=msgspec.structs.replace(masked, words=packed))

    return odd(mask=mask)


def random_words(ring: Ring, words: np.ndarray) -> np.ndarray:
    drawn = np.frombuffer(secrets.token_bytes(8 * words.size), np.uint64) & ((1 << ring.bits) - 1)
    return drawn.astype(ring.word)


def with_liars(found: Net, *liars: int, words: Words = random_words) -> None:
    for number in range(len(found.made.shares)):
        found.start(number, **keyed(number, false(words) if number in liars else Masker), patience=1.0)


def failed(told: list[Round]) -> list[Round]:
    return [record for record in told if record.aggregate is None]


def named(told: list[Round]) -> dict[int, int]:
    """Return the place of the record in which each client is named."""
    return {n: place for place, record in enumerate(told) for n, why in record.left_out if why == NAMED}


def test_one_that_sends_random_words_is_named_and_rounds_go_on(tmp_path, caplog) -> None:
    made = simulation(sizes=(12,) * 5, secure="masks")
    with secured(made, tmp_path, **QUICK) as found:
        with_liars(found, 3)
        result = found.serve(4)
        ended(found, result.digest)
        assert found.entry(3)["last_refusal"] == NAMED
        assert [found.entry(number)["refused"] for number in (0, 1, 2, 4)] == [0] * 4
    told = records(tmp_path / "run")
    assert len(failed(told)) <= 6  # 1 + n/a + log a, one of five being left out at a time
    assert list(named(told)) == [3]
    at = named(told)[3]
    assert all(record.plan.cohort == record.answered == (0, 1, 2, 4) for record in told[at + 1 :])
    assert told[0].left_out == tuple((number, SPOILT) for number in range(5))
    assert [why for _, why in told[1].left_out].count(LEFT) == 1
    assert f"client 3: {NAMED}" in caplog.text
    for record in told:
        check(made, tmp_path / "run", record) if record.aggregate is not None else None


def test_two_liars_of_nine_are_named_both(tmp_path) -> None:
    made = simulation(sizes=(12,) * 9, secure="masks")
    with secured(made, tmp_path, **QUICK) as found:
        with_liars(found, 2, 7)
        result = found.serve(6)
        ended(found, result.digest)
    told = records(tmp_path / "run")
    assert set(named(told)) == {2, 7}
    assert len(failed(told)) <= 4 + 9 + 36 + 8  # tests/secure/test_group_testing.py
    last = max(named(told).values())
    assert {number for record in told[last + 1 :] for number in record.answered} == {0, 1, 3, 4, 5, 6, 8}


def test_who_was_named_is_not_asked_by_a_server_that_is_started_again(tmp_path) -> None:
    made = simulation(sizes=(12,) * 4, secure="masks")
    with secured(made, tmp_path, **QUICK) as found:
        with_liars(found, 1)
        found.serve(2, linger=0.0)
        found.hub.close()
        before = len(records(tmp_path / "run"))
        found.hub = hub_of(made, **QUICK, roster=Roster(4, authority().certificate))
        found.hub.__enter__()
        for number in (0, 2, 3):
            found.start(number, **keyed(number), home=found.machines[number].member.standing.home)
        found.serve(3)
    told = records(tmp_path / "run")
    assert named(told[:before]) == named(told)
    assert [record.answered for record in told[before:]] == [(0, 2, 3)]


def test_where_nobody_can_be_left_out_the_run_stops_and_says_why(tmp_path) -> None:
    made = simulation(secure="masks", quorum=1.0)
    stopped = pytest.raises(
        StoppedError, match="one of clients 0, 1, 2 sends what no report can be, and which one can't"
    )
    with secured(made, tmp_path, **QUICK) as found:
        with_liars(found, 1)
        with stopped:
            found.serve(2)
    told = records(tmp_path / "run")
    assert [record.aggregate for record in told] == [None] * 3
    assert named(told) == {}


def test_a_private_run_stops_after_two_spoilt_sums_and_goes_on_without_the_liar(tmp_path) -> None:
    pytest.importorskip("dp_accounting")
    target = Target(mechanism="shares", epsilon=4.0, rounds=20)
    made = simulation(sizes=(12,) * 5, secure="masks", weight="equal", privacy=target)
    stopped = pytest.raises(StoppedError, match="would spend everybody's privacy budget")
    with secured(made, tmp_path, **QUICK) as found:
        with_liars(found, 3)
        with stopped:
            found.serve(3)
        told = records(tmp_path / "run")
        assert [record.aggregate for record in told] == [None, None]
        assert told[-1].epsilon < 2.0
        with stopped:  # as a service manager would: nothing more is asked
            found.serve(3)
        assert records(tmp_path / "run") == told
        found.hub.close()
        found.hub = hub_of(made, **QUICK, roster=Roster(5, authority().certificate, admitted=(0, 1, 2, 4)))
        found.hub.__enter__()
        result = found.serve(3, least=4)
        ended(found, result.digest, 0, 1, 2, 4)
    told = records(tmp_path / "run")
    assert [record.answered for record in told[2:]] == [(0, 1, 2, 4)] * 3


def test_groups_have_the_local_engines_ledger(tmp_path) -> None:
    made = simulation(sizes=(12, 9, 12, 7, 12, 3, 12, 5, 8), secure="masks", sum_size=3)
    with secured(made, tmp_path, **QUICK) as found:
        with_liars(found)
        result = found.serve(4)
        ended(found, result.digest)
        groups = {frozenset(one.asked) for one in found.hub._convener.epochs} | {
            frozenset(one.enrolments) for one in found.hub._convener.epochs
        }
    assert sorted(map(len, groups - {frozenset()})) == [3, 3, 3]  # of one epoch each, from the first round to the last
    assert result.ledger_digest == made.run(4, out=tmp_path / "local").ledger_digest
    assert result.digest == simulation(sizes=(12, 9, 12, 7, 12, 3, 12, 5, 8)).run(4).digest


def test_groups_go_on_without_the_one_that_is_spoilt_and_its_liar_is_named(tmp_path) -> None:
    made = simulation(sizes=(12,) * 9, secure="masks", sum_size=3)
    with secured(made, tmp_path, **QUICK) as found:
        with_liars(found, 5)
        result = found.serve(8)
        ended(found, result.digest)
        assert found.entry(5)["last_refusal"] == NAMED
    told = records(tmp_path / "run")
    assert failed(told) == []
    assert named(told)[5] <= 5
    assert len(told[0].answered) == 6
    assert [why for _, why in told[0].left_out] == [SPOILT] * 3
    assert told[-1].answered == (0, 1, 2, 3, 4, 6, 7, 8)
    for record in told:
        check(made, tmp_path / "run", record)


def test_a_client_refuses_groups_that_are_smaller_than_it_admits(tmp_path, caplog) -> None:
    made = simulation(sizes=(12,) * 6, secure="masks", sum_size=3, quorum=0.5)
    with secured(made, tmp_path, deadline=1.5, **QUICK) as found:
        for number in range(6):
            found.start(number, **keyed(number, minimum=3 if number == 4 else 2))
        result = found.serve(3)
        ended(found, result.digest, 0, 1, 2, 3, 5)
    assert "sums of 2 reports are asked for, and at least 3 are admitted" in caplog.text
    assert all(4 not in record.answered and len(record.answered) >= 3 for record in records(tmp_path / "run"))


def test_a_run_whose_honest_clients_are_too_few_for_a_round_stops(tmp_path) -> None:
    with secured(simulation(sizes=(12,) * 5, secure="masks"), tmp_path) as found:
        found.hub._refuse_few({4}, 4)
        with pytest.raises(StoppedError, match=r"3 clients are left without .* \(1, 4\), and a round needs 4"):
            found.hub._refuse_few({4, 1}, 4)
