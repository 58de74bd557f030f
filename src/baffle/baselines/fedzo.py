"""FedZO: clients take zeroth-order steps of their own, and the server averages what they come to."""

from __future__ import annotations

import msgspec
import numpy as np
from numpy.typing import NDArray

from baffle import checks
from baffle.baselines import costs
from baffle.baselines.costs import Traffic
from baffle.baselines.work import Work
from baffle.keys import Key
from baffle.optimizers import ExponentialAverage, Optimizer, Sgd
from baffle.parameters import Vector
from baffle.runtimes import Batch, Runtime


class FedZo(msgspec.Struct, frozen=True, kw_only=True):
    """Federated zeroth-order optimization.

        client   θ_c ← θ;  H times, on b₁ samples, with v₁ … v_b₂ uniform on the unit sphere, the client's own:
                 e = (n / b₂) Σⱼ vⱼ (L_c(θ_c + μ vⱼ) − L_c(θ_c)) / μ,   θ_c ← θ_c − η e
                 Δ_c = θ − θ_c                                        4n bytes leave the client
        server   θ  ← optimizer(θ, Σ_c w_c Δ_c / Σ_c w_c),   θ̄ ← EMA(θ̄, θ)

    E e is the gradient of the loss smoothed over the ball of radius μ; its relative squared error is about n/b₂, so
    that stable rates η are about b₂/n of backpropagation's. Costs H b₁ (b₂ + 1) forward equivalents, the memory of
    inference, and 2b₂ vectors of n. Source: Fang et al. 2022, arXiv 2201.09531, algorithm 1 and equation 4.

    Raises:
        SettingsError: a field is out of its range.
    """

    batch: int = 32
    """b₁, samples of a step, ≥ 1; a client that has fewer takes all."""
    directions: int = 20
    """b₂, of a step, ≥ 1."""
    scale: float = 1e-1
    """μ, length of a displacement, > 0, in parameter units."""
    local_steps: int = 5
    """H, ≥ 1."""
    local_rate: float = 1e-1
    """η, > 0; 0.1 to 0.3 train an MLP of 2,410 weights best, 0.3 is too much for a LeNet of 26,730."""
    optimizer: Optimizer = Sgd(rate=1.0)
    """Of the server; SGD at rate 1 averages the clients' weights."""
    average: ExponentialAverage = ExponentialAverage(decay=0.995)
    """Of the weights, for evaluation."""
    anneal: int = 0
    """Rounds over which the server's rate falls linearly to a fiftieth, ≥ 0; 0 keeps it constant."""

    def __post_init__(self) -> None:
        for name in ("batch", "directions", "local_steps"):
            checks.at_least(name, getattr(self, name), 1)
        for name in ("scale", "local_rate"):
            checks.positive(name, getattr(self, name))
        checks.at_least("anneal", self.anneal, 0)

    def answer(self, work: Work) -> Vector:
        """Return Δ_c [n]."""
        own = work.parameters
        for step in range(self.local_steps):
            batch = work.batch(step, self.batch)
            estimate = self.estimate(own, batch, work.runtime, work.key("directions", step))
            own = own - np.float32(self.local_rate) * estimate
        return work.parameters - own

    def estimate(self, parameters: Vector, batch: Batch, runtime: Runtime, key: Key) -> Vector:
        """Return e, float32 [n], at `parameters`, with directions drawn from `key`."""
        point = parameters.astype(runtime.precision)
        directions = sphere(key, self.directions, point.size)
        step = point.dtype.type(self.scale)
        base = runtime.losses([point], [batch])[0, 0]
        points = (point + step * direction.astype(point.dtype) for direction in directions)
        moved = runtime.losses(points, [batch])[:, 0]
        with np.errstate(invalid="ignore", over="ignore"):  # the server refuses what is not finite
            slopes = (moved - base) * (point.size / (float(step) * self.directions))
            directions *= slopes.astype(np.float32)[:, None]
            return directions.sum(0)

    def forwards(self, samples: int) -> float:
        """Return the forward equivalents of a round for a client that holds so many samples."""
        return float(self.local_steps * min(self.batch, samples) * (self.directions + 1))

    def traffic(self, weights: int) -> Traffic:
        """Return a model's bytes each way."""
        return costs.models(weights)


def sphere(key: Key, count: int, size: int) -> NDArray[np.float32]:
    """Return directions drawn uniformly from the unit sphere, float32 [count, size]."""
    drawn = key.generator().standard_normal((count, size), np.float32)
    drawn /= np.sqrt((drawn * drawn).sum(1, keepdims=True))
    return drawn
