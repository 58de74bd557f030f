"""What a client holds a server to: its own count of answers, the ε that it wants, and keys of one run alone."""

from __future__ import annotations

import shutil
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress

import msgspec
import pytest

from baffle import SettingsError
from baffle.budget import Budget, Target
from baffle.engines.network import member as members
from baffle.engines.network.channel import RefusedError
from baffle.engines.network.commitments import Commitments
from baffle.engines.network.dialogue import run_name
from baffle.engines.network.home import Home
from baffle.engines.network.hub import Hub
from baffle.engines.network.member import Equipment
from baffle.engines.network.promise import Wanted
from baffle.errors import StorageError
from baffle.mechanisms import GaussianPrivacy
from baffle.messages import encode
from baffle.simulation import Simulation
from federation import simulation
from networked import Machine, Net, net

pytest.importorskip("dp_accounting")
EPSILON = 8.0


def private(**changes) -> Simulation:
    return simulation(weight="equal", privacy=Target(mechanism="gaussian", epsilon=EPSILON, rounds=4), **changes)


class EndedError(Exception):
    """A server stops waiting for clients that have left for good."""


@contextmanager
def serving(found: Net, rounds: int) -> Iterator[None]:
    """Serve in a thread; it ends with the block, however long it would wait for clients that have left."""
    over, wait = threading.Event(), Hub._wait

    def waited(hub: Hub, count, least: int, *until: float) -> None:
        def counted() -> int:
            if over.is_set():
                raise EndedError
            return count()

        wait(hub, counted, least, *until)

    def serve() -> None:
        with suppress(EndedError):
            found.serve(rounds)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Hub, "_wait", waited)
        thread = threading.Thread(target=serve)
        thread.start()
        try:
            yield
        finally:
            over.set()
            thread.join(30.0)
            assert not thread.is_alive()


def given(folder, made: Simulation, number: int) -> Commitments:
    with Home(folder / f"client-{number}") as home:
        return home.commitments(run_name(encode(made.header())).hex())


def test_a_client_counts_its_answers_on_its_disk(tmp_path) -> None:
    made = private()
    with net(made, tmp_path) as found:
        found.serve(3)
        for machine in found.machines.values():
            machine.join()
    assert [given(tmp_path, made, number).answered for number in range(3)] == [3, 3, 3]


def test_runs_without_a_budget_are_not_counted(tmp_path) -> None:
    made = simulation()
    with net(made, tmp_path) as found:
        found.serve(2)
        for machine in found.machines.values():
            machine.join()
    assert given(tmp_path, made, 0) == Commitments()


def test_a_server_that_forgets_what_it_has_asked_is_answered_no_more_than_was_promised(tmp_path) -> None:
    """Its ledger is lost again and again, so that by its own account nothing is ever spent."""
    made = private()
    attempts = made.header().budget.attempts
    assert attempts == 5
    with net(made, tmp_path) as found:
        found.serve(4)
        for machine in found.machines.values():
            machine.join()
    shutil.rmtree(tmp_path / "run")
    with net(made, tmp_path) as found:
        with serving(found, 4):
            for machine in found.machines.values():
                machine.join()
        for machine in found.machines.values():
            assert isinstance(machine.error, RefusedError)
            assert "this client has given the 5 answers for which ε = 8, δ = 1e-05 is promised" in str(machine.error)
    assert [given(tmp_path, made, number).answered for number in range(3)] == [attempts] * 3


def test_what_can_not_be_counted_is_not_answered(tmp_path, monkeypatch) -> None:
    def full(*_, **__) -> None:
        raise StorageError(tmp_path / "commitments", "can't be written: No space left on device")

    made = private()
    with net(made, tmp_path, start=False) as found:
        machine = found.start(0)
        for number in (1, 2):
            found.start(number)
        monkeypatch.setattr("baffle.engines.network.home.write_atomically", full)
        monkeypatch.setattr(Home, "keep_header", lambda *_: None)
        with serving(found, 1):
            for one in (machine, *found.machines.values()):
                one.join()
    assert isinstance(machine.error, RefusedError)
    assert "can't be kept first" in str(machine.error)
    assert "No space left on device" in str(machine.error)


# The least that a client wants.


def header_with(**changes):
    return msgspec.structs.replace(private().header(), **changes)


def test_a_run_that_keeps_what_is_wanted_is_taken_part_in() -> None:
    Wanted(EPSILON).refuse_less(private().header())
    Wanted(20.0, 1e-4).refuse_less(private().header())


@pytest.mark.parametrize(
    ("wanted", "change", "reason"),
    [
        (Wanted(EPSILON), {"budget": None}, "the run promises no ε, and this client wants one of 8 at most"),
        (Wanted(7.9), {}, "the run promises ε = 8, δ = 1e-05, and this client wants at most ε = 7.9, δ = 1e-05"),
        (Wanted(EPSILON, 1e-6), {}, "and this client wants at most ε = 8, δ = 1e-06"),
        (
            Wanted(EPSILON),  # a budget for more attempts than the noise is made for
            {"budget": Budget(EPSILON, 1e-5, 50)},
            r"the run promises ε = 8, and its noise leaves 3\d\.\d+ after the 50 attempts that may ask a client",
        ),
    ],
)
def test_a_run_that_keeps_less_is_refused_in_words(wanted, change, reason) -> None:
    with pytest.raises(RefusedError, match=reason):
        wanted.refuse_less(header_with(**change))


def test_noise_that_does_not_keep_the_promise_is_found() -> None:
    algorithm = msgspec.structs.replace(private().algorithm, privacy=GaussianPrivacy(multiplier=0.1))
    with pytest.raises(RefusedError, match="the run promises ε = 8, and its noise leaves"):
        Wanted(EPSILON).refuse_less(header_with(algorithm=algorithm))


@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (lambda: Wanted(0.0), "max-epsilon = 0.0: must be a finite number > 0"),
        (lambda: Wanted(float("nan")), "max-epsilon = nan: must be a finite number > 0"),
        (lambda: Wanted(1.0, 1.0), "max-delta = 1.0: must be above 0 and below 1"),
    ],
)
def test_wishes_that_make_no_sense_are_refused(make, reason) -> None:
    with pytest.raises(SettingsError, match=reason):
        make()


def test_a_client_leaves_a_run_that_promises_less_also_after_a_restart(tmp_path) -> None:
    """The state on its disk is taken up without the server's header: the promise is looked at all the same."""
    made = private()
    with net(made, tmp_path) as found:
        found.serve(1)
        for machine in found.machines.values():
            machine.join()
    with net(made, tmp_path, start=False, deadline=1.0) as found:
        machine = Machine(found.member(0, wanted=Wanted(1.0)))
        for number in (1, 2):
            found.start(number)
        with serving(found, 2):
            machine.join()
    assert isinstance(machine.error, RefusedError)
    assert "this client wants at most ε = 1" in str(machine.error)
    assert given(tmp_path, made, 0).answered == 1


# Keys of one run alone.


def test_batches_and_rounding_of_two_runs_have_other_keys(tmp_path, monkeypatch) -> None:
    """One state folder, one server that begins twice: the same round and attempt must not draw the same."""
    keys: list[bytes] = []
    answer = members.answer

    def noted(plan, parameters, client, *tools):
        keys.append(client.private.secret)
        return answer(plan, parameters, client, *tools)

    monkeypatch.setattr(members, "answer", noted)
    made = [simulation(sizes=(12,), seed=seed) for seed in (1, 2)]
    private_key = made[0].clients()[0].private
    for place, one in enumerate(made):
        shutil.rmtree(tmp_path / "run", ignore_errors=True)
        with net(one, tmp_path, start=False) as found:
            client = one.clients()[0]
            equipment = Equipment(one.runtime, 12, client.draw, private_key)
            machine = found.member(0)
            machine.equip = lambda _, made=equipment: made
            running = Machine(machine)
            found.serve(2)
            running.join()
        assert len(keys) == 2 * (place + 1)
    assert len(set(keys)) == 2
    assert private_key.secret not in keys
