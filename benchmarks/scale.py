"""What a simulated round costs as a federation, its budget and its model grow, and what memory it takes.

    python benchmarks/scale.py [--quick]

Time is of a client's round, in milliseconds: a median round by the cohort's size, the rounds after the first, without
held-out data and without a ledger on disk. Every case runs in a process of its own; all cases in turn, several times
over, and the least counts. Each client holds 60 samples of one data set that is in memory once, and answers on
mini-batches of 32; the model has linear layers only. Slopes are of straight lines through the logarithms: 1 is
proportional, 0 is constant. Writes benchmarks/results/scale.json, but nothing with --quick.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

import machine

FEATURES, CLASSES, HELD, BATCH = 64, 10, 60, 32
WIDTH, PROBES = 32, 100
FEDERATIONS = ((10, 10), (100, 100), (1_000, 100), (1_000, 1_000), (10_000, 100), (10_000, 1_000))
"""Clients, and how many of them a round asks."""
BUDGETS = (100, 200, 400, 800, 1_600)
WIDTHS = (20, 64, 200, 500, 960)
CLIENT_ROUNDS, FEW, LEAST = 1_000, 100, 4
"""Client-rounds to time in a process; for budgets and widths; and fewest rounds."""
PASSES = 3
GOAL = 1.2
"""Most times what a client's round costs among 100, that it may cost among 10,000."""


class Case(NamedTuple):
    """A simulation to time."""

    clients: int = 10
    cohort: int = 10
    probes: int = PROBES
    """Forward equivalents for each sample of a mini-batch."""
    width: int = WIDTH
    """Of two hidden layers."""

    @property
    def weights(self) -> int:
        """The model's n."""
        return (FEATURES + 1) * self.width + (self.width + 1) * self.width + (self.width + 1) * CLASSES


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--quick", action="store_true", help="one turn, fewer probes, nothing written")
    parser.add_argument("--child", type=json.loads, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.child:
        print(json.dumps(simulated(Case(*given.child["case"]), given.child["client_rounds"])))
        return
    print(machine.told())
    results = measured(1 if given.quick else PASSES, 0.1 if given.quick else 1.0)
    if not given.quick:
        path = Path(__file__).parent / "results" / "scale.json"
        path.parent.mkdir(exist_ok=True)
        path.write_text(json.dumps({"machine": machine.describe(), **results}, indent=1) + "\n")


def measured(passes: int, effort: float) -> dict[str, Any]:
    """Measure, print and return all cases."""
    probes = round(PROBES * effort)
    clients = [Case(clients, cohort, probes) for clients, cohort in FEDERATIONS]
    budgets = [Case(probes=round(budget * effort)) for budget in BUDGETS]
    widths = [Case(probes=probes, width=width) for width in WIDTHS]
    rows: dict[Case, dict[str, float]] = {}
    for turn in range(passes):
        for case in dict.fromkeys([*clients, *budgets, *widths]):
            told(f"turn {turn + 1} of {passes}: {case}")
            row = apart(case, round((CLIENT_ROUNDS if case in clients else FEW) * effort))
            if case not in rows or row["ms"] < rows[case]["ms"]:
                rows[case] = row
    told("")
    federation = show_clients(clients, rows)
    slopes = {"K": show("K", [case.probes for case in budgets], budgets, rows)}
    slopes["n"] = show("n", [case.weights for case in widths], widths, rows)
    named = [case._asdict() | {"n": case.weights} | row for case, row in rows.items()]
    return {"passes": passes, "rows": named, "slopes": slopes, **federation}


def show_clients(cases: list[Case], rows: dict[Case, dict[str, float]]) -> dict[str, float]:
    """Print what numbers of clients and cohorts cost, and return how the largest federation compares to 100 clients."""
    print(f"\n{'clients':>9} {'cohort':>7}   ms a client-round   start, s   end, s   peak MB   added MB")
    for case in cases:
        row = rows[case]
        times = f"{row['ms']:19.3f} {row['start']:10.2f} {row['end']:8.2f}"
        print(f"{case.clients:9} {case.cohort:7} {times} {row['peak'] / 1e6:9.0f} {row['added'] / 1e6:10.1f}")
    few, many = next(case for case in cases if case.clients == 100), cases[-1]
    factor = rows[many]["ms"] / rows[few]["ms"]
    bytes_each = (rows[many]["peak"] - rows[few]["peak"]) / (many.clients - few.clients)
    print(f"  memory: {bytes_each:,.0f} bytes for each further client")
    word = "reached" if factor <= GOAL else "MISSED "
    print(f"  {word}  a client's round among {many.clients:,} over one among 100: {factor:.3f} (goal: at most {GOAL})")
    return {"times_of_100_clients": factor, "bytes_a_client": bytes_each}


def show(name: str, sizes: list[int], cases: list[Case], rows: dict[Case, dict[str, float]]) -> float:
    """Print what one size costs, and return the slope of the logarithms."""
    import numpy as np

    times = [rows[case]["ms"] for case in cases]
    slope = float(np.polyfit(np.log(sizes), np.log(times), 1)[0])
    print(f"\n{name:>9}   ms a client-round   (slope {slope:.2f})")
    for size, ms in zip(sizes, times, strict=True):
        print(f"{size:9,} {ms:19.3f}")
    return slope


def apart(case: Case, client_rounds: int) -> dict[str, float]:
    """Return a case's row, measured in a process of its own."""
    request = json.dumps({"case": case, "client_rounds": client_rounds})
    command = [sys.executable, __file__, "--child", request]
    return json.loads(subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True).stdout.splitlines()[-1])


def simulated(case: Case, client_rounds: int) -> dict[str, float]:
    """Return milliseconds of a client's round, seconds to start and to end, and bytes at the peak."""
    from contenders import Memory

    before, begin = Memory.now(), time.perf_counter()
    simulation = federation(case)
    stamps: list[float] = []
    rounds = max(LEAST, client_rounds // case.cohort)

    def stamp(_: object) -> None:
        stamps.append(time.perf_counter())

    simulation.run(rounds, progress=stamp)
    end = time.perf_counter()
    steps = sorted(after - start for start, after in pairwise(stamps[1:]))
    peak, median = Memory.now().peak, steps[len(steps) // 2]
    times = {"ms": median / case.cohort * 1e3, "start": stamps[0] - begin, "end": end - stamps[-1]}
    return times | {"peak": peak, "added": peak - before.resident}


def federation(case: Case) -> Any:
    """Return clients whose samples lie in one data set, and a round of that budget on mini-batches of equal size."""
    import numpy as np

    from baffle.algorithms import Baffle
    from baffle.data.samples import Arrays
    from baffle.models.mlp import mlp
    from baffle.runtimes.torch import TorchRuntime
    from baffle.simulation import Share, Simulation

    rng = np.random.default_rng(0)
    inputs = rng.normal(size=(20_000, FEATURES)).astype(np.float32)
    samples = Arrays("shared", inputs, rng.integers(0, CLASSES, len(inputs)))
    return Simulation(
        runtime=TorchRuntime(mlp(FEATURES, CLASSES, (case.width, case.width)), device="cpu", drawn=True),
        shares=[Share(samples, rng.integers(0, len(samples), HELD)) for _ in range(case.clients)],
        algorithm=Baffle(forwards=case.probes * BATCH, batch=BATCH),
        participation=case.cohort / case.clients,
        evaluate_every=1_000_000,
    )


def told(doing: str) -> None:
    """Show what is being measured, on one line of a terminal that the next call overwrites."""
    if sys.stderr.isatty():
        print(f"\r\x1b[K{doing}", end="" if doing else "\r", file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
