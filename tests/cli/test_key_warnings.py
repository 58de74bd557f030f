"""What a server and a client warn of when they start."""

from __future__ import annotations

import logging
from datetime import UTC, datetime
from pathlib import Path

import pytest

from baffle import certificates
from baffle.cli.key_warnings import warn_of_authority, warn_of_end
from baffle.engines.network.keyring import ServerKeys

NOW = datetime.now(UTC)
CA = certificates.authority("Ours", 3650, NOW)
FOREIGN = certificates.authority("Ours", 3650, NOW)


def server(folder: Path, days: int = 365) -> ServerKeys:
    made = certificates.server(CA, ["localhost"], days, NOW)
    folder.mkdir(parents=True)
    for name, data in (("ca.pem", CA.certificate), ("server.pem", made.certificate), ("server-key.pem", made.key)):
        (folder / name).write_bytes(data)
        (folder / name).chmod(0o600)
    return ServerKeys.read(folder, NOW)


def put(folder: Path, pair=CA, *, certificate: bool = True) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "ca-key.pem").write_bytes(pair.key)
    if certificate:
        (folder / "ca.pem").write_bytes(pair.certificate)


@pytest.fixture
def elsewhere(tmp_path, monkeypatch) -> Path:
    """A working folder apart from the keys."""
    folder = tmp_path / "work"
    folder.mkdir()
    monkeypatch.chdir(folder)
    return tmp_path / "machine"


PLACES = {
    "in the keys": "keys",
    "below the keys": "keys/authority",
    "above the keys": ".",
    "beside the keys": "authority",
    "where the server runs": "../work",
    "beside where the server runs": "../work/authority",
}


@pytest.mark.parametrize("place", list(PLACES))
@pytest.mark.parametrize("alone", [False, True], ids=["with its certificate", "alone"])
def test_an_authoritys_key_near_the_servers_is_warned_about_in_words_that_say_why(place, alone, elsewhere, caplog):
    keys = server(elsewhere / "keys")
    put(elsewhere / PLACES[place], certificate=not alone)
    warn_of_authority(keys)
    (record,) = caplog.records
    assert record.levelno == logging.WARNING
    path = (elsewhere / PLACES[place]).resolve() / "ca-key.pem"
    assert record.getMessage() == (
        f"{path} is the authority's key, on the machine where the server runs: who holds it can make clients of its "
        "own, and with them open any secure sum. Keep the authority on another machine"
    )


def test_another_federations_authority_is_no_matter(elsewhere, caplog) -> None:
    keys = server(elsewhere / "keys")
    put(elsewhere / "authority", FOREIGN)
    warn_of_authority(keys)
    assert not caplog.records


def test_what_can_not_be_seen_is_no_matter(elsewhere, caplog) -> None:
    keys = server(elsewhere / "keys")
    (elsewhere / "closed").mkdir(mode=0)
    (elsewhere / "gone").symlink_to("nowhere")
    (elsewhere / "file").write_text("")
    warn_of_authority(keys)
    assert not caplog.records


@pytest.mark.parametrize(("days", "words"), [(30, "for 29 days more"), (2, "for 1 day more"), (31, "")])
def test_keys_that_end_soon_are_warned_about(days, words, elsewhere, caplog) -> None:
    warn_of_end(server(elsewhere / "keys", days))
    assert words in caplog.text
    assert bool(caplog.records) == bool(words)
