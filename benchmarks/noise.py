"""What a direction costs: nanoseconds a weight for each law and use, beside torch.randn, on one thread, in one run.

    python benchmarks/noise.py

Each figure is the least of nine timings, taken in turn so that a busy moment of the machine hits all alike. Writes
benchmarks/results/noise.json.
"""

from __future__ import annotations

import json
import platform
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

from baffle.directions import Gaussian, Law, Rademacher
from baffle.kernels import Kernels, PlainKernels
from baffle.kernels.compiled import CompiledKernels
from baffle.keys import Key

SIZE = 1 << 20
REPEATS = 9


def cases() -> dict[str, Callable[[], object]]:
    found: dict[str, Callable[[], object]] = {"torch.randn": lambda: torch.randn(SIZE)}
    for loops, kernels in (("NumPy", PlainKernels()), ("numba", CompiledKernels())):
        for law in (Rademacher(), Gaussian()):
            name = f"{type(law).__name__}, {loops}"
            found[f"displace: {name}"] = displace(kernels, law)
            found[f"accumulate: {name}"] = accumulate(kernels, law)
    return found


def displace(kernels: Kernels, law: Law) -> Callable[[], object]:
    base, out = np.zeros(SIZE, np.float32), np.empty(SIZE, np.float32)
    return lambda: kernels.displace(out, base, 1e-3, law, Key.root(0), 1)


def accumulate(kernels: Kernels, law: Law) -> Callable[[], object]:
    total, weights = np.zeros(SIZE, np.int64), np.array([3])
    return lambda: kernels.accumulate(total, weights, law, Key.root(0))


def main() -> None:
    torch.set_num_threads(1)
    timings: dict[str, list[float]] = {name: [] for name in cases()}
    runnable = cases()
    for _ in range(REPEATS + 1):
        for name, work in runnable.items():
            start = time.perf_counter()
            work()
            timings[name].append((time.perf_counter() - start) / SIZE * 1e9)
    least = {name: min(values[1:]) for name, values in timings.items()}
    print(f"{'':36} ns a weight   share of torch.randn")
    for name, value in least.items():
        print(f"{name:36} {value:11.2f}   {value / least['torch.randn']:8.2f}")
    machine = {"python": platform.python_version(), "numpy": np.__version__, "torch": torch.__version__}
    path = Path(__file__).parent / "results" / "noise.json"
    path.parent.mkdir(exist_ok=True)
    path.write_text(
        json.dumps({"machine": machine | {"cpu": platform.machine()}, "ns_a_weight": least}, indent=1) + "\n"
    )


if __name__ == "__main__":
    main()
