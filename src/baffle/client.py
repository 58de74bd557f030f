"""The client's half of a round: losses at displaced copies of the model, answered with a few integers."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from baffle.aggregators import weighted_mean
from baffle.errors import ReportError
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
    randomness: Callable[[int], bytes] = secrets.token_bytes
    """So many bytes for noise that protects: nobody may predict them, hence never from a key of the run."""

    def batch(self, plan: Plan, step: int) -> Batch:
        """Return the mini-batch of a local step: one for all of the step's probes."""
        return self.draw(self.private.fold("batch", plan.round, plan.attempt, step).generator(), plan.batch)

    def uniforms(self, plan: Plan, step: int) -> NDArray[np.float64]:
        """Return what a step's slopes are rounded with, [K] in [0, 1)."""
        return self.private.fold("rounding", plan.round, plan.attempt, step).generator().random(plan.directions)


@dataclass(frozen=True, slots=True)
class Contribution:
    """A client's part of a round's sums."""

    client: int
    samples: int
    """Its weight."""
    integers: NDArray[np.int64]
    """[`plan.words`], MISSING where a probe gave no finite loss; larger than a report holds where they carry noise."""


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

    Raises:
        ReportError: as `answer`; or the integers carry a share of noise, which only secure sums can.
    """
    if plan.privacy is not None and plan.privacy.shares:
        raise ReportError("the plan shares its noise among the clients, and that protects sums alone, not reports")
    found = contributions(plan, parameters, clients, runtime, kernels)
    return [Report.of(plan, one.client, one.samples, one.integers) for one in found]


def contributions(
    plan: Plan, parameters: Vector, clients: Sequence[Client], runtime: Runtime, kernels: Kernels
) -> list[Contribution]:
    """Return what `answers` makes reports of, by the clients' numbers; for sums of which nobody sees a part."""
    plan.refuse_other_model(parameters.size)
    together: dict[int, list[Client]] = {}
    for client in clients:
        group = plan.group(client.number)
        together.setdefault(group if plan.steps == 1 else client.number, []).append(client)
    found = [one for some in together.values() for one in _walk(plan, parameters, some, runtime, kernels)]
    return sorted(found, key=lambda one: one.client)


def _walk(
    plan: Plan, parameters: Vector, clients: Sequence[Client], runtime: Runtime, kernels: Kernels
) -> list[Contribution]:
    """Return the parts of clients that stay at the same parameters all the way: one group and H = 1, or one client."""
    group = plan.group(clients[0].number)
    taken: list[NDArray[np.int64]] = []
    inside = np.ones(len(clients), np.bool_)
    for step in range(plan.steps):
        batches = [client.batch(plan, step) for client in clients]
        slopes = measure(plan, group, step, parameters, batches, runtime, kernels)
        taken.append(_rounded(plan, step, slopes, clients))
        if plan.privacy is not None:
            inside &= plan.privacy.inside(slopes)
        if step + 1 < plan.steps:
            own = weighted_mean(taken[-1][:, None], np.ones(1, np.int64), plan.places)[0]
            gradient = local_gradient(plan, group, step, own, parameters.size, kernels)
            parameters = parameters - np.float32(plan.rate) * gradient
    integers = np.stack(taken, axis=1).reshape(len(clients), -1)
    return [
        Contribution(client.number, client.samples, _hidden(plan, own, bool(within), client))
        for client, own, within in zip(clients, integers, inside, strict=True)
    ]


def _rounded(plan: Plan, step: int, slopes: NDArray[np.float64], clients: Sequence[Client]) -> NDArray[np.int64]:
    """Return a step's slopes [C, K] as integers."""
    uniforms = np.stack([client.uniforms(plan, step) for client in clients])
    if plan.privacy is None:
        return plan.quantiser(clip(slopes, plan.bounds), plan.bounds, uniforms)
    parts = [
        plan.privacy.step(own[None], plan.bounds, plan.quantiser, drawn[None], client.randomness)
        for own, drawn, client in zip(slopes, uniforms, clients, strict=True)
    ]
    return np.concatenate(parts)


def _hidden(plan: Plan, integers: NDArray[np.int64], within: bool, client: Client) -> NDArray[np.int64]:
    """Return a client's integers [H · K] with the one that counts norms, and its share of the noise."""
    if plan.privacy is None:
        return integers
    levels = plan.quantiser.levels
    whole = np.append(integers, levels if within else -levels) if plan.privacy.counts else integers
    return whole + plan.privacy.share(whole.size, client.randomness)


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
