"""Which of two data sets a client holds, told from what a server sees: an attack to measure what privacy is left.

The server follows the protocol and knows θ, every direction and both candidates D₀ and D₁. What it sees of a round is
taken for Gaussian under either, with means and covariances that it finds by making reports itself; rounds are added up:

    Λ = Σ_t ln p(y_t | D₁, θ_t) − ln p(y_t | D₀, θ_t),   "D₁" where Λ is above a threshold

An attack shows how much can be told at least. What it does not find may still be there: no bound follows from it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from baffle import checks, extras
from baffle.client import measure
from baffle.errors import SettingsError
from baffle.kernels import Kernels
from baffle.messages import Plan
from baffle.parameters import Vector
from baffle.runtimes import Batch, Runtime

Floats = NDArray[np.float64]


def sample_slopes(plan: Plan, parameters: Vector, data: Batch, runtime: Runtime, kernels: Kernels) -> Floats:
    """Return the slopes of every sample by itself, float64 [N, K], along the directions of the first group and step.

    Losses are means over samples and slopes are linear in losses, so a mini-batch has the mean of its samples' slopes.
    Costs N · K forward passes over one sample.
    """
    inputs, targets = data
    alone: list[Batch] = [(inputs[i : i + 1], targets[i : i + 1]) for i in range(len(targets))]
    return measure(plan, 0, 0, parameters, alone, runtime, kernels)


def batch_slopes(slopes: Floats, size: int, count: int, generator: np.random.Generator) -> Floats:
    """Return the slopes of `count` mini-batches [count, K], each of `size` samples without replacement, or of all.

    Args:
        slopes: of every sample, [N, K].
        size: B, ≥ 1.
        count: how many batches, ≥ 1.
        generator: draws the batches.
    """
    checks.at_least("size", size, 1)
    samples = len(slopes)
    if size >= samples:
        return np.tile(slopes.mean(axis=0), (count, 1))
    chosen = np.argpartition(generator.random((count, samples)), size, axis=1)[:, :size]
    weights = np.zeros((count, samples))
    np.put_along_axis(weights, chosen, 1 / size, axis=1)
    return weights @ slopes


@dataclass(frozen=True, slots=True)
class Law:
    """What is seen of a round under one candidate, taken for Gaussian."""

    mean: Floats
    """[K]."""
    covariance: Floats
    """[K, K]."""

    @classmethod
    def of(cls, seen: Floats) -> Law:
        """Return the law with the mean and covariance of what was `seen` in trials of one's own, [N, K]."""
        return cls(seen.mean(axis=0), np.atleast_2d(np.cov(seen, rowvar=False)))

    def noised(self, variance: float) -> Law:
        """Return the law of the same with independent noise of that variance in each of the K numbers."""
        return Law(self.mean, self.covariance + variance * np.eye(self.mean.size))

    def log_density(self, seen: Floats) -> Floats:
        """Return ln p but for a constant, [N], of what was `seen`, [N, K].

        A covariance that is singular is made regular by 1e-9 of its mean eigenvalue.
        """
        ridge = 1e-9 * max(float(np.trace(self.covariance)) / self.mean.size, 1e-300)
        root = np.linalg.cholesky(self.covariance + ridge * np.eye(self.mean.size))
        white = np.linalg.solve(root, (seen - self.mean).T)
        return -0.5 * (white * white).sum(axis=0) - np.log(np.diag(root)).sum()


def log_ratio(seen: Floats, first: Law, second: Law) -> Floats:
    """Return ln p(y | D₁) − ln p(y | D₀), [N], of a round `seen` [N, K] with the laws under D₀ and D₁.

    The most powerful test where both are Gaussian (Neyman & Pearson 1933); near it where batches have several samples.
    """
    return second.log_density(seen) - first.log_density(seen)


@dataclass(frozen=True, slots=True)
class Advantage:
    """How well an attack did in independent trials, half of which had either data set.

        advantage = P("D₁" | D₁) − P("D₁" | D₀) = true positive rate − false positive rate

    0 is guessing, 1 is always right. Intervals are Clopper & Pearson's (1934), exact for any number of trials.
    """

    hits: int
    """Trials with D₁ that were told as D₁."""
    positives: int
    """Trials with D₁, ≥ 1."""
    alarms: int
    """Trials with D₀ that were told as D₁."""
    negatives: int
    """Trials with D₀, ≥ 1."""

    def __post_init__(self) -> None:
        checks.at_least("positives", self.positives, 1)
        checks.at_least("negatives", self.negatives, 1)
        checks.within("hits", self.hits, 0, self.positives)
        checks.within("alarms", self.alarms, 0, self.negatives)

    @classmethod
    def of(cls, first: Floats, second: Floats, threshold: float = 0.0) -> Advantage:
        """Return how well "Λ above `threshold`" does on Λ of trials with D₀ (`first`) and with D₁ (`second`)."""
        hits, alarms = int((second > threshold).sum()), int((first > threshold).sum())
        return cls(hits, second.size, alarms, first.size)

    @property
    def value(self) -> float:
        """True positive rate − false positive rate."""
        return self.hits / self.positives - self.alarms / self.negatives

    def interval(self, confidence: float = 0.95) -> tuple[float, float]:
        """Return the least and the largest advantage at that confidence, both rates at once (union bound)."""
        error = (1 - confidence) / 4
        hits = clopper_pearson(self.hits, self.positives, error)
        alarms = clopper_pearson(self.alarms, self.negatives, error)
        return hits[0] - alarms[1], hits[1] - alarms[0]

    def proved(self, delta: float, confidence: float = 0.95) -> float:
        """Return the largest ε for which these trials refute (ε, δ)-differential privacy at that confidence; 0 if none.

            max{ ln (TPR − δ)/FPR,  ln (TNR − δ)/FNR }

        With the ends of the intervals that make it least. Never above about ln(trials / 4): more trials can prove more.
        Source: Kairouz, Oh & Viswanath 2015, theorem 2.1, as used by Jagielski, Ullman & Oprea 2020.
        """
        error = (1 - confidence) / 4
        hits = clopper_pearson(self.hits, self.positives, error)
        alarms = clopper_pearson(self.alarms, self.negatives, error)
        ratios = ((hits[0] - delta) / alarms[1], (1 - alarms[1] - delta) / (1 - hits[0]))
        return max(0.0, *(math.log(ratio) for ratio in ratios if ratio > 0))


def best_threshold(first: Floats, second: Floats, delta: float, confidence: float = 0.95) -> float:
    """Return the threshold of Λ that proves the largest ε on these trials; to be used on others.

    Λ of trials with D₀ in `first`, with D₁ in `second`; looks at 200 of their quantiles.
    """
    choices = np.unique(np.quantile(np.concatenate([first, second]), np.linspace(0, 1, 200)))
    proofs = [Advantage.of(first, second, float(one)).proved(delta, confidence) for one in choices]
    return float(choices[int(np.argmax(proofs))])


def most_advantage(epsilon: float, delta: float) -> float:
    """Return the largest advantage that any attack on an (ε, δ)-differentially private mechanism has.

        (e^ε − 1 + 2δ) / (e^ε + 1) = tanh(ε/2) + 2δ/(e^ε + 1)

    Attained by some mechanism for every ε ≥ 0 and δ in [0, 1]. Source: Kairouz, Oh & Viswanath 2015, where TPR ≤
    e^ε FPR + δ meets 1 − FPR ≤ e^ε (1 − TPR) + δ.
    """
    checks.at_least("epsilon", epsilon, 0)
    checks.within("delta", delta, 0, 1)
    return math.tanh(epsilon / 2) + 2 * delta / (math.exp(min(epsilon, 700.0)) + 1)


def clopper_pearson(hits: int, trials: int, error: float) -> tuple[float, float]:
    """Return the least and the largest probability that so many `hits` leave, each missed with probability ≤ `error`.

    Raises:
        SettingsError: `error` outside (0, ½).
        MissingExtraError: SciPy, which scikit-learn brings, is not installed.
    """
    if not 0 < error < 0.5:
        raise SettingsError("error", error, "must be above 0 and below 1/2")
    beta = extras.require("scipy.stats", "train").beta
    low = 0.0 if hits == 0 else float(beta.ppf(error, hits, trials - hits + 1))
    high = 1.0 if hits == trials else float(beta.isf(error, hits + 1, trials - hits))
    return low, high
