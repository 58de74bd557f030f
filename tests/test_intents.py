"""What was asked counts as spent, whatever crashes: intents, the room held for records, restarts of private runs."""

from __future__ import annotations

import errno
import os
import random

import msgspec
import pytest

from baffle import LedgerError, SettingsError, ledger
from baffle import run as runs
from baffle.budget import Account, Target
from baffle.engines import Local
from baffle.errors import StorageError
from baffle.messages import Intent, Plan, Round
from baffle.simulation import Simulation
from baffle.storage import Room
from federation import KERNELS, memory_folder, rounds_in, simulation
from test_golden_runs import GOLDEN

pytest.importorskip("dp_accounting")
EPSILON, ROUNDS = 8.0, 4


class Crash(BaseException):
    """The process ends here."""


def private(mechanism: str = "gaussian", **changes) -> Simulation:
    secure = "ideal" if mechanism == "shares" else "none"
    settings = {"weight": "equal", "secure": secure, "quorum": 1.0, "snapshot_every": 2}
    return simulation(privacy=Target(mechanism=mechanism, epsilon=EPSILON, rounds=12), **(settings | changes))


@pytest.fixture
def asked(monkeypatch) -> list[Plan]:
    """The plans that engines have carried: from then on somebody may have seen the answers."""
    plans: list[Plan] = []
    gathering = Simulation.gathering

    def watched(self):
        engine = gathering(self)

        class Watching:
            present, close = engine.present, engine.close

            @staticmethod
            def gather(plan, parameters):
                plans.append(plan)
                return engine.gather(plan, parameters)

        return Watching()

    monkeypatch.setattr(Simulation, "gathering", watched)
    return plans


def dying(whole, left: int, *, after: bool):
    """Return what does as `whole`, but ends the process at its call number `left`, before or after its work."""
    calls = iter(range(left, -1, -1))

    def dies(*arguments):
        last = next(calls, None) == 0
        if last and not after:
            raise Crash
        found = whole(*arguments)
        if last:
            raise Crash
        return found

    return dies


def crash(*_) -> None:
    raise Crash


def disk_is_full(*_) -> None:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def spent(folder) -> float:
    """ε that the ledger says the client asked most often has spent, from its records alone."""
    header, records = runs.read(folder)
    account = Account.of(header.algorithm, header.federation.clients, header.budget)
    for record in records:
        if isinstance(record, Intent):
            account.count(record.cohort)
    return account.spent


def cost(folder, attempts: int) -> float:
    header, _ = runs.read(folder)
    account = Account.of(header.algorithm, header.federation.clients, header.budget)
    for _ in range(attempts):
        account.count(range(header.federation.clients))
    return account.spent


# Which runs have intents.


@pytest.mark.parametrize(
    ("made", "guarded"),
    [
        (simulation(), False),
        (simulation(secure="ideal"), True),
        (private(), True),
        (private("shares"), True),
    ],
    ids=["open", "secure", "private", "shares"],
)
def test_runs_with_a_budget_or_secure_sums_alone_have_intents(made, guarded, tmp_path) -> None:
    made.run(ROUNDS, out=tmp_path)
    _, records = runs.read(tmp_path)
    kinds = [type(record) for record in records]
    assert kinds == ([Intent, Round] if guarded else [Round]) * ROUNDS
    assert runs.verify(tmp_path)[1] == ROUNDS
    assert runs.replay(tmp_path, KERNELS)[1].round == ROUNDS
    assert not (tmp_path / "room").exists()


def test_the_intent_is_on_disk_before_anybody_is_asked(tmp_path, monkeypatch) -> None:
    seen = []
    gather = Local.gather

    def looked(self, plan, parameters):
        seen.append(runs.read(tmp_path)[1][-1] == Intent.of(plan))
        return gather(self, plan, parameters)

    monkeypatch.setattr(Local, "gather", looked)
    private().run(ROUNDS, out=tmp_path)
    assert seen == [True] * ROUNDS


def test_the_average_of_the_weights_is_in_the_digests(tmp_path) -> None:
    """An edit of the averaging in the header is found: the averaged weights are what a run returns."""
    simulation().run(3, out=tmp_path)
    records = rounds_in(tmp_path)
    assert all(record.average != record.digest for record in records)
    header, _ = runs.read(tmp_path)
    average = msgspec.structs.replace(header.algorithm.average, decay=0.1)
    method = msgspec.structs.replace(header.algorithm, average=average)
    payloads = list(runs.Reader(tmp_path / "ledger"))
    (tmp_path / "ledger").unlink()
    chain = ledger.Ledger.create(tmp_path / "ledger")
    for payload in [msgspec.msgpack.encode(msgspec.structs.replace(header, algorithm=method)), *payloads[1:]]:
        chain.append(payload)
    chain.close()
    with pytest.raises(LedgerError, match=r"ledger record \d: the average of the weights has digest"):
        runs.replay(tmp_path, KERNELS)


# Crashes.


def test_a_hundred_crashes_never_open_more_than_the_ledger_says(asked, monkeypatch) -> None:
    """At every step of private rounds: before and after the intent, the answers, the record and the snapshot."""
    chance, crashes, runs_ended = random.Random(16), 0, 0
    places = [
        *((ledger.Ledger, "append"), (Room, "hold"), (Local, "gather")),
        *((runs.Run, "intend"), (runs.Run, "append"), (runs.Run, "snapshot")),
    ]
    made = private(unavailable=0.1)
    with memory_folder() as folder:
        while crashes < 100:
            owner, name = chance.choice(places)
            dies = dying(getattr(owner, name), chance.randrange(4), after=chance.random() < 0.5)
            with monkeypatch.context() as patch:
                patch.setattr(owner, name, dies)
                try:
                    result = made.run(10_000, out=folder, resume=(folder / "settings.toml").exists())
                except Crash:
                    crashes += 1
                    if asked:
                        assert spent(folder) >= cost(folder, len(asked))
                    continue
            assert result.epsilon == spent(folder) <= EPSILON  # the budget is spent: begin another run
            runs_ended += 1
            assert len({(plan.round, plan.attempt) for plan in asked}) == len(asked), "an attempt was asked twice"
            asked.clear()
            for path in sorted(folder.rglob("*"), reverse=True):
                path.unlink() if path.is_file() else path.rmdir()
    assert runs_ended > 5


def test_what_is_cut_off_moves_to_the_next_attempt(tmp_path, monkeypatch) -> None:
    made = private()
    with monkeypatch.context() as patch:
        patch.setattr(runs.Run, "append", crash)
        for number in range(3):
            with pytest.raises(Crash):
                made.run(2, out=tmp_path, resume=number > 0)
    assert [(record.round, record.attempt) for record in runs.read(tmp_path)[1]] == [(0, 0), (0, 1), (0, 2)]
    result = made.run(2, out=tmp_path, resume=True)
    assert [(record.plan.round, record.plan.attempt) for record in rounds_in(tmp_path)] == [(0, 3), (1, 0)]
    assert result.epsilon == spent(tmp_path) == cost(tmp_path, 5)


def test_a_restart_spends_until_the_budget_ends_and_no_further(tmp_path, monkeypatch) -> None:
    made = private()
    attempts = made.header().budget.attempts
    with monkeypatch.context() as patch:
        patch.setattr(runs.Run, "append", crash)
        for number in range(attempts):
            with pytest.raises(Crash):
                made.run(2, out=tmp_path, resume=number > 0)
        result = made.run(2, out=tmp_path, resume=True)
    assert result.rounds == 0
    assert result.epsilon <= EPSILON


# The room.


def test_a_disk_that_fills_up_after_the_intent_still_takes_the_record(tmp_path, monkeypatch, caplog) -> None:
    whole, made = ledger._write, private()

    def full(file, data):
        """No room, but what the run itself gives back."""
        if b"round" in data[:20] and (tmp_path / "room").exists():
            file.write(data[:9])
            disk_is_full()
        whole(file, data)

    with monkeypatch.context() as patch:
        patch.setattr(ledger, "_write", full)
        made.run(2, out=tmp_path)
    assert "the record takes the room that was held for it" in caplog.text
    assert runs.verify(tmp_path)[1] == 2
    assert spent(tmp_path) == cost(tmp_path, 2)


def test_a_disk_without_room_for_the_record_ends_the_run_before_anybody_is_asked(asked, tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(os, "urandom", disk_is_full)
    with pytest.raises(StorageError, match=r"room can't hold \d+ bytes: No space left on device"):
        private().run(2, out=tmp_path)
    assert asked == []
    assert runs.read(tmp_path)[1] == []


def test_room_is_held_once_and_given_back(tmp_path) -> None:
    room = Room(tmp_path / "room")
    room.hold(100)
    first = room.path.stat().st_mtime_ns
    room.hold(50)
    assert (room.path.stat().st_size, room.path.stat().st_mtime_ns) == (100, first)
    room.hold(200)
    assert room.path.stat().st_size == 200
    assert room.release()
    assert not room.release()


# Runs that an earlier version began.


def test_an_open_run_of_version_1_goes_on_in_version_1(tmp_path) -> None:
    made = simulation()
    made.run(3, out=tmp_path)
    _as_version_1(tmp_path)
    result = made.run(6, out=tmp_path, resume=True)
    assert (tmp_path / "ledger").read_bytes()[:8] == b"BAFFLE\x01\n"
    assert runs.replay(tmp_path, KERNELS)[1].round == 6
    assert result.digest == made.run(6).digest
    assert {record.average for record in rounds_in(tmp_path)} == {None}


def test_a_private_run_of_version_1_does_not_go_on(tmp_path) -> None:
    made = private()
    first = made.run(2, out=tmp_path)
    _as_version_1(tmp_path)
    assert made.run(2, out=tmp_path, resume=True).epsilon == first.epsilon == cost(tmp_path, 2)  # it is over
    with pytest.raises(SettingsError, match="with a budget or secure sums it can't go on"):
        made.run(3, out=tmp_path, resume=True)
    assert runs.replay(tmp_path, KERNELS)[1].round == 2


def _as_version_1(folder) -> None:
    """Write a run's ledger as the release before would have."""
    from baffle.messages import encode
    from baffle.records import encode_record

    header, records = runs.read(folder)
    frames, before = b"BAFFLE\x01\n", bytes(32)
    for payload in [encode(header), *(encode_record(record, 1) for record in records if isinstance(record, Round))]:
        frame, before = ledger._frame(before, payload)
        frames += frame
    (folder / "ledger").write_bytes(frames)
    for path in (folder / "snapshots").glob("*"):
        path.unlink()


def test_golden_runs_of_version_1_have_no_intents() -> None:
    assert not any(isinstance(record, Intent) for record in runs.read(GOLDEN / "v1" / "shares")[1])
