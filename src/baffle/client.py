"""The client's half of a round: losses at displaced copies of the model, answered with a few integers."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from baffle.aggregators import weighted_mean
from baffle.kernels import Kernels
from baffle.keys import Key
from baffle.mechanisms import clip
from baffle.messages import Plan, Report
from baffle.parameters import Vector
from baffle.probes import Probes
from baffle.reconstruction import local_gradient
from baffle.runtimes import Batch, BlockRuntime, Runtime


@dataclass(frozen=True, slots=True)
class Client:
    """Who answers a plan: a number, data, and randomness that nobody else has."""

    number: int
    samples: int
    """What its reports weigh, ≥ 1."""
    private: Key
    """Of its batches and its stochastic rounding; from the operating system's randomness in a real federation."""
    draw: Callable[[np.random.Generator, int], Batch]
    """(generator, batch size) -> a mini-batch of that many samples, or of all where there are fewer."""

    def batch(self, plan: Plan, step: int) -> Batch:
        """Return the mini-batch of a local step: one for all of the step's probes."""
        return self.draw(self.private.fold("batch", plan.round, plan.attempt, step).generator(), plan.batch)

    def uniforms(self, plan: Plan, step: int) -> NDArray[np.float64]:
        """Return what a step's slopes are rounded with, [K] in [0, 1)."""
        return self.private.fold("rounding", plan.round, plan.attempt, step).generator().random(plan.directions)


def answer(plan: Plan, parameters: Vector, client: Client, runtime: Runtime, kernels: Kernels) -> Report:
    """Return a client's report on `plan`, from its copy of θ [n] at the plan's version.

    H times: evaluate the probes on one mini-batch, turn losses into slopes, clip and round them to integers, and (if
    another step follows) take a plain SGD step of its own along the estimate that these very integers give. Costs
    `plan.forwards` forward passes over the batch; memory of inference and four vectors of n.

    Raises:
        ReportError: the plan does not fit the model, or this client is not in its cohort.
    """
    return answers(plan, parameters, [client], runtime, kernels)[0]


def answers(
    plan: Plan, parameters: Vector, clients: Sequence[Client], runtime: Runtime, kernels: Kernels
) -> list[Report]:
    """Return the reports of several clients in one process, the same as `answer` gives each of them.

    Clients of one group have the same displaced copies, so for H = 1 each copy is made once and evaluated on all their
    batches together. In float64 the reports are the same to the bit; in float32 the sums inside a batched layer may run
    in another order, and a slope may differ in its last digit.
    """
    plan.refuse_other_model(parameters.size)
    together: dict[int, list[Client]] = {}
    for client in clients:
        group = plan.group(client.number)
        together.setdefault(group if plan.steps == 1 else client.number, []).append(client)
    reports = [report for some in together.values() for report in _walk(plan, parameters, some, runtime, kernels)]
    return sorted(reports, key=lambda report: report.client)


def _walk(
    plan: Plan, parameters: Vector, clients: Sequence[Client], runtime: Runtime, kernels: Kernels
) -> list[Report]:
    """Return reports of clients that stay at the same parameters all the way: one group and H = 1, or one client."""
    group = plan.group(clients[0].number)
    taken: list[NDArray[np.int64]] = []
    for step in range(plan.steps):
        batches = [client.batch(plan, step) for client in clients]
        slopes = measure(plan, group, step, parameters, batches, runtime, kernels)
        uniforms = np.stack([client.uniforms(plan, step) for client in clients])
        taken.append(plan.quantiser(clip(slopes, plan.bounds), plan.bounds, uniforms))
        if step + 1 < plan.steps:
            own = weighted_mean(taken[-1][:, None], np.ones(1, np.int64), plan.places)[0]
            gradient = local_gradient(plan, group, step, own, parameters.size, kernels)
            parameters = parameters - np.float32(plan.rate) * gradient
    integers = np.stack(taken, axis=1)
    return [Report.of(plan, c.number, c.samples, own) for c, own in zip(clients, integers, strict=True)]


def measure(
    plan: Plan,
    group: int,
    step: int,
    parameters: Vector,
    batches: Sequence[Batch],
    runtime: Runtime,
    kernels: Kernels,
) -> NDArray[np.float64]:
    """Return the slopes of C batches along the K directions of a group's step, float64 [C, K]; some not finite."""
    point = parameters.astype(runtime.precision)
    estimator = plan.estimator
    base = runtime.losses([point], batches)[0] if estimator.base else np.zeros(len(batches))
    blocks = [
        Probes(point, block, plan.stream(group, step, number), estimator.scale, estimator.signs, kernels)
        for number, block in enumerate(plan.blocks)
    ]
    if isinstance(runtime, BlockRuntime):
        losses = runtime.sweep(blocks, batches)
    else:
        losses = [runtime.losses(probes, batches) for probes in blocks]
    with np.errstate(invalid="ignore", over="ignore"):  # a loss that is not finite is reported as missing
        slopes = [
            estimator(
                found.reshape(-1, len(estimator.signs), len(batches)),
                base,
                probes.effective_scale,
                probes.block.law.most,
            )
            for probes, found in zip(blocks, losses, strict=True)
        ]
    return np.concatenate(slopes).T
