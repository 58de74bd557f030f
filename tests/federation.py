"""A federation small enough to reason about: a two-layer network in NumPy, float64, 27 weights, made-up data."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from baffle import Baffle, CentredDifference, Rademacher, Sgd, server
from baffle import run as runs
from baffle.data.samples import Arrays
from baffle.kernels import PlainKernels
from baffle.messages import BlockPlan, Round
from baffle.parameters import Block, Constant, Given, Layout, Tensor, Uniform
from baffle.probes import Probes
from baffle.runtimes import Batch, Evaluation
from baffle.server import Outcome, State
from baffle.simulation import Share, Simulation

FEATURES, HIDDEN, CLASSES = 4, 3, 3
FIRST, SECOND = FEATURES * HIDDEN, HIDDEN * CLASSES
"""Multiplications of a layer for one sample; their sum is a forward pass."""
KERNELS = PlainKernels()


def layout(*, given: bool = False) -> Layout:
    start = Given() if given else Uniform(0.5)
    return Layout(
        (
            Tensor("first.weight", (FEATURES, HIDDEN), start),
            Tensor("first.bias", (HIDDEN,), Constant(0.0)),
            Tensor("second.weight", (HIDDEN, CLASSES), Uniform(0.5)),
            Tensor("second.bias", (CLASSES,), Constant(0.0)),
        )
    )


@dataclass(frozen=True)
class Network:
    """softmax(tanh(x W₁ + b₁) W₂ + b₂) with cross-entropy; each batch by itself, so batching can't change a bit."""

    layout: Layout = field(default_factory=layout)
    precision: np.dtype = field(default_factory=lambda: np.dtype(np.float64))
    given: dict[str, np.ndarray] = field(default_factory=dict)

    def hidden(self, point: np.ndarray, inputs: np.ndarray) -> np.ndarray:
        tensors = self.layout.unflatten(np.asarray(point, np.float64))
        return np.tanh(inputs @ tensors["first.weight"] + tensors["first.bias"])

    def output(self, point: np.ndarray, hidden: np.ndarray) -> np.ndarray:
        tensors = self.layout.unflatten(np.asarray(point, np.float64))
        return hidden @ tensors["second.weight"] + tensors["second.bias"]

    def logits(self, point: np.ndarray, inputs: np.ndarray) -> np.ndarray:
        return self.output(point, self.hidden(point, inputs))

    def loss(self, point: np.ndarray, batch: Batch) -> float:
        inputs, targets = batch
        return self.mean_loss(self.logits(point, inputs), targets)

    def mean_loss(self, logits: np.ndarray, targets: np.ndarray) -> float:
        top = logits.max(1, keepdims=True)
        norms = np.log(np.exp(logits - top).sum(1)) + top[:, 0]
        return float((norms - logits[np.arange(len(targets)), targets]).mean())

    def losses(self, points: Iterable[np.ndarray], batches: Sequence[Batch]) -> np.ndarray:
        return np.array([[self.loss(point, batch) for batch in batches] for point in points])

    def evaluate(self, parameters: np.ndarray, batches: Iterable[Batch]) -> Evaluation:
        total, correct, samples = 0.0, 0, 0
        for inputs, targets in batches:
            total += self.loss(parameters, (inputs, targets)) * len(targets)
            correct += int((self.logits(parameters, inputs).argmax(1) == targets).sum())
            samples += len(targets)
        return Evaluation(total / samples, correct / samples)


@dataclass(frozen=True)
class Layered(Network):
    """The same network, bit for bit; the hidden layer is computed once for all probes of the second layer."""

    told: float = SECOND / (FIRST + SECOND)
    """What it says that a probe of the second layer costs."""
    work: list[int] = field(default_factory=list)
    """Multiplications, as they are done."""

    def losses(self, points: Iterable[np.ndarray], batches: Sequence[Batch]) -> np.ndarray:
        return np.array([[self._whole(point, batch) for batch in batches] for point in points])

    def costs(self, blocks: Sequence[Block], batch: Batch) -> tuple[float, ...]:
        assert len(batch[1]) >= 1
        return tuple(self.told if self._late(block) else 1.0 for block in blocks)

    def sweep(self, blocks: Sequence[Probes], batches: Sequence[Batch]) -> list[np.ndarray]:
        found = [np.empty((len(probes), len(batches))) for probes in blocks]
        for column, (inputs, targets) in enumerate(batches):
            hidden = None
            for probes, losses in zip(blocks, found, strict=True):
                if not self._late(probes.block):
                    losses[:, column] = [self._whole(point, (inputs, targets)) for point in probes]
                    continue
                if hidden is None:
                    hidden = self.hidden(probes.parameters, inputs)
                    self.work.append(FIRST * len(targets))
                losses[:, column] = [self.mean_loss(self.output(point, hidden), targets) for point in probes]
                self.work.append(SECOND * len(targets) * len(probes))
        return found

    def _whole(self, point: np.ndarray, batch: Batch) -> float:
        self.work.append((FIRST + SECOND) * len(batch[1]))
        return self.loss(point, batch)

    def _late(self, block: Block | BlockPlan) -> bool:
        return block.start >= self.layout.slices()["second.weight"].start


@dataclass(frozen=True)
class Watched:
    """A runtime that shows what it is asked, and may spoil what it answers."""

    inner: Network
    spoil: Callable[[np.ndarray], np.ndarray] = np.copy
    seen: list[tuple[list[np.ndarray], list[Batch]]] = field(default_factory=list)

    @property
    def layout(self) -> Layout:
        return self.inner.layout

    @property
    def given(self) -> dict[str, np.ndarray]:
        return self.inner.given

    @property
    def precision(self) -> np.dtype:
        return self.inner.precision

    def losses(self, points: Iterable[np.ndarray], batches: Sequence[Batch]) -> np.ndarray:
        kept = [point.copy() for point in points]
        self.seen.append((kept, list(batches)))
        return self.spoil(self.inner.losses(kept, batches))

    def evaluate(self, parameters: np.ndarray, batches: Iterable[Batch]) -> Evaluation:
        return self.inner.evaluate(parameters, batches)


def samples(count: int, seed: int) -> Arrays:
    """Return samples whose class is the largest of three of their features, hence learnable."""
    rng = np.random.default_rng(seed)
    inputs = rng.normal(size=(count, FEATURES))
    return Arrays(f"samples {seed}", inputs, inputs[:, :CLASSES].argmax(1))


def share(count: int, seed: int) -> Share:
    return Share(samples(count, seed), np.arange(count))


METHOD = Baffle(
    forwards=40,
    batch=5,
    allocation="equal",
    orthogonal=False,
    estimator=CentredDifference(scale=1e-2),
    law=Rademacher(),
    optimizer=Sgd(rate=0.05, momentum=0.5),
    clip=0.0,
)


def simulation(
    method: Baffle = METHOD, sizes: Sequence[int] = (12, 12, 12), *, runtime: object = None, **settings: object
) -> Simulation:
    defaults: dict[str, object] = {
        "seed": 1,
        "test": samples(20, 99),
        "evaluate_every": 2,
        "snapshot_every": 3,
        "kernels": KERNELS,
    }
    return Simulation(
        runtime=runtime or Network(),
        shares=[share(size, number) for number, size in enumerate(sizes)],
        algorithm=method,
        **(defaults | settings),
    )


@dataclass(frozen=True)
class Played:
    """One round, with all that led to it."""

    simulation: Simulation
    state: State
    plan: server.Plan
    reports: list[bytes]

    def advance(self, reports: Iterable[bytes] | None = None) -> Outcome:
        given = self.reports if reports is None else reports
        return server.advance(self.simulation.algorithm, self.state, self.plan, given, self.simulation.kernels)


def play(made: Simulation, state: State | None = None) -> Played:
    """Return the next round of a simulation, answered and not yet advanced."""
    header = made.header()
    state = state or header.start(made.runtime.given)
    plan = server.plan(made.algorithm, header.federation, state)
    return Played(made, state, plan, made.gathering().gather(plan, state.parameters))


def ledger_bytes(folder: Path) -> bytes:
    return (folder / "ledger").read_bytes()


@contextmanager
def memory_folder() -> Iterator[Path]:
    """Give a folder in memory where there is one, for tests that write thousands of small files."""
    shared = "/dev/shm"
    with tempfile.TemporaryDirectory(dir=shared if os.access(shared, os.W_OK) else None) as folder:
        yield Path(folder)


def rounds_in(folder: Path) -> list[Round]:
    """Return the rounds in a run's ledger, without its header and its intents."""
    return [record for record in runs.read(folder)[1] if isinstance(record, Round)]
