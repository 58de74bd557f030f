"""Servers and clients in processes of their own, over mutual TLS, and a network that is not kind, or not quick."""

from __future__ import annotations

import pytest

pytest.importorskip("zenoh")


def test_a_run_over_processes_is_the_local_engines(net) -> None:
    server, clients = net.server(20), net.all_clients()
    log = server.ends()
    net.check(clients, 20)
    assert server.value("ledger") == net.local(20).ledger_digest
    assert "client 0 has joined" in log


@pytest.mark.parametrize("faults", [0.0, 0.1], ids=["kind", "lossy"])
def test_secure_sums_over_processes_are_the_local_engines(faults, net) -> None:
    net.settings = {"secure": "masks"}
    server = net.server(8, deadline=60.0, settle=600.0)
    changes = {"faults": {"seed": 1, "chance": faults}, "patience": 0.8} if faults else {}
    clients = net.all_clients(**changes)
    server.ends()
    net.check(clients, 8)
    assert server.value("ledger") == net.local(8).ledger_digest
    for client in clients:
        assert "secure sums of 3 clients, opened for 2 or more" in client.log
    net.settings = {}
    assert server.value("digest") == net.simulated().run(8).digest


def test_messages_lost_doubled_delayed_and_reordered_change_nothing(net) -> None:
    server = net.server(25)
    clients = [
        net.client(number, faults={"seed": number, "chance": 0.2}, patience=0.2) for number in range(net.clients)
    ]
    server.ends(seconds=50)
    net.check(clients, 25)
    assert server.value("ledger") == net.local(25).ledger_digest
    said = "".join(client.log for client in clients)
    for fault in ("question lost", "answer lost", "asked twice", "old question again", "delayed"):
        assert f"fault: {fault}" in said
    assert sum(net.row(number)["duplicate"] for number in range(3)) > 0
    assert [net.row(number)["answered"] for number in range(3)] == [25] * 3


@pytest.mark.parametrize(
    ("replay", "words"),
    [(1 << 20, "by replay: rounds 0 to 4"), (0, "fetching a snapshot of round 500")],
    ids=["replay", "snapshot"],
)
def test_clients_that_join_at_round_500_of_600_end_with_the_servers_model(replay, words, net) -> None:
    """The first 500 rounds are the local engine's, whose run the server goes on with: it ended with a snapshot."""
    net.clients, net.settings = 2, {"snapshot_every": 450}
    net.simulated().run(500, out=net.out)
    server, clients = net.server(600, replay=replay), net.all_clients()
    log = server.ends()
    net.check(clients, 600)
    assert server.value("ledger") == net.local(600).ledger_digest
    for client in clients:
        assert words in client.log
    assert ("gets the snapshot of 500" in log) == (replay == 0)
    assert [net.row(number)["answered"] for number in range(2)] == [100, 100]
