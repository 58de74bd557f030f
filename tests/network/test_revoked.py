"""Clients whose certificates are revoked: refused and dropped while the server goes on, by its authority alone."""

from __future__ import annotations

import logging
import threading
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace

import pytest

from baffle import certificates
from baffle.certificates import Signatory, Signer
from baffle.cli import main
from baffle.engines.network.convener import Stage
from baffle.engines.network.dialogue import (
    ANY_SERVER,
    PROTOCOL,
    Challenge,
    Hello,
    Refused,
    Signed,
    Stranger,
    Turn,
    Welcome,
    heard,
    sealed,
    signed,
)
from baffle.engines.network.member import RefusedError
from baffle.engines.network.revoked import Revoked
from baffle.engines.network.roster import FinalRefusalError, Roster
from baffle.engines.network.served import Opening
from baffle.errors import ReportError, SettingsError
from baffle.messages import Round, encode
from federation import rounds_in, simulation
from network_processes import until
from networked import hub_of
from networked import net as threads

NOW = datetime.now(UTC)
CA = certificates.authority("test", 100, NOW - timedelta(days=30))
FOREIGN = certificates.authority("test", 100, NOW)
PAIRS = [certificates.signing(CA, number, 60, NOW) for number in range(5)]
RENEWED = certificates.signing(CA, 1, 60, NOW)


def serial(pair) -> int:
    return certificates.serial_number(pair.certificate)


def listed(*pairs, number: int = 1, issuer=CA) -> bytes:
    return certificates.revoked(issuer, dict.fromkeys(map(serial, pairs), NOW), number, NOW)


def put(path: Path, data: bytes) -> None:
    """Replace a file as `scp` does at best: the new one has another time."""
    path.with_suffix(".part").write_bytes(data)
    path.with_suffix(".part").replace(path)


def signatory(pair) -> Signatory:
    return Signatory.read(pair.certificate, CA.certificate, NOW)


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def path(tmp_path) -> Path:
    return tmp_path / "revoked.pem"


# The file.


def test_a_list_that_is_put_there_is_in_force_within_a_second(path, caplog) -> None:
    clock, one = Clock(), signatory(PAIRS[1])
    caplog.set_level(logging.INFO)
    revoked = Revoked.read(path, CA.certificate, clock)
    assert not revoked(one)
    put(path, listed(PAIRS[1]))
    clock.now += 0.5
    assert not revoked(one), "the file is looked at once a second"
    clock.now += 0.6
    assert revoked(one)
    assert not revoked(signatory(RENEWED))
    assert "revoked: 1 certificates, by list 1 of" in caplog.text
    put(path, listed(PAIRS[1], PAIRS[2], number=2))
    clock.now += 1.1
    assert revoked(signatory(PAIRS[2]))


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"", "is not a list of revoked certificates"),
        (listed(PAIRS[0], number=3)[:200], "is not a list of revoked certificates"),
        (PAIRS[0].certificate, "is not a list of revoked certificates"),
        (bytes((1 << 20) + 1), "is larger than"),
        (listed(PAIRS[0], number=3, issuer=FOREIGN), "was not signed by this authority"),
        (listed(PAIRS[0], number=1), "has number 1, which is older than 2"),
        (listed(PAIRS[0], number=2), "has number 2 again, with other certificates"),
    ],
    ids=["empty", "cut off", "a certificate", "large", "foreign", "older", "changed"],
)
def test_a_list_that_can_not_be_used_is_refused_and_the_old_one_stays(data, words, path, caplog) -> None:
    clock = Clock()
    path.write_bytes(listed(PAIRS[1], number=2))
    revoked = Revoked.read(path, CA.certificate, clock)
    put(path, data)
    for _ in range(3):
        clock.now += 1.1
        assert revoked(signatory(PAIRS[1]))
        assert not revoked(signatory(PAIRS[0]))
    assert caplog.text.count(words) == 1
    assert caplog.text.count("the list that was read before stays in force") == 1


def test_a_list_with_one_bit_changed_was_not_signed(path) -> None:
    from cryptography import x509
    from cryptography.hazmat.primitives.serialization import Encoding

    data = bytearray(x509.load_pem_x509_crl(listed(PAIRS[1])).public_bytes(Encoding.DER))
    place = data.index(serial(PAIRS[1]).to_bytes(20, "big").lstrip(b"\0"))
    data[place + 3] ^= 1
    path.write_bytes(x509.load_der_x509_crl(bytes(data)).public_bytes(Encoding.PEM))
    with pytest.raises(SettingsError, match="was not signed by this authority"):
        Revoked.read(path, CA.certificate)


def test_a_list_that_is_taken_away_stays_in_force(path, caplog) -> None:
    clock = Clock()
    path.write_bytes(listed(PAIRS[1]))
    revoked = Revoked.read(path, CA.certificate, clock)
    path.unlink()
    clock.now += 1.1
    assert revoked(signatory(PAIRS[1]))
    assert "is gone; the list that was read before stays in force" in caplog.text


@pytest.mark.parametrize("issuer", [CA, FOREIGN], ids=["broken", "foreign"])
def test_a_server_does_not_start_with_a_list_that_can_not_be_used(issuer, path) -> None:
    path.write_bytes(listed(PAIRS[1], issuer=issuer)[: None if issuer is FOREIGN else 300])
    with pytest.raises(SettingsError, match=r"revoked.pem.*(is not a list|was not signed)"):
        Revoked.read(path, CA.certificate)


# What a client hears.


class Question:
    def __init__(self, payload: bytes) -> None:
        self.payload, self.answer, self.arrived = payload, b"", threading.Event()

    def reply(self, payload: bytes) -> None:
        self.answer = payload
        self.arrived.set()


def say(hub, payload: bytes):
    question = Question(payload)
    hub.receive(question)
    assert question.arrived.wait(5.0), "no reply"
    return heard(question.answer)


def hello(hub, number: int, pair, session: bytes = b"session1"):
    sign, challenge = Signer.read(pair.key).sign, b""
    for _ in range(2):
        reply = say(hub, sealed(number, session, Hello(PROTOCOL, "test", pair.certificate, challenge), sign))
        if not isinstance(reply, Challenge):
            return reply
        challenge = reply.challenge
    return reply


def turn(hub, number: int, pair, session: bytes = b"session1", serial: int = 5):
    return say(hub, sealed(number, session, Turn(serial, b"", 0, 12, b"", 0), Signer.read(pair.key).sign))


def final(reply, number: int) -> None:
    assert isinstance(reply, Refused)
    assert reply.final
    assert reply.reason == f"the certificate of client {number} is revoked"


class Barred(set):
    """Serial numbers that are revoked from now on."""

    def __call__(self, one: Signatory) -> bool:
        return one.serial in self


def test_a_revoked_client_is_refused_for_good_and_seen_in_the_status() -> None:
    barred = Barred({serial(PAIRS[1])})
    with hub_of(simulation(), roster=Roster(3, CA.certificate, revoked=barred)) as hub:
        final(hello(hub, 1, PAIRS[1]), 1)
        assert isinstance(hello(hub, 2, PAIRS[2]), Welcome)
        row = hub.status()["clients"][0]
        assert (row["state"], row["last_refusal"]) == ("revoked", "the certificate of client 1 is revoked")
        assert isinstance(hello(hub, 1, RENEWED, b"session2"), Welcome), "a new certificate is another"
        assert hub.status()["clients"][0]["state"] != "revoked"
        final(hello(hub, 1, PAIRS[1]), 1)
        assert hub.status()["clients"][0]["state"] != "revoked", "a thief does not drive the client out"


def test_a_client_that_is_admitted_is_dropped_whether_it_speaks_or_waits() -> None:
    barred = Barred()
    with hub_of(simulation(), roster=Roster(3, CA.certificate, revoked=barred), park=60.0) as hub:
        for number in (0, 1):
            assert isinstance(hello(hub, number, PAIRS[number]), Welcome)
        waiting = Question(sealed(0, b"session1", Turn(5, b"", 0, 12, b"", 0), Signer.read(PAIRS[0].key).sign))
        hub.receive(waiting)
        until(lambda: hub.roster.entries[0].parked, "the client waits")
        barred |= {serial(PAIRS[0]), serial(PAIRS[1])}
        final(turn(hub, 1, PAIRS[1]), 1)
        assert waiting.arrived.wait(5.0), "a client that waits is not told"
        final(heard(waiting.answer), 0)
        assert isinstance(turn(hub, 0, PAIRS[0], serial=6), Stranger)
        final(hello(hub, 0, PAIRS[0]), 0)
        assert [row["state"] for row in hub.status()["clients"]] == ["revoked", "revoked"]
        assert hub.roster.there() == []


def test_no_word_of_a_revoked_client_is_taken_before_it_is_dropped() -> None:
    barred = Barred()
    roster, sign = Roster(3, CA.certificate, revoked=barred), Signer.read(PAIRS[1].key).sign
    body = encode(Turn(5, b"", 0, 12, b"", 0))
    message = Signed(1, b"session1", sign(signed(ANY_SERVER, b"session1", body)), body)
    first = Hello(PROTOCOL, "test", PAIRS[1].certificate, b"")
    for _ in range(2):
        said = Signed(1, b"session1", sign(signed(ANY_SERVER, b"session1", encode(first))), encode(first))
        entry, challenge = roster.hello(said, first, NOW)
        first = Hello(PROTOCOL, "test", PAIRS[1].certificate, challenge)
    assert roster.known(message, NOW) is entry
    barred.add(serial(PAIRS[1]))
    with pytest.raises(FinalRefusalError, match="the certificate of client 1 is revoked"):
        roster.known(message, NOW)


def test_the_report_of_a_dropped_client_in_an_open_round_does_not_count() -> None:
    plan = SimpleNamespace(cohort=(0, 1, 2))
    opening = Opening(plan, b"", b"", {0: b"report", 1: b"report"})
    opening.drop(1)
    assert opening.reports == {0: b"report"}
    assert opening.missing() == [1, 2]


# A run.


def keyed(federation, number: int, **changes):
    pair = PAIRS[number]
    return federation.start(number, certificate=pair.certificate, sign=Signer.read(pair.key).sign, **changes)


def records(folder) -> list[Round]:
    return rounds_in(folder / "run")


def test_a_client_revoked_in_a_run_is_dropped_and_the_others_go_on(tmp_path, path) -> None:
    made, revoked = simulation(), Revoked.read(path, CA.certificate)
    roster = Roster(3, CA.certificate, revoked=revoked)
    with threads(made, tmp_path, start=False, roster=roster, settle=0.5) as federation:
        for number in range(3):
            keyed(federation, number)

        def revoke() -> None:
            put(path, listed(PAIRS[1]))
            federation.machines[1].join()

        result = federation.serve(12, least=3, progress=federation.meanwhile(4, 8, revoke))
        assert result.rounds == 12
        error = federation.machines[1].error
        assert isinstance(error, RefusedError)
        assert "the server refuses client 1: the certificate of client 1 is revoked" in str(error)
        assert federation.entry(1)["state"] == "revoked"
        for number in (0, 2):
            federation.machines[number].join()
            assert federation.machines[number].digest == result.digest
    last = records(tmp_path)[-1]
    assert last.plan.cohort == (0, 2)


def test_a_client_revoked_in_a_run_of_secure_sums_is_in_no_later_epoch(tmp_path, path) -> None:
    from baffle.engines.network.masker import Masker

    made, revoked = simulation(sizes=(12,) * 5, secure="masks"), Revoked.read(path, CA.certificate)
    roster = Roster(5, CA.certificate, revoked=revoked)
    with threads(made, tmp_path, start=False, roster=roster, settle=0.5, deadline=5.0) as federation:
        for number, pair in enumerate(PAIRS):
            signer = Signer.read(pair.key)
            own = Masker(number=number, signer=signer, certificate=pair.certificate, authority=CA.certificate)
            keyed(federation, number, masker=own)
        held: list[tuple[int, ...]] = []

        def revoke() -> None:
            held.extend(one.roster.members for one in federation.hub._convener.epochs)
            put(path, listed(PAIRS[1]))
            federation.machines[1].join()

        result = federation.serve(10, least=5, progress=federation.meanwhile(3, 6, revoke))
        assert result.rounds == 10
        assert "the certificate of client 1 is revoked" in str(federation.machines[1].error)
        assert held == [(0, 1, 2, 3, 4)]
        assert [one.roster.members for one in federation.hub._convener.epochs] == [(0, 2, 3, 4)]
    assert records(tmp_path)[-1].plan.cohort == (0, 2, 3, 4)


@pytest.mark.parametrize("stage", list(Stage)[:5], ids=lambda stage: stage.name.lower())
def test_what_a_dropped_client_has_said_is_forgotten_until_others_are_asked_to_open(stage) -> None:
    from baffle.engines.network.convener import Epoch, Gathering
    from baffle.secure import Slot, Terms

    terms = Terms(bytes(8), 1, 0, 2, 2)
    plan = SimpleNamespace(round=0, attempt=0)
    epoch = Epoch(terms, (0, 1, 2), {0: "a", 1: "b", 2: "c"}, None, {Slot(0, 0): {0: "a", 1: "b", 2: "c"}})
    gathering = Gathering(plan, epoch, b"", (0, 1, 2), bytes(32), set(), stage)
    from baffle.secure import Aggregation

    said = tuple(SimpleNamespace(number=number) for number in range(3))
    gathering.aggregation = Aggregation(None, Slot(0, 0), None, 1, bytes(32), said, said)
    gathering.drop(1)
    assert gathering.asked == (0, 2)
    assert set(epoch.enrolments) == ({0, 2} if stage == Stage.ENROL else {0, 1, 2})
    assert set(epoch.pledges[Slot(0, 0)]) == ({0, 2} if stage == Stage.PLEDGE else {0, 1, 2})
    assert [one.number for one in gathering.aggregation.reports] == ([0, 2] if stage == Stage.REPORT else [0, 1, 2])


def test_a_client_with_a_list_takes_part_in_no_epoch_with_a_revoked_member() -> None:
    from baffle.engines.network.covert import Enrol, Meet
    from baffle.engines.network.masker import Masker
    from baffle.secure import Slot, Terms

    bad = serial(PAIRS[2])

    def masker(number: int, **changes) -> Masker:
        pair = PAIRS[number]
        own = {"signer": Signer.read(pair.key), "certificate": pair.certificate, "authority": CA.certificate}
        return Masker(number=number, **own, **changes)

    knows = masker(0, revoked=lambda certificate: certificates.serial_number(certificate) == bad)
    members = [knows, masker(1), masker(2)]
    for member in members:
        member.enter(bytes(8))
    asked = Enrol(Terms(bytes(8), 1, 0, 2, 2))
    enrolments = tuple(one.enrol(asked).enrolment for one in members)
    assert members[1].meet(Meet(enrolments, Slot(0, 0))).pledge is not None
    with pytest.raises(ReportError, match="client 2 is in the epoch, and its certificate is revoked"):
        knows.meet(Meet(enrolments, Slot(0, 0)))
    assert knows.epoch == b""


# Processes.


def keys(*arguments: object) -> None:
    """Run `baffle keys` in this process."""
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    try:
        assert main(["keys", *map(str, arguments)]) == 0
    finally:
        root.handlers[:] = handlers
        root.setLevel(level)


def test_encrypted_keys_and_a_revocation_from_the_command_line_without_a_restart(net, exported, monkeypatch) -> None:
    """An authority, a server and clients whose keys are all encrypted; one client is revoked while the run goes on."""
    pytest.importorskip("zenoh")
    import numpy as np

    rng = np.random.default_rng(0)
    inputs = rng.normal(size=(60, 1, 4, 4)).astype(np.float32)
    np.savez(net.folder / "all.npz", x=inputs, y=inputs.reshape(60, 16)[:, :10].argmax(1), classes=10)
    model = exported("mlp").folder
    for name in ("ca", "own"):
        (net.folder / f"pass-{name}").write_text(f"correct horse battery {name}\nsecond line\n")
        (net.folder / f"pass-{name}").chmod(0o600)
    new = ("--passphrase-file", "pass-own", "--ca-passphrase-file", "pass-ca")
    monkeypatch.chdir(net.folder)
    keys("ca", "--out", "authority", "--passphrase-file", "pass-ca")
    keys("server", "--ca", "authority", "--out", "s", "--address", "127.0.0.1", *new)
    for n in range(2):
        keys("client", "--ca", "authority", "--out", f"c{n}", "--number", n, *new)
    for key in [*net.folder.glob("*/*-key.pem")]:
        assert b"BEGIN ENCRYPTED PRIVATE KEY" in key.read_bytes()
    before = {path: path.read_bytes() for path in net.folder.glob("*/*.pem")}

    server = net.cli(
        *("serve", "--listen", net.place, "--keys", "s", "--passphrase-file", "pass-own", "--out", net.out),
        *("--dataset", "all.npz", "--model", model, "--clients", 2, "--rounds", 100_000, "--quorum", 0.5),
        *("--forwards", 60, "--batch", 4, "--no-report"),
    )
    clients = []
    for n in range(2):
        own = ("--state", f"state-{n}", "--data", "all.npz", "--model", model)
        secret = ("--passphrase-file", "pass-own")
        clients.append(net.cli("join", net.place, "--keys", f"c{n}", *own, *secret))
    net.until_round(3)
    assert "ca-key.pem is the authority's key, on the machine where the server runs" in server.log
    keys("revoke", "--ca", "authority", "--number", 1, "--out", "s", "--ca-passphrase-file", "pass-ca")
    log = clients[1].ends(2)
    assert "the server refuses client 1: the certificate of client 1 is revoked" in log
    server.says("client 1 is dropped: its certificate is revoked")
    until(lambda: net.row(1).get("state") == "revoked", "the status")
    net.until_round(net.rounds() + 3)
    again = net.cli("join", net.place, "--keys", "c1", "--state", "state-1", "--data", "all.npz", "--model", model)
    assert "passphrase-file = None: is needed, c1/client-key.pem is encrypted: name a file with" in again.ends(2)
    changed = {path for path, data in before.items() if path.read_bytes() != data}
    assert not changed
    decrypted = [path for path in net.folder.rglob("*") if path.is_file() and b"BEGIN PRIVATE KEY" in path.read_bytes()]
    assert decrypted == []
    assert "revoked" in net.cli("status", net.out).ends()
    clients[0].send(15)
    clients[0].ends()
    server.send(15)
    assert "Traceback" not in server.ends()
