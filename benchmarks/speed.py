"""How fast losses at displaced weights come, and in how much memory, beside other ways to get them and plain inference.

    python benchmarks/speed.py [lenet] [wrn] [mlp] [transformer] [--quick] [--only speed|memory|agreement]

Three questions:

- speed: microseconds a sample-forward for a cohort of 10 clients with 32 samples each, on one core and on all. Plain
  inference is given its best layout, batch size and use of threads. A forward equivalent of Baffle's layers is what
  `TorchRuntime.costs` counts for one forward pass of one sample; a probe of one layer costs less than one.
- memory: the peak of a client's whole round on 32 samples, beside one inference on the same, on one core. NumPy's loops
  instead of numba's are what an edge client has.
- agreement: the share of slopes, quantised to 8 bits, that prefix reuse gives as evaluating the whole module does.

Every figure comes from a process of its own, so that allocators, threads and peaks do not mix. The contenders run in
turn, several times over, and the fastest of all counts; settings that were 10 % slower than a contender's best are not
tried again. Memory: "peak" is of the whole process with all its imports, "added" is on top of PyTorch, the network and
the data. Needs Linux for memory and for one core. Writes benchmarks/results/speed.json (with networks or a question
named, speed-NAMES.json), but nothing with --quick.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import types
from collections.abc import Callable, Iterator, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import machine

NETWORKS = ("lenet", "wrn", "mlp", "transformer")
TITLES = {
    "naive": "naive loop, as in the paper's code",
    "naive-kept": "  the same, freed memory kept",
    "in-place": "in place, as in MeZO",
    "whole": "Baffle, whole vector",
    "blocks": "Baffle, layers, forward equivalent",
    "plain-default": "inference",
    "plain": "  the same, freed memory kept",
    "backpropagation": "forward and backward",
}
PAPERS = ("lenet", "wrn")
"""Networks that the goals are about."""
SLOWER = 1.1
"""Times the best from which on a setting is not tried again."""
PASSES = 3
Rows = dict[str, dict[str, Any]]


def main() -> None:
    given = arguments()
    if given.child:
        print(json.dumps(CHILDREN[given.child["task"]](**given.child["arguments"])))
        return
    networks, results = given.networks or NETWORKS, dict[str, Any]()
    papers = [network for network in networks if network in PAPERS]
    print(machine.told())
    if given.only in (None, "speed"):
        results["speed"] = speed(networks, 1 if given.quick else PASSES, given.quick)
    if given.only in (None, "memory"):
        results["memory"] = memory(papers, 1 if given.quick else 5)
    if given.only in (None, "agreement"):
        results["agreement"] = agreement(papers, 1 if given.quick else 5)
    if not given.quick:
        write("-".join(["speed", *given.networks, *filter(None, [given.only])]), results)


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("networks", nargs="*", metavar="network", help=f"of {', '.join(NETWORKS)}")
    parser.add_argument("--quick", action="store_true", help="one turn, few repeats, nothing written")
    parser.add_argument("--only", choices=["speed", "memory", "agreement"])
    parser.add_argument("--child", type=json.loads, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if unknown := set(given.networks) - set(NETWORKS):
        parser.error(f"no network {sorted(unknown)[0]}; there are {', '.join(NETWORKS)}")
    return given


def write(name: str, results: dict[str, Any]) -> None:
    path = Path(__file__).parent / "results" / f"{name}.json"
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps({"machine": machine.describe(), **results}, indent=1) + "\n")


def apart(task: str, one_core: bool, **given: object) -> Any:
    """Return what `task` returns in a process of its own."""
    request = {"task": task, "arguments": {"core": machine.cores()[-1] if one_core else None, **given}}
    command = [sys.executable, __file__, "--child", json.dumps(request)]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    return json.loads(done.stdout.splitlines()[-1])


# speed


def speed(networks: Sequence[str], passes: int, quick: bool) -> dict[str, Any]:
    """Measure, print and return the rows of every network on one core and on all."""
    counts = sorted({1, len(machine.cores())})
    found: dict[tuple[str, int], Rows] = {(network, count): {} for network in networks for count in counts}
    for turn in range(passes):
        for (network, count), rows in found.items():
            for contender in TITLES:
                told(f"turn {turn + 1} of {passes}: {network}, {count} threads, {contender}")
                merge(rows, contender, timed(network, contender, count, quick, rows.get(contender)))
    told("")
    for (network, count), rows in found.items():
        show(network, count, rows)
    named = {f"{network}, {count} threads": rows for (network, count), rows in found.items()}
    return {"passes": passes, "rows": named}


def timed(network: str, contender: str, count: int, quick: bool, before: dict[str, Any] | None) -> Rows:
    """Return one process's row for each setting of a contender that is still worth trying."""
    tried: Rows = before["settings"] if before else {}
    settings = [name for name, row in tried.items() if row["us"] <= SLOWER * before["us"]] if before else []
    given = {"network": network, "contender": contender, "threads": count, "quick": quick, "settings": settings}
    return apart("speed", count == 1, **given)


def merge(rows: Rows, contender: str, found: Rows) -> None:
    """Put a process's rows for a contender to those of earlier ones; the fastest setting stands for it."""
    settings: Rows = rows[contender]["settings"] if contender in rows else {}
    for name, row in found.items():
        if name not in settings or row["us"] < settings[name]["us"]:
            settings[name] = row
    best = min(settings, key=lambda name: settings[name]["us"])
    rows[contender] = settings[best] | {"setting": best, "settings": settings}


def show(network: str, count: int, rows: Rows) -> None:
    """Print one network's table."""
    plain, naive = inference(rows), rows["naive"]["us"]
    where = "one core" if count == 1 else f"{count} cores"
    print(f"\n{network + ', ' + where:36} µs a sample   samples/s   ×inference  ×naive   peak MB  added MB   setting")
    for name, title in TITLES.items():
        row, us = rows[name], rows[name]["us"]
        memory = f"{row['peak'] / 1e6:9.0f} {row['added'] / 1e6:9.1f}"
        print(
            f"{title:36} {us:11.2f} {1e6 / us:11.0f} {plain / us:12.2f} {naive / us:7.2f} {memory}   {row['setting']}"
        )
    if "us_a_probe" in rows["blocks"]:
        print(f"{'  a probe of one layer':36} {rows['blocks']['us_a_probe']:11.2f}")
    for goal in goals(network, rows):
        print(f"  {goal}")


def inference(rows: Rows) -> float:
    """Return what plain inference takes at its best."""
    return min(rows["plain"]["us"], rows["plain-default"]["us"])


def goals(network: str, rows: Rows) -> Iterator[str]:
    """Yield the goals with what was reached."""
    plain, naive, whole = inference(rows), rows["naive"]["us"], rows["whole"]["us"]
    if network in PAPERS:
        yield goal("whole vector, speed over inference", plain / whole, 0.8)
        yield goal("whole vector, speed over naive loop", naive / whole, 2.0)
    yield goal("layers, time of a forward equivalent over inference", rows["blocks"]["us"] / plain, 1.25, most=True)


def goal(name: str, value: float, bound: float, *, most: bool = False) -> str:
    met = value <= bound if most else value >= bound
    return f"{'reached' if met else 'MISSED '}  {name}: {value:.3f} (goal: {'at most' if most else 'at least'} {bound})"


def child_speed(core: int | None, **given: Any) -> Rows:
    if core is not None:
        machine.pin(core)
    from contenders import measure

    return measure(**given)


# memory


def memory(networks: Sequence[str], times: int) -> dict[str, Any]:
    """Measure, print and return the peaks of inference and of a client's round."""
    print(f"\n{'peak of a process, 32 samples, MB':36} inference   round, NumPy   round, numba")
    found: dict[str, Any] = {}
    for network in networks:
        plain = middle(times, "inference", network=network)
        rounds = {kernels: middle(times, "round", network=network, kernels=kernels) for kernels in ("numpy", "numba")}
        found[network] = {"inference": plain, "round": rounds}
        ratios = {kernels: row["peak"] / plain["peak"] for kernels, row in rounds.items()}
        columns = "".join(f"{row['peak'] / 1e6:8.1f} ×{ratios[kernels]:.2f}" for kernels, row in rounds.items())
        print(f"{network:36} {plain['peak'] / 1e6:9.1f}{columns}")
        for kernels, ratio in ratios.items():
            print(f"  {goal(f'peak of a round with {kernels} over inference', ratio, 1.2, most=True)}")
    return found


def middle(times: int, task: str, **given: object) -> dict[str, Any]:
    """Return the middle row of several processes: what the allocator leaves unused differs from one to the next."""
    rows = [apart(task, True, **given) for _ in range(times)]
    return sorted(rows, key=lambda row: row["peak"])[times // 2] | {"peaks": [row["peak"] for row in rows]}


def child_inference(core: int | None, network: str) -> dict[str, int]:
    """One inference on 32 samples, in a process that has PyTorch and the network, and nothing else of this library."""
    if core is not None:
        machine.pin(core)
    import torch

    sys.modules["baffle"] = bare()
    model, inputs = paper_network(network), torch.randn(32, 1, 32, 32)
    with torch.inference_mode():
        model.eval()(inputs)
    return {"peak": peak()}


def bare() -> types.ModuleType:
    """Return the package without what its __init__ imports."""
    found = find_spec("baffle")
    package = types.ModuleType("baffle")
    package.__path__ = list(found.submodule_search_locations or []) if found else []
    return package


def paper_network(name: str) -> Any:
    from baffle.models.lenet import lenet
    from baffle.models.wide_resnet import wide_resnet

    return (lenet if name == "lenet" else wide_resnet)(1, 10)


def child_round(core: int | None, network: str, kernels: str) -> dict[str, Any]:
    """A client's answer: a plan's probes of every layer on one mini-batch, only tiny ones evaluated together."""
    if core is not None:
        machine.pin(core)
    import numpy as np

    from baffle.algorithms import Baffle
    from baffle.client import Client, answer
    from baffle.kernels import PlainKernels, fastest
    from baffle.keys import Key
    from baffle.runtimes.torch import TorchRuntime
    from baffle.server import Federation, State, plan

    runtime = TorchRuntime(paper_network(network), device="cpu", memory=1)
    rng = np.random.default_rng(0)
    batch = rng.normal(size=(32, 1, 32, 32)).astype(np.float32), rng.integers(0, 10, 32)
    spans = runtime.layout.blocks("layers")
    federation = Federation(
        key=Key.root(0).secret, layout=runtime.layout, clients=1, costs=runtime.costs(spans, batch), most_samples=32
    )
    point = runtime.layout.flatten(runtime.given)
    asked = plan(Baffle(forwards=32 * 4 * len(spans), batch=32), federation, State(point, point, {}))
    client = Client(0, 32, Key.root(1), lambda generator, count: batch)  # noqa: ARG005 (called with both)
    answer(asked, point, client, runtime, PlainKernels() if kernels == "numpy" else fastest())
    return {"peak": peak(), "budgets": [block.budget for block in asked.blocks]}


def peak() -> int:
    """Return this process's largest resident memory, in bytes; unlike getrusage's, without that of its parent."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM"))


# agreement


def agreement(networks: Sequence[str], scale: int) -> dict[str, Any]:
    """Measure, print and return the share of quantised slopes that are equal."""
    print(f"\n{'equal quantised slopes':36} precision     slopes       equal   largest difference of losses")
    found: dict[str, Any] = {}
    for network in networks:
        for precision in ("float32", "float64"):
            budget = scale * (20 if network == "lenet" else 4)
            row = apart("agreement", False, network=network, precision=precision, budget=budget)
            found[f"{network}, {precision}"] = row
            print(f"{network:36} {precision} {row['slopes']:11} {row['equal']:11.3%}   {row['difference']:.1e}")
            print(f"  {goal('share of equal slopes', row['equal'], 0.999)}")
    return found


def child_agreement(core: int | None, network: str, precision: str, budget: int) -> dict[str, float]:
    """Compare losses and quantised slopes of the graph, block by block, with those of the module called whole."""
    del core
    import numpy as np
    from contenders import Case, by_layers, start

    from baffle.runtimes.torch import TorchRuntime

    case = Case.of(network, len(machine.cores()), clients=8)
    given: dict[str, Any] = {"device": "cpu", "precision": precision, "threads": case.threads}
    graph, whole = TorchRuntime(case.model, **given), TorchRuntime(case.model, capture=False, **given)
    probes = by_layers(graph, start(graph), [budget] * len(graph.layout.blocks("layers")))
    reused = graph.sweep(probes, case.batches)
    called = [whole.losses(block, case.batches) for block in probes]
    pairs = list(zip(called, reused, strict=True))
    equal = [quantised_alike(*pair, own.effective_scale) for pair, own in zip(pairs, probes, strict=True)]
    difference = max(float(np.abs(a - b).max()) for a, b in pairs)
    return {"slopes": 8 * budget * len(probes), "equal": sum(equal) / len(equal), "difference": difference}


def quantised_alike(losses: Any, others: Any, scale: float) -> float:
    """Return the share of equal integers that two evaluations [K, C] of a block give, rounded by the same chance."""
    import numpy as np

    from baffle.estimators import CentredDifference
    from baffle.mechanisms import Quantiser, clip

    slopes = [CentredDifference()(some[:, None], np.zeros(8), scale).T for some in (losses, others)]
    bounds = np.full(len(losses), 6 * np.sqrt(np.mean(slopes[0] ** 2)))
    uniforms = np.random.default_rng(0).random(slopes[0].shape)
    one, other = (Quantiser(8)(clip(some, bounds), bounds, uniforms) for some in slopes)
    return float(np.mean(one == other))


def told(doing: str) -> None:
    """Show what is being measured, on one line of a terminal that the next call overwrites."""
    if sys.stderr.isatty():
        print(f"\r\x1b[K{doing}", end="" if doing else "\r", file=sys.stderr, flush=True)


CHILDREN: dict[str, Callable[..., Any]] = {
    "speed": child_speed,
    "inference": child_inference,
    "round": child_round,
    "agreement": child_agreement,
}

if __name__ == "__main__":
    main()
