"""How far each side thinks the other is: states that a client keeps on its disk, and clients that can be called."""

from __future__ import annotations

from pathlib import Path

import pytest

from baffle.engines.network import standing as standings
from baffle.engines.network.dialogue import Begin, Offer, Wait, run_name
from baffle.engines.network.home import Home
from baffle.engines.network.roster import Entry, Roster
from baffle.engines.network.served import Served
from baffle.engines.network.shelf import Shelf
from baffle.engines.network.standing import Standing
from baffle.engines.network.steps import Window, step_of
from baffle.engines.suspicion import Suspicion
from baffle.keys import Key
from baffle.messages import encode
from baffle.secure.group_testing import GroupTesting
from baffle.snapshots import write_snapshot
from federation import KERNELS, play, simulation


def played(rounds: int):
    """Return a simulation, its header, the steps of its first rounds and the states between them."""
    made = simulation()
    header = made.header()
    states, steps = [header.start({})], []
    for _ in range(rounds):
        outcome = play(made, states[-1]).advance()
        states.append(outcome.state)
        steps.append(step_of(outcome.record, 3))
    return made, header, steps, states


class Clock:
    """Time that goes on when it is told to."""

    def __init__(self, monkeypatch) -> None:
        self.now = 1000.0
        monkeypatch.setattr(standings.time, "monotonic", lambda: self.now)


class Kept:
    """A home that counts what is written to it."""

    def __init__(self, home: Home, monkeypatch) -> None:
        self.versions: list[int] = []
        whole = Home.keep

        def keep(at: Home, name: str, header, state) -> bool:
            assert at is home
            self.versions.append(state.round)
            return whole(at, name, header, state)

        monkeypatch.setattr(Home, "keep", keep)


@pytest.fixture
def kept(tmp_path, monkeypatch):
    """A client that has begun a run, its clock, and the versions that it wrote."""
    made, header, steps, _ = played(3)
    clock = Clock(monkeypatch)
    with Home(tmp_path / "client") as home:
        writes = Kept(home, monkeypatch)
        standing = Standing(home=home, kernels=KERNELS, save_seconds=60.0)
        assert standing.begin(encode(header), made.runtime, anew=False)
        yield standing, steps, clock, writes.versions


def test_a_run_that_goes_on_is_not_begun_again_unless_what_is_here_is_of_no_use(kept) -> None:
    standing, steps, *_ = kept
    moved, runtime, header = standing.follow(steps[:1]), simulation().runtime, encode(standing.header)
    assert standing.begin(header, runtime, anew=False) is False
    assert standing.state is moved
    assert standing.begin(header, runtime, anew=True) is True
    assert standing.version == 0


def test_a_state_is_written_once_in_so_many_seconds(kept) -> None:
    standing, steps, clock, written = kept
    standing.follow(steps[:1])
    assert written == [1]
    clock.now += 59.0
    standing.follow(steps[1:2])
    assert written == [1]
    clock.now += 1.0
    standing.follow(steps[2:])
    assert written == [1, 3]


def test_a_state_is_not_written_again_where_it_is_on_disk(kept) -> None:
    standing, steps, clock, written = kept
    standing.save(0.0)
    standing.save(0.0)
    assert written == [0]
    standing.follow(steps[:1])
    standing.save(0.0)
    assert written == [0, 1]
    clock.now += 1000.0
    standing.save(0.0)
    standing.follow([])
    assert written == [0, 1]


def test_a_clients_end_writes_what_came_within_the_seconds(kept) -> None:
    standing, steps, _, written = kept
    standing.follow(steps[:1])
    standing.follow(steps[1:])
    assert written == [1]
    standing.save(0.0)
    assert written == [1, 3]


def served(folder: Path, header, steps, *, most_bytes: int = 1 << 20) -> Served:
    encoded = encode(header)
    suspicion = Suspicion(GroupTesting(Key.root(0)), 0)
    shelf = Shelf(folder, header.federation.layout)
    run = Served(header, encoded, run_name(encoded), Window(most_bytes), shelf, suspicion)
    for step in steps:
        run.window.append(step)
    run.version = len(steps)
    return run


def there(number: int, version: int | None) -> Entry:
    """Return a client that waited to be called when its state was lost."""
    return Entry(number, session=b"session-", samples=12, ready=True, version=version)


@pytest.mark.parametrize("version", [None, 7], ids=["without a state", "ahead of the server"])
def test_a_client_that_begins_again_is_not_there_to_be_called(version, tmp_path) -> None:
    _, header, steps, _ = played(2)
    run = served(tmp_path, header, steps)
    roster = Roster(3, None, entries={0: there(0, 2), 1: there(1, version)})
    assert roster.ready() == [0, 1]
    assert run.next(roster.entries[1]) == Begin(encode(header), True)
    assert roster.ready() == [0]
    assert run.next(roster.entries[0]) is None
    assert roster.ready() == [0]


def test_a_client_that_fetches_a_snapshot_is_not_there_to_be_called(tmp_path) -> None:
    _, header, steps, states = played(3)
    write_snapshot(tmp_path, header.federation.layout, states[2], bytes(32))
    run = served(tmp_path, header, steps)
    roster = Roster(3, None, entries={0: there(0, 3), 1: there(1, None), 2: there(2, 3)})
    offer = run.next(roster.entries[1])
    assert isinstance(offer, Offer)
    assert offer.version == 2
    assert roster.ready() == [0, 2]


def test_a_client_that_heard_the_end_is_not_there_to_be_called(tmp_path) -> None:
    _, header, steps, _ = played(1)
    run = served(tmp_path, header, steps)
    run.finished = True
    entry = there(0, 1)
    assert not isinstance(run.next(entry), Wait | None)
    assert (entry.told, entry.ready) == (True, False)
