"""Question 7: memory of probes, of backpropagation, and of backpropagation with activations computed again.

A process imports PyTorch, builds the model, draws 32 samples and does everything once. Children that begin as its
copies, the common base, do one thing each, twice; at the second time the base is taken off their peak. Needs Linux.
"""

# pyright: standard
from __future__ import annotations

import ctypes
import gc
import json
import os
import subprocess
import sys
from pathlib import Path
from statistics import median
from typing import Any

NETWORKS = {"lenet": "LeNet", "wrn": "WRN-10-2"}
WAYS = (
    "inference",
    "probes, whole vector, passes of 32",
    "probes, whole vector, passes of 4",
    "probes, in layers, passes of 32",
    "probes, in layers, passes of 4",
    "forward and backward",
    "checkpointed",
)
BATCH, FEW, TIMES = 32, 6, 3
PROBES = {"lenet": 100, "wrn": 60}


def answer() -> dict[str, Any]:
    """Return bytes above the base, of several processes each."""
    rows: dict[str, dict[str, list[int]]] = {}
    for name, title in NETWORKS.items():
        done = subprocess.run([sys.executable, __file__, name], stdout=subprocess.PIPE, text=True, check=True)
        rows[title] = json.loads(done.stdout.splitlines()[-1])
        for way, peaks in rows[title].items():
            print(f"7  {title:9} {way:42} {median(peaks) / 2**20:8.1f} MiB", flush=True)
    return {"batch": BATCH, "probes": PROBES, "rows": rows}


def peaks(network: str) -> dict[str, list[int]]:
    """Return what each way adds to this process's resident memory, in children that begin where it stands."""
    import torch

    from baffle.models.lenet import lenet
    from baffle.models.wide_resnet import wide_resnet
    from baffle.runtimes.torch import TorchRuntime

    torch.set_num_threads(1)
    model = (lenet if network == "lenet" else wide_resnet)(1, 10).eval()
    inputs, targets = torch.randn(BATCH, 1, 32, 32), torch.randint(0, 10, (BATCH,))
    runtimes = [TorchRuntime(model, device="cpu", threads=1, chunk=chunk) for chunk in (BATCH, 4)]
    given = {way: (way, model, inputs, targets, runtimes[way.endswith("of 4")]) for way in WAYS}
    for way in WAYS:  # whatever a library sets up at its first call is part of the base
        do(*given[way], FEW)
    model.zero_grad(set_to_none=True)
    return {way: [above((*given[way], FEW), (*given[way], PROBES[network])) for _ in range(TIMES)] for way in WAYS}


def above(warm: tuple[Any, ...], work: tuple[Any, ...]) -> int:
    """Return by how many bytes a child's peak rises when it does `work`, once `warm` has touched the code for it."""
    reads, writes = os.pipe()
    child = os.fork()
    if not child:
        do(*warm)
        warm[1].zero_grad(set_to_none=True)
        gc.collect()
        ctypes.CDLL(None).malloc_trim(0)
        Path("/proc/self/clear_refs").write_text("5")  # the peak begins anew
        base = resident("VmRSS")
        do(*work)
        os.write(writes, str(resident("VmHWM") - base).encode())
        os._exit(0)
    os.close(writes)
    os.waitpid(child, 0)
    with os.fdopen(reads) as told:
        return int(told.read())


def do(way: str, model: Any, inputs: Any, targets: Any, runtime: Any, probes: int) -> None:
    """Run one of `WAYS`."""
    import torch
    from torch.nn.functional import cross_entropy
    from torch.utils.checkpoint import checkpoint_sequential

    if way == "inference":
        with torch.inference_mode():
            cross_entropy(model(inputs), targets)
    elif way == "forward and backward":
        cross_entropy(model(inputs), targets).backward()
    elif way == "checkpointed":
        outputs = checkpoint_sequential(model, len(model), inputs.requires_grad_(), use_reentrant=False)
        cross_entropy(outputs, targets).backward()
    else:
        runtime.sweep(displaced(runtime, way, probes), [(inputs.detach().numpy(), targets.numpy())])


def displaced(runtime: Any, way: str, probes: int) -> list[Any]:
    """Return that many probes of the whole vector, or as many shared evenly among layers."""
    from baffle.directions import Rademacher
    from baffle.kernels import fastest
    from baffle.keys import Key
    from baffle.messages import BlockPlan
    from baffle.probes import Probes

    point, kernels = runtime.layout.flatten(runtime.given).astype(runtime.precision), fastest()
    spans = runtime.layout.blocks("layers" if "layers" in way else "whole")
    plans = [BlockPlan(b.start, b.stop, max(1, probes // len(spans)), 16.0, Rademacher()) for b in spans]
    return [Probes(point, plan, Key.root(1).fold(i), 1e-2, (1,), kernels) for i, plan in enumerate(plans)]


def resident(name: str) -> int:
    """Return this process's resident memory (VmRSS) or its peak (VmHWM), in bytes."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(name))


if __name__ == "__main__":
    print(json.dumps(peaks(sys.argv[1])))
