"""The server's half of a baseline's round."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from baffle.algorithms.baffle import LAST_RATE
from baffle.baselines.work import Method
from baffle.errors import DivergenceError
from baffle.parameters import Vector
from baffle.server import State


def start(method: Method, parameters: Vector) -> State:
    """Return the state before the first round."""
    return State(parameters, parameters, method.optimizer.init(parameters.size))


def step(method: Method, state: State, gradient: Vector) -> State:
    """Return the state after one step of the server's optimizer along a gradient or pseudo-gradient [n].

    Raises:
        DivergenceError: θ would leave the finite numbers; the state that was passed in is the last good one.
    """
    done = min(1.0, state.round / method.anneal) if method.anneal else 0.0
    with np.errstate(over="ignore", invalid="ignore"):  # caught below, in words
        parameters, memory = method.optimizer(state.parameters, gradient, state.memory, 1.0 - (1.0 - LAST_RATE) * done)
        average = method.average(state.average, parameters, state.round + 1)
    if not np.isfinite(parameters).all():
        raise DivergenceError(
            f"round {state.round} would make a weight infinite; what was kept of the rounds before stays. "
            "A smaller rate or local_rate usually helps"
        )
    return replace(state, parameters=parameters, average=average, memory=memory, round=state.round + 1, attempt=0)
