"""Secure sums between a server and clients that are threads: the sums of the local engine, whatever goes wrong."""

from __future__ import annotations

import re
import threading
import time
from dataclasses import replace
from typing import Any

import msgspec
import pytest

from baffle import run as runs
from baffle import server
from baffle.engines.network.loopback import Faults
from baffle.engines.network.masker import Masker
from baffle.engines.network.member import RefusedError
from baffle.errors import ReportError, SettingsError
from baffle.mechanisms import GaussianPrivacy
from baffle.secure import member as members
from federation import KERNELS, METHOD, simulation
from networked import hub_of, net
from networked_secure import check, ended, keyed, odd, records, roster, secured, started

QUICK = {"deadline": 1.5, "settle": 0.3}
"""For tests in which somebody does not answer."""
STEPS = msgspec.structs.replace(METHOD, forwards=80, local_steps=2)


@pytest.mark.parametrize(
    "changes",
    [{}, {"sizes": (12, 9, 12, 7, 3), "participation": 0.6}, {"method": STEPS}, {"weight": "equal", "minimum": 3}],
    ids=["all", "three of five", "local steps", "equal"],
)
def test_the_ledger_is_the_local_engines(changes, tmp_path):
    made = simulation(secure="masks", **changes)
    with secured(made, tmp_path) as found:
        started(found)
        result = found.serve(4)
        ended(found, result.digest)
    local = simulation(secure="masks", **changes).run(4, out=tmp_path / "local")
    assert result.ledger_digest == local.ledger_digest
    open_run = simulation(**changes).run(4)
    assert result.digest == open_run.digest
    runs.verify(tmp_path / "run")


def test_a_network_that_loses_doubles_and_reorders_changes_nothing(tmp_path) -> None:
    made = simulation(secure="masks")
    faults = Faults(lose=0.1, double=0.2, delay=0.02)
    with secured(made, tmp_path, faults=faults, park=0.1, deadline=60.0, settle=600.0) as found:
        for number in range(3):
            found.start(number, **keyed(number), patience=0.8)
        result = found.serve(5)
        assert sum(found.entry(number)["duplicate"] for number in range(3)) > 0
        assert [found.entry(number)["answered"] for number in range(3)] == [5] * 3
    assert result.ledger_digest == made.run(5, out=tmp_path / "local").ledger_digest


def dies_in(act: str, number: int = 2) -> type[Masker]:
    """Return a client whose process ends when it is asked for something in a round."""

    def dies(self: Masker, asked: Any, *rest: Any) -> Any:
        if (asked.round if act == "mask" else asked.slot.round) == number:
            raise SystemExit
        return getattr(Masker, act)(self, asked, *rest)

    return odd(**{act: dies})


@pytest.mark.parametrize("act", ["mask", "open"])
def test_a_client_that_goes_before_or_after_its_report_keeps_no_round_from_its_sum(act, tmp_path) -> None:
    made = simulation(sizes=(12, 9, 7), secure="masks")
    with secured(made, tmp_path, **QUICK) as found:
        started(found, 0, 1)
        found.start(2, **keyed(2, dies_in(act)))
        result = found.serve(5)
        ended(found, result.digest, 0, 1)
    told = records(tmp_path / "run")
    there = {"mask": (0, 1), "open": (0, 1, 2)}[act]
    assert [record.answered for record in told[:3]] == [(0, 1, 2), (0, 1, 2), there]
    assert told[2].left_out == (((2, "no answer"),) if act == "mask" else ())
    assert all(record.answered == (0, 1) and record.aggregate is not None for record in told[3:])
    for record in told:
        check(made, tmp_path / "run", record)


def test_a_client_that_comes_again_is_in_a_new_epoch_and_the_run_goes_on(tmp_path, caplog) -> None:
    caplog.set_level("INFO", "baffle")
    made = simulation(secure="masks")
    with secured(made, tmp_path, **QUICK) as found:
        started(found, 0, 2)
        found.start(1, **keyed(1, dies_in("mask", 3)))

        def again() -> None:
            found.machines[1].thread.join(20)
            found.start(1, **keyed(1))
            found.joined(1, 2)

        result = found.serve(20, progress=found.meanwhile(4, 15, again))
        ended(found, result.digest)
        assert found.entry(1)["joined"] == 2
    told = records(tmp_path / "run")
    assert told[3].answered == (0, 2)
    assert told[-1].answered == (0, 1, 2)
    assert caplog.text.count("secure sums of 3 clients") == 6  # each was in two epochs
    for record in told:
        check(made, tmp_path / "run", record)


class KilledError(Exception):
    pass


def test_a_server_that_dies_is_taken_up_by_another_and_its_clients_go_on(tmp_path) -> None:
    made = simulation(secure="masks")

    def kill(where) -> None:
        if where.round == 3:
            raise KilledError

    with secured(made, tmp_path, park=0.3) as found:
        for number in range(3):
            found.start(number, **keyed(number), patience=1.0)
        with pytest.raises(KilledError):
            found.service().run(7, settings={"name": "test"}, progress=kill)
        found.hub.close()
        found.hub = hub_of(made, park=0.3, roster=roster(3))
        found.hub.__enter__()
        result = found.serve(7)
        ended(found, result.digest)
    assert result.ledger_digest == made.run(7, out=tmp_path / "local").ledger_digest


def test_a_round_of_too_few_is_tried_again_until_they_are_back(tmp_path, caplog) -> None:
    made = simulation(secure="masks", quorum=1.0)
    with secured(made, tmp_path, **QUICK) as found:
        started(found, 0, 1)
        found.start(2, **keyed(2, dies_in("mask")))

        def again() -> None:
            found.machines[2].thread.join(20)
            end = time.monotonic() + 60
            while "2 reports where at least 3 are added up" not in caplog.text and time.monotonic() < end:
                time.sleep(0.01)
            found.start(2, **keyed(2))

        thread = threading.Thread(target=again)
        thread.start()
        result = found.serve(5)
        thread.join()
        ended(found, result.digest)
    told = records(tmp_path / "run")
    slots = [(one.plan.round, one.plan.attempt, one.aggregate is not None) for one in told]
    assert slots[:3] == [(0, 0, True), (1, 0, True), (2, 0, False)]
    assert told[2].answered == ()
    assert told[2].left_out == ((0, "no answer"), (1, "no answer"), (2, "no answer"))
    assert [one.answered for one in told if one.aggregate is not None] == [(0, 1, 2)] * 5
    assert "2 reports where at least 3 are added up" in caplog.text
    assert len({one.plan.key for one in told}) == len(told)


@pytest.mark.parametrize("act", ["confirm", "open"])
def test_an_attempt_that_ends_after_signatures_is_tried_again_in_a_new_epoch(act, tmp_path, caplog) -> None:
    """Whoever has signed has no part in another attempt at the round in that epoch: it would be tried for ever."""

    def refuses(self: Masker, asked: Any) -> Any:
        slot = asked.closing.slot if act == "confirm" else asked.slot
        if (slot.round, slot.attempt) == (1, 0):
            raise ReportError("not now")
        return getattr(Masker, act)(self, asked)

    made = simulation(sizes=(12, 9, 12, 7), secure="masks")
    with secured(made, tmp_path, **QUICK) as found:
        started(found, 0, 1)
        for number in (2, 3):
            found.start(number, **keyed(number, odd(**{act: refuses})))
        result = found.serve(3)
        ended(found, result.digest)
    told = [(one.plan.round, one.plan.attempt, one.answered) for one in records(tmp_path / "run")]
    everybody = (0, 1, 2, 3)
    assert told == [(0, 0, everybody), (1, 0, ()), (1, 1, everybody), (2, 0, everybody)]
    few = {"confirm": "2 signatures of whose reports came are too few", "open": "2 answers are too few"}
    assert few[act] in caplog.text


def test_a_client_without_what_secure_sums_need_is_told(tmp_path) -> None:
    made = simulation(secure="masks")
    with secured(made, tmp_path, **QUICK) as found:
        started(found, 0, 1)
        found.start(2, **(keyed(2) | {"masker": None}))
        result = found.serve(3)
        ended(found, result.digest, 0, 1)
        found.machines[2].join()
        assert isinstance(found.machines[2].error, RefusedError)
        assert "sums are secure here, and need keys" in str(found.machines[2].error)


def test_a_client_of_secure_sums_alone_leaves_a_server_without(tmp_path) -> None:
    made = simulation()
    with secured(made, tmp_path, **QUICK) as found:
        started(found, 0, 1)
        found.start(2, **keyed(2), secure=True)
        result = found.serve(3)
        ended(found, result.digest, 0, 1)
        found.machines[2].join()
        assert isinstance(found.machines[2].error, RefusedError)
        assert "takes part in secure sums alone" in str(found.machines[2].error)
    assert all(2 not in record.answered for record in records(tmp_path / "run"))


def test_a_server_without_keys_says_that_secure_sums_need_them(tmp_path) -> None:
    made = simulation(secure="masks")
    with net(made, tmp_path) as found, pytest.raises(SettingsError, match="secure = 'masks': needs keys"):
        found.serve(2)


def test_a_trusted_sum_is_for_simulations(tmp_path) -> None:
    made, refused = simulation(secure="ideal"), pytest.raises(SettingsError, match="must be 'masks' or 'none'")
    with net(made, tmp_path, start=False) as found, refused:
        found.serve(2)


def test_a_client_that_wants_larger_sums_never_enrols_and_says_why(tmp_path, caplog) -> None:
    made = simulation(secure="masks")
    with secured(made, tmp_path, **QUICK) as found:
        started(found, 0, 1)
        found.start(2, **keyed(2, minimum=3))
        result = found.serve(3)
        ended(found, result.digest, 0, 1)
    assert "sums of 2 reports are asked for, and at least 3 are admitted" in caplog.text
    assert [record.answered for record in records(tmp_path / "run")] == [(0, 1)] * 3


def test_a_client_that_wants_larger_sums_does_not_slow_every_round_down(tmp_path, caplog) -> None:
    """Once it has not enrolled, the others' epoch goes on without it."""
    caplog.set_level("INFO", "baffle")
    made = simulation(secure="masks")
    with secured(made, tmp_path, **QUICK) as found:
        started(found, 0, 1)
        found.start(2, **keyed(2, minimum=3))
        result = found.serve(12)
        ended(found, result.digest, 0, 1)
    assert caplog.text.count("secure sums of 2 clients") <= 2 * 4  # asked again ever more rarely: in rounds 0, 3 and 8


def test_a_client_whose_answer_is_forged_is_named_and_kept_out(tmp_path, caplog) -> None:
    """Client 0 waits with its own answer until the forged one, of three that are needed, has been looked at."""

    def forged(self: Masker, request: Any) -> Any:
        told = Masker.open(self, request)
        shares = bytes([told.answer.shares[0] ^ 1]) + told.answer.shares[1:]
        return msgspec.structs.replace(told, answer=msgspec.structs.replace(told.answer, shares=shares))

    def late(self: Masker, request: Any) -> Any:
        until = time.monotonic() + 8
        while "is forged" not in found.entry(3)["last_refusal"] and time.monotonic() < until:
            time.sleep(0.01)
        return Masker.open(self, request)

    made = simulation(sizes=(12, 9, 12, 7), secure="masks", quorum=0.5)
    with secured(made, tmp_path, deadline=10, settle=0.3) as found:
        started(found, 1, 2)
        found.start(0, **keyed(0, odd(open=late)))
        found.start(3, **keyed(3, odd(open=forged)))
        result = found.serve(5)
        ended(found, result.digest)
        assert "is forged: member 3" in found.entry(3)["last_refusal"]
    assert re.search(
        r"client 3: its part in a secure sum is refused: a share of the secret of member \d is forged", caplog.text
    )
    told = records(tmp_path / "run")
    assert all(record.aggregate is not None for record in told)
    assert [record.answered for record in told[1:]] == [(0, 1, 2)] * 4
    for record in told:
        check(made, tmp_path / "run", record)


def test_a_client_whose_pledge_is_false_is_named_and_kept_out(tmp_path, monkeypatch, caplog) -> None:
    made_truly = members.make

    def lie(roster, number, *rest):
        made = made_truly(roster, number, *rest)
        if number != 2:
            return made
        false = bytes([made.message.self_told[0] ^ 1]) + made.message.self_told[1:]
        return replace(made, message=msgspec.structs.replace(made.message, self_told=false))

    monkeypatch.setattr(members, "make", lie)
    made = simulation(secure="masks")
    with secured(made, tmp_path, **QUICK) as found:
        started(found)
        result = found.serve(4)
        ended(found, result.digest)
    told = records(tmp_path / "run")
    assert told[0].aggregate is None
    assert told[0].left_out == ((0, "no answer"), (1, "no answer"), (2, "a pledge is false: member 2"))
    assert [(one.plan.round, one.plan.attempt, one.answered) for one in told[1:]] == [
        (0, 1, (0, 1)),
        (1, 0, (0, 1)),
        (2, 0, (0, 1)),
        (3, 0, (0, 1)),
    ]
    assert "a pledge is false: member 2" in caplog.text


def test_a_report_for_another_client_is_refused(tmp_path, caplog) -> None:
    def as_another(self: Masker, *rest: Any) -> Any:
        told = Masker.mask(self, *rest)
        return msgspec.structs.replace(told, masked=msgspec.structs.replace(told.masked, number=0))

    made = simulation(secure="masks")
    with secured(made, tmp_path, **QUICK) as found:
        started(found, 0, 1)
        found.start(2, **keyed(2, odd(mask=as_another)))
        result = found.serve(2)
        ended(found, result.digest, 0, 1)
        assert found.entry(2)["refused"] > 0
        assert found.entry(2)["answered"] == 0
    assert "client 2 speaks for another in secure sums" in caplog.text
    for record in records(tmp_path / "run"):
        assert record.answered == (0, 1)
        check(made, tmp_path / "run", record)


def test_a_report_in_the_open_is_refused_where_sums_are_secure(tmp_path) -> None:
    made = simulation(secure="masks")
    with secured(made, tmp_path) as found:

        def openly(self: Masker, *rest: Any) -> Any:
            found.machines[2].member._report, found.machines[2].member._fresh = b"all that it knows", True
            return Masker.mask(self, *rest)

        started(found, 0, 1)
        found.start(2, **keyed(2, odd(mask=openly)))
        result = found.serve(3)
        ended(found, result.digest)
        assert found.entry(2)["refused"] >= 1
        assert found.entry(2)["last_refusal"] == "a report in the open, where sums are secure"
    assert result.ledger_digest == made.run(3, out=tmp_path / "local").ledger_digest


@pytest.mark.parametrize("told", ["server", "client"])
def test_the_server_is_told_the_next_power_of_two_of_samples(told, tmp_path) -> None:
    """Where it says that sums are secure, or where the client takes part in no others."""
    made = simulation(sizes=(12, 16, 17, 1), secure="masks")
    with secured(made, tmp_path) as found:
        if told == "server":
            found.hub.settings = {"name": "test", "secure": "masks"}
        for number in range(4):
            found.start(number, **keyed(number), secure=told == "client")
        result = found.serve(3, reproducible=False)
        ended(found, result.digest)
        assert [found.entry(number)["samples"] for number in range(4)] == [16, 16, 32, 1]
    header = runs.header_of(tmp_path / "run")
    assert header.samples == (16, 16, 32, 1)
    assert header.federation.most_samples == 32


@pytest.mark.parametrize("shares", [0, 2])
def test_private_sums_over_a_network(shares, tmp_path) -> None:
    """Every client makes the plan from the state that it has, the bound that adapts among it."""
    privacy = GaussianPrivacy(multiplier=1.0, size=0.5, quantile=0.5, shares=shares)
    made = simulation(msgspec.structs.replace(METHOD, privacy=privacy), secure="masks", weight="equal")
    with secured(made, tmp_path) as found:
        started(found)
        result = found.serve(4)
        ended(found, result.digest)
    told = records(tmp_path / "run")
    assert [one.answered for one in told] == [(0, 1, 2)] * 4
    assert len({one.plan.privacy.size for one in told}) > 1  # by noise: it may come back to what it was
    _, state = runs.replay(tmp_path / "run", KERNELS)
    assert server.digest(state.parameters) == result.digest
