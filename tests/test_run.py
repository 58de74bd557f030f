from __future__ import annotations

import logging
from dataclasses import replace
from functools import cache
from pathlib import Path

import msgspec
import numpy as np
import pytest

from baffle import BaffleError, LedgerError, ledger, server
from baffle import run as runs
from baffle.header import Header
from baffle.kernels import PlainKernels
from baffle.ledger import Ledger, Reader
from baffle.messages import Round, decode, encode
from baffle.parameters import digest
from baffle.snapshots import write_tensors
from federation import KERNELS, METHOD, Layered, Network, layout, ledger_bytes, memory_folder, simulation

ROUNDS = 4


def made(**settings):
    """A small run with a missed quorum on its way, so that a ledger has both kinds of records."""
    return simulation(sizes=(3, 3), unavailable=0.3, quorum=1.0, snapshot_every=2, **settings)


@cache
def recorded() -> bytes:
    """Return the ledger of a finished run."""
    with memory_folder() as folder:
        made().run(ROUNDS, out=folder)
        return ledger_bytes(folder)


def starts(data: bytes) -> list[int]:
    """Return where each record of a ledger begins, and where the last one ends."""
    found = [8]
    while found[-1] < len(data):
        found.append(found[-1] + 40 + int.from_bytes(data[found[-1] : found[-1] + 4], "little"))
    return found


@pytest.fixture
def folder():
    with memory_folder() as made_:
        (made_ / "ledger").write_bytes(recorded())
        yield made_


def payloads(folder: Path) -> list[bytes]:
    return list(Reader(folder / "ledger"))


def rewrite(folder: Path, records: list[bytes]) -> None:
    """Write a ledger with a chain that verifies over whatever records."""
    (folder / "ledger").unlink(missing_ok=True)
    chain = Ledger.create(folder / "ledger")
    for record in records:
        chain.append(record)
    chain.close()


def edited(data: bytes, **changes) -> bytes:
    return encode(msgspec.structs.replace(decode(data, Round), **changes))


def test_the_record_under_test_has_rounds_and_failed_attempts(folder) -> None:
    kinds = [decode(data, Round).aggregate is None for data in payloads(folder)[1:]]
    assert kinds.count(False) == ROUNDS
    assert kinds.count(True) >= 1


# Verify.


def test_verify_counts_rounds_and_gives_the_header(folder) -> None:
    header, rounds = runs.verify(folder)
    assert rounds == ROUNDS
    assert header == made().header()


def test_one_flipped_bit_anywhere_is_found_and_named(folder) -> None:
    """The record that holds the byte, without exception; the eight bytes of the magic count as the header's."""
    good = recorded()
    where = starts(good)
    assert where[-1] == len(good)
    for position in range(len(good)):
        holder = max(sum(start <= position for start in where) - 1, 0)
        for flip in (1 << position % 8, 0xFF):
            bad = bytearray(good)
            bad[position] ^= flip
            (folder / "ledger").write_bytes(bad)
            with pytest.raises(LedgerError, match=r"does not verify|no ledger of a version known here") as caught:
                runs.verify(folder)
            assert caught.value.record == holder, (position, flip)


def test_verify_says_where_a_cut_ledger_ends(folder) -> None:
    good = recorded()
    where = starts(good)
    for length in range(len(good)):
        (folder / "ledger").write_bytes(good[:length])
        if length in where[1:]:  # at a record's end nothing is missing but later rounds
            runs.verify(folder)
            continue
        with pytest.raises(LedgerError) as caught:
            runs.verify(folder)
        whole = max(sum(start <= length for start in where) - 1, 0)
        assert caught.value.record == whole, length
        left = f"is unfinished: {length - where[whole]} bytes; `baffle train --resume`, or `baffle serve`, cuts it off"
        assert caught.value.reason == (left if whole > 0 else "the ledger has no header")


def test_verify_and_replay_change_nothing(folder) -> None:
    (folder / "ledger").write_bytes(recorded()[:-5])
    for check in (runs.verify, lambda path: runs.replay(path, KERNELS)):
        with pytest.raises(LedgerError, match="is unfinished"):
            check(folder)
    assert ledger_bytes(folder) == recorded()[:-5]
    assert [path.name for path in folder.iterdir()] == ["ledger"]


@pytest.mark.parametrize("keep", [(0, 2), (0, 1, 1), (1, 2), (0,)], ids=["left out", "doubled", "headless", "all"])
def test_records_that_do_not_follow_are_found_though_the_chain_verifies(keep, folder) -> None:
    records = payloads(folder)
    if keep == (0,):
        rewrite(folder, records[:1])
        assert runs.verify(folder)[1] == 0
        return
    rewrite(folder, [records[i] for i in keep])
    with pytest.raises(LedgerError) as caught:
        runs.verify(folder)
    assert caught.value.record == (0 if keep[0] else len(keep) - 1)


def test_a_record_that_is_no_round_is_named(folder) -> None:
    records = payloads(folder)
    rewrite(folder, [*records[:2], b"\x93nonsense", *records[3:]])
    for check in (runs.verify, lambda path: runs.replay(path, KERNELS)):
        with pytest.raises(LedgerError, match="ledger record 2: not a record"):
            check(folder)


def test_sums_that_do_not_fit_their_plan_are_named(folder) -> None:
    records = payloads(folder)
    number = next(i for i, data in enumerate(records) if i and decode(data, Round).aggregate)
    aggregate = decode(records[number], Round).aggregate
    short = msgspec.structs.replace(aggregate, sums=aggregate.sums[:-1])
    rewrite(folder, [*records[:number], edited(records[number], aggregate=short), *records[number + 1 :]])
    for check in (runs.verify, lambda path: runs.replay(path, KERNELS)):
        with pytest.raises(LedgerError, match=f"ledger record {number}: .* bytes of slopes where"):
            check(folder)


# Replay.


def test_replay_gives_the_state_that_training_ended_in(tmp_path) -> None:
    result = made().run(ROUNDS, out=tmp_path)
    for kernels in (KERNELS, PlainKernels(slice_size=8)):
        header, state = runs.replay(tmp_path, kernels)
        assert (digest(state.parameters), state.round, state.attempt) == (result.digest, ROUNDS, 0)
        assert state.average.tobytes() == result.parameters.tobytes()
        assert header == made().header()


def test_replay_needs_the_ledger_alone(tmp_path) -> None:
    result = made().run(ROUNDS, out=tmp_path / "run")
    (tmp_path / "alone").mkdir()
    (tmp_path / "alone" / "ledger").write_bytes(ledger_bytes(tmp_path / "run"))
    assert digest(runs.replay(tmp_path / "alone", KERNELS)[1].parameters) == result.digest


@pytest.mark.parametrize(
    ("changes", "adapts"),
    [
        ({}, False),
        ({"allocation": "adaptive", "forwards": 60}, True),
        ({"allocation": "variance", "forwards": 60, "orthogonal": True, "groups": 2}, True),
        ({"allocation": "adaptive", "forwards": 90, "blocks": ("*.bias",), "spread": 0.0}, True),
        # Every block has all its orthogonal directions in every round.
        ({"allocation": "adaptive", "forwards": 480, "orthogonal": True, "local_steps": 2, "batch": 0}, False),
    ],
    ids=str,
)
def test_every_plan_of_a_ledger_follows_from_the_state_that_its_records_give(changes, adapts, tmp_path) -> None:
    """Budgets, laws and bounds adapt to what was measured; whoever replays the records comes to the same plans."""
    method = msgspec.structs.replace(METHOD, **changes)
    chance = {"unavailable": 0.3, "quorum": 0.7, "seed": 5}
    made = simulation(method, (9, 9, 9), runtime=Layered(), snapshot_every=3, **chance)
    made.run(8, out=tmp_path)
    header, *records = payloads(tmp_path)
    header = decode(header, Header)
    state = header.start({})
    budgets = set()
    for number, record in enumerate(decode(data, Round) for data in records):
        plan = server.plan(header.algorithm, header.federation, state)
        assert encode(plan) == encode(record.plan), number
        budgets.add(tuple(block.budget for block in plan.blocks))
        if record.aggregate is None:
            state = replace(state, attempt=state.attempt + 1)
        else:
            state = server.apply(header.algorithm, state, record.plan, record.aggregate, KERNELS)
    assert len(records) > 8, "with this seed some attempt fails"
    assert (len(budgets) > 1) == adapts, budgets
    assert {block.cost for block in plan.blocks} == {1.0, 9 / 21}


def test_a_digest_that_was_changed_and_chained_again_is_found_by_replay_in_its_record(folder) -> None:
    records = payloads(folder)
    for number, data in enumerate(records):
        if number == 0 or decode(data, Round).digest is None:
            continue
        rewrite(folder, [*records[:number], edited(data, digest="0" * 64), *records[number + 1 :]])
        runs.verify(folder)  # the chain alone can't tell
        with pytest.raises(LedgerError, match=f"ledger record {number}: θ has digest .* the record says 0000"):
            runs.replay(folder, KERNELS)


def test_sums_that_were_changed_and_chained_again_are_found_by_replay_in_their_record(folder) -> None:
    records = payloads(folder)
    number = len(records) - 1
    aggregate = decode(records[number], Round).aggregate
    sums = bytes([aggregate.sums[0] ^ 1]) + aggregate.sums[1:]
    changed = edited(records[number], aggregate=msgspec.structs.replace(aggregate, sums=sums))
    rewrite(folder, [*records[:number], changed])
    with pytest.raises(LedgerError, match=f"ledger record {number}: θ has digest"):
        runs.replay(folder, KERNELS)


def test_another_start_than_the_headers_is_found_in_record_0(folder) -> None:
    records = payloads(folder)
    header = msgspec.structs.replace(decode(records[0], Header), initial="0" * 64)
    rewrite(folder, [encode(header), *records[1:]])
    with pytest.raises(LedgerError, match="ledger record 0: θ₀ has digest"):
        runs.replay(folder, KERNELS)


def test_a_plan_for_another_model_that_was_chained_again_is_told_in_words(folder) -> None:
    records = payloads(folder)
    number = next(i for i, data in enumerate(records) if i and decode(data, Round).aggregate)
    plan = decode(records[number], Round).plan
    first, second = plan.blocks
    wide = msgspec.structs.replace(plan, blocks=(first, msgspec.structs.replace(second, stop=second.stop + 1)))
    rewrite(folder, [*records[:number], edited(records[number], plan=wide), *records[number + 1 :]])
    with pytest.raises(LedgerError) as caught:
        runs.replay(folder, KERNELS)
    assert caught.value.record == number


# Resume.


def test_resume_goes_on_from_whatever_is_left_of_a_ledger(folder, caplog) -> None:
    """Every length: the state is that of the last whole record, the tail is cut off, and a warning tells of it."""
    good = recorded()
    where = starts(good)
    whole_states = {}
    for length in range(len(good) + 1):
        (folder / "ledger").write_bytes(good[:length])
        caplog.clear()
        taken = runs.resume(folder, KERNELS, lambda _: None)
        records = max(sum(start <= length for start in where) - 1, 0)
        if records == 0:
            assert taken is None
            assert not (folder / "ledger").exists()
            continue
        run, state = taken
        run.ledger.close()
        assert ledger_bytes(folder) == good[: where[records]]
        assert run.ledger.records == records
        torn = length - where[records]
        warnings = [record.getMessage() for record in caplog.records]
        assert warnings == (
            [f"the ledger ended in {torn} bytes of an unfinished record; they were cut off"] if torn else []
        )
        whole_states.setdefault(records, set()).add((digest(state.parameters), state.round, state.attempt))
    assert all(len(states) == 1 for states in whole_states.values())
    assert sorted(whole_states) == list(range(1, len(where)))


def test_a_run_that_lost_its_tail_ends_as_if_nothing_had_happened(folder) -> None:
    good = recorded()
    where = starts(good)
    lengths = {0, 5, 8, 9, *(start + by for start in where for by in (-33, -1, 0, 3, 8, 60))}
    for length in sorted(length for length in lengths if 0 <= length <= len(good)):
        out = folder / str(length)
        made().run(ROUNDS, out=out)
        (out / "ledger").write_bytes(good[:length])
        result = made().run(ROUNDS, out=out, resume=True)
        assert ledger_bytes(out) == good
        assert result.ledger_digest == good[-32:].hex()
        assert runs.verify(out)[1] == ROUNDS


@pytest.mark.parametrize("zeros", [3, 8, 4096])
def test_a_tail_of_zeros_is_cut_off_with_a_warning(zeros, tmp_path, caplog) -> None:
    made().run(ROUNDS, out=tmp_path)
    (tmp_path / "ledger").write_bytes(recorded() + bytes(zeros))
    with pytest.raises(LedgerError, match=f"is unfinished: {zeros} bytes"):
        runs.verify(tmp_path)
    made().run(ROUNDS, out=tmp_path, resume=True)
    assert f"the ledger ended in {zeros} bytes of an unfinished record" in caplog.text
    assert ledger_bytes(tmp_path) == recorded()


def test_a_ledger_that_does_not_verify_is_not_resumed_and_not_touched(tmp_path) -> None:
    made().run(ROUNDS, out=tmp_path)
    bad = bytearray(recorded())
    bad[starts(bad)[2] + 20] ^= 4
    (tmp_path / "ledger").write_bytes(bad)
    with pytest.raises(LedgerError) as caught:
        made().run(ROUNDS + 1, out=tmp_path, resume=True)
    assert caught.value.record == 2
    assert ledger_bytes(tmp_path) == bytes(bad)


def test_resume_shows_every_record_once_in_order(tmp_path) -> None:
    made().run(ROUNDS, out=tmp_path)
    shown = []
    run, _ = runs.resume(tmp_path, KERNELS, shown.append)
    run.ledger.close()
    assert [encode(record) for record in shown] == payloads(tmp_path)[1:]


def test_resume_from_a_snapshot_is_resume_from_the_start(tmp_path) -> None:
    """Parameters, average, memory, bounds and attempts: all that a state holds."""
    made().run(ROUNDS - 1, out=tmp_path)
    run, short = runs.resume(tmp_path, KERNELS, lambda _: None)
    run.ledger.close()
    for path in (tmp_path / "snapshots").iterdir():
        path.unlink()
    run, long = runs.resume(tmp_path, KERNELS, lambda _: None)
    run.ledger.close()
    assert short.parameters.tobytes() == long.parameters.tobytes()
    assert short.average.tobytes() == long.average.tobytes()
    assert {name: array.tobytes() for name, array in short.memory.items()} == {
        name: array.tobytes() for name, array in long.memory.items()
    }
    assert (short.round, short.attempt, short.squares) == (long.round, long.attempt, long.squares)


def test_a_snapshot_spares_the_replay_of_what_came_before_it(tmp_path, monkeypatch) -> None:
    simulation(snapshot_every=3).run(8, out=tmp_path)
    for name in ("00000008.safetensors",):
        (tmp_path / "snapshots" / name).unlink()
    applied = []
    apply = runs.server.apply
    monkeypatch.setattr(runs.server, "apply", lambda *a: (applied.append(a[2].round), apply(*a))[1])
    run, state = runs.resume(tmp_path, KERNELS, lambda _: None)
    run.ledger.close()
    assert applied == [6, 7]
    assert state.round == 8


def test_a_full_disk_stops_a_run_that_then_goes_on(tmp_path, monkeypatch) -> None:
    whole, calls = ledger._write, []

    def full(file, data):
        calls.append(0)
        if len(calls) == 5:
            file.write(data[:11])
            raise OSError(28, "No space left on device")
        whole(file, data)

    with monkeypatch.context() as patch:
        patch.setattr(ledger, "_write", full)
        with pytest.raises(LedgerError, match="can't be written: No space left on device; nothing before it is lost"):
            made().run(ROUNDS, out=tmp_path)
    assert recorded().startswith(ledger_bytes(tmp_path))
    runs.verify(tmp_path)
    result = made().run(ROUNDS, out=tmp_path, resume=True)
    assert ledger_bytes(tmp_path) == recorded()
    assert result.rounds == ROUNDS


# Tensors that came with the model.


def with_given() -> object:
    values = np.random.default_rng(4).normal(size=(4, 3)).astype(np.float32)
    return replace(made(), runtime=Network(layout(given=True), given={"first.weight": values}))


def test_given_tensors_are_kept_beside_the_ledger_and_replayed_from_there(tmp_path) -> None:
    result = with_given().run(ROUNDS, out=tmp_path)
    assert (tmp_path / "snapshots" / "initial.safetensors").exists()
    assert digest(runs.replay(tmp_path, KERNELS)[1].parameters) == result.digest
    plain = made().run(ROUNDS)
    assert plain.digest != result.digest


def test_without_its_given_tensors_a_ledger_says_what_is_missing(tmp_path) -> None:
    with_given().run(ROUNDS, out=tmp_path)
    (tmp_path / "snapshots" / "initial.safetensors").unlink()
    with pytest.raises(LedgerError, match=r"initial\.safetensors can't be read"):
        runs.replay(tmp_path, KERNELS)
    assert runs.verify(tmp_path)[1] == ROUNDS  # the chain needs no weights


def test_given_tensors_of_another_model_are_found_by_their_digest(tmp_path) -> None:
    with_given().run(ROUNDS, out=tmp_path)
    path = tmp_path / "snapshots" / "initial.safetensors"
    write_tensors(path, {"first.weight": np.ones((4, 3), np.float32)}, {})
    with pytest.raises(LedgerError, match="ledger record 0: θ₀ has digest"):
        runs.replay(tmp_path, KERNELS)


def test_given_tensors_that_were_damaged_are_told(tmp_path) -> None:
    with_given().run(ROUNDS, out=tmp_path)
    path = tmp_path / "snapshots" / "initial.safetensors"
    data = bytearray(path.read_bytes())
    data[-3] ^= 1
    path.write_bytes(data)
    with pytest.raises(LedgerError) as caught:
        runs.replay(tmp_path, KERNELS)
    assert caught.value.record == 0


def test_tensors_that_are_drawn_are_not_written(tmp_path) -> None:
    made().run(1, out=tmp_path)
    assert not (tmp_path / "snapshots" / "initial.safetensors").exists()


def test_a_new_run_is_not_begun_in_a_folder_that_holds_one(tmp_path) -> None:
    made().run(1, out=tmp_path)
    before = ledger_bytes(tmp_path)
    with pytest.raises(BaffleError, match="holds a run already: resume it, or name another folder"):
        made().run(1, out=tmp_path)
    assert ledger_bytes(tmp_path) == before


def test_a_header_survives_its_own_bytes() -> None:
    header = simulation(msgspec.structs.replace(METHOD, groups=2), (3, 9), weight="equal").header()
    assert decode(encode(header), Header) == header
    assert (header.noise, header.samples, header.federation.most_samples) == (1, (3, 9), 1)


def test_a_ledger_of_another_noise_version_is_refused(folder) -> None:
    """Its directions would be other ones; only the digests could tell, and not why."""
    records = payloads(folder)
    rewrite(folder, [encode(msgspec.structs.replace(decode(records[0], Header), noise=2)), *records[1:]])
    for check in (runs.verify, lambda path: runs.replay(path, KERNELS)):
        with pytest.raises(LedgerError, match=r"ledger record 0: .*noise"):
            check(folder)


def test_warnings_go_to_the_librarys_own_log() -> None:
    assert runs.log is logging.getLogger("baffle")


def test_a_runs_folder_is_made_with_those_above_it(tmp_path) -> None:
    run = runs.begin(tmp_path / "a" / "b", simulation().header(), {})
    run.ledger.close()
    assert runs.verify(tmp_path / "a" / "b")[1] == 0
