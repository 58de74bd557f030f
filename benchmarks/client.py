"""What a client on ONNX Runtime takes, beside inference and backpropagation in PyTorch.

    python benchmarks/client.py [--quick]

- memory: the largest resident memory of a whole process that answers one plan on a mini-batch of 32 samples with
  NumPy's loops, as an edge client would: it reads the plan, the weights, an exported model and a file of samples, and
  never imports PyTorch. Beside it, processes with PyTorch that do one inference, one forward and backward pass, and
  the same with every part's activations computed again (gradient checkpointing). Medians of several processes.
- speed: microseconds of processor time a sample-forward on one core, of ONNX Runtime with the weights as constants and
  of a client's probes, whole and in layers, in turn, several times over; the fastest counts. A forward equivalent of
  layers is what the exported model's operation counts say.
- agreement: the share of 8-bit slopes that a client gives alike on both runtimes for one plan, and the accuracy that
  the same experiment reaches on each (an MLP on scikit-learn's digits, 100 rounds, three seeds).

Needs Linux. Writes benchmarks/results/client.json, but nothing with --quick.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from statistics import fmean, median
from tempfile import TemporaryDirectory
from typing import Any

import machine

NETWORKS = ("lenet", "wrn")
BATCH = 32
LIMIT = 96 * 2**20
"""Bytes of memory that an SGX enclave usually has for itself."""
GOAL = 0.9
BUDGET = {"lenet": 20, "wrn": 6}
"""Probes of each layer."""
MOST = 1024
"""Most probes of a layer: as many as make an estimate of the last one exact."""
PASSES, SECONDS = 5, 1.0
SEEDS, ROUNDS = (0, 1, 2), 100


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="one turn, nothing written")
    parser.add_argument("--child", type=json.loads, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.child:
        print(json.dumps(CHILDREN[given.child["task"]](**given.child["arguments"])))
        return
    print(machine.told())
    with TemporaryDirectory() as folder:
        for network in NETWORKS:
            apart("prepare", network=network, folder=folder)
        times = 1 if given.quick else 5
        results = {
            "memory": memory(Path(folder), times),
            "speed": speed(Path(folder), 1 if given.quick else PASSES),
            "agreement": agreement(Path(folder), (0,) if given.quick else SEEDS),
        }
    if not given.quick:
        path = Path(__file__).parent / "results" / "client.json"
        path.write_text(json.dumps({"machine": machine.describe(), **results}, indent=1) + "\n")


def apart(task: str, **given: object) -> Any:
    """Return what `task` returns in a process of its own."""
    request = json.dumps({"task": task, "arguments": given})
    done = subprocess.run([sys.executable, __file__, "--child", request], stdout=subprocess.PIPE, text=True, check=True)
    return json.loads(done.stdout.splitlines()[-1])


def child_prepare(network: str, folder: str) -> None:
    """Write what a client is given, a model, a plan, weights and samples; and the model with constant weights."""
    import numpy as np

    from baffle.algorithms import Baffle
    from baffle.export import Choice, export, prepared, write_plain
    from baffle.export.from_torch import from_torch
    from baffle.keys import Key
    from baffle.messages import encode
    from baffle.server import Federation, State, plan

    here = Path(folder) / network
    rng = np.random.default_rng(0)
    samples = rng.normal(size=(1_000, 1, 32, 32)).astype(np.float32)
    source = from_torch(_network(network), samples[0])
    trainable, expected = prepared(source, Choice())
    bundle = export(trainable, here, expected=expected)
    write_plain(trainable, here / "constant.onnx")
    layout = bundle.manifest.layout
    point = layout.flatten(dict(trainable.given))
    costs = [cut.operations for cut in (bundle.manifest.whole, *bundle.manifest.cuts)]
    blocks = len(layout.blocks("layers"))
    federation = Federation(
        key=Key.root(0).secret,
        layout=layout,
        clients=1,
        costs=tuple(cost / costs[0] for cost in costs) if len(costs) == blocks else (),
        most_samples=1_000,
    )
    asked = plan(Baffle(forwards=BATCH * BUDGET[network] * blocks, batch=BATCH), federation, State(point, point, {}))
    (here / "plan").write_bytes(encode(asked))
    np.save(here / "weights.npy", point)
    np.save(here / "samples.npy", samples)
    np.save(here / "targets.npy", rng.integers(0, 10, 1_000))


def _network(name: str) -> Any:
    from baffle.models.lenet import lenet
    from baffle.models.wide_resnet import wide_resnet

    return (lenet if name == "lenet" else wide_resnet)(1, 10)


# memory


def memory(folder: Path, times: int) -> dict[str, Any]:
    """Measure, print and return the peaks of every kind of process."""
    torch = partial(apart, "torch")
    kinds: dict[str, tuple[Callable[..., Any], dict[str, Any]]] = {
        "client, passes of 32": (client, {"chunk": 32}),
        "client, passes of 4": (client, {"chunk": 4}),
        "PyTorch, inference": (torch, {"what": "inference"}),
        "PyTorch, forward and backward": (torch, {"what": "backward"}),
        "PyTorch, checkpointed": (torch, {"what": "checkpointed"}),
    }
    print(f"\n{'peak of a process, MiB':32}" + "".join(f"{network:>10}" for network in NETWORKS))
    found: dict[str, Any] = {}
    for title, (ask, given) in kinds.items():
        rows = {
            network: [ask(network=network, folder=str(folder), **given)["peak"] for _ in range(times)]
            for network in NETWORKS
        }
        found[title] = rows
        print(f"{title:32}" + "".join(f"{median(peaks) / 2**20:10.1f}" for peaks in rows.values()))
    for network in NETWORKS:
        least = min(median(found[title][network]) for title in found if title.startswith("client"))
        print(f"{'reached' if least <= LIMIT else 'MISSED '}  {network}: {least / 2**20:.1f} MiB (goal: at most 96)")
    return found


def client(network: str, folder: str, chunk: int) -> dict[str, int]:
    """Answer a plan in a process that has nothing but a client in it."""
    script = Path(__file__).parents[1] / "examples" / "edge_client.py"
    command = [sys.executable, str(script), str(Path(folder) / network), str(chunk)]
    return {"peak": int(subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True).stdout)}


def child_torch(network: str, folder: str, what: str) -> dict[str, Any]:
    """One pass over 32 samples in PyTorch."""
    import torch
    from torch.nn.functional import cross_entropy
    from torch.utils.checkpoint import checkpoint_sequential

    del folder
    torch.set_num_threads(1)
    model, inputs, targets = _network(network).eval(), torch.randn(BATCH, 1, 32, 32), torch.zeros(BATCH).long()
    if what == "inference":
        with torch.inference_mode():
            model(inputs)
    elif what == "backward":
        cross_entropy(model(inputs), targets).backward()
    else:
        outputs = checkpoint_sequential(model, len(model), inputs.requires_grad_(), use_reentrant=False)
        cross_entropy(outputs, targets).backward()
    return {"peak": peak()}


def peak() -> int:
    """Return this process's largest resident memory, in bytes; unlike getrusage's, without that of its parent."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM"))


# speed


def speed(folder: Path, passes: int) -> dict[str, Any]:
    """Measure, print and return microseconds a sample-forward."""
    found: dict[str, dict[str, float]] = {network: {} for network in NETWORKS}
    for _ in range(passes):
        for network, rows in found.items():
            for way in ("constant weights", "whole", "layers"):
                us = apart("speed", network=network, folder=str(folder), way=way)
                rows[way] = min(us, rows.get(way, us))
    print(f"\n{'µs a sample-forward, one core':32}" + "".join(f"{network:>10}" for network in NETWORKS))
    for way in ("constant weights", "whole", "layers"):
        print(f"{way:32}" + "".join(f"{rows[way]:10.1f}" for rows in found.values()))
    for network, rows in found.items():
        for way in ("whole", "layers"):
            share = rows["constant weights"] / rows[way]
            met = "reached" if share >= GOAL else "MISSED "
            print(f"{met}  {network}, {way}: {share:.2f} of constant weights' speed (goal: at least {GOAL})")
    return found


def child_speed(network: str, folder: str, way: str) -> float:
    """Return the least time of a sample-forward."""
    machine.pin(machine.cores()[-1])
    import numpy as np
    import onnxruntime

    here = Path(folder) / network
    inputs = np.load(here / "samples.npy", mmap_mode="r")[:BATCH].copy()
    targets = np.load(here / "targets.npy")[:BATCH]
    if way == "constant weights":
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        session = onnxruntime.InferenceSession(here / "constant.onnx", options, providers=["CPUExecutionProvider"])
        name, times = session.get_inputs()[0].name, 2 * BUDGET[network]
        return least(lambda: [session.run(None, {name: inputs}) for _ in range(times)], BATCH * times)
    from baffle.kernels import PlainKernels
    from baffle.keys import Key
    from baffle.messages import BlockPlan
    from baffle.probes import Probes
    from baffle.runtimes.onnx import OnnxRuntime

    runtime = OnnxRuntime(here)
    point = np.load(here / "weights.npy")
    blocks = runtime.layout.blocks("whole" if way == "whole" else "layers")
    costs = runtime.costs(blocks, (inputs, targets))
    budgets = [min(MOST, max(2, round(BUDGET[network] / cost))) for cost in costs]
    probes = [
        Probes(point, BlockPlan(b.start, b.stop, k, 16.0, law(b.size, k)), Key.root(i), 1e-2, (1,), PlainKernels())
        for i, (b, k) in enumerate(zip(blocks, budgets, strict=True))
    ]
    equivalents = sum(cost * budget for cost, budget in zip(costs, budgets, strict=True)) + 1 - min(costs)
    return least(lambda: runtime.sweep(probes, [(inputs, targets)]), BATCH * equivalents)


def law(size: int, budget: int) -> Any:
    """Return the directions that the method gives a block of `size` weights."""
    from baffle.directions import Orthogonal, Rademacher

    order = size.bit_length()
    return Orthogonal(order) if 4 * budget >= size and budget <= 1 << order else Rademacher()


def least(call: Callable[[], object], samples: float) -> float:
    """Return the least microseconds a sample of several calls, after one to warm up."""
    call()
    begin, times = time.perf_counter(), list[float]()
    while len(times) < 3 or time.perf_counter() - begin < SECONDS:
        start = time.process_time()
        call()
        times.append(time.process_time() - start)
    return min(times) / samples * 1e6


# agreement


def agreement(folder: Path, seeds: Sequence[int]) -> dict[str, Any]:
    """Measure, print and return how far PyTorch and ONNX Runtime agree."""
    print(f"\n{'one plan':32} slopes     equal   largest difference of losses")
    found: dict[str, Any] = {}
    for network in NETWORKS:
        row = found[network] = apart("agreement", network=network, folder=str(folder))
        print(f"{network:32} {row['slopes']:6} {row['equal']:9.2%}   {row['difference']:.1e}")
        met = "reached" if row["equal"] >= 0.99 else "MISSED "
        print(f"{met}  {network}: {row['equal']:.2%} of slopes equal (goal: at least 99 %)")
    print(f"\n{'accuracy on digits':32}" + "".join(f"   seed {seed}" for seed in seeds))
    for runtime in ("torch", "onnx"):
        found[runtime] = [apart("learning", runtime=runtime, seed=seed) for seed in seeds]
        print(f"{runtime:32}" + "".join(f"{100 * accuracy:9.1f}" for accuracy in found[runtime]))
    gap = abs(fmean(found["torch"]) - fmean(found["onnx"]))
    print(f"{'reached' if gap <= 0.01 else 'MISSED '}  means {100 * gap:.2f} points apart (goal: at most 1)")
    return found


def child_agreement(network: str, folder: str) -> dict[str, float]:
    """Answer one plan on both runtimes."""
    import numpy as np

    from baffle.client import Client, answer, measure
    from baffle.kernels import PlainKernels
    from baffle.keys import Key
    from baffle.messages import Plan, decode
    from baffle.runtimes.onnx import OnnxRuntime
    from baffle.runtimes.torch import TorchRuntime

    here = Path(folder) / network
    samples, targets, point = (np.load(here / f"{name}.npy") for name in ("samples", "targets", "weights"))
    plan = decode((here / "plan").read_bytes(), Plan)
    client = Client(0, len(targets), Key.root(1), lambda _, count: (samples[:count], targets[:count]))
    kernels, runtimes = PlainKernels(), (TorchRuntime(_network(network), device="cpu"), OnnxRuntime(here))
    one, other = (answer(plan, point, client, runtime, kernels).integers(plan) for runtime in runtimes)
    batches = [client.batch(plan, 0)]
    slopes = [measure(plan, 0, 0, point, batches, runtime, kernels) for runtime in runtimes]
    difference = float(np.abs(slopes[0] - slopes[1]).max()) * plan.estimator.scale
    return {"slopes": int(one.size), "equal": float(np.mean(one == other)), "difference": difference}


def child_learning(runtime: str, seed: int) -> float:
    """Return the accuracy that an experiment reaches."""
    from baffle.assembly import assemble
    from baffle.experiment import read

    made = read({"runtime": runtime, "seed": seed, "rounds": ROUNDS, "evaluate_every": ROUNDS})
    return assemble(made).run(ROUNDS).accuracy


CHILDREN: dict[str, Callable[..., Any]] = {
    "agreement": child_agreement,
    "learning": child_learning,
    "prepare": child_prepare,
    "torch": child_torch,
    "speed": child_speed,
}

if __name__ == "__main__":
    main()
