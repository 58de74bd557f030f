"""All that is foreseen of a run, beside the same by backpropagation."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec
import numpy as np

from baffle import server
from baffle.baselines import price as backward
from baffle.experiment import Experiment
from baffle.exposure import View, views
from baffle.header import Header
from baffle.messages import BlockPlan, Plan
from baffle.planning import memory
from baffle.planning.amount import Amount
from baffle.planning.budgets import budgets, state_with
from baffle.planning.cosine import expected_cosine, relative_error, slope_noise
from baffle.planning.counts import Counts, count
from baffle.planning.findings import Findings
from baffle.simulation import Simulation


class Way(msgspec.Struct, frozen=True):
    """What one way to train costs a client that answers, in a round."""

    name: str
    differentiates: bool
    forwards: Amount
    """Forward equivalents; a backward pass is two."""
    upload: Amount
    """Bytes."""
    download: Amount
    """Bytes."""
    memory: int | None
    """Bytes of arrays; None where it was not measured."""
    cosine: float | None
    """Of what the server steps along with the gradient of the cohort's mini-batches; None where that is not told."""
    seconds: float | None
    """That the round's clients take together on this machine."""


class Part(msgspec.Struct, frozen=True):
    """A block of the model in the rounds to come."""

    tensors: tuple[str, ...]
    size: int
    """n_b, weights."""
    budget: Amount
    """K_b."""
    cost: float
    """Of a probe, in forward passes."""
    share: float
    """‖g_b‖²/‖g‖²."""
    cosine: float | None
    """Of its own part of the estimate; None where that is not told."""


class Process(msgspec.Struct, frozen=True):
    """What `baffle train` will take on this machine, by rounds that were tried."""

    seconds: float
    """Of the run, as its summary counts them."""
    startup: float
    """Seconds before that: imports, data, model."""
    processor_seconds: float
    """Of all processor cores together, from the start of the process to its end."""
    peak_memory: int
    """Bytes."""
    tried: int
    """Rounds; 0 where a part of one was."""


class Forecast(msgspec.Struct, frozen=True):
    """What a run will cost."""

    weights: int
    """n."""
    clients: int
    cohort: int
    rounds: int
    batch: int
    """Samples of a client's mini-batch."""
    run: Counts
    ways: tuple[Way, ...]
    """This one first, then those by backpropagation."""
    parts: tuple[Part, ...]
    server_memory: int
    """Bytes of arrays."""
    process: Process | None
    """None without a measurement."""
    views: tuple[View, ...]
    """Who sees what of a client's data."""
    budget: bool
    """Whether a budget of privacy is kept, which the ways by backpropagation do not."""


def forecast(experiment: Experiment, simulation: Simulation, found: Findings | None, batch: int = 0) -> Forecast:
    """Return what `experiment` will cost.

    Args:
        experiment: its settings.
        simulation: what they describe.
        found: what a few rounds told; without it, no time, no memory of activations, and equal shares of blocks.
        batch: samples of a mini-batch by backpropagation; 0 is as many as the plan's.

    Raises:
        SettingsError: such a round can't be planned.
    """
    header = simulation.header()
    start = header.start(simulation.runtime.given)
    blocks = _expected(header, found)
    counts = count(simulation, header, experiment.rounds, blocks)
    plan = msgspec.structs.replace(
        server.plan(header.algorithm, header.federation, start), blocks=blocks(experiment.rounds)
    )
    precision = simulation.runtime.precision.itemsize
    return Forecast(
        weights=simulation.runtime.layout.size,
        clients=len(simulation.shares),
        cohort=header.federation.cohort_size,
        rounds=experiment.rounds,
        batch=plan.batch,
        run=counts,
        ways=(_own(plan, counts, header, precision, found), *_others(simulation, plan, found, batch or plan.batch)),
        parts=_parts(header, plan, found),
        server_memory=memory.server(plan, start, simulation.runtime.layout.size),
        process=found and _process(experiment, counts, header, found),
        views=views(experiment.secure, experiment.mechanism, experiment.epsilon, experiment.delta, experiment.sum_size),
        budget=plan.privacy is not None,
    )


class _Expected:
    """The blocks of every round: those that were tried as they were, those to come by the slopes that were seen."""

    def __init__(self, header: Header, found: Findings | None) -> None:
        tried = found.budgets if found else ()
        squares = found.smoothed if found and all(found.smoothed) else ()
        self._first = header.algorithm.blocks_of(header.federation, state_with(header.algorithm))
        self._later = header.algorithm.blocks_of(header.federation, state_with(header.algorithm, squares))
        self._tried = [self._with(header, budgets) for budgets in tried]

    def _with(self, header: Header, budgets: Sequence[int]) -> tuple[BlockPlan, ...]:
        rows = zip(self._first, budgets, strict=True)
        law = header.algorithm.law_of
        return tuple(
            msgspec.structs.replace(block, budget=budget, law=law(block.stop - block.start, budget))
            for block, budget in rows
        )

    def __call__(self, number: int) -> tuple[BlockPlan, ...]:
        if number < len(self._tried):
            return self._tried[number]
        return self._later if number else self._first


def _expected(header: Header, found: Findings | None) -> _Expected:
    return _Expected(header, found)


def _own(plan: Plan, counts: Counts, header: Header, precision: int, found: Findings | None) -> Way:
    size = header.federation.layout.size
    inference = found.passes.get("inference") if found else None
    apart = found.apart if found else ()
    cosine = None if _unseen(plan, found) else expected_cosine(plan, _shares(found), apart, _noise(plan, found))
    answered = counts.answered / max(1, counts.attempts)
    return Way(
        name="Baffle",
        differentiates=False,
        forwards=counts.round_forwards,
        upload=counts.round_upload,
        download=counts.round_download,
        memory=memory.client(plan, size, precision, inference.peak) if inference else None,
        cosine=cosine,
        seconds=found.a_forward.wall * counts.round_forwards.expected * answered if found else None,
    )


def _unseen(plan: Plan, found: Findings | None) -> bool:
    """Return whether there is noise, which means nothing without the slopes that it is added to."""
    return plan.privacy is not None and found is None


def _shares(found: Findings | None) -> tuple[float, ...]:
    """Return each block's part of the squared gradient: of the mean over groups, where there are several."""
    if found is None or not sum(found.squares):
        return ()
    joint = [square / apart for square, apart in zip(found.squares, found.apart, strict=True)]
    return tuple(square / sum(joint) for square in joint)


def _noise(plan: Plan, found: Findings | None) -> tuple[float, ...]:
    """Return what rounding and privacy add to each block's slopes, relative to their mean square."""
    if found is None:
        return ()
    return tuple(slope_noise(plan, block, square) for block, square in zip(plan.blocks, found.squares, strict=True))


def _others(simulation: Simulation, plan: Plan, found: Findings | None, batch: int) -> tuple[Way, ...]:
    """Return FedSGD and FedAvg, with and without checkpointing; nothing for a graph of inference.

    FedSGD takes one gradient on a mini-batch, FedAvg SGD over a client's samples once; samples are a mean client's.
    """
    size = simulation.runtime.layout.size
    held = np.array([share.indices.size for share in simulation.shares])
    most = min(batch, int(held.max()))
    passes: Mapping[str, Any] = found.passes if found else {}
    ways: list[Way] = []
    for name, samples, averaging in (
        ("FedSGD", float(np.minimum(held, batch).mean()), False),
        ("FedAvg", float(held.mean()), True),
    ):
        steps = math.ceil(samples / most) if averaging else samples / most
        for kind in backward.kinds(simulation.runtime):
            step = passes.get(kind)
            if found is not None and step is None:
                continue
            label = "" if kind == "backward" else f", {kind}"
            each = backward.forwards(1, checkpointed=bool(label))
            ways.append(
                Way(
                    name=name + label,
                    differentiates=True,
                    forwards=Amount.of(each * samples),
                    upload=Amount.of(backward.upload_bytes(size)),
                    download=Amount.of(backward.download_bytes(size)),
                    memory=memory.backpropagation(size, step, averaging=averaging),
                    cosine=None if averaging else 1.0,
                    seconds=step.seconds * steps * len(plan.cohort) if step else None,
                )
            )
    return tuple(ways)


def _parts(header: Header, plan: Plan, found: Findings | None) -> tuple[Part, ...]:
    bounds = budgets(header.algorithm, header.federation).blocks
    shares = _shares(found) or (1 / len(plan.blocks),) * len(plan.blocks)
    noise = _noise(plan, found) or (0.0,) * len(plan.blocks)
    apart = found.apart if found else (1.0,) * len(plan.blocks)
    return tuple(
        Part(
            tensors=tuple(header.federation.layout.within(block.start, block.stop)),
            size=block.stop - block.start,
            budget=Amount(low, block.budget, high),
            cost=block.cost,
            share=shares[number],
            cosine=None
            if _unseen(plan, found)
            else 1 / math.sqrt(1 + apart[number] * relative_error(plan, block, noise[number])),
        )
        for number, (block, (low, high)) in enumerate(zip(plan.blocks, bounds, strict=True))
    )


def _process(experiment: Experiment, counts: Counts, header: Header, found: Findings) -> Process:
    """Return what the process takes: the first evaluation, the rounds by their forwards, the other evaluations."""
    rounds, every = experiment.rounds, experiment.evaluate_every
    evaluations = rounds // every + (rounds % every > 0)
    forwards = counts.forwards.expected * header.federation.clients
    later = (found.a_forward.times(forwards), found.evaluation.times(2 * evaluations))
    spent = found.first.plus(found.warmup, *later)
    processor = found.startup.processor + spent.processor
    return Process(spent.wall, found.startup.wall, processor, found.peak_memory, found.rounds)
