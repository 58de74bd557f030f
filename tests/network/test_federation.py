"""A server and clients over a network that is kind, and over one that is not: the ledger is the local engine's."""

from __future__ import annotations

import dataclasses
import threading
import time

import msgspec
import numpy as np
import pytest

from baffle import Gaussian, SettingsError
from baffle import run as runs
from baffle.engines.network.dialogue import run_name
from baffle.engines.network.home import Home
from baffle.engines.network.loopback import Faults
from baffle.kernels import PlainKernels
from baffle.messages import encode
from baffle.parameters import digest
from federation import METHOD, Network, layout, simulation
from networked import net

ROUNDS = 12


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"participation": 0.4},
        {"method": msgspec.structs.replace(METHOD, groups=3, law=Gaussian())},
        {"method": msgspec.structs.replace(METHOD, local_steps=2, forwards=80, batch=5)},
        {"weight": "equal"},
    ],
    ids=["all", "two of five", "own directions", "local steps", "equal"],
)
def test_the_ledger_is_the_local_engines(changes, tmp_path) -> None:
    made = simulation(sizes=(12, 9, 12, 7, 12), **changes)
    local = made.run(ROUNDS, out=tmp_path / "local")
    with net(made, tmp_path) as federation:
        result = federation.serve(ROUNDS)
        for machine in federation.machines.values():
            machine.join()
            assert machine.error is None
            assert machine.digest == result.digest
    assert result.ledger_digest == local.ledger_digest
    assert (tmp_path / "run/ledger").read_bytes() == (tmp_path / "local/ledger").read_bytes()


def test_a_network_that_loses_doubles_and_reorders_changes_nothing(tmp_path) -> None:
    made = simulation()
    local = made.run(ROUNDS, out=tmp_path / "local")
    with net(made, tmp_path, faults=Faults(lose=0.2, double=0.2, delay=0.03), park=0.1) as federation:
        result = federation.serve(ROUNDS)
        rows = federation.hub.status()["clients"]
    assert result.ledger_digest == local.ledger_digest
    assert sum(row["duplicate"] for row in rows) > 0
    assert [row["answered"] for row in rows] == [ROUNDS] * 3


def test_a_run_whose_first_weights_come_with_the_model_begins_with_a_snapshot(tmp_path) -> None:
    rng = np.random.default_rng(0)
    first = {"first.weight": rng.normal(size=(4, 3)).astype(np.float32)}
    own = simulation(runtime=Network(layout(given=True), given=first))
    with net(own, tmp_path, start=False) as federation:
        # Clients have the same model, untrained.
        federation.made = simulation(
            runtime=Network(layout(given=True), given={"first.weight": first["first.weight"] * 0})
        )
        for number in range(3):
            federation.start(number)
        federation.made, clients = own, federation.machines
        result = federation.serve(4)
        for machine in clients.values():
            machine.join()
            assert machine.digest == result.digest


@pytest.mark.parametrize(("replay", "fetched"), [(1 << 20, False), (0, True)], ids=["replay", "snapshot"])
def test_a_client_that_joins_late_catches_up(replay, fetched, tmp_path, caplog) -> None:
    caplog.set_level("INFO", "baffle")
    made = simulation(quorum=0.3)
    with net(made, tmp_path, start=False, settle=0.2) as federation:
        federation.start(0)
        federation.start(1)
        late = federation.meanwhile(15, 60, lambda: (federation.start(2), federation.joined(2)))
        result = federation.serve(70, least=2, replay=replay, progress=late)
        for machine in federation.machines.values():
            machine.join()
            assert machine.error is None
            assert machine.digest == result.digest
        assert federation.entry(2)["answered"] > 0
    assert ("fetching a snapshot" in caplog.text) == fetched
    _, state = runs.replay(tmp_path / "run", PlainKernels())
    assert digest(state.parameters) == result.digest


def test_a_client_that_dies_goes_on_where_it_was(tmp_path) -> None:
    made = simulation(quorum=0.3)
    with net(made, tmp_path) as federation:
        result = federation.serve(70, progress=federation.meanwhile(20, 60, lambda: restart(federation, 1)))
        for machine in federation.machines.values():
            machine.join()
            assert machine.digest == result.digest
        assert federation.entry(1)["joined"] == 2


def restart(federation, number: int) -> None:
    before = federation.machines[number]
    before.stop()
    assert before.member.standing.state.round >= 20
    again = federation.start(number)
    assert again.member.standing.home.runs() != []
    federation.joined(number, 2)


def test_a_server_that_dies_is_taken_up_by_another_and_its_clients_go_on(tmp_path) -> None:
    made = simulation()
    local = made.run(30, out=tmp_path / "local")
    with net(made, tmp_path, park=0.3) as federation:
        for machine in federation.machines.values():
            machine.member.channel.patience = 1.0
        for rounds in (10, 20, 30):
            result = federation.serve(rounds, linger=0.0 if rounds < 30 else 10.0)
            if rounds < 30:
                federation.hub.close()
                federation.hub = reborn(federation, made)
        for machine in federation.machines.values():
            machine.join()
            assert machine.digest == local.digest
    assert result.ledger_digest == local.ledger_digest


def reborn(federation, made):
    """Return a server's next process; clients that heard that the run is over come back."""
    from networked import hub_of

    hub = hub_of(made, park=0.3)
    hub.__enter__()
    for number, machine in list(federation.machines.items()):
        machine.member.channel.stopped.set()
        federation.hub = hub
        machine.join()
        federation.start(number, patience=1.0)
    return hub


def fall_asleep(member, answered: int, seconds: float) -> None:
    """Make a client slow after so many reports."""
    awake = member.channel.ask

    def ask(data: bytes, patience: float) -> bytes | None:
        if member._answered == answered:
            time.sleep(seconds)
        return awake(data, patience)

    member.channel.ask = ask


def test_a_round_ends_at_its_deadline_without_the_client_that_sleeps(tmp_path, caplog) -> None:
    made = simulation()
    with net(made, tmp_path, deadline=0.6) as federation:
        fall_asleep(federation.machines[2].member, answered=3, seconds=1.5)
        result = federation.serve(12)
        assert result.rounds == 12
        assert federation.entry(2)["late"] >= 1
    assert "client 2 gave no answer to round" in caplog.text
    assert "too slow, or stopped" in caplog.text


def test_a_round_without_quorum_is_tried_again_with_a_new_key(tmp_path) -> None:
    made = simulation(sizes=(12, 12), quorum=1.0)
    with net(made, tmp_path, deadline=0.5) as federation:
        fall_asleep(federation.machines[1].member, answered=2, seconds=1.0)
        federation.serve(5)
    reader = runs.Reader(tmp_path / "run/ledger")
    records = list(runs._records(reader))[1:]
    tried = [(record.plan.round, record.plan.attempt) for record in records]
    assert (1, 1) in tried
    assert len({record.plan.key for record in records}) == len(records)
    assert [r for r in tried if r[0] == 1][-1][1] >= 1


def test_a_client_whose_link_breaks_is_not_waited_for_long(tmp_path, caplog) -> None:
    """Not until the deadline, which no test would see."""
    made, results = simulation(), []
    with net(made, tmp_path, deadline=3600.0) as federation:
        gone = federation.machines[2].member
        awake = gone.channel.ask

        def ask(data: bytes, seconds: float) -> bytes | None:
            if gone._answered == 3:
                federation.hub.gone(gone.channel.session.hex())
                gone.channel.stopped.wait(30)
                return None
            return awake(data, seconds)

        gone.channel.ask = ask
        serving = threading.Thread(target=lambda: results.append(federation.serve(8, linger=0.0)), daemon=True)
        serving.start()
        serving.join(60.0)
        assert [result.rounds for result in results] == [8]
    assert "its link is down" in caplog.text


def test_a_state_that_is_not_the_servers_is_replaced_by_a_snapshot(tmp_path, caplog) -> None:
    made = simulation()
    with net(made, tmp_path) as federation:
        machine = federation.machines[0]
        spoil(machine.member, answered=20)
        result = federation.serve(30)
        machine.join()
        assert machine.digest == result.digest
    assert "out of step with the server" in caplog.text


def spoil(member, answered: int) -> None:
    """Change a client's model after so many reports, between two of its questions."""
    asked, spoilt = member.channel.ask, []

    def ask(data: bytes, patience: float) -> bytes | None:
        standing = member.standing
        if member._answered == answered and not spoilt:
            spoilt.append(standing.state)
            standing.state = dataclasses.replace(standing.state, parameters=standing.state.parameters + np.float32(1))
        return asked(data, patience)

    member.channel.ask = ask


def test_a_client_that_is_ahead_of_a_server_restored_from_a_backup_comes_back(tmp_path) -> None:
    made = simulation(snapshot_every=4)
    with net(made, tmp_path) as federation:
        federation.serve(10)
        for machine in federation.machines.values():
            machine.join()
    ledger = tmp_path / "run/ledger"
    reader = runs.Reader(ledger)
    records = iter(reader)
    for _ in range(1 + 6):
        next(records)
    ledger.write_bytes(ledger.read_bytes()[: reader.end])
    for snapshot in (tmp_path / "run/snapshots").glob("*"):
        if int(snapshot.stem) > 6:
            snapshot.unlink()
    with net(made, tmp_path) as federation:
        result = federation.serve(14)
        for machine in federation.machines.values():
            machine.join()
            assert machine.error is None
            assert machine.digest == result.digest


def test_a_round_that_does_not_fit_a_message_is_refused_in_words(tmp_path) -> None:
    made = simulation(method=msgspec.structs.replace(METHOD, forwards=40_000, batch=1, bits=8))
    with (
        net(made, tmp_path, most_bytes=20_000) as federation,
        pytest.raises(SettingsError, match=r"slopes of 8 bits a round, \d+ bytes, and a message has at most 15904"),
    ):
        federation.serve(2)


def test_a_folder_with_a_state_of_another_experiment_is_no_obstacle(tmp_path) -> None:
    other = simulation(
        runtime=Network(layout(given=True), given={"first.weight": np.ones((4, 3), np.float32)})
    ).header()
    encoded = encode(other)
    with Home(tmp_path / "client-0") as home:
        home.keep_header(run_name(encoded).hex(), encoded)
    with net(simulation(), tmp_path) as federation:
        result = federation.serve(3)
        federation.machines[0].join()
        assert federation.machines[0].error is None
        assert federation.machines[0].digest == result.digest
