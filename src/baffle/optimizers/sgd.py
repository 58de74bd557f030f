"""Stochastic gradient descent."""

from __future__ import annotations

import msgspec
import numpy as np

from baffle import checks
from baffle.memory import Memory
from baffle.parameters import Vector


class Sgd(msgspec.Struct, frozen=True, tag_field="optimizer", tag="sgd"):
    """Stochastic gradient descent with momentum and weight decay.

        g ← g + λ θ,   v ← μ v + g,   θ ← θ − η v

    Every product and sum is rounded to float32, in this order. With zeroth-order estimates the stable rate falls as
    √(K/n). Source: Sutskever et al. 2013, in the form of torch.optim.SGD (dampening 0).
    """

    rate: float = 1e-2
    """η, > 0."""
    momentum: float = 0.0
    """μ, in [0, 1)."""
    weight_decay: float = 0.0
    """λ, ≥ 0, added to the gradient."""

    def __post_init__(self) -> None:
        checks.positive("rate", self.rate)
        checks.below_one("momentum", self.momentum)
        checks.at_least("weight_decay", self.weight_decay, 0)

    def init(self, size: int) -> Memory:
        """Return the memory before the first step, for `size` weights."""
        return {"momentum": np.zeros(size, np.float32)} if self.momentum else {}

    def __call__(
        self, parameters: Vector, gradient: Vector, memory: Memory, factor: float = 1.0
    ) -> tuple[Vector, Memory]:
        """Return new parameters [n] and memory after one step with η · `factor`; nothing is changed in place."""
        step = gradient + np.float32(self.weight_decay) * parameters if self.weight_decay else gradient
        if self.momentum:
            step = np.float32(self.momentum) * memory["momentum"] + step
            memory = {"momentum": step}
        return parameters - np.float32(self.rate * factor) * step, memory
