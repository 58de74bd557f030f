"""Requests: a device makes its keys, the authority sees a request alone, and what comes back fits."""

from __future__ import annotations

import stat
from datetime import UTC, datetime
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from baffle import certificates
from baffle.engines.network.keyring import ClientKeys, ServerKeys
from baffle.errors import SettingsError


@pytest.fixture
def keys(command):
    """Returns a function: arguments of `baffle keys` -> what it told; there is an authority in the folder `fed`."""
    assert command("keys", "ca", "--out", "fed").status == 0
    return lambda *arguments: command("keys", *arguments)


def carry(made: str, device: str) -> None:
    for path in Path(made).iterdir():
        Path(device, path.name).write_bytes(path.read_bytes())


def fingerprint(told) -> str:
    (line,) = [line for line in told.out.splitlines() if line.startswith(("fingerprint", "request"))]
    return line.split(maxsplit=1)[1].partition(":")[0]


def test_a_clients_keys_are_made_on_its_device_and_certified_elsewhere(keys) -> None:
    asks = keys("client", "--request", "--out", "device", "--number", "3")
    assert (asks.status, asks.error) == (0, "")
    assert {path.name for path in Path("device").iterdir()} == {"request.pem", "client-key.pem", "sign-key.pem"}
    assert stat.S_IMODE(Path("device").stat().st_mode) == 0o700
    assert stat.S_IMODE(Path("device/client-key.pem").stat().st_mode) == 0o600
    assert b"PRIVATE" not in Path("device/request.pem").read_bytes()
    with pytest.raises(SettingsError, match=r"waits for certificates: have request.pem signed \(baffle keys sign\)"):
        ClientKeys.read(Path("device"), datetime.now(UTC))

    made = keys("sign", "--ca", "fed", "--out", "answer", "device/request.pem", "--days", "40")
    assert (made.status, made.error) == (0, "")
    assert {path.name for path in Path("answer").iterdir()} == {"ca.pem", "client.pem", "sign.pem"}
    assert not any(b"PRIVATE" in path.read_bytes() for path in Path("answer").iterdir())
    assert fingerprint(asks) == fingerprint(made)
    assert "for         client 3, connects to servers" in made.out
    carry("answer", "device")
    found = ClientKeys.read(Path("device"), datetime.now(UTC))
    assert (found.number, found.days) == (3, 39)
    assert keys("show", "device").error == ""
    assert "for         client 3: a request for certificates" in keys("show", "device").out


def test_a_servers_key_is_made_on_its_machine_and_certified_elsewhere(keys) -> None:
    keys("server", "--request", "--out", "device", "--address", "fed.example.org", "10.0.0.7")
    told = keys("sign", "--ca", "fed", "--out", "answer", "device/request.pem")
    assert "for         server, dialled at fed.example.org, 10.0.0.7" in told.out
    assert "authority   fed/ca-key.pem: never on the server" in told.out
    carry("answer", "device")
    assert ServerKeys.read(Path("device"), datetime.now(UTC)).days == 364


def test_what_is_signed_is_on_record(keys) -> None:
    keys("client", "--request", "--out", "device", "--number", "3")
    keys("sign", "--ca", "fed", "--out", "answer", "device/request.pem")
    assert sorted(path.name[:9] for path in Path("fed/issued").iterdir()) == ["client-3-", "client-3-"]
    assert keys("revoke", "--ca", "fed", "--number", "3").status == 0


def request(name: str, *others: str, key=None, extension=None) -> bytes:
    """Return requests that were not made by this library."""
    made = b""
    for one in (name, *others):
        own = key or ec.generate_private_key(ec.SECP256R1())
        builder = x509.CertificateSigningRequestBuilder().subject_name(
            x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, one)])
        )
        if extension is not None:
            builder = builder.add_extension(extension, critical=False)
        made += builder.sign(own, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)
    return made


CLIENT, OTHER = certificates.ask_client(3), certificates.ask_client(3)
HALVES = [block + b"-----END CERTIFICATE REQUEST-----\n" for block in CLIENT.request.split(b"-----END")[:1]]
FALSE = bytearray(CLIENT.request)
FALSE[200] = ord("A") if FALSE[200] != ord("A") else ord("B")


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"", "is not a request for certificates"),
        (bytes(20_000), "is larger than 16384 bytes"),
        (bytes(FALSE), "is not a request for certificates"),
        (CLIENT.link, "is not a request for certificates"),
        (request("client-3"), "must be made by `baffle keys"),
        (request("client-3", "client-3"), "must be made by `baffle keys"),
        (request("server", "server"), "must be made by `baffle keys"),
        (request("client-03"), "must be made by `baffle keys"),
        (request("Baffle federation"), "must be made by `baffle keys"),
        (request("server", key=ec.generate_private_key(ec.SECP384R1())), "must be made by `baffle keys"),
        (request("server"), "must be one or more"),
        (CLIENT.request + OTHER.request, "must be made by `baffle keys"),
        (
            request("server", extension=x509.SubjectAlternativeName([x509.DNSName("a/b:7447")])),
            "address = 'a/b:7447': must be a host name",
        ),
    ],
    ids=[
        *("empty", "large", "a bit changed", "a key", "half", "two links", "two servers", "odd number", "a stranger"),
        *("another curve", "no address", "four", "odd address"),
    ],
)
def test_a_request_that_is_not_ours_is_refused(data, words, keys) -> None:
    Path("request.pem").write_bytes(data)
    told = keys("sign", "--ca", "fed", "--out", "answer", "request.pem")
    assert told.status == 2
    assert words in told.error
    assert told.error.count("\n") == 1
    assert not Path("answer").exists()
    assert not list(Path("fed").glob("issued/*"))


def test_requests_of_two_clients_in_one_file_are_refused(keys) -> None:
    link = CLIENT.request.split(b"-----BEGIN")[1]
    signs = certificates.ask_client(4).request.split(b"-----BEGIN")[2]
    Path("request.pem").write_bytes(b"-----BEGIN" + link + b"-----BEGIN" + signs)
    assert "must be made by" in keys("sign", "--ca", "fed", "--out", "answer", "request.pem").error


@pytest.mark.parametrize("flags", [(), ("--ca", "fed", "--request")], ids=["neither", "both"])
def test_keys_are_made_by_the_authority_or_on_the_device(flags, keys) -> None:
    told = keys("client", "--out", "new", "--number", "3", *flags)
    assert told.status == 2
    assert told.error.startswith("usage: baffle keys client")
    assert not Path("new").exists()
