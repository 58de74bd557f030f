"""What one hostile client does to a server and to the others' rounds: memory, and rounds a second.

    python benchmarks/flood.py [--seconds N] [--duty PERCENT] [FLOOD ...]

A server and two clients on loopback with mutual TLS and signed messages, every one a process, as in network.py; and a
third client with good keys that sends and never waits for an answer:

- `busy`: nothing, but it takes a processor to itself, as the others do: they are to be compared with this;
- `noise`: 0 to 63 random bytes; `hellos`: its own signed first words; `forged`: the same under a wrong signature;
- `junk`: 1 MB that is no message; `named`: 1 MB that says it is of client 0, under a wrong signature;
- `turns`: having joined, signed turns.

Each is measured twice for N seconds: on a server that is as quick as the machine
lets it, and on a starved one, which is stopped and let go by signals such that it runs PERCENT of the time. Other work
on the machine counts as well, so the rates are to be compared within a run; the load is printed.

Needs Linux. Writes benchmarks/results/flood.json where all are measured.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import secrets
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import machine

from baffle.certificates.serving import digest_of
from baffle.engines.network import dialogue
from baffle.engines.network.keyring import ClientKeys
from baffle.engines.network.links import KEY, client_settings, config_of
from baffle.ledger import Reader
from network import HOST, Ground, free_port

FLOODS = ("none", "busy", "noise", "hellos", "forged", "junk", "named", "turns")
RESULTS = Path(__file__).parent / "results" / "flood.json"
GOAL_MIB, GOAL_SHARE = 200, 1 / 3
SLICE = 0.02
"""Seconds for which a starved server runs at a time."""
ROUNDS = 1 << 30
HOSTILE = 2


# The hostile client's process.


@dataclass
class Hostile:
    """What a client with good keys sends that means harm."""

    keys: Any
    session: bytes = field(default_factory=lambda: secrets.token_bytes(8))
    server: bytes = bytes(32)
    sent: int = 0

    def hello(self, challenge: bytes, sign: Callable[[bytes], bytes]) -> bytes:
        words = dialogue.Hello(dialogue.PROTOCOL, "x", self.keys.sign_certificate, challenge)
        return dialogue.sealed(HOSTILE, self.session, words, sign, self.server if challenge else dialogue.ANY_SERVER)

    def turn(self, client: int, report: bytes, sign: Callable[[bytes], bytes]) -> bytes:
        words = dialogue.Turn(self.sent, b"", 0, 12, report, 0)
        return dialogue.sealed(client, self.session, words, sign, self.server)

    def joins(self, answered: Callable[[bytes], bytes]) -> None:
        """Say hello, and the challenge back."""
        reply = dialogue.heard(answered(self.hello(b"", self.keys.signer.sign)))
        while isinstance(reply, dialogue.Challenge):
            self.server = digest_of(reply.certificate)
            reply = dialogue.heard(answered(self.hello(reply.challenge, self.keys.signer.sign)))

    def messages(self, kind: str) -> Iterator[bytes]:
        """Make messages without end."""
        wrong: Callable[[bytes], bytes] = lambda _: bytes(64)  # noqa: E731
        large = self.turn(0, bytes(1_000_000), wrong)
        makes: dict[str, Callable[[], bytes]] = {
            "busy": lambda: self.hello(b"", self.keys.signer.sign),
            "noise": lambda: os.urandom(self.sent % 64),
            "hellos": lambda: self.hello(b"", self.keys.signer.sign),
            "forged": lambda: self.hello(b"", wrong),
            "junk": lambda: os.urandom(1_000_000),
            "named": lambda: large,
            "turns": lambda: self.turn(HOSTILE, b"", self.keys.signer.sign),
        }
        while True:
            self.sent += 1
            yield makes[kind]()


def attack(kind: str, port: int, folder: str) -> None:
    """Send until killed; say now and then how much."""
    import zenoh

    hostile = Hostile(ClientKeys.read(Path(folder), datetime.now(UTC)))
    told, door = time.monotonic(), f"{KEY}/{HOSTILE}"
    with zenoh.open(config_of(client_settings((HOST, port), hostile.keys, 1 << 20))) as link:

        def answered(payload: bytes) -> bytes:
            while True:
                for reply in link.get(door, zenoh.handlers.FifoChannel(4), payload=payload, timeout=20.0):
                    if reply.ok is not None:
                        return bytes(reply.ok.payload)
                time.sleep(0.1)

        if kind == "turns":
            hostile.joins(answered)
        wait = zenoh.CongestionControl.BLOCK
        for payload in hostile.messages(kind):
            with contextlib.suppress(zenoh.ZError):
                if kind != "busy":
                    link.get(door, lambda _: None, payload=payload, timeout=30.0, congestion_control=wait)
            if time.monotonic() - told > 0.5:
                told = time.monotonic()
                print(hostile.sent, flush=True)


# The measurement.


@dataclass
class Server:
    """A server's process, as it is seen from outside."""

    process: subprocess.Popen[bytes]
    out: Path

    def status(self) -> dict[str, Any]:
        with contextlib.suppress(OSError, ValueError):
            return json.loads((self.out / "status.json").read_text())
        return {"round": 0}

    def rounds(self) -> int:
        """Return how many rounds are in the ledger, however seldom the status is written."""
        return sum(1 for _ in Reader(self.out / "ledger"))

    def memory(self) -> float:
        pages = int(Path(f"/proc/{self.process.pid}/statm").read_text().split()[1])
        return pages * os.sysconf("SC_PAGE_SIZE") / 2**20


@contextlib.contextmanager
def starved(pid: int, duty: float) -> Iterator[None]:
    """Let a process run a share of the time alone."""
    over = threading.Event()

    def work() -> None:
        while not over.is_set():
            os.kill(pid, signal.SIGSTOP)
            over.wait(SLICE * (1 - duty) / duty)
            os.kill(pid, signal.SIGCONT)
            time.sleep(SLICE)

    thread = threading.Thread(target=work)
    if duty < 1:
        thread.start()
    try:
        yield
    finally:
        over.set()
        if duty < 1:
            thread.join()
        os.kill(pid, signal.SIGCONT)


def measured(ground: Ground, kind: str, duty: float, seconds: float) -> dict[str, Any]:
    """Return what a flood has come to, at a server of its own."""
    port, out = free_port(), ground.folder / f"run-{kind}-{duty}"
    command = [sys.executable, "-m", "baffle", "serve", str(ground.folder / "served.toml"), "--out", str(out)]
    command += ["--listen", f"{HOST}:{port}", "--keys", str(ground.folder / "server"), "--wait", "2", "--no-report"]
    hostile = [sys.executable, __file__, "--attack", kind, str(port), str(ground.folder / f"client-{HOSTILE}")]
    with (ground.folder / "server.log").open("wb") as log, contextlib.ExitStack() as stack:
        server = Server(stack.enter_context(ended(subprocess.Popen(command, stdout=log, stderr=log))), out)
        for number in range(2):
            stack.enter_context(ended(ground.join(number, f"{HOST}:{port}")))
        until(lambda: server.status()["round"] > 5, ground)
        peak = idle = server.memory()
        sent = [0]
        with starved(server.process.pid, duty):
            if kind != "none":
                process = stack.enter_context(ended(subprocess.Popen(hostile, stdout=subprocess.PIPE)))
                lines: Any = process.stdout
                lines.readline()
                threading.Thread(target=lambda: sent.extend(map(int, lines)), daemon=True).start()
            before, began = server.rounds(), time.monotonic()
            while time.monotonic() - began < seconds:
                time.sleep(0.1)
                peak = max(peak, server.memory())
            rate = (server.rounds() - before) / (time.monotonic() - began)
            load = os.getloadavg()[0]
        time.sleep(1.5)  # until the next status
        inbox = server.status().get("inbox")
    return {
        "flood": kind,
        "duty": duty,
        "sent": sent[-1],
        "rounds_a_second": rate,
        "idle_mib": idle,
        "above_idle_mib": peak - idle,
        "inbox": inbox,
        "load": load,
    }


@contextlib.contextmanager
def ended(process: subprocess.Popen[bytes]) -> Iterator[subprocess.Popen[bytes]]:
    try:
        yield process
    finally:
        process.kill()
        process.wait()


def until(done: Any, ground: Ground, seconds: float = 120.0) -> None:
    end = time.monotonic() + seconds
    while not done():
        if time.monotonic() > end:
            raise SystemExit((ground.folder / "server.log").read_text()[-3000:])
        time.sleep(0.2)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("floods", nargs="*", metavar="FLOOD", help=", ".join(FLOODS))
    parser.add_argument("--seconds", type=float, default=15.0, help="of each measurement")
    parser.add_argument("--duty", type=float, default=10.0, help="percent of the time that the starved server runs")
    parser.add_argument("--attack", nargs=3, metavar=("FLOOD", "PORT", "KEYS"), help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.attack:
        attack(given.attack[0], int(given.attack[1]), given.attack[2])
    floods = [kind for kind in FLOODS if kind in ("none", "busy") or not given.floods or kind in given.floods]
    print(machine.told())
    rows: list[dict[str, Any]] = []
    with TemporaryDirectory() as name:
        ground = Ground.make(Path(name), 3, ROUNDS)
        (ground.folder / "served.toml").write_text(
            f"clients = 3\nblocks = 'whole'\northogonal = false\nforwards = 400\nbatch = 4\nbits = 8\n"
            f"rounds = {ROUNDS}\nevaluate_every = {1 << 20}\nsnapshot_every = 50\n"
        )
        for duty in (1.0, given.duty / 100):
            for kind in floods:
                rows.append(row := measured(ground, kind, duty, given.seconds))
                show(row, beside(rows))
    if not given.floods:
        RESULTS.write_text(json.dumps({"machine": machine.describe(), "rows": rows}, indent=1) + "\n")


def beside(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """Return with what the last measurement is to be compared: the one without a flood, of an equal load."""
    own = [row for row in rows if row["duty"] == rows[-1]["duty"]]
    return next((row for row in reversed(own[:-1]) if row["flood"] in ("none", "busy")), own[0])


def show(row: dict[str, Any], quiet: dict[str, Any]) -> None:
    share = row["rounds_a_second"] / max(quiet["rounds_a_second"], 1e-9)
    good = share >= GOAL_SHARE and row["above_idle_mib"] <= GOAL_MIB
    print(
        f"{'quick  ' if row['duty'] == 1 else 'starved'} {row['flood']:7} {row['sent']:8} sent, "
        f"{row['rounds_a_second']:6.2f} rounds/s ({share:4.0%} of without), "
        f"{row['above_idle_mib']:6.1f} MiB above {row['idle_mib']:.0f}, load {row['load']:.1f}"
        f"{'' if good else '  MISSED'}  {row['inbox'] or ''}",
        flush=True,
    )


if __name__ == "__main__":
    main()
