"""What one hostile client does to a server and to the others' rounds: memory, and rounds a second.

    python benchmarks/flood.py [--seconds N] [--duty PERCENT] [FLOOD ...]

A server and two clients on loopback with mutual TLS and signed messages, every one a process, as in network.py; and a
third client with good keys that sends and never waits for an answer:

- `noise`: 0 to 63 random bytes; `hellos`: its own signed first words; `forged`: the same under a wrong signature;
- `junk`: 1 MB that is no message; `named`: 1 MB that says it is of client 0, under a wrong signature;
- `turns`: having joined, signed turns.

Each is measured twice for N seconds, beside the same without a flood: on a server that is as quick as the machine
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
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import machine
from network import HOST, Ground, free_port

FLOODS = ("none", "noise", "hellos", "forged", "junk", "named", "turns")
RESULTS = Path(__file__).parent / "results" / "flood.json"
GOAL_MIB, GOAL_SHARE = 200, 1 / 3
SLICE = 0.02
"""Seconds for which a starved server runs at a time."""
ROUNDS = 1 << 30
HOSTILE = 2


# The hostile client's process.


def attack(kind: str, port: int, folder: str) -> None:
    """Send until killed; say each second how much."""
    import zenoh

    from baffle.certificates.serving import digest_of
    from baffle.engines.network.dialogue import ANY_SERVER, PROTOCOL, Challenge, Hello, Turn, heard, sealed
    from baffle.engines.network.keyring import ClientKeys
    from baffle.engines.network.links import KEY, client_settings, config_of

    keys = ClientKeys.read(Path(folder), datetime.now(UTC))
    session, door = secrets.token_bytes(8), f"{KEY}/{HOSTILE}"
    with zenoh.open(config_of(client_settings((HOST, port), keys, 1 << 20))) as link:
        hello = sealed(HOSTILE, session, Hello(PROTOCOL, "x", keys.sign_certificate, b""), keys.signer.sign)
        wrong = sealed(HOSTILE, session, Hello(PROTOCOL, "x", keys.sign_certificate, b""), lambda _: bytes(64))
        named = sealed(0, session, Turn(1, b"", 0, 1, bytes(1_000_000), 0), lambda _: bytes(64))
        server = ANY_SERVER

        def answered(payload: bytes) -> Any:
            while True:
                for reply in link.get(door, zenoh.handlers.FifoChannel(4), payload=payload, timeout=20.0):
                    if reply.ok is not None:
                        return heard(bytes(reply.ok.payload))
                time.sleep(0.1)

        if kind == "turns":
            while isinstance(reply := answered(hello), Challenge):
                server = digest_of(reply.certificate)
                words = Hello(PROTOCOL, "x", keys.sign_certificate, reply.challenge)
                hello = sealed(HOSTILE, session, words, keys.signer.sign, server)
        sent, told = 0, time.monotonic()
        while True:
            sent += 1
            match kind:
                case "noise":
                    payload = os.urandom(sent % 64)
                case "hellos":
                    payload = hello
                case "forged":
                    payload = wrong
                case "junk":
                    payload = os.urandom(1_000_000)
                case "named":
                    payload = named
                case _:
                    turn = Turn(sent, b"", 0, 12, b"", 0)
                    payload = sealed(HOSTILE, session, turn, keys.signer.sign, server)
            with contextlib.suppress(zenoh.ZError):
                link.get(
                    door,
                    lambda _: None,
                    payload=payload,
                    timeout=30.0,
                    congestion_control=zenoh.CongestionControl.BLOCK,
                )
            if time.monotonic() - told > 0.5:
                told = time.monotonic()
                print(sent, flush=True)


# The measurement.


@dataclass
class Server:
    """A server's process, as it is seen from outside."""

    process: subprocess.Popen[bytes]
    out: Path

    def round(self) -> int:
        with contextlib.suppress(OSError, ValueError):
            return int(json.loads((self.out / "status.json").read_text())["round"])
        return 0

    def status(self) -> dict[str, Any]:
        return json.loads((self.out / "status.json").read_text())

    def records(self) -> int:
        """Return the bytes of the ledger: what is in it counts, however seldom the status is written."""
        return (self.out / "ledger").stat().st_size

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
    with (ground.folder / "server.log").open("wb") as log, contextlib.ExitStack() as stack:
        server = Server(stack.enter_context(ended(subprocess.Popen(command, stdout=log, stderr=log))), out)
        for number in range(2):
            stack.enter_context(ended(ground.join(number, f"{HOST}:{port}")))
        until(lambda: server.round() > 5, ground)
        idle = server.memory()
        rivals = stack.enter_context(contextlib.ExitStack())
        rivals.enter_context(starved(server.process.pid, duty))
        if kind != "none":
            hostile = [sys.executable, __file__, "--attack", kind, str(port), str(ground.folder / f"client-{HOSTILE}")]
            process = rivals.enter_context(ended(subprocess.Popen(hostile, stdout=subprocess.PIPE)))
            assert process.stdout is not None
            process.stdout.readline()
            lines = process.stdout
            sent: list[int] = []
            threading.Thread(target=lambda: sent.extend(int(line) for line in lines), daemon=True).start()
        before, size, peak = rounds_in(out), server.records(), idle
        began = time.monotonic()
        while time.monotonic() - began < seconds:
            time.sleep(0.1)
            peak = max(peak, server.memory())
        took, after = time.monotonic() - began, rounds_in(out)
        number = (sent or [0])[-1] if kind != "none" else 0
        rivals.close()
        time.sleep(1.5)
        told = server.status()
    return {
        "flood": kind,
        "duty": duty,
        "sent": number,
        "rounds_a_second": (after - before) / took,
        "ledger_bytes": server_bytes(out) - size,
        "idle_mib": idle,
        "above_idle_mib": peak - idle,
        "inbox": told.get("inbox"),
        "load": os.getloadavg()[0],
    }


def rounds_in(out: Path) -> int:
    """Return how many rounds are in a ledger."""
    from baffle.ledger import Reader

    return sum(1 for _ in Reader(out / "ledger"))


def server_bytes(out: Path) -> int:
    return (out / "ledger").stat().st_size


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
    floods = [kind for kind in FLOODS if kind == "none" or not given.floods or kind in given.floods]
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
                show(row, next(one for one in rows if one["duty"] == duty))
    if not given.floods:
        RESULTS.write_text(json.dumps({"machine": machine.describe(), "rows": rows}, indent=1) + "\n")


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
