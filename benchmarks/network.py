"""What a federation over a network costs: time of a round, bytes on the wire, memory of a client.

    python benchmarks/network.py [--rounds N] [--quick]

A server and its clients on loopback with mutual TLS and signed messages, every one a process: `baffle join` on ONNX
Runtime, 100 directions of the whole vector of a small MLP on scikit-learn's digits, 8 bits.

- time: from one closed round to the next, at the server, with 2 and with 20 clients, median and 90th percentile; and
  the processor time that all processes spend on a round, over the cores, which no protocol can undercut.
- bytes: of one client a round, counted by a proxy between it and the server, both ways, against the messages.
- memory: the largest resident memory of a client's process.

Needs Linux. Writes benchmarks/results/network.json, but nothing with --quick.
"""

from __future__ import annotations

import argparse
import json
import os
import socket
import subprocess
import sys
import threading
import time
from dataclasses import dataclass, field
from datetime import UTC, datetime
from itertools import pairwise
from pathlib import Path
from statistics import median, quantiles
from tempfile import TemporaryDirectory
from typing import Any

import machine
import msgspec
import numpy as np

from baffle import certificates
from baffle.assembly import simulation_of
from baffle.engines.network.dialogue import Kind
from baffle.engines.network.hub import Hub
from baffle.engines.network.keyring import ServerKeys
from baffle.engines.network.roster import Roster
from baffle.engines.network.zenoh import ZenohServer
from baffle.experiment import Experiment, read
from baffle.serving import Service
from baffle.simulation import Simulation

DIRECTIONS, BATCH, BITS = 100, 4, 8
SKIPPED = 20
"""Rounds at the beginning that do not count: files are opened, caches filled."""
GOALS_MS = {2: 20.0, 20: 100.0}
GOAL_BYTES = DIRECTIONS * BITS // 8 + 400
HOST = "127.0.0.1"


def experiment(clients: int, rounds: int) -> Experiment:
    return read(
        {
            "clients": clients,
            "rounds": rounds,
            "blocks": "whole",
            "orthogonal": False,
            "forwards": DIRECTIONS * BATCH,
            "batch": BATCH,
            "bits": BITS,
            "evaluate_every": 1 << 20,
            "snapshot_every": 50,
        }
    )


@dataclass
class Proxy:
    """Carries one client's connections to the server, and counts their bytes."""

    port: int
    up: int = 0
    down: int = 0
    _server: socket.socket = field(default_factory=lambda: socket.create_server((HOST, 0)))

    def __post_init__(self) -> None:
        threading.Thread(target=self._accept, daemon=True).start()

    @property
    def address(self) -> str:
        return f"{HOST}:{self._server.getsockname()[1]}"

    def _accept(self) -> None:
        while True:
            try:
                near, _ = self._server.accept()
            except OSError:
                return
            far = socket.create_connection((HOST, self.port))
            for source, sink, way in ((near, far, "up"), (far, near, "down")):
                source.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                threading.Thread(target=self._carry, args=(source, sink, way), daemon=True).start()

    def _carry(self, source: socket.socket, sink: socket.socket, way: str) -> None:
        try:
            while data := source.recv(1 << 16):
                setattr(self, way, getattr(self, way) + len(data))
                sink.sendall(data)
        except OSError:
            pass
        for end in (source, sink):
            end.close()

    def close(self) -> None:
        self._server.close()


@dataclass
class Ground:
    """Keys, data and model of a federation, in a folder."""

    folder: Path
    clients: int
    made: Experiment
    simulation: Simulation

    @classmethod
    def make(cls, folder: Path, clients: int, rounds: int) -> Ground:
        made = experiment(clients, rounds)
        simulation = simulation_of(made)
        now = datetime.now(UTC)
        ca = certificates.authority("bench", 10, now)
        own = certificates.server(ca, [HOST], 5, now)
        write(folder / "server", {"ca.pem": ca.certificate, "server.pem": own.certificate, "server-key.pem": own.key})
        for number, share in enumerate(simulation.shares):
            connects, signs = (f(ca, number, 5, now) for f in (certificates.client, certificates.signing))
            files = {"ca.pem": ca.certificate, "client.pem": connects.certificate, "client-key.pem": connects.key}
            files |= {"sign.pem": signs.certificate, "sign-key.pem": signs.key}
            write(folder / f"client-{number}", files)
            inputs, labels = share.data.take(share.indices)
            np.savez(folder / f"data-{number}.npz", x=inputs, y=labels, classes=10)
        settings = folder / "experiment.toml"
        settings.write_text(f"clients = {clients}\nblocks = 'whole'\n")
        subprocess.run(
            [sys.executable, "-m", "baffle", "export", settings, "--out", folder / "model"],
            check=True,
            stdout=subprocess.DEVNULL,
        )
        return cls(folder, clients, made, simulation)

    def join(self, number: int, address: str, *more: str) -> subprocess.Popen[bytes]:
        own = self.folder / f"client-{number}"
        command = [sys.executable, "-m", "baffle", "join", address, "--keys", own, "--model", self.folder / "model"]
        command += ["--data", self.folder / f"data-{number}.npz", "--state", self.folder / f"state-{number}"]
        command += ["--threads", "1", *more]
        with (self.folder / f"client-{number}.log").open("wb") as log:
            return subprocess.Popen(list(map(str, command)), stderr=log, stdout=log)


def write(folder: Path, files: dict[str, bytes]) -> None:
    folder.mkdir()
    for name, data in files.items():
        (folder / name).touch(mode=0o600)
        (folder / name).write_bytes(data)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        return int(probe.getsockname()[1])


def federation(clients: int, rounds: int, *, counted: bool) -> dict[str, Any]:
    """Run a federation, and return what it cost; with `counted`, client 0 goes through a proxy."""
    with TemporaryDirectory() as name:
        ground = Ground.make(Path(name), clients, rounds)
        data = ground.simulation.shares[0].data
        keys = ServerKeys.read(ground.folder / "server", datetime.now(UTC))
        hub = Hub(
            roster=Roster(clients, keys.ca_pem, certificate=keys.certificate_pem),
            settings=msgspec.to_builtins(ground.made),
            kind=Kind(data.shape, data.classes),
        )
        port = free_port()
        moments: list[tuple[float, float, int, int, int, int]] = []
        proxy = Proxy(port)

        def observe(_: Any) -> None:
            entry = hub.roster.entries[0]
            moments.append((time.perf_counter(), cpu(processes), proxy.up, proxy.down, entry.up, entry.down))

        with hub, ZenohServer([f"{HOST}:{port}"], keys, hub.receive, hub.gone):
            addresses = [proxy.address if counted and n == 0 else f"{HOST}:{port}" for n in range(clients)]
            processes = [ground.join(number, address) for number, address in enumerate(addresses)]
            try:
                service = Service(simulation=ground.simulation, hub=hub, out=ground.folder / "run", least=clients)
                service.run(rounds, settings={}, progress=observe)
                memory = peak(processes[0].pid)
                for process in processes:
                    process.wait(60)
            finally:
                for process in processes:
                    process.kill()
                proxy.close()
        return told(moments, clients, counted) | {"client_peak_bytes": memory}


def cpu(processes: list[subprocess.Popen[bytes]]) -> float:
    """Return the seconds of processor time that this process and the clients have spent."""
    total = sum(os.times()[:2])
    for process in processes:
        try:
            fields = Path(f"/proc/{process.pid}/stat").read_text().rpartition(")")[2].split()
        except OSError:
            continue
        total += (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
    return total


def peak(pid: int) -> int:
    status = Path(f"/proc/{pid}/status").read_text()
    return int(next(line for line in status.splitlines() if line.startswith("VmHWM")).split()[1]) * 1024


def told(moments: list[tuple[float, float, int, int, int, int]], clients: int, counted: bool) -> dict[str, Any]:
    kept = moments[SKIPPED:]
    times = [1000 * (b[0] - a[0]) for a, b in pairwise(kept)]
    rounds = len(times)
    first, last = kept[0], kept[-1]
    result: dict[str, Any] = {"clients": clients, "rounds": rounds}
    if counted:
        names = ("wire_up", "wire_down", "messages_up", "messages_down")
        return result | {n: (b - a) / rounds for n, a, b in zip(names, first[2:], last[2:], strict=True)}
    result |= {"median_ms": median(times), "p90_ms": quantiles(times, n=10)[-1]}
    return result | {"processor_ms_over_cores": 1000 * (last[1] - first[1]) / rounds / len(machine.cores())}


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rounds", type=int, default=300)
    parser.add_argument("--quick", action="store_true", help="60 rounds, nothing written")
    given = parser.parse_args()
    rounds = 60 if given.quick else given.rounds
    print(machine.told())
    results = []
    for clients, counted in ((2, False), (20, False), (2, True)):
        results.append(federation(clients, rounds, counted=counted))
        show(results[-1], counted)
    if not given.quick:
        path = Path(__file__).parent / "results" / "network.json"
        path.write_text(json.dumps({"machine": machine.describe(), "results": results}, indent=1) + "\n")


def show(result: dict[str, Any], counted: bool) -> None:
    if counted:
        print(f"bytes a round and client (goal: {GOAL_BYTES} each way)")
        for way in ("up", "down"):
            wire, messages = result[f"wire_{way}"], result[f"messages_{way}"]
            print(f"  {way:5} {wire:7.1f} on the wire, {messages:7.1f} in messages, {wire / messages:.2f}")
    else:
        print(
            f"{result['clients']:3} clients: {result['median_ms']:6.1f} ms a round, 90 % below {result['p90_ms']:.1f} "
            f"(goal: {GOALS_MS[result['clients']]:.0f}); processors alone {result['processor_ms_over_cores']:.1f}; "
            f"a client takes {result['client_peak_bytes'] / 2**20:.0f} MiB"
        )


if __name__ == "__main__":
    main()
