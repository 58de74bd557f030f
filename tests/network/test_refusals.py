"""What the server's half refuses, in which words, and that nothing it is sent can stop it."""

from __future__ import annotations

import contextlib
import os
import threading
import time
from datetime import UTC, datetime, timedelta

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from baffle import certificates
from baffle.certificates import Signer
from baffle.engines.network.dialogue import (
    PROTOCOL,
    Challenge,
    Fetch,
    Hello,
    Refused,
    Stranger,
    Turn,
    Wait,
    Welcome,
    sealed,
)
from baffle.engines.network.member import RefusedError
from baffle.engines.network.roster import Roster
from baffle.errors import BaffleError
from baffle.messages import Report, decode, encode
from federation import simulation
from networked import Question, hub_of, net, say

NOW = datetime.now(UTC)
CA = certificates.authority("test", 100, NOW - timedelta(days=30))
FOREIGN = certificates.authority("another", 100, NOW)


def pair(number: int, issuer=CA, *, days: int = 10, now: datetime = NOW):
    return certificates.signing(issuer, number, days, now)


def signer(of) -> Signer:
    return Signer.read(of.key)


def hello(hub, number: int, of, session: bytes = b"session1", *, sign=None, claimed: int | None = None):
    """Return the reply to a client that says hello, and says the challenge back."""
    sign = sign or signer(of).sign
    challenge = b""
    for _ in range(2):
        words = Hello(PROTOCOL, "test", of.certificate, challenge)
        reply = say(hub, sealed(number if claimed is None else claimed, session, words, sign))
        if not isinstance(reply, Challenge):
            return reply
        challenge = reply.challenge
    return reply


@pytest.fixture
def hub():
    with hub_of(simulation(), roster=Roster(3, CA.certificate), park=0.2) as made:
        yield made


def test_an_admitted_client_is_welcome_and_told_of_the_experiment(hub) -> None:
    reply = hello(hub, 1, pair(1))
    assert isinstance(reply, Welcome)
    assert reply.settings == {"name": "test"}
    assert reply.kind.classes == 3
    assert abs(reply.time - time.time()) < 5


@pytest.mark.parametrize(
    ("of", "number", "reason"),
    [
        (pair(1, FOREIGN), 1, "issued by another authority"),
        (pair(1, days=1, now=NOW - timedelta(days=5)), 1, "expired on"),
        (pair(1, days=10, now=NOW + timedelta(days=5)), 1, "is not valid before .*: is a clock wrong"),
        (pair(2), 1, "client 2 speaks as client 1"),
        (pair(7), 7, "client 7 where the run has clients 0 to 2"),
        (certificates.client(CA, 1, 10, NOW), 1, "not one under which a client signs reports"),
        (CA, 1, "not one under which a client signs reports"),
    ],
    ids=["foreign", "expired", "not yet valid", "another's", "no such number", "of a link", "the authority's"],
)
def test_a_client_that_is_not_admitted_is_told_why(hub, of, number, reason) -> None:
    sign = signer(pair(number)).sign
    if b"PRIVATE" in of.key and of not in (CA,):
        with contextlib.suppress(BaffleError):
            sign = signer(of).sign
    reply = hello(hub, number, of, sign=sign)
    assert isinstance(reply, Refused)
    import re

    assert re.search(reason, reply.reason), reply.reason


def test_numbers_that_are_not_admitted_are_refused_for_good() -> None:
    with hub_of(simulation(), roster=Roster(3, CA.certificate, frozenset({0, 2}))) as hub:
        reply = hello(hub, 1, pair(1))
        assert isinstance(reply, Refused)
        assert reply.final
        assert "client 1 is not among those admitted" in reply.reason
        assert isinstance(hello(hub, 2, pair(2)), Welcome)


def test_a_forged_signature_is_refused_and_counted(hub) -> None:
    hello(hub, 1, pair(1))
    words = Turn(1, b"", 0, 12, b"", 0)
    reply = say(hub, sealed(1, b"session1", words, signer(pair(2)).sign))
    assert isinstance(reply, Refused)
    assert "the signature is not client 1's of this message" in reply.reason
    row = hub.status()["clients"][0]
    assert row["refused"] == 1
    assert "signature" in row["last_refusal"]


def test_a_client_without_a_signature_is_refused(hub) -> None:
    reply = say(hub, sealed(1, b"session1", Hello(PROTOCOL, "", b"", b""), lambda _: b""))
    assert isinstance(reply, Refused)
    assert "certificate" in reply.reason


def test_an_old_hello_said_again_does_not_drive_a_client_out(hub) -> None:
    of = pair(1)
    old = [sealed(1, b"old-proc", Hello(PROTOCOL, "test", of.certificate, b""), signer(of).sign)]
    challenge = say(hub, old[0]).challenge
    old.append(sealed(1, b"old-proc", Hello(PROTOCOL, "test", of.certificate, challenge), signer(of).sign))
    assert isinstance(say(hub, old[1]), Welcome)
    assert isinstance(hello(hub, 1, of, b"new-proc"), Welcome)
    for message in (old[0], old[1], old[1]):
        assert isinstance(say(hub, message), Challenge)
    turn = sealed(1, b"new-proc", Turn(0, b"", 0, 12, b"", 0), signer(of).sign)
    assert not isinstance(say(hub, turn), (Refused, Stranger))


def test_a_second_process_of_a_client_takes_over_and_the_first_is_told(hub) -> None:
    of = pair(1)
    hello(hub, 1, of, b"first---")
    hello(hub, 1, of, b"second--")
    reply = say(hub, sealed(1, b"first---", Turn(5, b"", 0, 12, b"", 0), signer(of).sign))
    assert isinstance(reply, Refused)
    assert reply.final
    assert "another process has joined as client 1" in reply.reason


def test_a_process_that_the_server_does_not_know_is_asked_to_say_hello(hub) -> None:
    turn = sealed(1, b"session1", Turn(0, b"", 0, 12, b"", 0), signer(pair(1)).sign)
    assert isinstance(say(hub, turn), Stranger)


def test_a_large_message_is_not_kept_until_there_is_something_to_answer() -> None:
    """Its client is told to wait at once, and asks again with a small one."""
    of = pair(1)
    with hub_of(simulation(), roster=Roster(3, CA.certificate), park=60.0) as hub:
        hello(hub, 1, of)
        assert say(hub, sealed(1, b"session1", Turn(1, b"", 0, 12, bytes(70_000), 0), signer(of).sign)) == Wait()
        assert hub.roster.entries[1].parked is None
        hub.receive(Question(sealed(1, b"session1", Turn(2, b"", 0, 12, b"", 0), signer(of).sign)))
        assert isinstance(say(hub, sealed(1, b"session1", Fetch(b"", 0), signer(of).sign)), Refused)
        assert hub.roster.entries[1].parked is not None


def test_another_protocol_is_refused_for_good(hub) -> None:
    of = pair(1)
    reply = say(hub, sealed(1, b"session1", Hello(99, "", of.certificate, b""), signer(of).sign))
    assert isinstance(reply, Refused)
    assert reply.final
    assert f"protocol 99 where {PROTOCOL} is spoken" in reply.reason


def test_a_certificate_that_expires_in_a_run_ends_what_its_client_may_say(hub) -> None:
    of = pair(1)
    hello(hub, 1, of)
    entry = hub.roster.entries[1]
    import dataclasses

    entry.signatory = dataclasses.replace(entry.signatory, ends=NOW - timedelta(seconds=1))
    reply = say(hub, sealed(1, b"session1", Turn(0, b"", 0, 12, b"", 0), signer(of).sign))
    assert isinstance(reply, Refused)
    assert "expired" in reply.reason


def test_a_server_whose_own_certificate_has_ended_answers_nobody_and_says_so() -> None:
    """Links that were made before can be taken up again without the certificate being looked at."""
    ended = NOW - timedelta(minutes=1)
    with hub_of(simulation(), roster=Roster(3, CA.certificate), until=ended) as hub:
        reply = hello(hub, 1, pair(1))
        assert isinstance(reply, Refused)
        assert not reply.final
        assert f"the server's certificate expired on {ended:%Y-%m-%d %H:%M} UTC" in reply.reason


def goes_on(hub) -> None:
    """Another client joins, is known, and is told to wait for the run: what came before stopped nothing."""
    of, session = PAIR_OF_TWO, os.urandom(8)
    assert isinstance(hello(hub, 2, of, session), Welcome)
    assert isinstance(say(hub, sealed(2, session, Turn(0, b"", 0, 12, b"", 0), signer(of).sign)), Wait)
    assert hub.roster.ready() == [2]


@settings(max_examples=60, deadline=None)
@given(data=st.binary(max_size=300))
def test_noise_is_refused_and_stops_nothing(data) -> None:
    with hub_of(simulation(), roster=Roster(3, CA.certificate), park=0.01) as hub:
        assert isinstance(say(hub, data), Refused)
        assert hub.roster.strangers == 1
        goes_on(hub)


@settings(max_examples=100, deadline=None)
@given(place=st.integers(0, 10_000), value=st.integers(0, 255), kind=st.sampled_from(["hello", "turn", "fetch"]))
def test_messages_with_a_byte_changed_are_refused_or_understood_but_stop_nothing(place, value, kind) -> None:
    words = {
        "hello": Hello(PROTOCOL, "test", PAIR_OF_ONE.certificate, b""),
        "turn": Turn(3, b"12345678", 0, 12, b"report", 0),
        "fetch": Fetch(bytes(32), 0),
    }[kind]
    whole = sealed(1, b"session1", words, signer(PAIR_OF_ONE).sign)
    data = bytearray(whole)
    data[place % len(data)] = value
    understood = Challenge if kind == "hello" else Stranger
    with hub_of(simulation(), roster=Roster(3, CA.certificate), park=0.01) as hub:
        reply = say(hub, bytes(data))
        assert isinstance(reply, understood if bytes(data) == whole else (Refused, understood))
        assert hub.roster.ready() == []
        goes_on(hub)


PAIR_OF_ONE, PAIR_OF_TWO = pair(1), pair(2)


def keyed(federation, number: int, **changes):
    of = pair(number)
    return federation.start(number, certificate=of.certificate, sign=signer(of).sign, **changes)


def test_a_run_with_keys_is_the_local_engines(tmp_path) -> None:
    made = simulation()
    local = made.run(6, out=tmp_path / "local")
    with net(made, tmp_path, start=False, roster=Roster(3, CA.certificate)) as federation:
        for number in range(3):
            keyed(federation, number)
        assert federation.serve(6).ledger_digest == local.ledger_digest
        assert federation.entry(0)["certificate_days"] == 9


def test_a_client_that_is_refused_for_good_ends_with_the_reason(tmp_path) -> None:
    with net(simulation(), tmp_path, start=False, roster=Roster(3, CA.certificate, frozenset({0}))) as federation:
        machine = keyed(federation, 1)
        machine.join()
        assert isinstance(machine.error, RefusedError)
        assert "client 1 is not among those admitted" in str(machine.error)


def spoiling(federation, number: int, change):
    """Start a client whose reports are changed on their way, and signed all the same."""
    of = pair(number)

    def ask(data: bytes, seconds: float) -> bytes | None:
        line = federation.lines[number]
        from baffle.engines.network.dialogue import Signed, opened

        message = decode(data, Signed)
        words = opened(message)
        if isinstance(words, Turn) and words.report:
            words = msgspec.structs.replace(words, report=change(words.report))
            data = sealed(number, message.session, words, signer(of).sign)
        return line.ask(data, seconds)

    return federation.start(number, certificate=of.certificate, sign=signer(of).sign, ask=ask)


def other(report: bytes, **changes) -> bytes:
    return encode(msgspec.structs.replace(decode(report, Report), **changes))


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda report: other(report, client=0), "a report of client 0 from client 2"),
        (lambda _: b"\xff" * 40, "not a report"),
        (lambda report: other(report, samples=1 << 40), "samples where at most 12 are admitted"),
        (lambda report: other(report, slopes=b"\0"), "bytes of slopes where"),
        (lambda report: other(report, slopes=bytes(200_000)), "bytes of slopes where"),
        (lambda report: other(report, protocol=9), "protocol 9"),
    ],
    ids=["another's", "noise", "samples", "short", "long", "protocol"],
)
def test_a_report_that_does_not_fit_is_left_out_with_its_reason(change, reason, tmp_path) -> None:
    made = simulation()
    with net(made, tmp_path, start=False, roster=Roster(3, CA.certificate), deadline=0.4, settle=3.0) as federation:
        keyed(federation, 0)
        keyed(federation, 1)
        spoiling(federation, 2, change)
        result = federation.serve(3, linger=1.0)
        assert result.rounds == 3
        row = federation.entry(2)
        assert row["refused"] >= 3
        assert reason in row["last_refusal"]


def test_a_flood_of_old_reports_from_an_unknown_process_changes_nothing(tmp_path) -> None:
    """Signed well, but by a process that has not said hello; one that has is in test_hostile."""
    made = simulation()
    local = made.run(5, out=tmp_path / "local")
    kept: list[bytes] = []

    def stale(report: bytes) -> bytes:
        kept.append(report)
        return report

    with net(made, tmp_path, start=False, roster=Roster(3, CA.certificate)) as federation:
        keyed(federation, 0)
        keyed(federation, 1)
        machine = spoiling(federation, 2, stale)
        done = threading.Event()

        def flood() -> None:
            of = pair(2)
            serial = 1 << 30
            while not done.is_set():
                if kept:
                    serial += 1
                    words = Turn(serial, federation.hub._run.name, 0, 12, kept[0], 0)
                    question = Question(sealed(2, b"stranger", words, signer(of).sign))
                    federation.hub.receive(question)
                time.sleep(0.002)

        thread = threading.Thread(target=flood)
        thread.start()
        result = federation.serve(5)
        done.set()
        thread.join()
        machine.join()
    assert result.ledger_digest == local.ledger_digest
