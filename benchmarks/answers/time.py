"""Question 6: the time of K probes over one forward and backward pass, on one core, in one run.

One client's mini-batch of 32 at 32×32. All ways are timed in turn, several times over, in processor time, so that other
work on the machine does little to the ratio; the median of the turns counts.
"""

# pyright: standard
from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from statistics import median
from typing import Any

import torch
from contenders import SCALE, Case, backpropagation, by_layers, naive, start

from baffle.directions import Rademacher
from baffle.kernels import fastest
from baffle.keys import Key
from baffle.messages import BlockPlan
from baffle.probes import Probes
from baffle.runtimes.torch import TorchRuntime

K, TURNS = 100, 3
NETWORKS = {"lenet": "LeNet", "wrn": "WRN-10-2"}
BATCHED = {True: "probes batched", False: "one by one"}


def answer() -> dict[str, Any]:
    """Return seconds of processor time of each way on each network, a turn each."""
    torch.set_num_threads(1)
    rows: dict[str, dict[str, list[float]]] = {}
    for name, title in NETWORKS.items():
        ways = dict(works(Case.of(name, 1, clients=1)))
        for call in ways.values():
            call()
        rows[title] = {way: [] for way in ways}
        for _ in range(TURNS):
            for way, call in ways.items():
                rows[title][way].append(round(seconds(call), 5))
        base = rows[title]["forward and backward"]
        for way, turns in rows[title].items():
            ratio = median(turns) / median(base)
            print(f"6  {title:9} {way:44} {1e3 * median(turns):9.1f} ms  {ratio:7.1f}", flush=True)
    return {"K": K, "rows": rows}


def seconds(call: Callable[[], object]) -> float:
    """Return the processor time of a call."""
    began = time.process_time()
    call()
    return time.process_time() - began


def works(case: Case) -> Iterator[tuple[str, Callable[[], object]]]:
    """Yield what is timed."""
    yield "forward and backward", best(case)
    inputs, model = case.inputs, case.model

    def inference() -> None:
        with torch.inference_mode():
            for _ in range(K):
                model(inputs)

    yield f"{K} inferences, nothing displaced", inference
    loop = next(iter(naive(case))).call
    yield f"{K} probes, naive loop", lambda: [loop() for _ in range(K)]
    for batched in (False, True):
        runtime = runtime_of(case, batched)
        whole = [
            Probes(
                start(runtime),
                BlockPlan(0, runtime.layout.size, K, 16.0, Rademacher()),
                Key.root(1),
                SCALE,
                (1,),
                fastest(),
            )
        ]
        yield f"{K} probes, whole vector, {BATCHED[batched]}", sweeping(runtime, whole, case)
        blocks = runtime.layout.blocks("layers")
        costs = runtime.costs(blocks, case.batches[0])
        even = by_layers(runtime, start(runtime), [K // len(blocks)] * len(blocks))
        yield f"{K // len(blocks) * len(blocks)} probes, in layers, {BATCHED[batched]}", sweeping(runtime, even, case)
        budgets = [max(2, round(K / len(blocks) / cost)) for cost in costs]
        dear = [min(1024, budget) for budget in budgets]
        worth = sum(budget * cost for budget, cost in zip(dear, costs, strict=True))
        told = f"{sum(dear)} probes, in layers, {worth:.0f} forwards' worth, {BATCHED[batched]}"
        yield told, sweeping(runtime, by_layers(runtime, start(runtime), dear), case)


def best(case: Case) -> Callable[[], object]:
    """Return forward and backward in the order of an image's numbers that is faster here."""
    calls = [work.call for work in backpropagation(replace(case, sizes=(len(case.targets),)))]
    for call in calls:
        call()
    return min(calls, key=lambda call: median(seconds(call) for _ in range(5)))


def runtime_of(case: Case, batched: bool) -> TorchRuntime:
    """Return a runtime that evaluates cheap probes several in a call, or each in a call of its own."""
    runtime = TorchRuntime(case.model, device="cpu", threads=1)
    runtime.costs(runtime.layout.blocks("whole"), case.batches[0])
    if not batched:
        runtime._sweeps = {shape: replace(sweep, operations=0) for shape, sweep in runtime._sweeps.items()}
    return runtime


def sweeping(runtime: TorchRuntime, probes: list[Probes], case: Case) -> Callable[[], object]:
    return lambda: runtime.sweep(probes, case.batches)
