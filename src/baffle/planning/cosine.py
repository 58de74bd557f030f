"""How near an estimate comes to the gradient, by theory."""

from __future__ import annotations

import math
from collections.abc import Sequence

from baffle.directions import Gaussian, Orthogonal, Sparse
from baffle.mechanisms.quantise import ROUNDING
from baffle.messages import BlockPlan, Plan


def expected_cosine(
    plan: Plan, shares: Sequence[float] = (), apart: Sequence[float] = (), noise: Sequence[float] = ()
) -> float:
    """Return the cosine of a round's estimate with the gradient of the cohort's mini-batches.

        cos ≈ 1/√(1 + Σ_b share_b · r_b)

    It holds where the estimate has no bias and errors of blocks are independent: slopes within their bounds, σ so small
    that the loss is nearly straight along a direction. Curvature lowers it; clipping of the estimate and what the
    optimizer makes of it are not in it. For H > 1 the gradient is the mean over the local steps.

    Args:
        plan: the round's.
        shares: ‖g_b‖²/‖g‖² of each block, adding up to 1; all equal where nothing is known.
        apart: mean ‖g_b‖² of single groups over that of their mean, ≥ 1; 1 by default, as with one group.
        noise: variance of a slope that comes from rounding and privacy, over the slopes' mean square; 0 by default.
    """
    count = len(plan.blocks)
    rows = zip(plan.blocks, shares or [1 / count] * count, apart or [1.0] * count, noise or [0.0] * count, strict=True)
    error = sum(share * relative_error(plan, block, noisy) * ratio for block, share, ratio, noisy in rows)
    return 1.0 / math.sqrt(1.0 + error)


def relative_error(plan: Plan, block: BlockPlan, noise: float = 0.0) -> float:
    """Return r_b, the expected ‖ĝ_b − g_b‖²/‖g_b‖² of one block's estimate.

    With n weights and K directions, (n + κ − 2)/K for independent entries of kurtosis κ; (n − 1)/K · (N − K)/(N − 1)
    for K of N orthogonal directions; slopes centred on their mean have K − 1 degrees of freedom. `noise` of the slopes,
    relative to their mean square, adds noise · n/K. All divided by the G groups and H steps, whose directions are
    independent. Sources: docs/noise.md, sections 7 to 9; Nesterov & Spokoiny 2017.
    """
    size, budget = block.stop - block.start, block.budget
    free = max(1, budget - 1) if plan.estimator.least == 2 and not isinstance(block.law, Orthogonal) else budget
    if isinstance(block.law, Orthogonal):
        most = block.law.most
        own = (size - 1) / budget * (most - budget) / max(1, most - 1)
    else:
        own = max(0.0, size + _kurtosis(block) - 2) / free
    return (own + noise * size / free) / (plan.groups * plan.steps)


def slope_noise(plan: Plan, block: BlockPlan, square: float) -> float:
    """Return the variance of a group's mean slope that rounding and privacy's noise bring, over its mean square.

    A fraction f is rounded up at random with variance f(1 − f), 1/6 on average: (c/levels)²/6 for one client, and in a
    group's mean as much less as it has clients. 0 where there is no slope.
    """
    if not square:
        return 0.0
    members = len(plan.cohort) / plan.groups
    levels = plan.quantiser.levels
    quanta = members * ROUNDING if plan.privacy is None else plan.privacy.spread(members, levels)
    return (block.bound / levels / members) ** 2 * quanta / square


def _kurtosis(block: BlockPlan) -> float:
    """Return E z⁴/(E z²)² of a direction's entries."""
    if isinstance(block.law, Gaussian):
        return 3.0
    return 128.0 / block.law.odds if isinstance(block.law, Sparse) else 1.0
