"""What a backward pass costs beside a forward pass, and what checkpointing saves, on the networks that baselines train.

    python benchmarks/backward.py [lenet] [wrn] [mlp] [--quick]

One core, one process for each memory figure. "backward" is the time of forward and backward together less that of the
forward pass, over that of the forward pass; the forward pass is plain inference without a graph on the same batch.
Times are of the processor, on one thread, so that others on the machine matter less. Contenders run in turn, several
times over, and the fastest of each counts. "checkpointed" is what recomputing
activations adds, in forward passes. Memory is what a gradient adds to the peak of a process that has network and
data, on 256 samples. `baffle.baselines.costs.BACKWARD` is what the accounts use. Writes
benchmarks/results/backward.json, but nothing with --quick or networks named.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import machine

NETWORKS = {"lenet": (1, 32, 32), "wrn": (3, 32, 32), "mlp": (1, 8, 8)}
BATCHES = (32, 128)
MEMORY_BATCH = 256
RESULTS = Path(__file__).parent / "results" / "backward.json"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("networks", nargs="*", choices=[*NETWORKS, []], metavar="NETWORK")
    parser.add_argument("--quick", action="store_true", help="few repetitions; nothing is written")
    parser.add_argument("--child", nargs=2, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.child:
        print(json.dumps(added(*given.child)))
        return
    print(machine.told())
    machine.pin(machine.cores()[0])
    table = {}
    for name in given.networks or NETWORKS:
        table[name] = {str(batch): ratios(name, batch, 2 if given.quick else 6) for batch in BATCHES}
        table[name]["memory"] = {kind: child(name, kind) for kind in ("forward", "gradient", "checkpointed")}
        show(name, table[name])
    if not (given.quick or given.networks):
        RESULTS.write_text(json.dumps({"machine": machine.describe(), "table": table}, indent=1) + "\n")


def show(name: str, found: dict[str, Any]) -> None:
    for batch in BATCHES:
        row = found[str(batch)]
        print(
            f"{name:<6} batch {batch:>3}  forward {1e6 * row['forward_s'] / batch:7.1f} us a sample"
            f"  backward {row['backward']:.2f}  checkpointed +{row['checkpointed']:.2f}"
        )
    memory = "  ".join(f"{kind} {size / 1e6:.1f} MB" for kind, size in found["memory"].items())
    print(f"{name:<6} added on {MEMORY_BATCH} samples: {memory}", flush=True)


def contenders(name: str, batch: int) -> dict[str, Callable[[], object]]:
    """Return the forward pass and both gradients, on one network and batch of noise."""
    import numpy as np
    import torch

    torch.set_num_threads(1)
    from baffle.baselines.backpropagation import Backpropagation
    from baffle.keys import Key
    from baffle.models.build import build
    from baffle.runtimes.torch import TorchRuntime

    shape = NETWORKS[name]
    runtime = TorchRuntime(build(name, shape, 10, key=Key.root(0)), device="cpu", chunk=MEMORY_BATCH)
    weights = runtime.layout.flatten(runtime.given)
    rng = np.random.default_rng(0)
    data = (rng.normal(size=(batch, *shape)).astype(np.float32), rng.integers(0, 10, batch))
    plain, twice = Backpropagation(runtime), Backpropagation(runtime, checkpointing=True)
    return {
        "forward": lambda: runtime.losses([weights], [data]),
        "gradient": lambda: plain(weights, data),
        "checkpointed": lambda: twice(weights, data),
    }


def ratios(name: str, batch: int, passes: int) -> dict[str, float]:
    """Return the fastest forward pass, in seconds, and what else costs in forward passes."""
    calls = contenders(name, batch)
    best = dict.fromkeys(calls, float("inf"))
    for _ in range(passes):
        for kind, call in calls.items():
            for _ in range(max(1, 512 // batch // (8 if name == "wrn" else 1))):
                began = time.process_time()
                call()
                best[kind] = min(best[kind], time.process_time() - began)
    forward = best["forward"]
    return {
        "forward_s": forward,
        "backward": best["gradient"] / forward - 1,
        "checkpointed": (best["checkpointed"] - best["gradient"]) / forward,
    }


def child(name: str, kind: str) -> int:
    """Return what a process of its own says of the memory that one call adds."""
    command = [sys.executable, __file__, "--child", name, kind]
    return int(json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout))


def added(name: str, kind: str) -> int:
    """Return the bytes that a call on many samples adds to the peak after one on few."""
    from baffle.progress import peak_memory

    os.environ["OMP_NUM_THREADS"] = "1"
    contenders(name, 2)[kind]()
    call = contenders(name, MEMORY_BATCH)[kind]
    before = peak_memory()
    call()
    return peak_memory() - before


if __name__ == "__main__":
    main()
