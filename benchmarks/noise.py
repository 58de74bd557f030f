"""What a direction costs, beside torch.randn, on one thread, in one run.

    python benchmarks/noise.py

First nanoseconds a weight for each law and use at 2²⁰ weights: a displaced copy, a sum over one direction, and a sum
over 64, which is what a reconstruction does. Then microseconds a copy for small blocks, one by one and a hundred in a
call. Each figure is the least of fifteen times three timings, the cases in turn so that a busy moment of the machine
hits all alike, each after a call that is not timed. Writes benchmarks/results/noise.json.
"""

from __future__ import annotations

import json
import platform
import timeit
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

from baffle.directions import Gaussian, Law, Orthogonal, Rademacher
from baffle.kernels import Kernels, PlainKernels
from baffle.kernels.compiled import CompiledKernels
from baffle.keys import Key

SIZE = 1 << 20
SMALL = (416, 2_410, 26_730)
MANY = 64
REPEATS = 15
KEY = Key.root(0)
LOOPS: dict[str, Kernels] = {"numba": CompiledKernels(), "NumPy": PlainKernels()}
GOALS = {Rademacher: 1 / 12, Orthogonal: 1 / 12, Gaussian: 1 / 4}
"""Of the compiled loops, in shares of torch.randn's time a weight."""

Case = tuple[Callable[[], object], int]


BASE, OUT = np.zeros(SIZE, np.float32), np.empty(100 * max(SMALL), np.float32)
TOTAL = np.zeros(SIZE, np.int64)


def displace(kernels: Kernels, law: Law, size: int, directions: int) -> Case:
    base, out = BASE[:size], OUT[: directions * size].reshape(directions, size)
    if directions == 1:
        return lambda: kernels.displace(out[0], base, 1e-3, law, KEY, 1), size
    return lambda: kernels.displace_many(out, base, 1e-3, law, KEY, 1), size * directions


def accumulate(kernels: Kernels, law: Law, directions: int) -> Case:
    weights = np.arange(3, 3 + directions)
    return lambda: kernels.accumulate(TOTAL, weights, law, KEY), SIZE * directions


def large() -> dict[str, Case]:
    cases: dict[str, Case] = {"torch.randn": (lambda: torch.randn(SIZE), SIZE)}
    for loops, kernels in LOOPS.items():
        for law in (Rademacher(), Orthogonal(20), Gaussian()):
            name = f"{type(law).__name__}, {loops}"
            cases[f"displace: {name}"] = displace(kernels, law, SIZE, 1)
            cases[f"accumulate 1: {name}"] = accumulate(kernels, law, 1)
            cases[f"accumulate {MANY}: {name}"] = accumulate(kernels, law, MANY)
    return cases


def small() -> dict[str, Case]:
    cases: dict[str, Case] = {}
    for loops, kernels in LOOPS.items():
        for law in (Rademacher(), Orthogonal(15), Gaussian()):
            for size in SMALL:
                for directions in (1, 100):
                    name = f"{size} weights, {directions} a call: {type(law).__name__}, {loops}"
                    work, _ = displace(kernels, law, size, directions)
                    cases[name] = work, directions
    return cases


def least(cases: dict[str, Case], calls: int) -> dict[str, float]:
    """Nanoseconds per item of each case, over so many calls a timing."""
    found = dict.fromkeys(cases, float("inf"))
    for _ in range(REPEATS):
        for name, (work, items) in cases.items():
            work()
            taken = min(timeit.repeat(work, number=calls, repeat=3))
            found[name] = min(found[name], taken / calls / items * 1e9)
    return found


def goal(name: str) -> float | None:
    return next((share for law, share in GOALS.items() if name.endswith(f"{law.__name__}, numba")), None)


def machine() -> dict[str, str]:
    info = Path("/proc/cpuinfo")
    models = [line for line in info.read_text().splitlines() if line.startswith("model name")] if info.exists() else []
    cpu = models[0].split(":")[1].strip() if models else platform.processor()
    versions = {"python": platform.python_version(), "numpy": np.__version__, "torch": torch.__version__}
    return {"cpu": cpu, "architecture": platform.machine(), "threads": "1"} | versions


def main() -> None:
    torch.set_num_threads(1)
    weights = least(large(), calls=1)
    copies = {name: value / 1000 for name, value in least(small(), calls=20).items()}
    shares = {name: value / weights["torch.randn"] for name, value in weights.items()}
    print(f"{'':36} ns a weight   share of torch.randn    goal")
    for name, value in weights.items():
        share, aim = shares[name], goal(name)
        told = f"1/{1 / aim:.0f} {'met' if share <= aim else 'missed'}" if aim else ""
        print(f"{name:36} {value:11.3f}   {share:8.3f} = 1/{1 / share:<5.1f}   {told:>9}")
    print(f"\n{'':52} µs a copy")
    for name, value in copies.items():
        print(f"{name:52} {value:9.2f}")
    found = {
        "machine": machine(),
        "ns_a_weight": weights,
        "share_of_randn": shares,
        "goals": {name: aim for name in weights if (aim := goal(name))},
        "us_a_copy": copies,
    }
    rounded = json.loads(json.dumps(found), parse_float=lambda text: float(f"{float(text):.4g}"))
    path = Path(__file__).parent / "results" / "noise.json"
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps(rounded, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
