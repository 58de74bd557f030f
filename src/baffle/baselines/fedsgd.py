"""FedSGD: one gradient a client and round."""

from __future__ import annotations

import msgspec

from baffle import checks
from baffle.baselines import costs
from baffle.baselines.costs import Traffic
from baffle.baselines.work import Work
from baffle.optimizers import Adam, ExponentialAverage, Optimizer
from baffle.parameters import Vector


class FedSgd(msgspec.Struct, frozen=True, kw_only=True):
    """Federated stochastic gradient descent by backpropagation.

        client   g_c = ∇L_c(θ) on one mini-batch of B samples      4n bytes leave the client
        server   θ  ← optimizer(θ, Σ_c w_c g_c / Σ_c w_c),   θ̄ ← EMA(θ̄, θ)

    Unbiased. Costs 3B forward equivalents, with checkpointing 4B. Source: McMahan et al. 2017, section 2.

    Raises:
        SettingsError: a field is out of its range.
    """

    batch: int = 32
    """B, samples of a client's mini-batch, ≥ 1; a client that has fewer takes all."""
    checkpointing: bool = False
    """Whether activations are computed a second time rather than kept."""
    optimizer: Optimizer = Adam(rate=2e-2, beta1=0.9, beta2=0.99)
    """Of the server."""
    average: ExponentialAverage = ExponentialAverage(decay=0.995)
    """Of the weights, for evaluation."""
    anneal: int = 0
    """Rounds over which the rate falls linearly to a fiftieth, ≥ 0; 0 keeps it constant."""

    def __post_init__(self) -> None:
        checks.at_least("batch", self.batch, 1)
        checks.at_least("anneal", self.anneal, 0)

    def answer(self, work: Work) -> Vector:
        """Return g_c [n]."""
        return work.gradient(work.parameters, work.batch(0, self.batch))

    def forwards(self, samples: int) -> float:
        """Return the forward equivalents of a round for a client that holds so many samples."""
        return costs.passes(checkpointing=self.checkpointing) * min(self.batch, samples)

    def traffic(self, weights: int) -> Traffic:
        """Return a model's bytes each way."""
        return costs.models(weights)
