"""Clients that are strangers, forgers, or drown the server, over real links: refused in words, and the rest goes on."""

from __future__ import annotations

import contextlib
import dataclasses
import itertools
import os
import signal
import time
from datetime import UTC, datetime, timedelta

import msgspec
import pytest

pytest.importorskip("zenoh")

from baffle.certificates.serving import digest_of
from baffle.client import answer
from baffle.engines.network import diagnose
from baffle.engines.network.dialogue import (
    ANY_SERVER,
    PROTOCOL,
    Call,
    Challenge,
    Hello,
    Refused,
    Turn,
    Welcome,
    heard,
    run_name,
    sealed,
)
from baffle.engines.network.keyring import ClientKeys
from baffle.engines.network.steps import asked
from baffle.engines.network.zenoh import KEY, ZenohClient
from baffle.header import Header
from baffle.messages import decode, encode
from baffle.serving import MOST_SAMPLES
from network_processes import NOW, Authority


@pytest.fixture(scope="module")
def foreign(tmp_path_factory):
    return Authority(tmp_path_factory.mktemp("foreign"), "another")


def served(net, rounds: int = 60):
    """Start a server that does not wait for client 2, who is the one that misbehaves."""
    net.settings = {"quorum": 0.5}
    server = net.server(rounds, least=2, settle=0.2, deadline=5.0, linger=3.0)
    server.says("listening")
    return server


def joined_by(net):
    """Start the clients that behave."""
    return [net.client(0, pause=0.02), net.client(1)]


def serving(net, rounds: int = 60):
    """Start a server and the clients that behave."""
    return served(net, rounds), joined_by(net)


def ends_well(net, server, clients, rounds: int = 60) -> str:
    log = server.ends()
    net.check(clients, rounds)
    assert "Traceback" not in log
    return log


def read(folder) -> ClientKeys:
    return ClientKeys.read(folder, datetime.now(UTC))


@contextlib.contextmanager
def line(net, keys):
    session = os.urandom(8)
    with ZenohClient(net.place, keys, session.hex()) as found:
        yield found, session


def test_a_client_of_another_authority_is_told_so_and_never_gets_in(net, foreign) -> None:
    server = served(net)
    stranger = net.cli("join", net.place, "--keys", foreign.client(2), "--state", net.folder / "x")
    stranger.says("was issued by another authority (test) than this client's, which is another")
    assert "joined" not in stranger.log
    log = ends_well(net, server, joined_by(net))
    assert "client 2" not in log
    assert stranger.process.poll() is None


def test_a_foreign_certificate_that_trusts_the_server_is_refused_by_it(net, authority, foreign) -> None:
    server = served(net)
    mixed = dataclasses.replace(read(foreign.client(2)), ca=authority.client(2) / "ca.pem")
    with line(net, mixed) as (found, _):
        assert found.ask(b"hello", 2.0) is None
        assert not found.connected
    assert "another authority than the server's" in diagnose.why(net.place, mixed, datetime.now(UTC))
    ends_well(net, server, joined_by(net))


def test_an_expired_certificate_is_refused_here_and_there(net, authority) -> None:
    server = served(net)
    old = authority.client(2, days=3, now=NOW - timedelta(days=5))
    log = net.cli("join", net.place, "--keys", old).ends(2)
    assert "client.pem, which expired on" in log
    keys = read(authority.client(2))
    forced = dataclasses.replace(keys, certificate=old / "client.pem", key=old / "client-key.pem")
    with line(net, forced) as (found, _):
        assert found.ask(b"hello", 2.0) is None
        assert not found.connected
    assert "refuses this client's certificate as not valid at this time" in diagnose.why(
        net.place, forced, datetime.now(UTC)
    )
    ends_well(net, server, joined_by(net))


def test_a_client_without_any_certificate_gets_no_word_in(net) -> None:
    server = served(net)
    stranger = net.cli("join", net.place, "--insecure", "--number", 2, "--state", net.folder / "x")
    stranger.says("speaks TLS, and this client has no keys")
    assert "joined" not in stranger.log
    ends_well(net, server, joined_by(net))


def here(net) -> bytes:
    """Return what signatures are bound to at the server."""
    return digest_of((net.authority.server() / "server.pem").read_bytes())


def admitted(net, found, session, keys):
    """Say hello, and the challenge back."""
    challenge = b""
    for _ in range(10):
        words = Hello(PROTOCOL, "rogue", keys.sign_certificate, challenge)
        server = here(net) if challenge else ANY_SERVER
        answer = found.ask(sealed(2, session, words, keys.signer.sign, server), 5.0)
        if answer is None:
            time.sleep(0.1)
            continue
        reply = heard(answer)
        if not isinstance(reply, Challenge):
            return reply
        challenge = reply.challenge
    raise AssertionError("the server does not answer")


def test_a_forger_is_refused_and_named(net, authority) -> None:
    """Client 2, with good certificates, speaks as client 0, and signs with another's key."""
    server, clients = serving(net, 120)
    server.says("client 0 has joined")
    keys = read(authority.client(2))
    with line(net, keys) as (found, session):
        assert isinstance(admitted(net, found, session, keys), Welcome)
        words = Turn(9, b"", 0, 12, b"", 0)
        for number, sign, reason in (
            (0, keys.signer.sign, "client 2 speaks as client 0"),
            (2, read(authority.client(1)).signer.sign, "the signature is not client 2's of this message"),
        ):
            reply = heard(found.ask(sealed(number, session, words, sign, here(net)), 5.0))
            assert isinstance(reply, Refused)
            assert reason in reply.reason
    log = ends_well(net, server, clients, 120)
    assert "a message that says it is of client 2 is refused (1 so far): client 2 speaks as client 0" in log
    assert net.row(0)["refused"] == 0
    assert net.row(2)["refused"] == 2
    assert "signature" in net.row(2)["last_refusal"]
    assert net.row(0)["answered"] == 120


def test_old_reports_said_again_count_once(net, authority) -> None:
    """Client 2 takes part in one round; it says its report again, word for word, signed anew, and of another round."""
    net.settings = {"quorum": 0.5}
    server = net.server(60, settle=0.2, deadline=30.0)
    clients = [net.client(0), net.client(1)]
    server.says("listening")
    made, keys = net.simulated(), read(authority.client(2))
    own, serials = made.clients()[2], itertools.count()
    with line(net, keys) as (found, session):
        assert isinstance(admitted(net, found, session, keys), Welcome)

        def turn(run: bytes, version: int, report: bytes) -> bytes:
            return sealed(2, session, Turn(next(serials), run, version, 12, report, 0), keys.signer.sign, here(net))

        begin = heard(found.ask(turn(b"", 0, b""), 60.0))
        header = decode(begin.header, Header)
        state, run = header.start(made.runtime.given), run_name(begin.header)
        call = heard(found.ask(turn(run, 0, b""), 60.0))
        assert isinstance(call, Call)
        report = answer(asked(header, state, call), state.parameters, own, made.runtime, made.kernels)
        future = encode(msgspec.structs.replace(report, round=7777))
        said = turn(run, 0, encode(report))
        for message in (said, said, turn(run, 0, encode(report)), turn(run, 0, encode(report)), turn(run, 0, future)):
            found.ask(message, 0.5)
    log = ends_well(net, server, clients)
    row = net.row(2)
    assert (row["answered"], row["duplicate"], row["late"]) == (1, 3, 1)
    assert "client 2: its report on round 7777 comes late" in log
    assert [record.plan.round for record in net.records() if 2 in record.answered] == [0]


def test_a_client_that_says_it_has_more_samples_than_there_can_be_ends_no_run(net, authority) -> None:
    """What clients say of their samples goes into the run's header, which can't be changed any more."""
    net.settings = {"quorum": 0.5}
    server = net.server(20, reproducible=False, settle=0.2, deadline=5.0, linger=1.0)
    clients = [net.client(0), net.client(1)]
    server.says("listening")
    keys = read(authority.client(2))
    with line(net, keys) as (found, session):
        assert isinstance(admitted(net, found, session, keys), Welcome)
        most = (1 << 63) - 1
        begin = heard(found.ask(sealed(2, session, Turn(0, b"", 0, most, b"", 0), keys.signer.sign, here(net)), 30.0))
        assert f"client 2 ({most} samples)" in server.says("the run begins with")
        header = decode(begin.header, Header)
        assert header.samples[:2] == (12, 12)
        assert header.samples[2] == header.federation.most_samples == MOST_SAMPLES
    ends_well(net, server, clients, 20)


def test_a_report_of_a_hundred_megabytes_does_not_reach_the_servers_memory(net, authority) -> None:
    import zenoh

    from baffle.engines.network.addresses import place
    from baffle.engines.network.links import client_settings, config_of

    server, clients = serving(net, 150)
    server.says("client 0 has joined")
    keys = read(authority.client(2))
    net.until_round(5)
    before = server.memory()
    settings = client_settings(place("address", net.place), keys, 1 << 20)
    settings["transport/link/rx/max_message_size"] = 1 << 30
    with contextlib.closing(zenoh.open(config_of(settings))) as session:
        for size in (100_000_000, 100_000_000, 2_000_000):
            with contextlib.suppress(zenoh.ZError):
                replies = session.get(KEY, zenoh.handlers.FifoChannel(4), payload=bytes(size), timeout=2.0)
                assert [reply for reply in replies if reply.ok is not None] == []
    assert server.memory() - before < 20_000_000
    ends_well(net, server, clients, 150)
    assert net.row(0)["answered"] == 150


def test_a_client_that_sleeps_is_done_without_and_comes_back(net) -> None:
    net.settings = {"quorum": 0.5}
    server = net.server(250, deadline=0.7)
    clients = [net.client(0, pause=0.02), net.client(1), net.client(2)]
    net.until_round(10)
    clients[2].send(signal.SIGSTOP)
    log = server.says("client 2 gave no answer to round")
    assert "its link is up: too slow, or stopped" in log
    clients[2].send(signal.SIGCONT)
    ends_well(net, server, clients, 250)
    lost = [record.plan.round for record in net.records() if (2, "no answer") in record.left_out]
    assert any(2 in record.answered for record in net.records() if record.plan.round > lost[0])
    assert net.row(2)["refused"] == 0
