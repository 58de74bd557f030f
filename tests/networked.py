"""A server and its clients in one process, threads instead of machines."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from baffle.engines.network.channel import Channel
from baffle.engines.network.dialogue import Kind, Reply, heard
from baffle.engines.network.home import Home
from baffle.engines.network.hub import Hub
from baffle.engines.network.loopback import Faults, Line
from baffle.engines.network.member import Equipment, Member
from baffle.engines.network.roster import Roster
from baffle.engines.network.standing import Standing
from baffle.keys import Key
from baffle.parameters import digest
from baffle.progress import Progress, Result
from baffle.serving import Service
from baffle.simulation import Simulation

KIND = Kind((4,), 3)
KIND_TO_ALL = Faults()
CHANNEL = {"ask", "sign", "patience", "server_of"}
"""Changes that are of a client's channel."""


def hub_of(made: Simulation, **changes: Any) -> Hub:
    settings: dict[str, Any] = {"deadline": 20.0, "park": 5.0, "settle": 5.0}
    roster = changes.pop("roster", Roster(len(made.shares), None))
    return Hub(roster=roster, settings={"name": "test"}, kind=KIND, **(settings | changes))


@dataclass
class Machine:
    """A client's thread."""

    member: Member
    error: BaseException | None = None
    thread: threading.Thread = field(init=False)

    def __post_init__(self) -> None:
        self.thread = threading.Thread(target=self._work, daemon=True)
        self.thread.start()

    def _work(self) -> None:
        try:
            self.member.run()
        except BaseException as error:
            self.error = error
        finally:
            self.member.standing.home.close()

    def join(self, seconds: float = 20.0) -> None:
        self.thread.join(seconds)
        assert not self.thread.is_alive(), "the client goes on"

    def stop(self) -> None:
        self.member.channel.stopped.set()
        self.join()

    @property
    def digest(self) -> str:
        state = self.member.standing.state
        assert state is not None
        return digest(state.parameters)


@dataclass
class Net:
    """A federation of threads; `hub` can be replaced while its clients go on."""

    made: Simulation
    folder: Path
    hub: Hub
    faults: Faults = KIND_TO_ALL
    machines: dict[int, Machine] = field(default_factory=dict)
    lines: dict[int, Line] = field(default_factory=dict)

    def receive(self, request: Any) -> None:
        self.hub.receive(request)

    def member(self, number: int, **changes: Any) -> Member:
        client, indices = self.made.clients()[number], self.made.shares[number].indices
        equipment = Equipment(
            self.made.runtime, indices.size, client.draw, client.private, reproducible=changes.pop("reproducible", True)
        )
        line = self.lines[number] = Line(self.receive, self.faults, Key.root(7).fold(number))
        patience = 0.3 if self.faults.lose else 20.0
        own = {"ask": line.ask, "patience": patience} | {name: changes.pop(name) for name in CHANNEL & set(changes)}
        home = changes.pop("home", None) or Home(self.folder / f"client-{number}")
        return Member(
            channel=Channel(number=number, **own),
            standing=Standing(home=home, kernels=self.made.kernels, save_seconds=0.0),
            equip=lambda _: equipment,
            **changes,
        )

    def start(self, number: int, **changes: Any) -> Machine:
        machine = self.machines[number] = Machine(self.member(number, **changes))
        return machine

    def service(self, **changes: Any) -> Service:
        settings = {"out": self.folder / "run", "reproducible": True, "least": len(self.made.shares), "linger": 10.0}
        return Service(simulation=self.made, hub=self.hub, **(settings | changes))

    def serve(self, rounds: int, *, progress: Callable[[Progress], None] = lambda _: None, **changes: Any) -> Result:
        return self.service(**changes).run(rounds, settings={"name": "test"}, progress=progress)

    def entry(self, number: int) -> dict[str, Any]:
        return next(row for row in self.hub.status()["clients"] if row["client"] == number)

    def meanwhile(self, first: int, last: int, act: Callable[[], None]) -> Callable[[Progress], None]:
        """Return what does something between two rounds, beside the rounds; round `last` waits for its end."""
        thread = threading.Thread(target=act)

        def watch(where: Progress) -> None:
            if where.round == first:
                thread.start()
            elif where.round == last:
                thread.join(20.0)
                assert not thread.is_alive(), "what goes on meanwhile has no end"

        return watch

    def joined(self, number: int, times: int = 1, seconds: float = 20.0) -> None:
        """Wait until a client has joined so many times."""
        end = time.monotonic() + seconds
        while not any(row["client"] == number and row["joined"] >= times for row in self.hub.status()["clients"]):
            assert time.monotonic() < end, f"client {number} does not join"
            time.sleep(0.002)


@contextmanager
def net(
    made: Simulation, folder: Path, *, faults: Faults = KIND_TO_ALL, start: bool = True, **changes: Any
) -> Iterator[Net]:
    """Give a federation whose clients have started."""
    hub = hub_of(made, **changes)
    with hub:
        found = Net(made, folder, hub, faults)
        if start:
            for number in range(len(made.shares)):
                found.start(number)
        try:
            yield found
        finally:
            for machine in found.machines.values():
                machine.member.channel.stopped.set()
            found.hub.close()


class Question:
    """A message to a hub, and its answer."""

    def __init__(self, payload: bytes) -> None:
        self.payload, self.answer, self.arrived = payload, b"", threading.Event()

    def reply(self, payload: bytes) -> None:
        self.answer = payload
        self.arrived.set()


def say(hub: Hub, payload: bytes, seconds: float = 5.0) -> Reply:
    """Return what a hub replies to a message."""
    question = Question(payload)
    hub.receive(question)
    assert question.arrived.wait(seconds), "no reply"
    return heard(question.answer)
