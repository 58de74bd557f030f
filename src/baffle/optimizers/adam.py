"""Adam."""

from __future__ import annotations

import msgspec
import numpy as np

from baffle import checks
from baffle.memory import Memory
from baffle.parameters import Vector


class Adam(msgspec.Struct, frozen=True, tag_field="optimizer", tag="adam", rename={"eps": "epsilon"}):
    """Adam with weight decay added to the gradient.

        g ← g + λ θ,   m ← β₁ m + (1 − β₁) g,   v ← β₂ v + (1 − β₂) g²
        θ ← θ − η/(1 − β₁ᵗ) · m / (√v / √(1 − β₂ᵗ) + ε)

    Every product, sum, quotient and root is rounded to float32, in this order; the powers βᵗ are float64 products kept
    in the memory, since a library's power function may differ in the last digit between machines. It normalises away
    the growth √(n/K) of a zeroth-order estimate. Source: Kingma & Ba 2015, in the form of torch.optim.Adam.
    """

    rate: float = 1e-2
    """η, > 0."""
    beta1: float = 0.9
    """β₁, in [0, 1)."""
    beta2: float = 0.99
    """β₂, in [0, 1)."""
    eps: float = 1e-8
    """ε, > 0."""
    weight_decay: float = 0.0
    """λ, ≥ 0."""

    def __post_init__(self) -> None:
        checks.positive("rate", self.rate)
        checks.below_one("beta1", self.beta1)
        checks.below_one("beta2", self.beta2)
        checks.positive("eps", self.eps)
        checks.at_least("weight_decay", self.weight_decay, 0)

    def init(self, size: int) -> Memory:
        """Return the memory before the first step, for `size` weights."""
        zeros, one = np.zeros(size, np.float32), np.ones(1)
        return {"first": zeros, "second": zeros, "power1": one, "power2": one}

    def __call__(
        self, parameters: Vector, gradient: Vector, memory: Memory, factor: float = 1.0
    ) -> tuple[Vector, Memory]:
        """Return new parameters [n] and memory after one step with η · `factor`; nothing is changed in place."""
        f32 = np.float32
        step = gradient + f32(self.weight_decay) * parameters if self.weight_decay else gradient
        first = f32(self.beta1) * memory["first"] + f32(1 - self.beta1) * step
        second = f32(self.beta2) * memory["second"] + f32(1 - self.beta2) * (step * step)
        power1, power2 = memory["power1"] * self.beta1, memory["power2"] * self.beta2
        root = np.sqrt(second) / f32(np.sqrt(1 - power2[0])) + f32(self.eps)
        moved = parameters - f32(self.rate * factor / (1 - power1[0])) * (first / root)
        return moved, {"first": first, "second": second, "power1": power1, "power2": power2}
