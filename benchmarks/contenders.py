"""What benchmarks/speed.py compares: networks, and ways to evaluate them at displaced weights.

A contender makes from a `Case` its `Work`s: the same thing at different settings, of which the fastest counts.
"""

# pyright: standard
from __future__ import annotations

import copy
import ctypes
import itertools
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from baffle.directions import Rademacher
from baffle.kernels import fastest
from baffle.keys import Key
from baffle.messages import BlockPlan
from baffle.models.lenet import lenet
from baffle.models.mlp import mlp
from baffle.models.wide_resnet import wide_resnet
from baffle.probes import Probes
from baffle.runtimes import Batch
from baffle.runtimes.allocator import keep_freed_memory
from baffle.runtimes.sweep import channels_last
from baffle.runtimes.torch import TorchRuntime

CLIENTS, BATCH, CLASSES = 10, 32, 10
COHORT = CLIENTS * BATCH
BATCHES, FEW_BATCHES = (16, 32, 64, 160, COHORT), (32, COHORT)
SCALE = 1e-2
MOST = 1024
"""Most directions of a block."""
SECONDS = 0.3
"""Of calls at one setting, at least."""
CALLS = 2
"""Fewest that are timed, after one that is not."""


@dataclass(frozen=True, slots=True)
class Network:
    """A network to measure with."""

    build: Callable[[], nn.Module]
    shape: tuple[int, ...]
    """Of a sample."""
    passes: int
    """See `Case`."""


class Attention(nn.Module):
    """A layer of a transformer's encoder, its norms before what they feed."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.norms = nn.ModuleList([nn.LayerNorm(width), nn.LayerNorm(width)])
        self.project = nn.Linear(width, 3 * width)
        self.out = nn.Linear(width, width)
        self.feed = nn.Sequential(nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width))

    def forward(self, inputs: Tensor) -> Tensor:
        parts = self.project(self.norms[0](inputs)).unflatten(-1, (3, self.heads, -1))
        query, key, value = parts.permute(2, 0, 3, 1, 4).unbind()
        mixed = nn.functional.scaled_dot_product_attention(query, key, value)
        inputs = inputs + self.out(mixed.transpose(1, 2).flatten(2))
        return inputs + self.feed(self.norms[1](inputs))


class Mean(nn.Module):
    """The mean over tokens."""

    def forward(self, inputs: Tensor) -> Tensor:
        return inputs.mean(1)


def transformer(width: int = 64, heads: int = 4, layers: int = 2) -> nn.Module:
    """Return a small encoder of [B, tokens, width], its mean over tokens and a linear layer."""
    return nn.Sequential(*(Attention(width, heads) for _ in range(layers)), Mean(), nn.Linear(width, CLASSES))


NETWORKS = {
    "lenet": Network(lambda: lenet(1, CLASSES), (1, 32, 32), 10),
    "wrn": Network(lambda: wide_resnet(1, CLASSES), (1, 32, 32), 2),
    "mlp": Network(lambda: mlp(784, CLASSES, (256, 128)), (784,), 50),
    "transformer": Network(transformer, (32, 64), 5),
}


@dataclass(frozen=True, slots=True)
class Case:
    """A network, a cohort's mini-batches, and how many threads may be used."""

    model: nn.Module
    batches: list[Batch]
    threads: int
    passes: int
    """Forward passes over the cohort in one timed call, for each block."""
    sizes: tuple[int, ...]
    """Batch sizes to try."""

    @classmethod
    def of(cls, name: str, threads: int, *, quick: bool = False, clients: int = CLIENTS) -> Case:
        network = NETWORKS[name]
        torch.manual_seed(0)
        passes, sizes = (1, FEW_BATCHES) if quick else (network.passes, BATCHES)
        return cls(network.build().eval(), data(network.shape, clients), threads, passes, sizes)

    @property
    def inputs(self) -> Tensor:
        """The whole cohort's [S, ...]."""
        return torch.from_numpy(np.concatenate([inputs for inputs, _ in self.batches]))

    @property
    def targets(self) -> Tensor:
        return torch.from_numpy(np.concatenate([targets for _, targets in self.batches]))


@dataclass(frozen=True, slots=True)
class Work:
    """Something to time."""

    setting: str
    call: Callable[[], object]
    samples: float
    """Sample-forwards of one call, or forward equivalents."""
    probes: float = 0.0
    """Probes times samples of one call, where that is another number."""


def data(shape: tuple[int, ...], clients: int) -> list[Batch]:
    """Return a mini-batch for each client: noise does not run faster or slower than pictures."""
    rng = np.random.default_rng(0)
    return [
        (rng.normal(size=(BATCH, *shape)).astype(np.float32), rng.integers(0, CLASSES, BATCH)) for _ in range(clients)
    ]


def naive(case: Case) -> Iterator[Work]:
    """Each client alone, each probe drawn by torch.randn, added, evaluated and subtracted: the paper's public code.

    Spared are its copies to and from a dictionary of tensors, and its sums of directions.
    """
    parameters = list(case.model.parameters())
    clients = [(torch.from_numpy(inputs), torch.from_numpy(targets)) for inputs, targets in case.batches]

    def call() -> None:
        with torch.no_grad():
            for inputs, targets in clients:
                moves = [SCALE * torch.randn(parameter.size()) for parameter in parameters]
                for parameter, move in zip(parameters, moves, strict=True):
                    parameter += move
                nn.functional.cross_entropy(case.model(inputs), targets).item()
                for parameter, move in zip(parameters, moves, strict=True):
                    parameter -= move

    yield Work("each client alone", call, COHORT)


def in_place(case: Case) -> Iterator[Work]:
    """+σz, evaluate, −2σz, evaluate, +σz, z drawn anew from its seed each time: as in MeZO, the cohort together."""
    parameters, inputs, targets = list(case.model.parameters()), case.inputs, case.targets
    generator = torch.Generator()

    def move(step: float) -> None:
        generator.manual_seed(1)
        for parameter in parameters:
            parameter.add_(torch.randn(parameter.size(), generator=generator), alpha=step)

    def call() -> None:
        with torch.no_grad():
            for step in (SCALE, -2 * SCALE):
                move(step)
                nn.functional.cross_entropy(case.model(inputs), targets).item()
            move(SCALE)

    yield Work(f"batch {COHORT}", call, 2 * COHORT)


def whole(case: Case) -> Iterator[Work]:
    """Baffle, everything displaced at once."""
    runtime = TorchRuntime(case.model, device="cpu", threads=case.threads)
    point, budget = start(runtime), 2 * case.passes
    block = BlockPlan(0, point.size, budget, 16.0, Rademacher())
    probes = [Probes(point, block, Key.root(1), SCALE, (1,), fastest())]
    yield Work(f"{budget} probes", lambda: runtime.sweep(probes, case.batches), budget * COHORT)


def blocks(case: Case) -> Iterator[Work]:
    """Baffle, a layer at a time: each layer's probes cost the same by count, unless they would be more than `MOST`."""
    runtime = TorchRuntime(case.model, device="cpu", threads=case.threads)
    costs = runtime.costs(runtime.layout.blocks("layers"), case.batches[0])
    budgets = [min(MOST, max(2, round(case.passes / cost))) for cost in costs]
    probes = by_layers(runtime, start(runtime), budgets)
    equivalents = sum(budget * cost for budget, cost in zip(budgets, costs, strict=True)) + 1 - min(costs)
    setting = "budgets " + ", ".join(map(str, budgets))
    yield Work(setting, lambda: runtime.sweep(probes, case.batches), equivalents * COHORT, sum(budgets) * COHORT)


def start(runtime: TorchRuntime) -> np.ndarray:
    """Return θ₀ [n] in the runtime's precision."""
    return runtime.layout.flatten(runtime.given).astype(runtime.precision)


def by_layers(runtime: TorchRuntime, point: np.ndarray, budgets: Sequence[int]) -> list[Probes]:
    """Return that many probes of each layer."""
    kernels, spans = fastest(), runtime.layout.blocks("layers")
    plans = [BlockPlan(b.start, b.stop, k, 16.0, Rademacher()) for b, k in zip(spans, budgets, strict=True)]
    return [Probes(point, plan, Key.root(1).fold(i), SCALE, (1,), kernels) for i, plan in enumerate(plans)]


def plain(case: Case) -> Iterator[Work]:
    """Inference without any displacement or loss, at every layout, batch size and use of threads."""
    uses = ("operators", "samples") if case.threads > 1 else ("",)
    for (name, model, inputs), size, use in itertools.product(layouts(case), case.sizes, uses):
        call = side_by_side if use == "samples" else one_after_another
        setting = ", ".join(filter(None, (name, f"batch {size}", use and f"threads share {use}")))
        yield Work(setting, call(model, inputs.split(size), case.threads), COHORT)


def layouts(case: Case) -> Iterator[tuple[str, nn.Module, Tensor]]:
    """Return the network and its inputs in each order of an image's numbers."""
    yield "", case.model, case.inputs
    if case.inputs.ndim == 4:
        model = copy.deepcopy(case.model).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        yield "channels last", model, channels_last(case.inputs)


def one_after_another(model: nn.Module, parts: Sequence[Tensor], threads: int) -> Callable[[], object]:
    """Return a call that has every operator use all threads."""

    def call() -> None:
        torch.set_num_threads(threads)
        with torch.inference_mode():
            for part in parts:
                model(part)

    return call


def side_by_side(model: nn.Module, parts: Sequence[Tensor], threads: int) -> Callable[[], object]:
    """Return a call that has each thread take whole parts of the batch."""

    def one(part: Tensor) -> None:
        with torch.inference_mode():
            model(part)

    def call() -> None:
        with ThreadPoolExecutor(threads, initializer=torch.set_num_threads, initargs=(1,)) as pool:
            list(pool.map(one, parts))

    return call


def backpropagation(case: Case) -> Iterator[Work]:
    """Forward and backward, at every layout and batch size."""
    targets = case.targets
    for (name, model, inputs), size in itertools.product(layouts(case), case.sizes):
        parts = list(zip(inputs.split(size), targets.split(size), strict=True))
        setting = ", ".join(filter(None, (name, f"batch {size}")))
        yield Work(setting, lambda model=model, parts=parts: _backward(model, parts), COHORT)


def _backward(model: nn.Module, parts: Sequence[tuple[Tensor, Tensor]]) -> None:
    for inputs, targets in parts:
        model.zero_grad(set_to_none=True)
        nn.functional.cross_entropy(model(inputs), targets).backward()


@dataclass(frozen=True, slots=True)
class Contender:
    """A row of the table."""

    name: str
    works: Callable[[Case], Iterator[Work]]
    kept: bool
    """Whether freed memory is kept in the process (`TorchRuntime` always does that)."""


CONTENDERS = {
    "naive": Contender("naive loop, as in the paper's code", naive, kept=False),
    "naive-kept": Contender("naive loop, freed memory kept", naive, kept=True),
    "in-place": Contender("in place, as in MeZO", in_place, kept=False),
    "whole": Contender("Baffle, whole vector", whole, kept=True),
    "blocks": Contender("Baffle, layers, a forward equivalent", blocks, kept=True),
    "plain-default": Contender("inference", plain, kept=False),
    "plain": Contender("inference, freed memory kept", plain, kept=True),
    "backpropagation": Contender("forward and backward, memory kept", backpropagation, kept=True),
}


@dataclass(frozen=True, slots=True)
class Memory:
    """What this process holds, in bytes; 0 where the system does not say."""

    peak: int
    resident: int

    @classmethod
    def now(cls) -> Memory:
        path = Path("/proc/self/status")
        rows = [line.split() for line in path.read_text().splitlines()] if path.exists() else []
        found = {row[0]: int(row[1]) * 1024 for row in rows if row[0] in ("VmHWM:", "VmRSS:")}
        return cls(found.get("VmHWM:", 0), found.get("VmRSS:", 0))

    @staticmethod
    def forget_peak() -> None:
        """Give freed memory back, and have the peak begin anew from what is held now."""
        path = Path("/proc/self/clear_refs")
        if path.exists():
            ctypes.CDLL(None).malloc_trim(0)
            path.write_text("5")


def measure(network: str, contender: str, threads: int, quick: bool, settings: Sequence[str]) -> dict[str, Any]:
    """Return what a contender takes at each setting, or those named, in this process, which has done nothing else."""
    torch.set_num_threads(threads)
    case, chosen = Case.of(network, threads, quick=quick), CONTENDERS[contender]
    if chosen.kept:
        keep_freed_memory()
    before = Memory.now()
    works = [work for work in chosen.works(case) if not settings or work.setting in settings]
    return {work.setting: _timed(work, 0.0 if quick else SECONDS, before) for work in works}


def _timed(work: Work, seconds: float, before: Memory) -> dict[str, float]:
    """Return microseconds a sample-forward, the least of some calls after one to warm up; and bytes at the peak."""
    Memory.forget_peak()
    work.call()
    begin, times = time.perf_counter(), list[float]()
    while len(times) < CALLS or time.perf_counter() - begin < seconds:
        start = time.perf_counter()
        work.call()
        times.append(time.perf_counter() - start)
    peak = Memory.now().peak
    row = {"us": min(times) / work.samples * 1e6, "peak": max(peak, before.peak), "added": peak - before.resident}
    return row | ({"us_a_probe": min(times) / work.probes * 1e6} if work.probes else {})
