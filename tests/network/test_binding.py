"""Signatures are good at one server alone: what a client says to another can't be passed on in its name."""

from __future__ import annotations

import logging
from datetime import UTC, datetime, timedelta

import pytest

from baffle import certificates
from baffle.certificates import Signer
from baffle.certificates.serving import dialled, digest_of
from baffle.engines.network.channel import Channel, server_at
from baffle.engines.network.dialogue import (
    ANY_SERVER,
    PROTOCOL,
    Challenge,
    Hello,
    Refused,
    Turn,
    Welcome,
    sealed,
)
from baffle.engines.network.roster import Roster
from baffle.errors import ReportError, SettingsError
from baffle.messages import encode
from federation import simulation
from networked import hub_of, net, say

NOW = datetime.now(UTC)
CA = certificates.authority("test", 100, NOW - timedelta(days=30))
OURS = certificates.server(CA, ["fed.example.org", "192.0.2.7", "2001:db8::7"], 10, NOW).certificate
OTHERS = certificates.server(CA, ["other.example.org"], 10, NOW).certificate
OF = certificates.signing(CA, 1, 10, NOW)
SIGN = Signer.read(OF.key).sign
SESSION = b"session1"


@pytest.fixture
def hub():
    with hub_of(simulation(), roster=Roster(3, CA.certificate, certificate=OURS), park=0.2) as made:
        yield made


def hello(challenge: bytes, server: bytes) -> bytes:
    return sealed(1, SESSION, Hello(PROTOCOL, "test", OF.certificate, challenge), SIGN, server)


def challenged(hub) -> Challenge:
    reply = say(hub, hello(b"", ANY_SERVER))
    assert isinstance(reply, Challenge)
    return reply


def test_who_says_the_challenge_back_for_this_server_is_welcome(hub) -> None:
    reply = challenged(hub)
    assert reply.certificate == OURS
    assert isinstance(say(hub, hello(reply.challenge, digest_of(OURS))), Welcome)


@pytest.mark.parametrize("server", [ANY_SERVER, digest_of(OTHERS)], ids=["no server", "another server"])
def test_a_challenge_said_back_for_another_server_admits_nobody(hub, server) -> None:
    reply = say(hub, hello(challenged(hub).challenge, server))
    assert isinstance(reply, Refused)
    assert "the signature is not client 1's of this message" in reply.reason
    assert hub.roster.session_of(1) == b""


@pytest.mark.parametrize("server", [ANY_SERVER, digest_of(OTHERS)], ids=["no server", "another server"])
def test_a_turn_that_was_signed_for_another_server_is_refused(hub, server) -> None:
    say(hub, hello(challenged(hub).challenge, digest_of(OURS)))
    reply = say(hub, sealed(1, SESSION, Turn(1, b"", 0, 12, b"", 0), SIGN, server))
    assert isinstance(reply, Refused)
    assert "the signature is not client 1's of this message" in reply.reason


@pytest.mark.parametrize(
    ("shown", "words"),
    [(OURS, "shows the certificate of another: it may pass on what it is told"), (OTHERS, "")],
    ids=["the other's certificate", "its own"],
)
def test_a_server_that_passes_words_on_is_not_admitted_in_their_name(hub, shown, words, caplog) -> None:
    """A client dials other.example.org, which asks our server everything that it is asked."""

    def relayed(data: bytes, _: float) -> bytes:
        reply = say(hub, data)
        return encode(Challenge(reply.challenge, shown) if isinstance(reply, Challenge) else reply)

    server_of = server_at("other.example.org:7447", CA.certificate)
    channel = Channel(ask=relayed, number=1, sign=SIGN, server_of=server_of, patience=0.1, session=SESSION)
    challenge = b""
    with caplog.at_level(logging.WARNING):
        for _ in range(3):
            reply = channel.say(Hello(PROTOCOL, "test", OF.certificate, challenge))
            challenge = reply.challenge if isinstance(reply, Challenge) else challenge
            assert not isinstance(reply, Welcome)
    assert words in caplog.text
    assert hub.roster.session_of(1) == b""
    assert hub.status()["clients"][0]["joined"] == 0


def test_clients_that_dial_a_server_by_its_name_take_part(tmp_path) -> None:
    made = simulation()
    local = made.run(4, out=tmp_path / "local")
    roster = Roster(3, CA.certificate, certificate=OURS)
    with net(made, tmp_path, start=False, roster=roster) as federation:
        for number in range(3):
            of = certificates.signing(CA, number, 10, NOW)
            member = federation.start(
                number, certificate=of.certificate, sign=Signer.read(of.key).sign, server_of=server_of_ours
            )
        assert federation.serve(4).ledger_digest == local.ledger_digest
        member.join()


def server_of_ours(certificate: bytes) -> bytes:
    return dialled(certificate, CA.certificate, "FED.example.org", datetime.now(UTC))


def test_the_version_before_is_refused_in_words(hub) -> None:
    reply = say(hub, sealed(1, SESSION, Hello(1, "baffle 0.1.0", OF.certificate, b""), SIGN))
    assert isinstance(reply, Refused)
    assert reply.final
    assert reply.reason == "protocol 1 where 2 is spoken: install the server's version"


def test_a_certificate_that_a_client_shows_again_is_looked_at_once(hub, monkeypatch) -> None:
    seen = []
    real = certificates.Signatory.read
    monkeypatch.setattr(
        "baffle.engines.network.roster.Signatory.read", lambda *told: seen.append(told) or real(*told), raising=True
    )
    for _ in range(5):
        challenged(hub)
    assert len(seen) == 1
    assert isinstance(say(hub, sealed(1, SESSION, Hello(PROTOCOL, "", OF.certificate, b""), lambda _: b"")), Refused)
    other = certificates.signing(CA, 1, 10, NOW)
    words = Hello(PROTOCOL, "", other.certificate, b"")
    assert isinstance(say(hub, sealed(1, SESSION, words, SIGN)), Refused)
    assert isinstance(say(hub, sealed(1, SESSION, words, Signer.read(other.key).sign)), Challenge)
    assert len(seen) == 2


@pytest.mark.parametrize("host", ["fed.example.org", "Fed.Example.org.", "192.0.2.7", "2001:db8:0::7"])
def test_a_server_is_known_by_every_name_in_its_certificate(host) -> None:
    assert dialled(OURS, CA.certificate, host, NOW) == digest_of(OURS)
    assert len(digest_of(OURS)) == len(ANY_SERVER)


@pytest.mark.parametrize(
    ("shown", "host", "now", "words"),
    [
        (OURS, "example.org", NOW, "the server at example.org shows the certificate of another"),
        (OURS, "192.0.2.8", NOW, "the server at 192.0.2.8 shows the certificate of another"),
        (OURS, "fed.example.org", NOW + timedelta(days=11), "that the server shows expired on"),
        (OURS, "fed.example.org", NOW - timedelta(days=2), "that the server shows is not valid before"),
        (certificates.client(CA, 1, 10, NOW).certificate, "client-1", NOW, "is not a server's"),
        (CA.certificate, "fed.example.org", NOW, "is not a server's"),
        (OF.certificate, "client-1", NOW, "is not a server's"),
        (b"", "fed.example.org", NOW, "what the server shows as its certificate is not a certificate"),
        (
            certificates.server(certificates.authority("x", 10, NOW), ["a.example"], 5, NOW).certificate,
            "a.example",
            NOW,
            "was issued by another authority",
        ),
    ],
)
def test_what_is_not_the_certificate_of_the_server_that_was_dialled_is_refused(shown, host, now, words) -> None:
    with pytest.raises(ReportError, match=words):
        dialled(shown, CA.certificate, host, now)


def test_an_address_that_is_none_is_refused() -> None:
    with pytest.raises(SettingsError, match="must be HOST:PORT"):
        server_at("fed.example.org", CA.certificate)
