"""Centralised training: all samples in one place."""

from __future__ import annotations

import msgspec

from baffle import checks
from baffle.baselines import costs
from baffle.baselines.costs import Traffic
from baffle.baselines.work import Work
from baffle.optimizers import Adam, ExponentialAverage, Optimizer
from baffle.parameters import Vector


class Centralised(msgspec.Struct, frozen=True, kw_only=True):
    """Stochastic gradient descent on the pooled samples of all clients: what federation gives up.

        θ ← optimizer(θ, ∇L(θ)) on one mini-batch of B samples,   θ̄ ← EMA(θ̄, θ)

    A round is one step. Costs 3B forward equivalents, with checkpointing 4B, all of them in the one place; that the
    samples had to get there is not counted.

    Raises:
        SettingsError: a field is out of its range.
    """

    batch: int = 128
    """B, ≥ 1; all samples where there are fewer."""
    checkpointing: bool = False
    """Whether activations are computed a second time rather than kept."""
    optimizer: Optimizer = Adam(rate=1e-2, beta1=0.9, beta2=0.99)
    average: ExponentialAverage = ExponentialAverage(decay=0.995)
    """Of the weights, for evaluation."""
    anneal: int = 0
    """Rounds over which the rate falls linearly to a fiftieth, ≥ 0; 0 keeps it constant."""

    def __post_init__(self) -> None:
        checks.at_least("batch", self.batch, 1)
        checks.at_least("anneal", self.anneal, 0)

    def answer(self, work: Work) -> Vector:
        """Return ∇L [n]."""
        return work.gradient(work.parameters, work.batch(0, self.batch))

    def forwards(self, samples: int) -> float:
        """Return the forward equivalents of a step."""
        return costs.passes(checkpointing=self.checkpointing) * min(self.batch, samples)

    def traffic(self, weights: int) -> Traffic:
        """Return nothing: nobody sends anything."""
        del weights
        return Traffic(up=0, down=0)
