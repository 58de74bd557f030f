"""A federation of real processes on this machine: servers and clients that can be killed, stopped, and spoilt.

Run as a script it is one of them, with the small network of federation.py; `Machines` starts and ends them.
"""

from __future__ import annotations

import json
import logging
import os
import random
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

HOST = "127.0.0.1"
PATIENCE = 60.0
"""Seconds for which a test waits before it fails."""
NOW = datetime.now(UTC)

log = logging.getLogger("baffle")


# Keys, as `baffle keys` writes them.


def write_keys(folder: Path, files: dict[str, bytes]) -> Path:
    folder.mkdir(parents=True)
    for name, data in files.items():
        path = folder / name
        path.write_bytes(data)
        path.chmod(0o600)
    return folder


@dataclass
class Authority:
    """A federation's, which makes keys into folders."""

    folder: Path
    name: str = "test"

    def __post_init__(self) -> None:
        from baffle import certificates

        self.pair = certificates.authority(self.name, 100, NOW - timedelta(days=30))

    def server(self, name: str = "server") -> Path:
        from baffle import certificates

        if (self.folder / name).exists():
            return self.folder / name
        made = certificates.server(self.pair, [HOST, "localhost"], 10, NOW)
        files = {"ca.pem": self.pair.certificate, "server.pem": made.certificate, "server-key.pem": made.key}
        return write_keys(self.folder / name, files)

    def client(self, number: int, *, days: int = 10, now: datetime = NOW) -> Path:
        from baffle import certificates

        folder = self.folder / f"client-{number}-{days}-{(now - NOW).days}"
        if folder.exists():
            return folder
        links, signs = (make(self.pair, number, days, now) for make in (certificates.client, certificates.signing))
        files = {
            "ca.pem": self.pair.certificate,
            "client.pem": links.certificate,
            "client-key.pem": links.key,
            "sign.pem": signs.certificate,
            "sign-key.pem": signs.key,
        }
        return write_keys(folder, files)


# Processes, from the test's side.


def free_port() -> int:
    with socket.socket() as found:
        found.bind((HOST, 0))
        return int(found.getsockname()[1])


def until(done: Callable[[], Any], what: str, seconds: float = PATIENCE) -> Any:
    """Wait for something, and return it."""
    end = time.monotonic() + seconds
    while not (found := done()):
        assert time.monotonic() < end, f"{what} does not come"
        time.sleep(0.02)
    return found


@dataclass
class Machine:
    """A process, and what it says."""

    process: subprocess.Popen[bytes]
    path: Path

    @property
    def log(self) -> str:
        return self.path.read_text(errors="replace")

    def says(self, words: str, times: int = 1, seconds: float = PATIENCE) -> str:
        """Wait until the process has said something; return all that it said."""
        end = time.monotonic() + seconds
        while (text := self.log).count(words) < times:
            over = self.process.poll() is not None and self.log.count(words) < times
            assert not over, f"ended with {self.process.returncode} before it said {words!r}:\n{self.log}"
            assert time.monotonic() < end, f"{words!r} is not said:\n{text}"
            time.sleep(0.02)
        return text

    def send(self, number: int) -> None:
        """Send a signal to this process alone."""
        self.process.send_signal(number)

    def kill(self) -> None:
        """Kill as a power failure does, and wait until it is so."""
        self.send(signal.SIGKILL)
        self.process.wait(PATIENCE)

    def ends(self, status: int = 0, seconds: float = PATIENCE) -> str:
        """Wait for the end, which must be the expected one; return all that was said."""
        try:
            found = self.process.wait(seconds)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"it goes on:\n{self.log}") from None
        assert found == status, f"ended with {found}:\n{self.log}"
        return self.log

    def value(self, name: str) -> str:
        """Return what the process said last of something, as `name=value`."""
        found = [word for word in self.log.split() if word.startswith(f"{name}=")]
        assert found, f"nothing is said of {name}:\n{self.log}"
        return found[-1].partition("=")[2]

    def memory(self) -> int:
        """Return the most memory that the process has had so far, in bytes."""
        lines = Path(f"/proc/{self.process.pid}/status").read_text().splitlines()
        return next(1024 * int(line.split()[1]) for line in lines if line.startswith("VmHWM"))


@dataclass
class Machines:
    """Processes of one test; `server` and `client` are of the small network, `cli` is any command."""

    folder: Path
    authority: Authority | None
    clients: int = 3
    port: int = field(default_factory=free_port)
    settings: dict[str, Any] = field(default_factory=dict)
    """Of the simulation, for servers and clients alike."""
    made: list[Machine] = field(default_factory=list)

    @property
    def place(self) -> str:
        return f"{HOST}:{self.port}"

    @property
    def out(self) -> Path:
        return self.folder / "run"

    def start(self, command: Sequence[str], **changes: Any) -> Machine:
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path)), "COLUMNS": "200"}
        path = self.folder / f"log-{len(self.made)}"
        with path.open("wb") as file:
            process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=file, stderr=file, cwd=self.folder, env=environment, **changes
            )
        self.made.append(Machine(process, path))
        return self.made[-1]

    def cli(self, *arguments: object, **changes: Any) -> Machine:
        return self.start([sys.executable, "-m", "baffle", *map(str, arguments)], **changes)

    def _script(self, kind: str, settings: dict[str, Any], **changes: Any) -> Machine:
        return self.start([sys.executable, __file__, kind, json.dumps(settings)], **changes)

    def server(self, rounds: int, *, process: dict[str, Any] | None = None, **changes: Any) -> Machine:
        settings = {
            "out": str(self.out),
            "place": self.place,
            "keys": str(self.authority.server()) if self.authority else "",
            "clients": self.clients,
            "simulation": self.settings,
            "rounds": rounds,
        }
        return self._script("serve", settings | changes, **(process or {}))

    def client(self, number: int, **changes: Any) -> Machine:
        """Start a client that computes for `pause` seconds, in each round or once, after `quick` rounds."""
        settings = {
            "number": number,
            "place": self.place,
            "keys": str(self.authority.client(number)) if self.authority else "",
            "state": str(self.folder / f"client-{number}"),
            "clients": self.clients,
            "simulation": self.settings,
        }
        return self._script("join", settings | changes)

    def all_clients(self, **changes: Any) -> list[Machine]:
        return [self.client(number, **changes) for number in range(self.clients)]

    def simulated(self) -> Any:
        return simulated({"clients": self.clients, "simulation": self.settings})

    def local(self, rounds: int) -> Any:
        """Return the result of the same run in this process."""
        return self.simulated().run(rounds, out=self.folder / "local")

    def records(self) -> list[Any]:
        from baffle import run as runs

        return list(runs._records(runs.Reader(self.out / "ledger")))[1:]

    def rounds(self) -> int:
        """Return how many rounds are in the ledger, tries that did not count among them, while it is written."""
        from baffle.ledger import Reader

        return max(0, sum(1 for _ in Reader(self.out / "ledger")) - 1) if (self.out / "ledger").exists() else 0

    def until_round(self, number: int, seconds: float = PATIENCE) -> None:
        until(lambda: self.rounds() >= number, f"round {number}", seconds)

    def status(self) -> dict[str, Any]:
        try:
            return json.loads((self.out / "status.json").read_text())
        except OSError:
            return {"clients": []}

    def row(self, number: int) -> dict[str, Any]:
        return next((row for row in self.status()["clients"] if row["client"] == number), {})

    def check(self, clients: Sequence[Machine], rounds: int) -> None:
        """Check that the ledger is good, and that every client has its model."""
        from baffle import run as runs
        from baffle.kernels import PlainKernels
        from baffle.parameters import digest

        assert runs.verify(self.out)[1] == rounds
        _, state = runs.replay(self.out, PlainKernels())
        for client in clients:
            client.ends()
            assert client.value("digest") == digest(state.parameters)

    def end(self) -> None:
        for machine in self.made:
            if machine.process.poll() is None:
                machine.process.kill()
            machine.process.wait(PATIENCE)


@contextmanager
def machines(folder: Path, authority: Authority | None, **changes: Any) -> Iterator[Machines]:
    """Give a place for processes; all are ended by their numbers, whatever happens."""
    found = Machines(folder, authority, **changes)
    try:
        yield found
    finally:
        found.end()


# Processes, from their own side.


def simulated(settings: dict[str, Any]) -> Any:
    import federation

    return federation.simulation(sizes=(12,) * settings["clients"], **settings["simulation"])


def serve(settings: dict[str, Any]) -> None:
    from baffle.engines.network.dialogue import Kind
    from baffle.engines.network.hub import Hub
    from baffle.engines.network.keyring import ServerKeys
    from baffle.engines.network.roster import Roster
    from baffle.engines.network.zenoh import ZenohServer
    from baffle.serving import Service
    from baffle.status import write_status

    made, out = simulated(settings), Path(settings["out"])
    keys = ServerKeys.read(Path(settings["keys"]), datetime.now(UTC)) if settings["keys"] else None
    hub = Hub(
        roster=Roster(
            settings["clients"], keys.ca_pem if keys else None, certificate=keys.certificate_pem if keys else b""
        ),
        settings={},
        kind=Kind((4,), 3),
        deadline=settings.get("deadline", 20.0),
        settle=settings.get("settle", 20.0),
        told=lambda status: write_status(out, status),
    )
    service = Service(
        simulation=made,
        hub=hub,
        out=out,
        reproducible=settings.get("reproducible", True),
        least=settings.get("least", settings["clients"]),
        replay=settings.get("replay", 1 << 20),
        linger=settings.get("linger", 10.0),
    )
    with hub, ZenohServer([settings["place"]], keys, hub.receive, hub.gone):
        log.info("listening")
        result = service.run(settings["rounds"], settings={"name": "test"})
        log.info("the run is over: digest=%s ledger=%s", result.digest, result.ledger_digest)


def join(settings: dict[str, Any]) -> None:
    from baffle.engines.network.channel import Channel, server_at
    from baffle.engines.network.home import Home
    from baffle.engines.network.keyring import ClientKeys
    from baffle.engines.network.member import Equipment, Member
    from baffle.engines.network.standing import Standing
    from baffle.engines.network.zenoh import ZenohClient
    from baffle.parameters import digest

    number, made = settings["number"], simulated(settings)
    own, pause, quick = made.clients()[number], settings.get("pause", 0.0), settings.get("quick", 0)
    keys = ClientKeys.read(Path(settings["keys"]), datetime.now(UTC)) if settings["keys"] else None

    def draw(generator: Any, size: int) -> Any:
        nonlocal quick
        quick -= 1
        if pause and quick < 0 and (quick == -1 or not settings.get("once")):
            log.info("computing")
            time.sleep(pause)
        return own.draw(generator, size)

    session = os.urandom(8)
    with (
        Home(Path(settings["state"])) as home,
        ZenohClient(settings["place"], keys, session.hex(), number=number) as line,
    ):
        faulty = Faulty(line.ask, **settings.get("faults", {"seed": 0, "chance": 0.0}))
        channel = Channel(
            ask=Telling(faulty) if settings.get("told") else faulty,
            number=number,
            sign=keys.signer.sign if keys else lambda _: b"",
            server_of=server_at(settings["place"], keys.ca_pem) if keys else None,
            why=lambda: "" if line.connected else "the server is away",
            patience=settings.get("patience", 20.0),
            session=session,
        )
        member = Member(
            channel=channel,
            standing=Standing(home=home, kernels=made.kernels, save_seconds=settings.get("save", 0.0)),
            equip=lambda _: Equipment(
                made.runtime, made.shares[number].indices.size, draw, own.private, reproducible=True
            ),
            certificate=keys.sign_certificate if keys else b"",
            masker=_masker(keys, home) if keys else None,
        )
        state = member.run()
        faulty.end()
        if state is not None:
            log.info("round %d: digest=%s", state.round, digest(state.parameters))


def _masker(keys: Any, book: Any) -> Any:
    from baffle.engines.network.masker import Masker

    return Masker(
        number=keys.number,
        signer=keys.signer,
        certificate=keys.sign_certificate,
        authority=keys.ca_pem,
        minimum=2,
        book=book,
    )


@dataclass
class Telling:
    """Says when a report is on its way."""

    ask: Callable[[bytes, float], bytes | None]

    def __call__(self, data: bytes, seconds: float) -> bytes | None:
        from baffle.engines.network.dialogue import Signed, Turn, opened
        from baffle.messages import Report, decode

        words = opened(decode(data, Signed))
        if isinstance(words, Turn) and words.report:
            log.info("reporting on round %d", decode(words.report, Report).round)
        return self.ask(data, seconds)


@dataclass
class Faulty:
    """Loses questions and answers, asks twice, and lets an old question come after a new one."""

    ask: Callable[[bytes, float], bytes | None]
    seed: int
    chance: float
    done: dict[str, int] = field(default_factory=dict)
    _chances: random.Random = field(init=False)
    _before: bytes = b""
    _threads: list[threading.Thread] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._chances = random.Random(self.seed)

    def __call__(self, data: bytes, seconds: float) -> bytes | None:
        if self._is("question lost"):
            return None
        if self._before and self._is("old question again"):
            self._aside(self._before)
        if self._is("asked twice"):
            self._aside(data)
        if self._is("delayed"):
            time.sleep(0.05 * self._chances.random())
        self._before = data
        answer = self.ask(data, seconds)
        if answer is not None and self._is("answer lost"):
            return None
        return answer

    def _is(self, what: str) -> bool:
        happens = self._chances.random() < self.chance
        if happens:
            self.done[what] = self.done.get(what, 0) + 1
            log.info("fault: %s", what)
        return happens

    def _aside(self, data: bytes) -> None:
        self._threads.append(threading.Thread(target=self.ask, args=(data, 0.5)))
        self._threads[-1].start()

    def end(self) -> None:
        for thread in self._threads:
            thread.join()


def main(kind: str, settings: str) -> int:
    from baffle.cli.daemon import until_told_to_stop
    from baffle.errors import BaffleError

    try:
        with until_told_to_stop("stopped"):
            {"serve": serve, "join": join}[kind](json.loads(settings))
    except BaffleError as error:
        log.error("%s: %s", type(error).__name__, error)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
