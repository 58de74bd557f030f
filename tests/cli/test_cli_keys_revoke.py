"""`baffle keys revoke`: what is put on the list, that lists only grow, and what is on record."""

from __future__ import annotations

import stat
from datetime import UTC, datetime
from pathlib import Path

import pytest
from cryptography import x509

from baffle import certificates
from baffle.certificates import read_revocations
from baffle.engines.network.keyring import ServerKeys

NOW = datetime.now(UTC)


@pytest.fixture
def keys(command):
    """Returns a function: arguments of `baffle keys` -> what it told; an authority in `fed`, clients 1 and 12."""
    assert command("keys", "ca", "--out", "fed").status == 0
    for number in (1, 12):
        assert command("keys", "client", "--ca", "fed", "--out", f"c{number}", "--number", number).status == 0
    return lambda *arguments: command("keys", *arguments)


def serials(*paths: str) -> set[int]:
    return {certificates.serial_number(Path(path).read_bytes()) for path in paths}


def listed(path: str = "fed/revoked.pem"):
    return read_revocations(Path(path).read_bytes(), Path("fed/ca.pem").read_bytes())


def test_all_certificates_of_a_client_are_revoked_and_no_others(keys) -> None:
    keys("client", "--ca", "fed", "--out", "c1-new", "--number", "1")
    told = keys("revoke", "--ca", "fed", "--number", "1")
    assert (told.status, told.error) == (0, "")
    own = serials("c1/client.pem", "c1/sign.pem", "c1-new/client.pem", "c1-new/sign.pem")
    assert set(listed().serials) == own
    assert listed().number == 1
    assert abs((listed().made - datetime.now(UTC)).total_seconds()) < 60
    assert told.out.count("revoked     client 1, connects to servers: ") == 2
    assert told.out.count("revoked     client 1, signs its reports: ") == 2
    for serial in own:
        assert f"{serial:040x}" in told.out
    assert "list        fed/revoked.pem, number 1" in told.out
    keys("client", "--ca", "fed", "--out", "c1-third", "--number", "1")
    assert not set(listed().serials) & serials("c1-third/client.pem", "c1-third/sign.pem"), "new keys are not revoked"


def test_lists_only_grow_and_have_greater_numbers(keys) -> None:
    keys("revoke", "--ca", "fed", "--number", "1")
    first = listed()
    keys("revoke", "--ca", "fed", "--number", "12")
    assert listed().number == 2
    assert set(listed().serials) > set(first.serials)
    assert all(listed().serials[serial] == since for serial, since in first.serials.items())
    before = Path("fed/revoked.pem").read_bytes()
    told = keys("revoke", "--ca", "fed", "--number", "1", "12", "--out", "copy.pem")
    assert told.status == 0
    assert Path("fed/revoked.pem").read_bytes() == Path("copy.pem").read_bytes() == before, "nothing is new"
    assert ", since 20" in told.out


def test_the_list_is_an_x509_one_that_other_tools_read(keys) -> None:
    keys("revoke", "--ca", "fed", "--number", "1")
    found = x509.load_pem_x509_crl(Path("fed/revoked.pem").read_bytes())
    root = x509.load_pem_x509_certificate(Path("fed/ca.pem").read_bytes())
    assert found.issuer == root.subject
    assert found.is_signature_valid(root.public_key())
    assert found.next_update_utc == root.not_valid_after_utc
    assert found.extensions.get_extension_for_class(x509.CRLNumber).value.crl_number == 1
    assert {one.serial_number for one in found} == serials("c1/client.pem", "c1/sign.pem")


@pytest.mark.parametrize("out", ["server", "server/revoked.pem"])
def test_the_list_goes_where_the_server_finds_it(out, keys) -> None:
    keys("server", "--ca", "fed", "--out", "server", "--address", "localhost")
    told = keys("revoke", "--ca", "fed", "--number", "1", "--out", out)
    assert "list        server/revoked.pem, number 1" in told.out
    place = ServerKeys.read(Path("server"), NOW).revoked
    assert place.read_bytes() == Path("fed/revoked.pem").read_bytes()
    assert stat.S_IMODE(place.stat().st_mode) == 0o644
    assert {path.name for path in Path("server").iterdir()} == {"ca.pem", "server.pem", "server-key.pem", "revoked.pem"}
    shown = keys("show", "server")
    assert (shown.status, shown.error) == (0, "")
    assert "for         servers: a list of revoked certificates, number 1" in shown.out
    (serial,) = serials("c1/sign.pem")
    assert f"revoked     {serial:040x}, since 20" in shown.out


def test_every_certificate_is_on_record_and_an_authority_shows_them(keys) -> None:
    keys("server", "--ca", "fed", "--out", "server", "--address", "localhost")
    record = Path("fed/issued")
    assert stat.S_IMODE(record.stat().st_mode) == 0o700
    assert len(list(record.iterdir())) == 5
    issued = {path.read_bytes() for path in record.iterdir()}
    made = ("c1/client.pem", "c1/sign.pem", "c12/client.pem", "c12/sign.pem", "server/server.pem")
    assert issued == {Path(path).read_bytes() for path in made}
    keys("revoke", "--ca", "fed", "--number", "1")
    lines = [line for line in keys("show", "fed").out.splitlines() if line.startswith("issued  ")]
    assert len(lines) == 5
    assert [line for line in lines if "revoked on" in line] == [line for line in lines if "client 1," in line]


def test_a_certificate_without_a_copy_on_record_is_revoked_by_its_file(keys) -> None:
    for path in Path("fed/issued").glob("client-1-*"):
        path.unlink()
    told = keys("revoke", "--ca", "fed", "--number", "1")
    assert told.status == 2
    assert "number = 1: has no certificate on record in fed/issued; name its files" in told.error
    assert not Path("fed/revoked.pem").exists()
    assert keys("revoke", "--ca", "fed", "--certificate", "c1/sign.pem", "c1/client.pem").status == 0
    assert set(listed().serials) == serials("c1/client.pem", "c1/sign.pem")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ((), "name clients with --number, or certificates with --certificate"),
        (("--number", "2"), "number = 2: has no certificate on record"),
        (("--number", "-1"), "number = -1: has no certificate on record"),
        (("--certificate", "fed/ca.pem"), "must be a client's certificate that this authority issued"),
        (("--certificate", "other/sign.pem"), "must be a client's certificate that this authority issued"),
        (("--certificate", "c1/sign-key.pem"), "must be a client's certificate that this authority issued"),
        (("--certificate", "nowhere"), "nowhere: No such file"),
        (("--number", "1", "--out", "nowhere/list"), "nowhere"),
    ],
)
def test_what_can_not_be_revoked_is_said(arguments, words, keys) -> None:
    keys("ca", "--out", "foreign")
    keys("client", "--ca", "foreign", "--out", "other", "--number", "1")
    told = keys("revoke", "--ca", "fed", *arguments)
    assert told.status == 2
    assert words in told.error
    assert told.error.count("\n") == 1


def test_a_list_that_can_not_be_read_is_not_replaced(keys) -> None:
    """A new one would be without the certificates on it."""
    keys("revoke", "--ca", "fed", "--number", "1")
    Path("fed/revoked.pem").write_bytes(b"broken")
    told = keys("revoke", "--ca", "fed", "--number", "12")
    assert told.status == 2
    assert "path = 'fed/revoked.pem': is not a list of revoked certificates" in told.error
    assert Path("fed/revoked.pem").read_bytes() == b"broken"


def test_without_a_copy_on_record_nothing_is_handed_out(keys) -> None:
    """Else it could not be revoked by its number."""
    for path in Path("fed/issued").iterdir():
        path.unlink()
    Path("fed/issued").rmdir()
    Path("fed/issued").write_text("in the way")
    told = keys("client", "--ca", "fed", "--out", "new", "--number", "3")
    assert told.status == 2
    assert "fed/issued" in told.error
    assert not Path("new").exists()


def test_a_list_alone_is_not_shown_unchecked(keys) -> None:
    keys("revoke", "--ca", "fed", "--number", "1")
    Path("alone").mkdir()
    Path("alone/revoked.pem").write_bytes(Path("fed/revoked.pem").read_bytes())
    told = keys("show", "alone/revoked.pem")
    assert told.status == 2
    assert "can't be checked without alone/ca.pem" in told.error


def test_a_server_is_told_to_keep_away_from_the_authority(keys) -> None:
    told = keys("server", "--ca", "fed", "--out", "server", "--address", "localhost")
    words = "never on the server; who holds it can make clients of its own, and with them open any secure sum"
    assert f"authority   fed/ca-key.pem: {words}" in told.out
    assert told.error == ""
    told = keys("server", "--ca", "fed", "--out", "fed/server", "--address", "localhost")
    assert "fed and fed/server are one in the other: a copy of both takes the authority's key along" in told.error
