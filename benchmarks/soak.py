"""A federation whose clients come and go for minutes: does the server grow, and is every round that counts verified?

    python benchmarks/soak.py [--minutes M] [--clients N] [--quick]

`baffle serve` and `baffle join` (ONNX Runtime, mutual TLS), processes on loopback. Every second some client is killed,
frozen, thawed or started again at random. Sampled once a second: the server's resident memory, threads and open files,
the size of its ledger. At the end the server is stopped, its ledger verified and replayed, and the states that clients
left on their disks are compared with the model that the ledger gives for their versions.

Needs Linux. Writes benchmarks/results/soak.json, but nothing with --quick.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import random
import signal
import subprocess
import sys
import time
from pathlib import Path
from statistics import fmean
from tempfile import TemporaryDirectory
from typing import Any

import machine

from baffle import run as runs
from baffle.kernels import fastest
from baffle.messages import Round
from baffle.parameters import digest
from baffle.snapshots import read_snapshot, snapshots
from network import HOST, Ground, free_port

DEADLINE = 5.0


class Fleet:
    """Clients that are running, frozen or dead."""

    def __init__(self, ground: Ground, address: str) -> None:
        self.ground, self.address = ground, address
        self.running: dict[int, subprocess.Popen[bytes]] = {}
        self.frozen: set[int] = set()
        self.counts = {"started": 0, "killed": 0, "frozen": 0, "thawed": 0}

    def start(self, number: int) -> None:
        self.running[number] = self.ground.join(number, self.address, "--save-every", "5")
        self.counts["started"] += 1

    def disturb(self, chance: random.Random) -> None:
        """Do one thing to one client; most of them go on."""
        number = chance.randrange(self.ground.clients)
        process = self.running.get(number)
        if process is None:
            self.start(number)
        elif number in self.frozen:
            process.send_signal(signal.SIGCONT)
            self.frozen.discard(number)
            self.counts["thawed"] += 1
        elif chance.random() < 0.5 and len(self.frozen) < self.ground.clients // 5:
            process.send_signal(signal.SIGSTOP)
            self.frozen.add(number)
            self.counts["frozen"] += 1
        elif len(self.running) > self.ground.clients // 2:
            process.kill()
            process.wait()
            del self.running[number]
            self.counts["killed"] += 1

    def end(self) -> None:
        for process in self.running.values():
            with contextlib.suppress(ProcessLookupError):
                process.send_signal(signal.SIGCONT)
                process.send_signal(signal.SIGTERM)
        for process in self.running.values():
            process.wait(30)

    def kill(self) -> None:
        for process in self.running.values():
            process.kill()


def sample(pid: int, out: Path) -> dict[str, Any]:
    status = dict(line.split(":", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines() if ":" in line)
    ledger = out / "ledger"
    return {
        "rss": int(status["VmRSS"].split()[0]) * 1024,
        "threads": int(status["Threads"]),
        "files": len(list(Path(f"/proc/{pid}/fd").iterdir())),
        "ledger": ledger.stat().st_size if ledger.exists() else 0,
    }


def served(ground: Ground, port: int, out: Path) -> subprocess.Popen[bytes]:
    settings = ground.folder / "serve.toml"
    made = ground.made
    settings.write_text(
        f"clients = {ground.clients}\nrounds = 1000000000\nblocks = 'whole'\northogonal = false\n"
        f"forwards = {made.forwards}\nbatch = {made.batch}\nevaluate_every = 100\nquorum = 0.25\n"
    )
    command = [sys.executable, "-m", "baffle", "serve", settings, "--listen", f"{HOST}:{port}", "--out", out]
    command += ["--keys", ground.folder / "server", "--deadline", DEADLINE, "--no-report"]
    with (ground.folder / "server.log").open("wb") as log:
        return subprocess.Popen(list(map(str, command)), stdout=log, stderr=log)


def soak(minutes: float, clients: int) -> dict[str, Any]:
    chance = random.Random(0)
    with TemporaryDirectory() as name:
        ground, port = Ground.make(Path(name), clients, 1), free_port()
        out = ground.folder / "run"
        server = served(ground, port, out)
        fleet = Fleet(ground, f"{HOST}:{port}")
        rows: list[dict[str, Any]] = []
        try:
            for number in range(clients):
                fleet.start(number)
            begun = time.monotonic()
            while not (out / "ledger").exists() and time.monotonic() - begun < 120:
                time.sleep(0.2)
            begun = time.monotonic()
            while time.monotonic() - begun < 60 * minutes:
                time.sleep(1.0)
                if server.poll() is not None:
                    raise SystemExit((ground.folder / "server.log").read_text()[-3000:])
                if (out / "ledger").exists():
                    fleet.disturb(chance)
                rows.append(sample(server.pid, out) | {"seconds": time.monotonic() - begun})
            fleet.end()
            server.send_signal(signal.SIGTERM)
            server.wait(60)
        finally:
            fleet.kill()
            server.kill()
        log = (ground.folder / "server.log").read_text()
        return summary(rows, out) | agreement(ground, out) | fleet.counts | {"tracebacks": log.count("Traceback")}


def summary(rows: list[dict[str, Any]], out: Path) -> dict[str, Any]:
    """Return what grew: means over the second and the last tenth of the time."""
    tenth = max(1, len(rows) // 10)
    early, late = rows[2 * tenth : 3 * tenth], rows[-tenth:]

    def mean(part: list[dict[str, Any]], what: str) -> float:
        return fmean(row[what] for row in part)

    grown = {f"{what}_growth": mean(late, what) - mean(early, what) for what in ("rss", "threads", "files", "ledger")}
    kept = sum(record.aggregate is not None for record in records(out))
    tried = sum(1 for _ in records(out))
    for row in rows[:: max(1, len(rows) // 10)]:
        print(f"{row['seconds']:6.0f} s  {row['rss'] / 2**20:6.1f} MiB  {row['threads']} threads  {row['files']} files")
    return {"seconds": rows[-1]["seconds"], "rss": mean(late, "rss"), "rounds": kept, "attempts": tried} | grown


def records(out: Path) -> Any:
    return (record for record in runs.read(out)[1] if isinstance(record, Round))


def agreement(ground: Ground, out: Path) -> dict[str, Any]:
    """Verify and replay the ledger; compare every state on a client's disk with the ledger's model of its version."""
    _, rounds = runs.verify(out)
    header, _ = runs.replay(out, fastest())
    digests = {record.plan.round + 1: record.digest for record in records(out) if record.digest}
    right, wrong = 0, 0
    for folder in ground.folder.glob("state-*"):
        for path in (p for run in folder.iterdir() if run.is_dir() for p in snapshots(run)):
            state, _ = read_snapshot(path, header.federation.layout)
            same = state.round == 0 or digest(state.parameters) == digests[state.round]
            right, wrong = right + same, wrong + (not same)
    return {"verified_rounds": rounds, "client_states_right": right, "client_states_wrong": wrong}


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--clients", type=int, default=20)
    parser.add_argument("--quick", action="store_true", help="a minute and 6 clients, nothing written")
    given = parser.parse_args()
    print(machine.told())
    result = soak(1.0, 6) if given.quick else soak(given.minutes, given.clients)
    for name, value in result.items():
        print(f"{name:22} {value:14,.1f}" if isinstance(value, float) else f"{name:22} {value:14,}")
    if not given.quick:
        path = Path(__file__).parent / "results" / "soak.json"
        path.write_text(json.dumps({"machine": machine.describe(), "clients": given.clients} | result, indent=1) + "\n")


if __name__ == "__main__":
    main()
