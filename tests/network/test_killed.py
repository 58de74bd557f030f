"""A server and its clients killed at any moment, over mutual TLS: started again, they end where they would have."""

from __future__ import annotations

import random
import signal
import time

import pytest

pytest.importorskip("zenoh")

from baffle.ledger import MAGIC
from network_processes import until


def test_a_client_killed_while_it_computes_is_done_without_and_comes_back(net) -> None:
    net.settings = {"quorum": 0.5}
    server = net.server(40)
    others = [net.client(0, pause=0.03), net.client(1)]
    victim = net.client(2, pause=0.3)
    victim.says("computing", 4)
    victim.kill()
    server.says("client 2 is away: its link is down")
    server.says("client 2 gave no answer to round 3: its link is down")
    again = net.client(2)
    log = server.ends()
    net.check([*others, again], 40)
    assert "client 2 has joined again" in log
    assert [record.plan.round for record in net.records() if (2, "no answer") in record.left_out] == [3]
    assert 2 in net.records()[-1].answered
    assert net.row(2)["joined"] == 2


def held(net, rounds: int, **changes):
    """Start a server, and two clients of whom the first stops in the middle of round 3, which it holds open."""
    server = net.server(rounds, deadline=60.0)
    others = [net.client(0, pause=2.0, quick=3, once=True), net.client(1)]
    victim = net.client(2, **changes)
    others[0].says("computing")
    others[0].send(signal.SIGSTOP)
    return server, others, victim


def test_a_client_killed_while_it_computes_and_back_in_the_same_round_costs_nothing(net) -> None:
    """Its state and its private randomness are on its disk: it gives the very report that it would have given."""
    server, others, victim = held(net, 12, pause=60.0, quick=3)
    victim.says("computing")
    victim.kill()
    server.says("client 2 is away: its link is down")
    again = net.client(2, told=True)
    again.says("reporting on round 3")
    others[0].send(signal.SIGCONT)
    server.ends()
    net.check([*others, again], 12)
    assert server.value("ledger") == net.local(12).ledger_digest


def test_a_report_of_a_client_that_is_killed_after_it_counts(net) -> None:
    server, others, victim = held(net, 12)
    until(lambda: net.status().get("waiting_for") == [0] and net.status()["round"] == 3, "client 2's report")
    victim.kill()
    server.says("client 2 is away: its link is down")
    others[0].send(signal.SIGCONT)
    again = net.client(2)
    log = server.ends()
    net.check([*others, again], 12)
    assert "client 2 gave no answer to round 3" not in log
    assert 2 in net.records()[3].answered


def test_a_server_killed_at_ten_moments_ends_with_the_local_engines_ledger(net) -> None:
    """Some of the moments are before the first of its rounds, others some rounds later and somewhere in one."""
    rounds, chance = 300, random.Random(1)
    clients = net.all_clients()
    for _ in range(10):
        server = net.server(rounds)
        server.says("listening")
        net.until_round(net.rounds() + chance.choice((0, 0, 1, 5, 10, 20)))
        time.sleep(chance.uniform(0.0, 0.1))
        assert server.process.poll() is None, "the run is over too early for this test"
        server.kill()
    server = net.server(rounds)
    server.ends()
    net.check(clients, rounds)
    assert server.value("ledger") == net.local(rounds).ledger_digest


def test_a_client_that_was_away_at_the_end_hears_of_it_when_the_server_is_started_again(net) -> None:
    net.settings = {"quorum": 0.5}
    server = net.server(12, settle=0.3, linger=1.0)
    clients = [net.client(0, pause=0.1), net.client(1), net.client(2, told=True)]
    clients[2].says("reporting on round 2")
    clients[2].kill()
    server.ends()
    clients[2] = net.client(2)
    clients[2].says("the server is away")
    server = net.server(12)
    server.ends()
    net.check(clients, 12)


@pytest.mark.parametrize("left", [b"", MAGIC], ids=["nothing", "no header"])
def test_a_server_killed_before_its_ledger_has_a_header_begins_anew(left, net) -> None:
    net.out.mkdir()
    (net.out / "settings.toml").write_text("")
    (net.out / "ledger").write_bytes(left)
    server, clients = net.server(3), net.all_clients()
    server.ends()
    net.check(clients, 3)
    assert server.value("ledger") == net.local(3).ledger_digest


def test_a_server_and_a_client_killed_together_go_on(net) -> None:
    server, clients = net.server(40), net.all_clients()
    net.until_round(8)
    server.kill()
    clients[1].kill()
    clients[1] = net.client(1)
    server = net.server(40)
    server.ends()
    net.check(clients, 40)
    assert server.value("ledger") == net.local(40).ledger_digest
