"""Why a client and its server do not meet is said in words; keys that can't work are refused before they are tried."""

from __future__ import annotations

import contextlib
import dataclasses
import socket
import threading
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

pytest.importorskip("zenoh")

from baffle import certificates
from baffle.certificates import Pair, fingerprint
from baffle.engines.network.diagnose import idle, why
from baffle.engines.network.keyring import ClientKeys, ServerKeys
from baffle.engines.network.zenoh import ZenohServer
from baffle.errors import SettingsError

NOW = datetime.now(UTC)
DAY = timedelta(days=1)
THEN = NOW - 40 * DAY
OURS = certificates.authority("Ours", 3650, THEN)
THEIRS = certificates.authority("Theirs", 3650, THEN)
HERE = ("127.0.0.1",)


def write(folder: Path, files: dict[str, bytes]) -> Path:
    folder.mkdir(parents=True)
    for name, data in files.items():
        (folder / name).write_bytes(data)
        (folder / name).chmod(0o600)
    return folder


def server_folder(
    folder: Path, ca: Pair = OURS, addresses: tuple[str, ...] = HERE, then: datetime = NOW, days: int = 20
) -> Path:
    made = certificates.server(ca, addresses, days, then)
    return write(folder, {"ca.pem": ca.certificate, "server.pem": made.certificate, "server-key.pem": made.key})


def client_folder(folder: Path, ca: Pair = OURS, number: int = 3, then: datetime = NOW, days: int = 20) -> Path:
    connects, signs = (make(ca, number, days, then) for make in (certificates.client, certificates.signing))
    files = {"ca.pem": ca.certificate, "client.pem": connects.certificate, "client-key.pem": connects.key}
    return write(folder, files | {"sign.pem": signs.certificate, "sign-key.pem": signs.key})


def free() -> str:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return f"127.0.0.1:{probe.getsockname()[1]}"


@contextlib.contextmanager
def served(keys: ServerKeys | None) -> Iterator[str]:
    address = free()
    with ZenohServer([address], keys, lambda *_: None, lambda *_: None):
        yield address


@pytest.fixture
def client(tmp_path: Path) -> ClientKeys:
    return ClientKeys.read(client_folder(tmp_path / "client"), NOW)


@pytest.fixture
def server(tmp_path: Path) -> ServerKeys:
    return ServerKeys.read(server_folder(tmp_path / "server"), NOW)


def test_nothing_is_wrong_where_nothing_is(client: ClientKeys, server: ServerKeys) -> None:
    with served(server) as address:
        assert why(address, client, NOW) == ""
    with served(None) as address:
        assert why(address, None, NOW) == ""


def test_that_nobody_is_there_is_said(client: ClientKeys, monkeypatch: pytest.MonkeyPatch) -> None:
    assert "Nobody listens" in why(free(), client, NOW)
    assert "host.invalid is not found" in why("host.invalid:7447", client, NOW)
    with pytest.raises(SettingsError, match="HOST:PORT"):
        why("127.0.0.1", client, NOW)

    def silent(*_: object) -> socket.socket:
        raise TimeoutError

    monkeypatch.setattr(socket, "create_connection", silent)
    assert "firewall" in why("192.0.2.7:7447", client, NOW)


def test_that_one_side_has_no_tls_is_said(client: ClientKeys, server: ServerKeys) -> None:
    with served(server) as address:
        assert "has no keys" in why(address, None, NOW)
    with served(None) as address:
        assert "does not speak TLS" in why(address, client, NOW)


def test_that_another_program_is_there_is_said(client: ClientKeys) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def greet() -> None:
            link, _ = listener.accept()
            with link:
                link.recv(10)
                link.sendall(b"SSH-2.0-x\r\n")

        thread = threading.Thread(target=greet)
        thread.start()
        assert "does not speak TLS" in why(f"127.0.0.1:{listener.getsockname()[1]}", client, NOW)
        thread.join()


def test_what_is_wrong_with_a_servers_certificate_is_said(client: ClientKeys, tmp_path: Path) -> None:
    soon = f"{NOW + 4 * DAY:%Y-%m-%d}"
    ended = f"{NOW - 10 * DAY:%Y-%m-%d}"
    for name, folder, read_at, words in (
        ("another", server_folder(tmp_path / "1", THEIRS), NOW, ["another authority (Theirs)", "which is Ours"]),
        ("expired", server_folder(tmp_path / "2", then=NOW - 30 * DAY), NOW - 20 * DAY, ["expired on " + ended]),
        ("early", server_folder(tmp_path / "3", then=NOW + 5 * DAY), NOW + 6 * DAY, ["not valid before " + soon]),
        ("elsewhere", server_folder(tmp_path / "4", addresses=("fed.example.org", "192.0.2.7")), NOW, ["192.0.2.7"]),
    ):
        with served(ServerKeys.read(folder, read_at)) as address:
            told = why(address, client, NOW)
        assert all(word in told for word in words), name
        assert ("clock" in told) == (name in ("expired", "early"))


def test_why_a_server_refuses_a_client_is_said(client: ClientKeys, server: ServerKeys, tmp_path: Path) -> None:
    old = ClientKeys.read(client_folder(tmp_path / "old", then=NOW - 30 * DAY), NOW - 20 * DAY)
    early = ClientKeys.read(client_folder(tmp_path / "early", then=NOW + 5 * DAY), NOW + 6 * DAY)
    # Of the same name, and of another: two alerts.
    for number, ca in enumerate((certificates.authority("Ours", 3650, THEN), THEIRS)):
        other = ClientKeys.read(client_folder(tmp_path / f"{number}", ca), NOW)
        believer = dataclasses.replace(other, ca=client.ca, ca_pem=client.ca_pem)
        with served(server) as address:
            assert "refuses this client's certificate: it was issued by another" in why(address, believer, NOW)
    with served(server) as address:
        assert "it expired on" in why(address, old, NOW)
        assert "is a clock wrong" in why(address, early, NOW)
        assert "one of the two clocks is wrong" in why(address, old, NOW - 20 * DAY)


def test_what_an_operator_can_compare_is_told(server: ServerKeys, client: ClientKeys) -> None:
    told = idle(["0.0.0.0:7447"], server, NOW)
    assert fingerprint(client.ca_pem) in told
    assert len(fingerprint(client.ca_pem)) == 19
    for words in ("0.0.0.0:7447", "dial it as 127.0.0.1", "Ours", f"{NOW:%Y-%m-%d %H:%M} UTC"):
        assert words in told
    assert "without keys" in idle(["127.0.0.1:7447"], None, NOW)


def test_keys_are_read(client: ClientKeys, server: ServerKeys) -> None:
    assert (client.number, client.days, server.days) == (3, 19, 19)
    assert client.ca.read_bytes() == client.ca_pem == server.ca_pem == OURS.certificate
    assert client.certificate.read_bytes() == client.certificate_pem
    signature = client.signer.sign(b"report")
    assert certificates.verified(client.sign_certificate, client.ca_pem, b"report", signature, NOW) == 3


def refused(folder: Path, kind: type[ClientKeys] | type[ServerKeys], words: str, now: datetime = NOW) -> None:
    with pytest.raises(SettingsError, match=words) as caught:
        kind.read(folder, now)
    assert caught.value.field == "keys"
    assert caught.value.value == str(folder)


def test_folders_of_others_are_refused(tmp_path: Path, client: ClientKeys, server: ServerKeys) -> None:
    refused(tmp_path / "none", ServerKeys, "not a folder of keys; make one with: baffle keys server")
    refused(client.ca, ClientKeys, "not a folder of keys")
    refused(client.ca.parent, ServerKeys, "has a client's keys, and a server's are needed")
    refused(server.ca.parent, ClientKeys, "has a server's keys, and a client's are needed")
    for path in sorted(client.ca.parent.iterdir()):
        held = path.read_bytes()
        path.unlink()
        refused(client.ca.parent, ClientKeys, f"holds no {path.name}")
        path.write_bytes(b"nothing")
        refused(client.ca.parent, ClientKeys, path.name)
        path.write_bytes(held)
        path.chmod(0o600)
    assert ClientKeys.read(client.ca.parent, NOW).number == 3


def test_certificates_out_of_time_are_refused(client: ClientKeys, server: ServerKeys) -> None:
    refused(client.ca.parent, ClientKeys, "client.pem, which expired on", NOW + 21 * DAY)
    refused(server.ca.parent, ServerKeys, "server.pem, which expired on", NOW + 21 * DAY)
    refused(server.ca.parent, ServerKeys, "not valid before .* is a clock wrong", NOW - 2 * DAY)
    refused(server.ca.parent, ServerKeys, "ca.pem, which is not valid before", THEN - 2 * DAY)


def test_mixed_up_files_are_refused(client: ClientKeys, server: ServerKeys, tmp_path: Path) -> None:
    mine, other = client.ca.parent, client_folder(tmp_path / "other", number=4)
    stranger = client_folder(tmp_path / "stranger", THEIRS)
    for names, source, words in (
        (("client-key.pem",), other, "client-key.pem, which is not the key of the client.pem"),
        (("sign-key.pem",), other, "sign-key.pem, which is not the key of the sign.pem"),
        (("sign.pem", "sign-key.pem"), other, "two clients: client.pem of 3, sign.pem of 4"),
        (("client.pem", "client-key.pem"), stranger, "client.pem, which was issued by another authority"),
        (("ca.pem",), stranger, "issued by another authority than the ca.pem beside it"),
    ):
        folder = write(tmp_path / words[:20], {path.name: path.read_bytes() for path in mine.iterdir()})
        for name in names:
            (folder / name).write_bytes((source / name).read_bytes())
        refused(folder, ClientKeys, words)
    (mine / "client.pem").write_bytes((mine / "sign.pem").read_bytes())
    refused(mine, ClientKeys, "client.pem, which is for another purpose: client 3, signs its reports")
    (server.certificate).write_bytes(client.certificate_pem)
    refused(server.ca.parent, ServerKeys, "server.pem, which is for another purpose")


def test_keys_that_others_can_read_are_warned_about(client: ClientKeys, caplog: pytest.LogCaptureFixture) -> None:
    ClientKeys.read(client.ca.parent, NOW)
    assert caplog.text == ""
    client.key.chmod(0o644)
    ClientKeys.read(client.ca.parent, NOW)
    assert "client-key.pem can be read by other users" in caplog.text
