"""Questions and answers over real sockets: who is let in, what passes, and what the server survives."""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path
from queue import SimpleQueue
from typing import Any

import pytest

zenoh = pytest.importorskip("zenoh")

from baffle import certificates  # noqa: E402
from baffle.certificates import Pair  # noqa: E402
from baffle.engines.network.keyring import ClientKeys, ServerKeys  # noqa: E402
from baffle.engines.network.zenoh import (  # noqa: E402
    HERE,
    KEY,
    MOST_BYTES,
    OLD,
    Request,
    ZenohClient,
    ZenohServer,
)
from baffle.errors import MissingExtraError, SettingsError  # noqa: E402

NOW = datetime.now(UTC)
DAY = timedelta(days=1)

CLIENT = """
import sys
from datetime import UTC, datetime
from pathlib import Path
from baffle.engines.network.keyring import ClientKeys
from baffle.engines.network.zenoh import ZenohClient

with ZenohClient(sys.argv[1], ClientKeys.read(Path(sys.argv[2]), datetime.now(UTC)), sys.argv[3]) as client:
    client.ask(b"park", 60)
"""


def write(folder: Path, files: dict[str, bytes]) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for name, data in files.items():
        (folder / name).write_bytes(data)
        (folder / name).chmod(0o600)
    return folder


def server_folder(folder: Path, ca: Pair, then: datetime = NOW, days: int = 30) -> Path:
    made = certificates.server(ca, ["127.0.0.1"], days, then)
    return write(folder, {"ca.pem": ca.certificate, "server.pem": made.certificate, "server-key.pem": made.key})


def client_folder(folder: Path, ca: Pair, number: int, then: datetime = NOW, days: int = 30) -> Path:
    connects, signs = (make(ca, number, days, then) for make in (certificates.client, certificates.signing))
    files = {"ca.pem": ca.certificate, "client.pem": connects.certificate, "client-key.pem": connects.key}
    return write(folder, files | {"sign.pem": signs.certificate, "sign-key.pem": signs.key})


@pytest.fixture(scope="module")
def fed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root, ca = tmp_path_factory.mktemp("fed"), certificates.authority("Ours", 3650, NOW)
    server_folder(root / "server", ca)
    for number in range(3):
        client_folder(root / f"client-{number}", ca, number)
    return root


@pytest.fixture(scope="module")
def foreign(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A client of another authority of the same name, that believes in ours."""
    root, ca = tmp_path_factory.mktemp("foreign"), certificates.authority("Ours", 3650, NOW)
    return client_folder(root / "client-1", ca, 1)


LONG, SOON = 600.0, 60.0
"""Seconds: what ends within the second, even on a busy machine, did not wait for the first."""


def free() -> str:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return f"127.0.0.1:{probe.getsockname()[1]}"


class Hall:
    """A server of which a test sees all requests; those that say `park` are not answered, others with themselves."""

    def __init__(self, address: str, keys: ServerKeys | None) -> None:
        self.address = address
        self.parked: SimpleQueue[Request] = SimpleQueue()
        self.gone: SimpleQueue[str] = SimpleQueue()
        self.seen: list[int] = []
        self.numbers: list[int | None] = []
        """Of the clients by whose links requests came."""
        self.server = ZenohServer([address], keys, self.receive, lambda session, _: self.gone.put(session))

    def receive(self, request: Request, number: int | None) -> None:
        self.seen.append(len(request.payload))
        self.numbers.append(number)
        if request.payload == b"park":
            self.parked.put(request)
        else:
            threading.Thread(target=request.reply, args=(request.payload,)).start()


@pytest.fixture
def hall(fed: Path) -> Iterator[Hall]:
    made = Hall(free(), ServerKeys.read(fed / "server", NOW))
    with made.server:
        yield made


@contextlib.contextmanager
def joined(address: str, folder: Path | None, session: str = "") -> Iterator[ZenohClient]:
    keys = ClientKeys.read(folder, NOW) if folder else None
    with ZenohClient(address, keys, session or secrets.token_hex(8)) as client:
        yield client


def until(true: Callable[[], Any], seconds: float = 10.0) -> float:
    """Return after how many seconds `true()` was."""
    began = time.monotonic()
    while not true():
        assert time.monotonic() - began < seconds, "in vain"
        time.sleep(0.01)
    return time.monotonic() - began


@contextlib.contextmanager
def raw(address: str, folder: Path, mode: str = "client") -> Iterator[Any]:
    """A session of whoever has a valid certificate and does not keep to the protocol."""
    settings = {
        "mode": mode,
        "connect/endpoints": [f"tls/{address}"],
        "listen/endpoints": [],
        "scouting/multicast/enabled": False,
        "transport/link/tls/root_ca_certificate": str(folder / "ca.pem"),
        "transport/link/tls/connect_certificate": str(folder / "client.pem"),
        "transport/link/tls/connect_private_key": str(folder / "client-key.pem"),
        "transport/link/tls/enable_mtls": True,
    }
    config = zenoh.Config()
    for key, value in settings.items():
        config.insert_json5(key, json.dumps(value))
    session = zenoh.open(config)
    try:
        yield session
    finally:
        session.close()


@pytest.mark.parametrize("secure", [False, True])
def test_what_is_asked_comes_back_and_leaving_is_told(fed: Path, secure: bool) -> None:
    hall = Hall(free(), ServerKeys.read(fed / "server", NOW) if secure else None)
    with hall.server:
        with joined(hall.address, fed / "client-1" if secure else None, "0123456789abcdef") as client:
            for payload in (b"", b"x", bytes(MOST_BYTES)):
                assert client.ask(payload, 10.0) == payload
            assert client.connected
            with ThreadPoolExecutor(4) as pool:
                asked = [bytes([number]) * 200 for number in range(40)]
                assert list(pool.map(lambda payload: client.ask(payload, 10.0), asked)) == asked
            assert hall.gone.empty()
        assert hall.gone.get(timeout=5.0) == "0123456789abcdef"
        assert not client.connected
        assert client.ask(b"x", 5.0) is None


def test_a_question_is_one_message(hall: Hall, fed: Path) -> None:
    """How long it takes is measured in benchmarks/network.py."""
    sizes = [1 + number % 200 for number in range(500)]
    with joined(hall.address, fed / "client-1") as client:
        assert [len(client.ask(bytes(size), LONG) or b"") for size in sizes] == sizes
    assert hall.seen == sizes


def test_an_answer_may_come_later_once_and_after_the_asker_has_gone(hall: Hall, fed: Path) -> None:
    with ThreadPoolExecutor(1) as pool, joined(hall.address, fed / "client-1") as client:
        answer = pool.submit(client.ask, b"park", LONG)
        request = hall.parked.get(timeout=10.0)
        assert client.ask(b"x", 10.0) == b"x"
        assert not answer.done()
        request.reply(b"first")
        request.reply(b"second")
        assert answer.result(timeout=10.0) == b"first"

        assert client.ask(b"park", 0.3) is None
        hall.parked.get(timeout=10.0).reply(b"too late")
        answer = pool.submit(client.ask, b"park", LONG)
        request = hall.parked.get(timeout=10.0)
        client.close()
        assert answer.result(timeout=SOON) is None
    request.reply(b"to nobody")


def test_a_request_that_nobody_keeps_ends_without_an_answer(fed: Path) -> None:
    address = free()
    with (
        ZenohServer([address], ServerKeys.read(fed / "server", NOW), lambda *_: None, print),
        joined(address, fed / "client-1") as client,
        ThreadPoolExecutor(1) as pool,
    ):
        assert pool.submit(client.ask, b"x", LONG).result(timeout=SOON) is None
        assert client.connected


def test_a_client_waits_for_its_server_and_finds_it_again(fed: Path) -> None:
    address, keys = free(), ServerKeys.read(fed / "server", NOW)
    with joined(address, fed / "client-1") as client, ThreadPoolExecutor(1) as pool:
        assert pool.submit(client.ask, b"x", LONG).result(timeout=SOON) is None
        for _ in range(2):
            hall = Hall(address, keys)
            with hall.server:
                until(lambda: client.ask(b"x", 5.0) == b"x", SOON)
                answer = pool.submit(client.ask, b"park", LONG)
                request = hall.parked.get(timeout=10.0)
            assert answer.result(timeout=SOON) is None
            assert pool.submit(client.ask, b"x", LONG).result(timeout=SOON) is None
            assert not client.connected
            request.reply(b"after the end")


def test_frozen_and_killed_clients_harm_nobody(hall: Hall, fed: Path) -> None:
    with joined(hall.address, fed / "client-0") as other:
        for number, how in ((1, signal.SIGKILL), (2, signal.SIGSTOP)):
            session = str(number) * 16
            command = [sys.executable, "-c", CLIENT, hall.address, str(fed / f"client-{number}"), session]
            with subprocess.Popen(command) as process:
                try:
                    request = hall.parked.get(timeout=20.0)
                    process.send_signal(how)
                    if how == signal.SIGKILL:
                        assert hall.gone.get(timeout=SOON) == session
                    request.reply(bytes(MOST_BYTES))
                    assert other.ask(b"x", 5.0) == b"x"
                    assert hall.gone.empty()  # the reply did not wait until a frozen client's link was given up
                    if how == signal.SIGSTOP:
                        assert hall.gone.get(timeout=SOON) == session
                finally:
                    process.kill()
        assert other.ask(b"x", 5.0) == b"x"


def test_too_much_is_refused_here_and_dropped_there(hall: Hall, fed: Path, caplog: pytest.LogCaptureFixture) -> None:
    with joined(hall.address, fed / "client-1") as client, raw(hall.address, fed / "client-2") as rogue:
        with pytest.raises(ValueError, match="at most"):
            client.ask(bytes(MOST_BYTES + 1), 5.0)
        for size in (MOST_BYTES + 1, 2 * MOST_BYTES, 100 * MOST_BYTES):
            assert not [reply for reply in rogue.get(KEY, payload=bytes(size), timeout=2.0) if reply.ok]
        assert client.ask(b"x", 5.0) == b"x"
        assert max(hall.seen) == 1

        with ThreadPoolExecutor(1) as pool:
            answer = pool.submit(client.ask, b"park", 10.0)
            hall.parked.get(timeout=10.0).reply(bytes(MOST_BYTES + 1))
            assert answer.result(timeout=10.0) is None
        assert "is dropped" in caplog.text
        assert client.ask(b"x", 5.0) == b"x"


def test_garbage_at_the_port_stops_nobody(hall: Hall, fed: Path) -> None:
    host, port = hall.address.split(":")
    with joined(hall.address, fed / "client-1") as client, contextlib.ExitStack() as held:
        until(lambda: client.connected)
        for garbage in (b"GET / HTTP/1.0\r\n\r\n", os.urandom(100_000), b"\x16\x03\x01\xff\xff" + bytes(70_000), b""):
            for _ in range(3):
                link = held.enter_context(socket.create_connection((host, int(port)), 5.0))
                with contextlib.suppress(OSError):
                    link.sendall(garbage)
        assert client.ask(b"x", 5.0) == b"x"
        with joined(hall.address, fed / "client-2") as newcomer:
            assert newcomer.ask(b"x", 10.0) == b"x"


def asks(session: Any) -> None:
    """Ask what anybody may."""
    elsewhere = zenoh.Locality.REMOTE
    replies = session.get(KEY, payload=b"zz", timeout=SOON, allowed_destination=elsewhere)
    assert [bytes(reply.ok.payload) for reply in replies if reply.ok] == [b"zz"]


@pytest.mark.parametrize("mode", ["client", "peer", "router"])
def test_a_valid_certificate_gives_no_right_but_to_ask(hall: Hall, fed: Path, mode: str) -> None:
    session, taken = "1" * 16, []
    asked = [KEY, OLD, f"{KEY}/2"]
    places = [*asked, f"{KEY}/1", f"{KEY}/x", f"{HERE}/1/{session}", f"{HERE}/{session}", "other/key"]
    everything = ["**", "baffle/**", f"{KEY}/*", f"{KEY}/**", f"{KEY}/$*2", f"{HERE}/*", f"{HERE}/**", *places]
    with (
        joined(hall.address, fed / "client-1", session) as honest,
        raw(hall.address, fed / "client-0", mode) as thief,
        raw(hall.address, fed / "client-2", mode) as forger,
    ):
        assert honest.ask(b"x", 5.0) == b"x"
        held: list[Any] = []
        for key in everything:
            held += [
                thief.declare_subscriber(key, lambda sample: taken.append(("heard", str(sample.key_expr)))),
                thief.declare_queryable(key, lambda query: taken.append(("asked", str(query.key_expr))), complete=True),
                thief.liveliness().declare_subscriber(
                    key, lambda sample: taken.append(("saw", str(sample.key_expr))), history=True
                ),
            ]
        # What a session says comes in order: where its question is answered, what it declared before has come.
        asks(thief)
        hall.numbers.clear()

        assert [honest.ask(b"x", 5.0) for _ in range(5)] == [b"x"] * 5
        for key in places:
            forger.put(key, b"forged")
            forger.delete(key)
        for key in everything:
            replies = forger.get(key, payload=b"z", timeout=0.5, target=zenoh.QueryTarget.ALL)
            answers = [bytes(reply.ok.payload) for reply in replies if reply.ok]
            assert answers == ([b"z"] if key in asked else [])
            assert not [reply for reply in forger.liveliness().get(key, timeout=0.5) if reply.ok]
        for key in (f"{HERE}/1/{session}", f"{HERE}/{session}", f"{HERE}/2/x", "other/key"):
            forger.liveliness().declare_token(key).undeclare()
        asks(forger)
        asks(thief)

        assert taken == []
        assert hall.numbers == [1] * 5 + [None, None, 2] + [None] * 2
        assert hall.gone.empty()
        assert [str(zid) for zid in forger.info.routers_zid()] == [str(hall.server._session.zid())]
        assert forger.info.peers_zid() == []


def test_a_client_that_has_no_door_of_its_own_is_heard_at_the_one_for_anybody(fed: Path) -> None:
    address, heard = free(), []

    def receive(request: Request, number: int | None) -> None:
        heard.append(number)
        request.reply(b"who are you?")

    keys = ServerKeys.read(fed / "server", NOW)
    with ZenohServer([address], keys, receive, print, clients=2), joined(address, fed / "client-2") as client:
        assert client.ask(b"x", 5.0) == b"who are you?"
        with joined(address, fed / "client-1") as other:
            assert other.ask(b"x", 5.0) == b"who are you?"
    assert heard == [None, 1]


def test_only_clients_of_its_own_authority_are_let_in(hall: Hall, fed: Path, foreign: Path, tmp_path: Path) -> None:
    believer = write(tmp_path / "believer", {path.name: path.read_bytes() for path in foreign.iterdir()})
    (believer / "ca.pem").write_bytes((fed / "client-1" / "ca.pem").read_bytes())
    for folder in (foreign, believer):
        with pytest.raises(zenoh.ZError):
            raw(hall.address, folder).__enter__()
    for folder in (foreign, None):
        with joined(hall.address, folder) as stranger:
            assert stranger.ask(b"x", 5.0) is None
            assert not stranger.connected
    assert hall.seen == []


def test_an_expired_certificate_lets_nobody_in(tmp_path: Path) -> None:
    old = certificates.authority("Ours", 3650, NOW - 40 * DAY)
    folder = client_folder(tmp_path / "old", old, 1, NOW - 40 * DAY, 20)
    keys = ServerKeys.read(server_folder(tmp_path / "server", old), NOW)
    address = free()
    with ZenohServer([address], keys, print, print), pytest.raises(zenoh.ZError):
        raw(address, folder).__enter__()


def test_where_it_can_not_listen_is_said(hall: Hall, fed: Path) -> None:
    keys = ServerKeys.read(fed / "server", NOW)
    for listen, secured, words in (
        ([], keys, "one address"),
        (["127.0.0.1"], keys, "HOST:PORT"),
        (["::1:7447"], keys, "HOST:PORT"),
        (["127.0.0.1:x"], keys, "HOST:PORT"),
        (["127.0.0.1:7447?a=b"], keys, "HOST:PORT"),
        (["127.0.0.1#iface=x:7447"], keys, "HOST:PORT"),
        (["127.0.0.1:0"], keys, "port"),
        (["127.0.0.1:65536"], keys, "port"),
        ([hall.address], keys, "in use"),
        (["192.0.2.7:7447"], keys, "not an address of this machine"),
        (["host.invalid:7447"], keys, "not found"),
        (["0.0.0.0:7447"], None, "needs keys"),
        ([free(), "[::]:7447"], None, "needs keys"),
        (["localhost:7447"], None, "needs keys"),
    ):
        with pytest.raises(SettingsError, match=words) as caught:
            ZenohServer(listen, secured, print, print)
        assert caught.value.field == "listen"


def test_what_is_no_client_is_said() -> None:
    with pytest.raises(SettingsError, match="HOST:PORT"):
        ZenohClient("tls/127.0.0.1:7447", None, "0" * 16)
    with pytest.raises(SettingsError, match="hexadecimal"):
        ZenohClient("127.0.0.1:7447", None, "*")
    with pytest.raises(SettingsError, match="most_bytes"):
        ZenohClient("127.0.0.1:7447", None, "0" * 16, most_bytes=MOST_BYTES + 1)


def test_without_zenoh_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "zenoh", None)
    with pytest.raises(MissingExtraError, match=r"baffle\[network\]"):
        ZenohServer(["127.0.0.1:7447"], None, print, print)
    with pytest.raises(MissingExtraError, match=r"baffle\[network\]"):
        ZenohClient("127.0.0.1:7447", None, "0" * 16)


def test_an_interrupt_ends_a_question(hall: Hall, fed: Path) -> None:
    code = CLIENT.replace('b"park", 60)', 'b"park", 60)\nprint("not interrupted")')
    command = [sys.executable, "-c", code, hall.address, str(fed / "client-1"), "3" * 16]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        try:
            hall.parked.get(timeout=20.0)
            process.send_signal(signal.SIGINT)
            out, err = process.communicate(timeout=5.0)
            assert b"KeyboardInterrupt" in err
            assert out == b""
        finally:
            process.kill()
    with joined(hall.address, fed / "client-2", "4" * 16) as other:
        assert other.ask(b"x", SOON) == b"x"
    assert [hall.gone.get(timeout=SOON) for _ in range(2)] == ["3" * 16, "4" * 16]
