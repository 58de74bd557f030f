"""Slopes and directions to an estimate of the gradient, in integers."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from baffle.kernels import Kernels
from baffle.messages import Plan
from baffle.parameters import Vector


def reconstruct(plan: Plan, sums: NDArray[np.int64], weight: int, size: int, kernels: Kernels) -> Vector:
    """Return the estimate of the gradient that a round's aggregate stands for, float32 [n].

        ĝ_b = c_b / ((2ᵇ⁻¹ − 1) · s · K_b · H · W) · Σ_g Σ_h Σ_k  A_ghk z_ghk

    with A the sums [G, H, K], W their weight, s the law's deviation. For H > 1 it is the mean of the local steps'
    estimates. Unbiased for the gradient of the smoothed loss; relative squared error about n_b/(K_b · G) a block.
    Parameters outside every block get 0. Source: BAFFLE (arXiv 2301.12195), with directions shared by
    the clients of a group.
    """
    groups, steps, _ = plan.shape
    parts = {(group, step): sums[group, step] for group in range(groups) for step in range(steps)}
    return _weigh(plan, parts, steps * weight, size, kernels)


def local_gradient(plan: Plan, group: int, step: int, sums: NDArray[np.int64], size: int, kernels: Kernels) -> Vector:
    """Return the estimate [n] that one client makes from its own integers [K] of one step, none of them missing."""
    return _weigh(plan, {(group, step): sums}, 1, size, kernels)


def _weigh(
    plan: Plan, parts: Mapping[tuple[int, int], NDArray[np.int64]], weight: int, size: int, kernels: Kernels
) -> Vector:
    """Return Σ A z / (levels · s · K_b · weight) in slope units.

    The sum over directions is exact in int64, so the order of reports, threads and machines do not matter; it is
    converted and scaled in float64 and rounded once to float32.
    """
    gradient = np.zeros(size, np.float32)
    first = 0
    for number, block in enumerate(plan.blocks):
        total = np.zeros(block.stop - block.start, np.int64)
        for (group, step), sums in parts.items():
            kernels.accumulate(total, sums[first : first + block.budget], block.law, plan.stream(group, step, number))
        divisor = plan.quantiser.levels * block.law.deviation * (block.budget * weight)
        gradient[block.start : block.stop] = total * (block.bound / divisor)
        first += block.budget
    return gradient
