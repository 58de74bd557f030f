"""Averaging of the weights over rounds."""

from __future__ import annotations

import msgspec
import numpy as np

from baffle import checks
from baffle.parameters import Vector


class ExponentialAverage(msgspec.Struct, frozen=True):
    """Exponential moving average of the weights, for evaluation.

        θ̄ ← d θ̄ + (1 − d) θ,   d = min(decay, (1 + t)/(10 + t)) after round t = 1, 2, ...

    The growing d lets the average forget θ₀ within a few rounds. Products and sum are rounded to float32 in this
    order.
    decay = 0 keeps θ̄ = θ. Source: Polyak & Juditsky 1992; BAFFLE's code averages once an epoch, here once a round.
    """

    decay: float = 0.995
    """In [0, 1)."""

    def __post_init__(self) -> None:
        checks.below_one("average", self.decay)

    def __call__(self, average: Vector, parameters: Vector, step: int) -> Vector:
        """Return the new average [n] after step number `step` ≥ 1."""
        if self.decay == 0:
            return parameters
        decay = min(self.decay, (1 + step) / (10 + step))
        return np.float32(decay) * average + np.float32(1 - decay) * parameters
