"""What workers of a Ray cluster bring: seconds a round beside the local engine on one thread, in one run.

    python benchmarks/cluster.py [rounds]

LeNet at 32x32 on made-up images, 10 clients with 32 samples each, shared directions, 100 forward equivalents a sample:
for the whole vector at once, and for layers. Each engine plays the same round in turn, several times over; the least
counts, so that a busy moment of the machine hits none alone. The second table has the seconds that processors worked
for this process and the busiest worker: what a round takes where nobody else wants them. Needs Linux. Writes
benchmarks/results/cluster.json.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable
from contextlib import ExitStack, closing, suppress
from dataclasses import replace
from pathlib import Path

import machine
import numpy as np

from baffle import Baffle, server
from baffle.data.samples import Arrays
from baffle.engines import Engine
from baffle.kernels.compiled import CompiledKernels
from baffle.models.lenet import lenet
from baffle.runtimes.torch import TorchRuntime
from baffle.simulation import Share, Simulation

CLIENTS, SAMPLES, DIRECTIONS = 10, 32, 100
WORKERS = (1, 2)
NAMES = ("local", "1 worker", "2 workers")
GOAL = 1.6


def main(rounds: int = 9) -> None:
    os.environ.setdefault("RAY_worker_niceness", "0")  # as the engine does where it starts Ray
    import ray

    ray.init("local", num_cpus=sum(WORKERS), include_dashboard=False, log_to_driver=False, logging_level="ERROR")
    rows = {blocks: measured(simulation(blocks), rounds) for blocks in ("whole", "layers")}
    ray.shutdown()
    for kind in ("seconds", "processor seconds"):
        print(f"{kind + ' a round':34}" + "".join(f"{name:>11}" for name in NAMES) + "   2 : 1")
        for blocks, row in rows.items():
            least = [min(row[name][kind]) for name in NAMES]
            print(f"{blocks:34}" + "".join(f"{one:11.3f}" for one in least) + f"{least[1] / least[2]:8.2f}")
    print(f"goal: {GOAL}; {machine.told()}")
    path = Path(__file__).parent / "results" / "cluster.json"
    path.parent.mkdir(exist_ok=True)
    about = machine.describe() | {"load": round(os.getloadavg()[0], 1)}
    path.write_text(json.dumps({"machine": about, "rounds": rows}, indent=1) + "\n")


def simulation(blocks: str) -> Simulation:
    rng = np.random.default_rng(0)
    count = CLIENTS * SAMPLES
    data = Arrays("images", rng.normal(size=(count, 3, 32, 32)).astype(np.float32), rng.integers(0, 10, count))
    return Simulation(
        runtime=TorchRuntime(lenet(3, 10), device="cpu", threads=1),
        shares=[Share(data, part) for part in np.split(np.arange(count), CLIENTS)],
        algorithm=Baffle(forwards=DIRECTIONS * SAMPLES, batch=SAMPLES, blocks=blocks),
        kernels=CompiledKernels(),
    )


def measured(made: Simulation, count: int) -> dict[str, dict[str, list[float]]]:
    """Return seconds of each round, on the clock and worked, by engine."""
    with ExitStack() as stack:
        engines = [made.gathering()]
        for workers in WORKERS:
            spread = replace(made, engine="ray", workers=workers).gathering()
            engines.append(stack.enter_context(closing(spread)))
        rounds = dict(zip(NAMES, [one_round(made, engine) for engine in engines], strict=True))
        assert len({play() for play in rounds.values()}) == 1, "engines differ"  # and all are warm
        found: dict[str, dict[str, list[float]]] = {name: {"seconds": [], "processor seconds": []} for name in NAMES}
        for _ in range(count):
            for name, play in rounds.items():
                start, before, here = time.perf_counter(), worked(), time.process_time()
                play()
                spent = [seconds - before.get(worker, seconds) for worker, seconds in worked().items()]
                busiest = max(spent, default=0.0)
                found[name]["processor seconds"].append(round(time.process_time() - here + busiest, 3))
                found[name]["seconds"].append(round(time.perf_counter() - start, 3))
    return found


def worked() -> dict[str, float]:
    """Return the seconds that processors worked for each Ray worker."""
    seconds: dict[str, float] = {}
    for process in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            if (process / "cmdline").read_bytes().startswith(b"ray::Worker"):
                fields = (process / "stat").read_text().rpartition(")")[2].split()
                seconds[process.name] = (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
    return seconds


def one_round(made: Simulation, engine: Engine) -> Callable[[], bytes]:
    """Return what plays the first round, and gives all of its reports."""
    header = made.header()
    state = header.start(made.runtime.given)

    def play() -> bytes:
        plan = server.plan(made.algorithm, header.federation, state)
        reports = engine.gather(plan, state.parameters)
        server.advance(made.algorithm, state, plan, reports, made.kernels)
        return b"".join(reports)

    return play


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
