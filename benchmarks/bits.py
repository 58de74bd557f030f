"""What quantising loss differences does to convergence: accuracy at 2 to 32 bits a slope, and with none.

    [BAFFLE_MNIST=DIR] python benchmarks/bits.py [digits|mnist|plot] [--rounds N] [--seeds N]

- `digits`: `baffle train`'s defaults (10 IID clients, an MLP of 2,410 weights), 400 rounds, 10 seeds.
- `mnist`: 14×14 pixels, the paper's LeNet, rate 4e-2, 60 rounds, one seed; DIR has MNIST's IDX files.
- `plot`: docs/images/bits.png, from the figures that are there.

"none" is a run with slopes as floats: each client's slopes are limited to their bound as always, but averaged in
float64, and the mean goes into the very step that integers go into, in units of 2⁻⁴¹ of the bound, which is far below
the last digit of a float32 loss. Everywhere else the clients' slopes are rounded to so many bits, and the server's sums
to as many. Runs of one seed have the same first weights, batches and directions. Runs are kept in runs/bits and go on
where they were when the script is started again. Writes benchmarks/results/bits.json.
"""

from __future__ import annotations

import argparse
import json
import math
import os
from contextlib import closing
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

import numpy as np
from machine import describe

from baffle import server
from baffle.assembly import assemble
from baffle.client import measure
from baffle.experiment import Experiment, read
from baffle.mechanisms import clip
from baffle.messages import Aggregate, Plan, Round
from baffle.parameters import digest
from baffle.server import State
from baffle.session import Session
from baffle.simulation import Simulation

RESULTS = Path(__file__).parent / "results" / "bits.json"
PICTURE = Path(__file__).parents[1] / "docs" / "images" / "bits.png"
RUNS = Path("runs/bits")
BITS = (None, 32, 16, 8, 6, 4, 3, 2)
"""None is "none"."""
FEW, FEWER = 3, 3
"""So many bits or less are for comparison, with that many seeds at most."""
SETTINGS: dict[str, dict[str, Any]] = {
    "digits": {"evaluate_every": 20},
    "mnist": {"dataset": "mnist", "model": "lenet", "image_size": 14, "rate": 4e-2, "evaluate_every": 5},
}
ROUNDS, SEEDS = {"digits": 400, "mnist": 60}, {"digits": 10, "mnist": 1}
FINE = 1 << 10
"""Weight of a sum of floats: beside the 31 bits of a slope, how finely it is written down."""
T_95 = (12.71, 4.30, 3.18, 2.78, 2.57, 2.45, 2.36, 2.31, 2.26)
"""Of Student's law, two-sided, for 2 to 10 seeds."""


def name_of(bits: int | None) -> str:
    return "none" if bits is None else f"{bits} bits"


def in_floats(simulation: Simulation, plan: Plan, state: State) -> Aggregate:
    """Return the mean of all clients' slopes, none of them rounded."""
    if plan.groups != 1 or plan.steps != 1:
        raise SystemExit("a run with floats is made for shared directions and one local step")
    clients = [simulation.clients()[number] for number in plan.cohort]
    batches = [client.batch(plan, 0) for client in clients]
    slopes = clip(measure(plan, 0, 0, state.parameters, batches, simulation.runtime, simulation.kernels), plan.bounds)
    if not np.isfinite(slopes).all():
        raise SystemExit(f"round {plan.round} has a slope that is not finite")
    mean = np.average(slopes, axis=0, weights=[client.samples for client in clients])
    return Aggregate.of(FINE, np.rint(mean / plan.bounds * (plan.quantiser.levels * FINE)).astype(np.int64)[None, None])


def train_in_floats(simulation: Simulation, rounds: int, out: Path, settings: dict[str, Any]) -> None:
    """Train as `Simulation.run` does, with `in_floats` in place of reports."""
    session = Session(
        header=simulation.header(),
        given=simulation.runtime.given,
        evaluate=simulation.evaluate,
        evaluate_every=simulation.evaluate_every,
        snapshot_every=simulation.snapshot_every,
        rounds=rounds,
        out=out,
        progress=lambda _: None,
    )
    method, federation, kernels = simulation.algorithm, session.header.federation, simulation.kernels
    with session, closing(simulation.gathering()):
        state = session.resume(settings, kernels) if (out / "settings.toml").exists() else session.begin(settings)
        while state.round < rounds:
            plan = server.plan(method, federation, state)
            aggregate = in_floats(simulation, plan, state)
            state = server.apply(method, state, plan, aggregate, kernels)
            nothing = (0,) * len(plan.cohort)
            record = Round(plan, plan.cohort, nothing, (), aggregate, digest(state.parameters))
            session.record(record)
            session.watch(state, record)
        session.finish(state)


def curve(task: str, bits: int | None, seed: int, rounds: int) -> list[dict[str, float]]:
    """Return the accuracy of the averaged weights at every evaluation, from a run that is kept and taken up again."""
    folder = RUNS / f"{task}, {name_of(bits)}, {rounds}, {seed}"
    if not (folder / "summary.json").exists():
        place = {"data_dir": os.environ["BAFFLE_MNIST"]} if task == "mnist" else {}
        chosen = SETTINGS[task] | place | {"bits": bits or 32, "seed": seed, "rounds": rounds}
        train(read(chosen), bits, folder)
    rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [{key: row[key] for key in ("round", "accuracy", "upload_bytes")} for row in rows]


def train(made: Experiment, bits: int | None, folder: Path) -> None:
    settings = {field: getattr(made, field) for field in made.__struct_fields__}
    if bits is None:
        train_in_floats(assemble(made), made.rounds, folder, settings)
    else:
        assemble(made).run(made.rounds, out=folder, resume=(folder / "settings.toml").exists(), settings=settings)


def compared(runs: list[list[dict[str, float]]], none: list[list[dict[str, float]]]) -> dict[str, Any]:
    """Return what a row of the table says: the end, and how far from no quantisation, seed by seed."""
    last = [100 * run[-1]["accuracy"] for run in runs]
    away = [mine - 100 * run[-1]["accuracy"] for mine, run in zip(last, none, strict=False)]
    error = T_95[len(away) - 2] * stdev(away) / math.sqrt(len(away)) if len(away) > 1 else None
    return {
        "seeds": len(runs),
        "accuracy": [round(value, 2) for value in last],
        "mean": round(fmean(last), 2),
        "away": round(fmean(away), 2),
        "half of the 95 % interval of away": None if error is None else round(error, 2),
        "upload_bytes": round(fmean(run[-1]["upload_bytes"] for run in runs)),
        "curve": [
            {"round": rows[0]["round"], "accuracy": round(100 * fmean(row["accuracy"] for row in rows), 2)}
            for rows in zip(*runs, strict=True)
        ],
    }


def task_results(task: str, chosen: tuple[int | None, ...], rounds: int, seeds: int) -> dict[str, Any]:
    table: dict[str, Any] = {}
    none: list[list[dict[str, float]]] = []
    for bits in chosen:
        turns = min(seeds, FEWER) if bits and bits <= FEW else seeds
        runs = [curve(task, bits, seed, rounds) for seed in range(turns)]
        none = none or runs
        table[name_of(bits)] = row = compared(runs, none)
        half = row["half of the 95 % interval of away"]
        told = "" if half is None else f" ± {half}"
        print(f"{task:7} {name_of(bits):8} {row['mean']:6.2f}  away {row['away']:+.2f}{told}", flush=True)
    return {"rounds": rounds, "seeds": seeds, "machine": describe(), "table": table}


def plot(results: dict[str, Any]) -> None:
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot

    tasks = [task for task in SETTINGS if task in results]
    figure, axes = pyplot.subplots(1, len(tasks), figsize=(4.6 * len(tasks), 3.6), squeeze=False, layout="constrained")
    shades = mpl.colormaps["viridis"]
    for axis, task in zip(axes[0], tasks, strict=True):
        table = results[task]["table"]
        for number, (name, row) in enumerate(table.items()):
            style = {"color": "black", "linestyle": "--"} if name == "none" else {"color": shades(number / len(table))}
            fewer = f" ({row['seeds']} seeds)" if row["seeds"] < results[task]["seeds"] else ""
            axis.plot(
                [point["round"] for point in row["curve"]],
                [point["accuracy"] for point in row["curve"]],
                label=("not quantised" if name == "none" else name) + fewer,
                zorder=3 if name == "none" else 2,
                linewidth=1.4,
                **style,
            )
        seeds = results[task]["seeds"]
        axis.set_title(f"{task}, {'mean of ' + str(seeds) + ' seeds' if seeds > 1 else 'one seed'}", fontsize=10)
        axis.set_xlabel("rounds")
        axis.grid(alpha=0.3)
    axes[0][0].set_ylabel("held-out accuracy, %")
    axes[0][0].set_ylim(bottom=60)
    axes[0][-1].legend(fontsize=8)
    figure.savefig(PICTURE, dpi=130)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("task", choices=(*SETTINGS, "plot"), default="digits", nargs="?")
    parser.add_argument("--rounds", type=int)
    parser.add_argument("--seeds", type=int)
    parser.add_argument("--bits", type=int, nargs="*", default=BITS[1:], help="beside none")
    given = parser.parse_args()
    results = json.loads(RESULTS.read_text()) if RESULTS.exists() else {}
    if given.task == "mnist" and "BAFFLE_MNIST" not in os.environ:
        parser.exit(0, "skipped: BAFFLE_MNIST names no folder of MNIST's IDX files\n")
    if given.task != "plot":
        rounds, seeds = given.rounds or ROUNDS[given.task], given.seeds or SEEDS[given.task]
        found = task_results(given.task, (None, *given.bits), rounds, seeds)
        results = (json.loads(RESULTS.read_text()) if RESULTS.exists() else {}) | {given.task: found}
        RESULTS.write_text(json.dumps(results, indent=1) + "\n")
    plot(results)


if __name__ == "__main__":
    main()
