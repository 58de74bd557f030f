"""Evolution strategies: a population around θ is ranked by its losses, and θ follows the ranks."""

from __future__ import annotations

import msgspec
import numpy as np
from numpy.typing import NDArray

from baffle import checks
from baffle.baselines.costs import Traffic
from baffle.baselines.work import Work
from baffle.directions import Gaussian
from baffle.errors import SettingsError
from baffle.kernels import Kernels
from baffle.keys import BYTES, Key
from baffle.messages import BlockPlan
from baffle.optimizers import Adam, ExponentialAverage, Optimizer
from baffle.parameters import Vector
from baffle.probes import Probes
from baffle.runtimes import BlockRuntime

LAW = Gaussian()


class EvolutionStrategies(msgspec.Struct, frozen=True, kw_only=True):
    """Evolution strategies with antithetic pairs and fitness shaping, its population shared by all clients.

        all      members θ + σ zₖ and θ − σ zₖ, k = 1 … P/2, zₖ Gaussian, from the round's key
        client   the loss of every member on one mini-batch of B samples       4P bytes leave the client
        server   the members' mean losses over clients, ranked: uᵢ from ½ (least loss) to −½, evenly spaced
                 ĝ = −1/(Pσ) Σₖ (u_k⁺ − u_k⁻) zₖ,   θ ← optimizer(θ, ĝ),   θ̄ ← EMA(θ̄, θ)

    A loss that is not finite ranks last. ĝ keeps the ranks alone, so its length says nothing of the gradient's: Adam
    suits it. Its relative squared error is about 2n/P. Costs P·B forward equivalents. What clients need to follow is
    the key and the mean losses, which everyone is sent; who is asked has the key before that as well. Source: Salimans
    et al. 2017, arXiv 1703.03864, algorithm 2.

    Raises:
        SettingsError: a field is out of its range.
    """

    batch: int = 32
    """B, samples that all members see at a client, ≥ 1; a client that has fewer takes all."""
    population: int = 100
    """P, members of a round, even, ≥ 2."""
    scale: float = 2e-2
    """σ, > 0, in parameter units."""
    optimizer: Optimizer = Adam(rate=3e-2, beta1=0.9, beta2=0.99)
    """Of the server."""
    average: ExponentialAverage = ExponentialAverage(decay=0.995)
    """Of the weights, for evaluation."""
    anneal: int = 0
    """Rounds over which the rate falls linearly to a fiftieth, ≥ 0; 0 keeps it constant."""

    def __post_init__(self) -> None:
        checks.at_least("batch", self.batch, 1)
        if self.population < 2 or self.population % 2:
            raise SettingsError("population", self.population, "must be even, 2 or more: members come in pairs")
        checks.positive("scale", self.scale)
        checks.at_least("anneal", self.anneal, 0)

    def answer(self, work: Work) -> Vector:
        """Return the members' losses, float32 [P]: pair by pair, + before −."""
        point = work.parameters.astype(work.runtime.precision)
        block = BlockPlan(0, point.size, self.population // 2, 1.0, LAW)
        probes = Probes(point, block, work.shared, self.scale, (1, -1), work.kernels)
        batches = [work.batch(0, self.batch)]
        if isinstance(work.runtime, BlockRuntime):
            losses = work.runtime.sweep([probes], batches)[0]
        else:
            losses = work.runtime.losses(probes, batches)
        with np.errstate(over="ignore"):
            return losses[:, 0].astype(np.float32)

    def rebuild(self, mean: Vector, weights: int, shared: Key, kernels: Kernels) -> Vector:
        """Return ĝ, float32 [n], from the members' mean losses [P]: the sum over members is one of integers."""
        pairs = ranks(mean).reshape(-1, 2)
        total = np.zeros(weights, np.int64)
        kernels.accumulate(total, pairs[:, 0] - pairs[:, 1], LAW, shared)
        unit = (self.population - 1) * self.population * self.scale * LAW.deviation
        return (total / unit).astype(np.float32)

    def forwards(self, samples: int) -> float:
        """Return the forward equivalents of a round for a client that holds so many samples."""
        return float(self.population * min(self.batch, samples))

    def traffic(self, weights: int) -> Traffic:
        """Return the bytes of a key down, of losses up, and of the key and the mean losses to everyone."""
        del weights
        return Traffic(up=4 * self.population, down=BYTES, news=BYTES + 4 * self.population)


def ranks(losses: Vector) -> NDArray[np.int64]:
    """Return how many losses come before each, int64 [P]: 0 for the least; of equal ones the first comes first.

    Divided by P − 1 and taken from ½ they are the centred ranks u. A NaN or an infinity comes last.
    """
    found = np.where(np.isfinite(losses), losses, np.inf)
    places = np.empty(losses.size, np.int64)
    places[np.argsort(found, kind="stable")] = np.arange(losses.size)
    return places
