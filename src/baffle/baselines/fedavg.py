"""FedAvg and FedAdam: clients train on their own for a while, and the server averages what they come to."""

from __future__ import annotations

import math
from collections.abc import Iterator

import msgspec

from baffle import checks
from baffle.baselines import costs
from baffle.baselines.costs import Traffic
from baffle.baselines.work import Work
from baffle.optimizers import Adam, ExponentialAverage, Optimizer, Sgd
from baffle.parameters import Vector
from baffle.runtimes import Batch


class FedAvg(msgspec.Struct, frozen=True, kw_only=True):
    """Federated averaging by backpropagation.

        client   θ_c ← θ;  for every mini-batch of H steps or E epochs:  v ← μ v + ∇L_c(θ_c),  θ_c ← θ_c − η v
                 Δ_c = θ − θ_c                                        4n bytes leave the client
        server   θ  ← optimizer(θ, Σ_c w_c Δ_c / Σ_c w_c),   θ̄ ← EMA(θ̄, θ)

    The server's SGD at rate 1 is FedAvg: the clients' weights are averaged. Adam makes it FedAdam. Clients whose data
    differ drift apart with H. Costs 3HB or 3E·samples forward equivalents, with checkpointing 4.
    Sources: McMahan et al. 2017, algorithm 1; Reddi et al. 2021, algorithms 1 and 2.

    Raises:
        SettingsError: a field is out of its range.
    """

    batch: int = 32
    """B, samples of a mini-batch, ≥ 1; a client that has fewer takes all."""
    local_steps: int = 10
    """H, steps on mini-batches drawn anew, ≥ 1; without effect where there are epochs."""
    epochs: int = 0
    """E, passes over all of the client's samples, ≥ 0; 0 takes `local_steps` instead."""
    local_rate: float = 0.1
    """η, > 0."""
    local_momentum: float = 0.9
    """μ, in [0, 1); begins anew each round."""
    checkpointing: bool = False
    """Whether activations are computed a second time rather than kept."""
    optimizer: Optimizer = Sgd(rate=1.0)
    """Of the server."""
    average: ExponentialAverage = ExponentialAverage(decay=0.995)
    """Of the weights, for evaluation."""
    anneal: int = 0
    """Rounds over which the server's rate falls linearly to a fiftieth, ≥ 0; 0 keeps it constant."""

    def __post_init__(self) -> None:
        for name in ("batch", "local_steps"):
            checks.at_least(name, getattr(self, name), 1)
        checks.at_least("epochs", self.epochs, 0)
        checks.positive("local_rate", self.local_rate)
        checks.below_one("local_momentum", self.local_momentum)
        checks.at_least("anneal", self.anneal, 0)

    @classmethod
    def adam(cls) -> FedAvg:
        """Return FedAdam, with ε = 1e-3 as its paper advises."""
        return cls(optimizer=Adam(rate=1e-2, beta1=0.9, beta2=0.99, eps=1e-3))

    def answer(self, work: Work) -> Vector:
        """Return Δ_c [n]."""
        sgd = Sgd(rate=self.local_rate, momentum=self.local_momentum)
        own, memory = work.parameters, sgd.init(work.parameters.size)
        for batch in self._batches(work):
            own, memory = sgd(own, work.gradient(own, batch), memory)
        return work.parameters - own

    def _batches(self, work: Work) -> Iterator[Batch]:
        if self.epochs:
            for number in range(self.epochs):
                yield from work.epoch(number, self.batch)
        else:
            for step in range(self.local_steps):
                yield work.batch(step, self.batch)

    def steps(self, samples: int) -> int:
        """Return the local steps of a client that holds so many samples."""
        return self.epochs * math.ceil(samples / self.batch) if self.epochs else self.local_steps

    def forwards(self, samples: int) -> float:
        """Return the forward equivalents of a round for a client that holds so many samples."""
        seen = self.epochs * samples if self.epochs else self.local_steps * min(self.batch, samples)
        return costs.passes(checkpointing=self.checkpointing) * seen

    def traffic(self, weights: int) -> Traffic:
        """Return a model's bytes each way."""
        return costs.models(weights)
