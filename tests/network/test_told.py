"""What people are told while they wait: who is missing, and clocks that differ."""

from __future__ import annotations

import itertools
import logging
import threading

import pytest

from baffle.engines.network import hub as hubs
from baffle.engines.network import member as members
from baffle.engines.network.dialogue import Welcome
from baffle.engines.network.roster import Entry, Roster
from federation import simulation
from networked import KIND, Net, hub_of, net

WAITING = "waiting for clients: "


class Record(logging.Handler):
    """Keeps the words of warnings, and says when a certain one has come."""

    def __init__(self, words: str) -> None:
        super().__init__(logging.WARNING)
        self.words, self.kept, self.came = words, [], threading.Event()

    def emit(self, record: logging.LogRecord) -> None:
        self.kept.append(record.getMessage())
        if self.words in self.kept[-1]:
            self.came.set()


@pytest.fixture
def told():
    record = Record(WAITING)
    logging.getLogger("baffle").addHandler(record)
    yield record
    logging.getLogger("baffle").removeHandler(record)


def there(number: int, *, ready: bool = True) -> Entry:
    return Entry(number, session=b"session%d" % number, samples=12, ready=ready)


def waited(roster: Roster, told: Record, count, least: int) -> list[str]:
    """Return what is said of a hub that waits for clients, until one more is there."""
    hub = hub_of(simulation(), roster=roster)

    def wait() -> None:
        with hub._changed:
            hub._wait(lambda: count(roster), least)

    thread = threading.Thread(target=wait)
    thread.start()
    assert told.came.wait(20.0), "nothing is said"
    with hub._changed:
        roster.entries |= {number: there(number) for number in range(least)}
        hub._changed.notify_all()
    thread.join(20.0)
    assert not thread.is_alive()
    return [words for words in told.kept if WAITING in words]


def ready(roster: Roster) -> int:
    return len(roster.ready())


def test_a_server_that_waits_says_for_how_many_and_for_whom(told, monkeypatch) -> None:
    monkeypatch.setattr(hubs, "_TOLD", 0.01)
    roster = Roster(4, None, frozenset({0, 1, 2, 3}), entries={0: there(0), 1: there(1, ready=False)})
    words = waited(roster, told, ready, 3)[0]
    assert words == "waiting for clients: 1 of 3 are ready, 1 are catching up; missing: 2, 3"


def test_clients_that_are_not_admitted_are_not_missing(told, monkeypatch) -> None:
    monkeypatch.setattr(hubs, "_TOLD", 0.01)
    roster = Roster(4, None, frozenset({0, 1, 3}), entries={0: there(0)})
    assert waited(roster, told, ready, 2)[0] == "waiting for clients: 1 of 2 are ready; missing: 1, 3"


def test_of_many_that_are_missing_the_first_twenty_are_named(told, monkeypatch) -> None:
    monkeypatch.setattr(hubs, "_TOLD", 0.01)
    first = ", ".join(map(str, range(20)))
    assert waited(Roster(21, None), told, ready, 1)[0].endswith(f"; missing: {first}, ...")
    assert hubs._named(range(20)) == f"; missing: {first}"


def test_nothing_is_said_while_there_is_time(told) -> None:
    roster = Roster(2, None, entries={0: there(0)})
    hub = hub_of(simulation(), roster=roster)
    assert hubs._TOLD >= 5
    with hub._changed:
        hub._wait(lambda: ready(roster), 2, until=hubs.time.monotonic() + 0.01)
    assert told.kept == []


@pytest.fixture
def member(tmp_path):
    with net(simulation(), tmp_path, start=False) as federation:
        made = Net.member(federation, 0)
        yield made
        made.standing.home.close()


@pytest.mark.parametrize(
    ("off", "words"),
    [
        (301, "the server's clock is 301 s ahead of this one"),
        (-301, "the server's clock is 301 s behind this one"),
        (299, None),
        (-299, None),
        (0, None),
    ],
)
def test_a_server_whose_clock_differs_by_five_minutes_is_told_of(off, words, member, monkeypatch, told) -> None:
    monkeypatch.setattr(members.time, "time", lambda: 1_000_000.0)
    member._welcomed(Welcome({"name": "test"}, KIND, 1_000_000.0 + off))
    assert told.kept == ([words] if words else [])


def test_a_client_says_how_far_it_is_after_each_round(tmp_path) -> None:
    seen: list[members.Where] = []
    made = simulation()
    with net(made, tmp_path, start=False) as found:
        found.start(0, told=seen.append)
        for number in (1, 2):
            found.start(number)
        found.serve(4)
        found.machines[0].join()
    assert [where.round for where in seen] == [1, 2, 3, 4]
    assert [where.answered for where in seen] == [1, 2, 3, 4]
    assert all(a.up < b.up and a.down < b.down for a, b in itertools.pairwise(seen))
    assert seen[0].up > 0


@pytest.mark.parametrize(("samples", "said"), [(1, 1), (2, 2), (3, 4), (8, 8), (9, 16), (1000, 1024)])
def test_where_sums_are_secure_a_client_says_the_next_power_of_two_of_its_samples(samples, said, tmp_path) -> None:
    with net(simulation(), tmp_path, start=False) as found:
        member = found.member(0)
        assert member._said(samples) == samples
        member.secure = True
        assert member._said(samples) == said
        member.standing.home.close()
