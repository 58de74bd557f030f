from __future__ import annotations

import errno
import hashlib
import os

import numpy as np
import pytest
from safetensors import safe_open

from baffle import LedgerError
from baffle import run as runs
from baffle.errors import StorageError
from baffle.server import State
from baffle.snapshots import (
    KEEP,
    read_snapshot,
    read_tensors,
    snapshots,
    write_snapshot,
    write_tensors,
)
from baffle.storage import write_atomically
from federation import KERNELS, layout, ledger_bytes, simulation

HEAD = bytes(range(32))


def state(rounds: int = 7) -> State:
    rng = np.random.default_rng(rounds)
    return State(
        parameters=rng.normal(size=27).astype(np.float32),
        average=rng.normal(size=27).astype(np.float32),
        memory={"first": rng.normal(size=27).astype(np.float32), "power1": np.array([0.9**7])},
        round=rounds,
        attempt=3,
        squares=(0.1, 1e-300),
    )


def same(one: State, other: State) -> bool:
    return (
        one.parameters.tobytes() == other.parameters.tobytes()
        and one.average.tobytes() == other.average.tobytes()
        and {name: (a.dtype, a.tobytes()) for name, a in one.memory.items()}
        == {name: (a.dtype, a.tobytes()) for name, a in other.memory.items()}
        and (one.round, one.attempt, one.squares) == (other.round, other.attempt, other.squares)
    )


def test_a_state_is_read_as_it_was_written_bit_for_bit(tmp_path) -> None:
    path = write_snapshot(tmp_path, layout(), state(), HEAD)
    assert path.name == "00000007.safetensors"
    read, head = read_snapshot(path, layout())
    assert same(read, state())
    assert head == HEAD


def test_any_safetensors_reader_finds_the_weights_by_name(tmp_path) -> None:
    from safetensors.numpy import load_file

    tensors = load_file(write_snapshot(tmp_path, layout(), state(), HEAD))
    assert tensors["parameters.first.weight"].shape == (4, 3)
    np.testing.assert_array_equal(tensors["parameters.first.weight"].ravel(), state().parameters[:12])
    np.testing.assert_array_equal(tensors["average.second.bias"], state().average[-3:])


def test_the_newest_and_two_more_are_kept(tmp_path) -> None:
    for rounds in (1, 2, 3, 9, 10, 100, 12345678):
        write_snapshot(tmp_path, layout(), state(rounds), HEAD)
    assert KEEP == 2
    assert [path.name for path in snapshots(tmp_path)] == [
        "12345678.safetensors",
        "00000100.safetensors",
        "00000010.safetensors",
    ]


def test_what_came_with_the_model_is_not_taken_for_a_snapshot(tmp_path) -> None:
    write_tensors(tmp_path / "initial.safetensors", {"w": np.ones(2, np.float32)}, {"digest": "x"})
    for rounds in range(5):
        write_snapshot(tmp_path, layout(), state(rounds), HEAD)
    assert len(snapshots(tmp_path)) == 3
    tensors, about = read_tensors(tmp_path / "initial.safetensors")
    assert about == {"digest": "x"}
    np.testing.assert_array_equal(tensors["w"], [1, 1])


def test_a_tensor_in_fortrans_order_is_read_in_its_own_shape(tmp_path) -> None:
    array = np.asfortranarray(np.arange(6, dtype=np.float32).reshape(2, 3))
    write_tensors(tmp_path / "a.safetensors", {"a": array}, {})
    np.testing.assert_array_equal(read_tensors(tmp_path / "a.safetensors")[0]["a"], array)


@pytest.mark.parametrize("step", ["open", "fsync", "replace"])
def test_a_write_that_fails_leaves_the_old_content(step, tmp_path, monkeypatch) -> None:
    path = tmp_path / "file"
    write_atomically(path, b"old")

    def fails(*_, **__):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        if step == "replace":
            patch.setattr(type(path), step, fails)
        else:
            patch.setattr(os, step, fails)
        with pytest.raises(StorageError, match=f"{path} can't be written: No space left"):
            write_atomically(path, b"new")
    assert path.read_bytes() == b"old"
    write_atomically(path, b"new")
    assert path.read_bytes() == b"new"


def test_content_is_flushed_before_it_gets_its_name(tmp_path, monkeypatch) -> None:
    order = []
    flush, rename = os.fsync, type(tmp_path).replace
    monkeypatch.setattr(os, "fsync", lambda descriptor: (order.append("flush"), flush(descriptor)))
    monkeypatch.setattr(type(tmp_path), "replace", lambda *a: (order.append("name"), rename(*a))[1])
    write_atomically(tmp_path / "file", b"x" * 100)
    assert order[:2] == ["flush", "name"]


def test_a_snapshot_of_another_model_is_refused(tmp_path) -> None:
    path = write_snapshot(tmp_path, layout(), state(), HEAD)
    wider = type(layout())((*layout().tensors, type(layout().tensors[0])("third", (2,))))
    read_snapshot(path, layout())
    with pytest.raises(Exception, match=r"^parameter third: expected shape \(2,\), found nothing$") as caught:
        read_snapshot(path, wider)
    assert isinstance(caught.value, runs.BaffleError)


@pytest.mark.parametrize("content", [b"", b"x", bytes(8), bytes(100), b"\xff" * 100, b"\x02\0\0\0\0\0\0\0{}"])
def test_what_is_no_snapshot_is_refused_in_words(content, tmp_path) -> None:
    (tmp_path / "00000001.safetensors").write_bytes(content)
    with pytest.raises(LedgerError, match=r"00000001\.safetensors can't be read: it was changed after it was written$"):
        read_snapshot(tmp_path / "00000001.safetensors", layout())


def test_a_snapshot_cut_anywhere_is_refused(tmp_path) -> None:
    path = write_snapshot(tmp_path, layout(), state(), HEAD)
    data = path.read_bytes()
    for length in range(0, len(data), 7):
        path.write_bytes(data[:length])
        with pytest.raises(LedgerError, match=r"safetensors can't be read: it was changed after it was written$"):
            read_snapshot(path, layout())


def test_every_changed_byte_of_a_snapshot_is_found(tmp_path) -> None:
    """A snapshot with other bytes is not the state: it is refused, or reads as the very same."""
    path = write_snapshot(tmp_path, layout(), state(), HEAD)
    good = path.read_bytes()
    accepted = []
    for position in range(len(good)):
        bad = bytearray(good)
        bad[position] ^= 1 << position % 8
        path.write_bytes(bad)
        try:
            read, head = read_snapshot(path, layout())
        except (LedgerError, runs.ModelError):
            continue
        if not (same(read, state()) and head == HEAD):
            accepted.append(position)
    assert accepted == [], f"{len(accepted)} of {len(good)} changed bytes go unnoticed"


def test_the_seal_is_what_the_page_says(tmp_path) -> None:
    """BLAKE2b of the whole file with the seal's own digits replaced by 0."""
    data = write_snapshot(tmp_path, layout(), state(), HEAD).read_bytes()
    with safe_open(tmp_path / "00000007.safetensors", framework="numpy") as file:
        about = file.metadata()
    assert set(about) == {"round", "attempt", "squares", "size", "head", "seal"}
    seal = about["seal"].encode()
    assert data.count(seal) == 1
    blank = data.replace(seal, b"0" * 64)
    assert hashlib.blake2b(blank, digest_size=32, person=b"baffle-snapshot").hexdigest().encode() == seal


# In a run.


@pytest.fixture(scope="module")
def straight(tmp_path_factory):
    folder = tmp_path_factory.mktemp("straight")
    simulation(snapshot_every=2).run(10, out=folder)
    return ledger_bytes(folder)


@pytest.fixture
def begun(tmp_path):
    """A run stopped after round 7, with snapshots after 4, 6 and 7."""
    simulation(snapshot_every=2).run(7, out=tmp_path)
    assert [path.name[:8] for path in snapshots(tmp_path / "snapshots")] == ["00000007", "00000006", "00000004"]
    return tmp_path


def go_on(folder) -> bytes:
    simulation(snapshot_every=2).run(10, out=folder, resume=True)
    return ledger_bytes(folder)


@pytest.mark.parametrize("count", [1, 2, 3])
@pytest.mark.parametrize("damage", ["cut", "emptied", "zeroed"])
def test_where_the_newest_snapshots_are_damaged_an_older_one_or_none_is_used(
    damage, count, begun, straight, caplog
) -> None:
    for path in snapshots(begun / "snapshots")[:count]:
        data = path.read_bytes()
        path.write_bytes({"cut": data[:-9], "emptied": b"", "zeroed": bytes(len(data))}[damage])
    assert go_on(begun) == straight
    assert caplog.text.count("an older one is used") == count


@pytest.mark.parametrize("position", [-1, -60, -150, -250, -380])
def test_a_bit_that_flipped_in_the_newest_snapshot_does_not_reach_the_model(position, begun, straight) -> None:
    path = snapshots(begun / "snapshots")[0]
    data = bytearray(path.read_bytes())
    data[position] ^= 0x40
    path.write_bytes(data)
    assert go_on(begun) == straight


def test_a_bit_that_flipped_in_a_snapshot_before_later_records_does_not_stop_the_run(begun, straight) -> None:
    snapshots(begun / "snapshots")[0].unlink()  # the newest is now of round 6; round 7 is in the ledger alone
    path = snapshots(begun / "snapshots")[0]
    data = bytearray(path.read_bytes())
    data[-20] ^= 0x40
    path.write_bytes(data)
    assert go_on(begun) == straight


def test_a_snapshot_of_another_run_is_ignored(begun, straight, tmp_path_factory, caplog) -> None:
    """Same model, same rounds, another seed: its ledger's digest is not one of ours."""
    other = tmp_path_factory.mktemp("other")
    simulation(snapshot_every=2, seed=5).run(7, out=other)
    for path in snapshots(other / "snapshots"):
        (begun / "snapshots" / path.name).write_bytes(path.read_bytes())
    assert go_on(begun) == straight
    assert "belongs to no record of this ledger" in caplog.text


def test_a_foreign_snapshot_does_not_cost_the_runs_own(begun, straight, tmp_path_factory) -> None:
    other = tmp_path_factory.mktemp("other")
    simulation(snapshot_every=2, seed=5).run(9, out=other)
    newest = snapshots(other / "snapshots")[0]
    (begun / "snapshots" / newest.name).write_bytes(newest.read_bytes())
    assert go_on(begun) == straight
    assert {path.name[:8] for path in snapshots(begun / "snapshots")} >= {"00000010", "00000008"}
    assert newest.read_bytes()


def test_a_snapshot_ahead_of_its_ledger_is_not_believed(begun, straight) -> None:
    """The ledger lost its last two rounds; the snapshot of round 7 is of no record that is left."""
    data = ledger_bytes(begun)
    ends = [8]
    while ends[-1] < len(data):
        ends.append(ends[-1] + 40 + int.from_bytes(data[ends[-1] : ends[-1] + 4], "little"))
    (begun / "ledger").write_bytes(data[: ends[-3]])
    assert go_on(begun) == straight


def test_a_run_without_snapshots_is_replayed(begun, straight) -> None:
    for path in (begun / "snapshots").iterdir():
        path.unlink()
    (begun / "snapshots").rmdir()
    assert go_on(begun) == straight
    assert runs.replay(begun, KERNELS)[1].round == 10


def test_a_half_written_snapshot_is_not_looked_at(begun, straight) -> None:
    (begun / "snapshots" / "00000009.safetensors.part").write_bytes(b"half")
    assert go_on(begun) == straight
