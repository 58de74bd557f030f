"""A client's folder: written whole or not at all, its secrets its own."""

from __future__ import annotations

import contextlib
import os
import stat

import numpy as np
import pytest

from baffle import SettingsError, snapshots
from baffle.engines.network import home as homes
from baffle.engines.network.commitments import Commitments
from baffle.engines.network.dialogue import run_name
from baffle.engines.network.home import Home
from baffle.errors import LedgerError, StorageError
from baffle.messages import encode
from federation import play, simulation


@pytest.fixture
def homes_at():
    """Return a way to open homes, which are closed at the end."""
    with contextlib.ExitStack() as stack:
        yield lambda path: stack.enter_context(Home(path))


@pytest.fixture
def run():
    made = simulation()
    header = made.header()
    encoded = encode(header)
    return header, encoded, run_name(encoded).hex(), header.start({})


def test_private_randomness_is_made_once_and_is_nobody_elses(homes_at, tmp_path) -> None:
    home = homes_at(tmp_path / "client")
    first = home.private()
    assert home.private() == first
    assert stat.S_IMODE((tmp_path / "client/private").stat().st_mode) == 0o600
    home.close()
    again = homes_at(tmp_path / "client")
    assert again.private() == first
    assert homes_at(tmp_path / "other").private() != first


def test_private_randomness_that_was_cut_short_is_refused(homes_at, tmp_path) -> None:
    home = homes_at(tmp_path)
    (tmp_path / "private").write_bytes(b"short")
    with pytest.raises(SettingsError, match="must have 32 bytes; it was changed"):
        home.private()


def test_two_processes_cannot_share_a_folder(homes_at, tmp_path) -> None:
    first = homes_at(tmp_path)
    with pytest.raises(SettingsError, match="is in use by another process"):
        homes_at(tmp_path)
    first.close()
    homes_at(tmp_path)


def test_a_folder_that_cannot_be_written_is_told_in_words(homes_at, tmp_path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(SettingsError, match="can't be written: Not a directory"):
        homes_at(tmp_path / "file/state")


def test_a_state_is_kept_and_found_again(homes_at, tmp_path, run) -> None:
    header, encoded, name, state = run
    home = homes_at(tmp_path)
    assert home.runs() == []
    assert home.state(name, header) is None
    home.keep_header(name, encoded)
    played = play(simulation())
    moved = played.advance().state
    assert home.keep(name, header, state)
    assert home.keep(name, header, moved)
    assert home.runs() == [name]
    assert home.header(name) == encoded
    found = home.state(name, header)
    assert found.round == 1
    np.testing.assert_array_equal(found.parameters, moved.parameters)
    assert found.squares == moved.squares


def test_a_damaged_state_falls_back_to_an_older_one(homes_at, tmp_path, run, caplog) -> None:
    header, encoded, name, state = run
    home = homes_at(tmp_path)
    home.keep_header(name, encoded)
    home.keep(name, header, state)
    moved = play(simulation()).advance().state
    home.keep(name, header, moved)
    newest = snapshots.snapshots(tmp_path / name)[0]
    data = bytearray(newest.read_bytes())
    data[-3] ^= 1
    newest.write_bytes(bytes(data))
    assert home.state(name, header).round == 0
    assert "an older state is used" in caplog.text


def test_a_damaged_header_is_no_run(homes_at, tmp_path, run) -> None:
    _header, encoded, name, _state = run
    home = homes_at(tmp_path)
    home.keep_header(name, encoded)
    (tmp_path / name / "header").write_bytes(encoded[:-4])
    assert home.header(name) is None


def test_a_server_that_begins_ever_more_runs_does_not_fill_the_disk(homes_at, tmp_path, run, monkeypatch) -> None:
    """States of the latest runs alone are kept; what was given away is kept of all; beyond a number, none is begun."""
    header, encoded, _name, state = run
    home = homes_at(tmp_path)
    monkeypatch.setattr(homes, "MOST_RUNS", 12)
    names = [f"{number:016x}" for number in range(12)]
    for place, name in enumerate(names):
        home.keep_header(name, encoded)
        home.keep(name, header, state)
        home.commit(name, Commitments(answered=place + 1))
        for path in (tmp_path / name).iterdir():
            os.utime(path, (place, place))
    assert [name for name in names if home.state(name, header) is not None] == names[-homes.KEPT_STATES :]
    assert [home.commitments(name).answered for name in names] == list(range(1, 13))
    with pytest.raises(SettingsError, match="holds 12 runs: move away those that are over"):
        home.keep_header("f" * 16, encoded)
    home.keep_header(names[0], encoded)  # one that goes on is none that begins


def test_the_runs_secret_is_readable_by_its_owner_alone(homes_at, tmp_path, run) -> None:
    _header, encoded, name, _state = run
    home = homes_at(tmp_path)
    home.keep_header(name, encoded)
    assert stat.S_IMODE((tmp_path / name / "header").stat().st_mode) == 0o600


def test_a_full_disk_is_told_and_costs_nothing_else(homes_at, tmp_path, run, monkeypatch, caplog) -> None:
    header, _encoded, name, state = run
    home = homes_at(tmp_path)
    home.keep(name, header, state)

    def full(*_: object) -> None:
        raise StorageError(tmp_path, "can't be written: No space left on device")

    monkeypatch.setattr(homes, "write_snapshot", full)
    assert not home.keep(name, header, play(simulation()).advance().state)
    assert "No space left on device; an older one stays" in caplog.text
    assert home.state(name, header).round == 0


def test_a_snapshot_from_the_server_replaces_what_is_not_older(homes_at, tmp_path, run) -> None:
    header, _encoded, name, state = run
    home = homes_at(tmp_path / "client")
    moved = play(simulation()).advance().state
    home.keep(name, header, moved)
    path = snapshots.write_snapshot(tmp_path / "server", header.federation.layout, state, b"head")
    taken = home.taken(name, path.read_bytes(), 0, header)
    assert taken.round == 0
    assert home.state(name, header).round == 0
    with pytest.raises(LedgerError, match="can't be read: it was changed after it was written"):
        home.taken(name, path.read_bytes()[:-1], 0, header)
    assert home.state(name, header) is None
