"""What a round holds in memory, in bytes of arrays; a program and its libraries come on top."""

from __future__ import annotations

from baffle.baselines.price import StepCost
from baffle.messages import Plan
from baffle.server import State

_FLOAT, _DOUBLE = 4, 8


def client(plan: Plan, size: int, precision: int, inference: int) -> int:
    """Return what a client of n = `size` weights holds when its probes run one after another.

    θ, and three vectors in the losses' precision: its copy, a displaced copy, the model's own. What `inference` holds.
    Of each slope of a step its loss, value, random number and integer.
    """
    return size * (_FLOAT + 3 * precision) + inference + 4 * _DOUBLE * plan.directions


def backpropagation(size: int, step: StepCost | None, *, averaging: bool) -> int | None:
    """Return what a client holds that differentiates: θ and what the step holds, gradients included.

    With `averaging`, it keeps the weights it began with as well, to tell the difference.
    """
    return None if step is None else size * _FLOAT * (1 + averaging) + step.peak


def server(plan: Plan, state: State, size: int) -> int:
    """Return what the server holds in a step: two states, the estimate, its clipped copy, and integers.

    Integers are of the largest block and of all reports.
    """
    vectors = 2 * (2 * size + sum(array.size for array in state.memory.values()))
    largest = max(block.stop - block.start for block in plan.blocks)
    slopes = len(plan.cohort) * plan.steps * plan.directions
    return _FLOAT * (vectors + 2 * size) + _DOUBLE * (largest + slopes)
