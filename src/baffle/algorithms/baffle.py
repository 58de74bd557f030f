"""BAFFLE: federated learning without backpropagation.

Feng, Pang, Du, Chen, Yan, Lin: "A Baseline of Backpropagation-Free Federated Learning", ECCV 2024, arXiv 2301.12195.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import cast

import msgspec

from baffle import allocation, checks
from baffle.allocation import RULES, Candidate, Rule
from baffle.directions import Gaussian, Law, Orthogonal, Rademacher, Sparse
from baffle.directions.orthogonal import LARGEST_ORDER
from baffle.errors import SettingsError
from baffle.estimators import CentredDifference, Estimator, ForwardDifference
from baffle.mechanisms import Privacy, Protection, Quantiser
from baffle.messages import MOST_SLOPES, BlockPlan
from baffle.optimizers import Adam, ExponentialAverage, Optimizer, clip_by_largest
from baffle.parameters import Block, BlockRule, Vector
from baffle.server import Federation, State

NOTHING = 1e-12
"""Mean square slope, in the largest block's, that stands for a block without any."""
NEAR = 4
"""Orthogonal directions are worth it for a budget of at least this part of a block's size."""
LAST_RATE = 0.02
"""Share of the rate that is left at the end of annealing."""


class Baffle(msgspec.Struct, frozen=True, kw_only=True):
    """Training by losses at displaced copies of the model.

    A round, with directions z₁ … z_K that server and clients draw from the same key:

        client   sₖ = (L_c(θ + σ zₖ) − L_c(θ)) / σ          K + 1 forward passes over one mini-batch
                 qₖ = round(sₖ)                              K integers leave the client, nothing else
        server   ĝ  = Σₖ (Σ_c w_c qₖ) zₖ / (K Σ_c w_c)       rebuilt from integers and directions
                 ĝ  ← ĝ · min(1, clip/‖ĝ‖_∞)
                 θ  ← optimizer(θ, ĝ),   θ̄ ← EMA(θ̄, θ)

    E ĝ is the gradient of the loss smoothed over σ z, and its relative squared error about n/K: cos(ĝ, g) ≈
    √(K/(K + n + 1)) for the whole vector. The defaults are ours; `Baffle.paper()` has the paper's.

    Raises:
        SettingsError: a field is out of its range.
    """

    forwards: int = 3200
    """Forward equivalents a client spends in a round: passes over one sample, all local steps together; ≥ 1."""
    batch: int = 0
    """B, samples of a client's mini-batch, which all probes of a step see; 0 lets `allocation.samples` choose."""
    estimator: Estimator = CentredDifference(scale=1e-2)
    """How losses become slopes."""
    law: Gaussian | Rademacher | Sparse = Rademacher()
    """What directions are drawn from."""
    blocks: BlockRule = "layers"
    """What is displaced together: the "whole" vector, one of the "layers" at a time, or patterns of tensor names."""
    allocation: Rule = "adaptive"
    """How blocks share the forwards: "adaptive" to the slopes seen, at "equal" prices, or for least "variance"."""
    orthogonal: bool = True
    """Whether blocks with a budget of a quarter of their size or more get orthogonal directions, not the law's."""
    groups: int = 1
    """Sets of directions, ≥ 1: 1 shares one among all, the cohort's size (or more) gives each client its own, which
    has the variance of the average of that many estimates, but needs single reports."""
    bits: int = 8
    """Of a slope on the wire, 2 to 32."""
    bound: float = 16.0
    """c, largest slope reported in the first round, > 0."""
    spread: float = 6.0
    """c in later rounds, in recent root mean square slopes times √(clients a group), so that the noise of single
    clients fits; ≥ 0, and 0 keeps the first round's."""
    local_steps: int = 1
    """H, plain SGD steps that a client takes in a round, ≥ 1; forwards and integers are shared among them."""
    local_rate: float = 0.1
    """η of those steps, > 0."""
    clip: float = 0.3
    """Largest entry of the estimate, ≥ 0; 0 means no bound."""
    optimizer: Optimizer = Adam(rate=2e-2, beta1=0.5, beta2=0.99)
    """What the server does with the estimate."""
    average: ExponentialAverage = ExponentialAverage(decay=0.995)
    """Of the weights, for evaluation."""
    anneal: int = 0
    """Rounds over which the rate falls linearly to a fiftieth, ≥ 0; 0 keeps it constant."""
    privacy: Privacy | None = None
    """What hides each client's data in the sums (docs/privacy.md)."""

    def __post_init__(self) -> None:
        for name in ("forwards", "groups", "local_steps"):
            checks.at_least(name, getattr(self, name), 1)
        checks.at_least("batch", self.batch, 0)
        checks.one_of("allocation", self.allocation, RULES)
        given: object = self.blocks  # msgspec checks what it decodes, not what is passed
        patterns = isinstance(given, tuple) and {str} >= {type(pattern) for pattern in cast("tuple[object]", given)}
        if not patterns and self.blocks not in ("whole", "layers"):
            raise SettingsError("blocks", self.blocks, "must be whole, layers, or a tuple of patterns of tensor names")
        for name in ("bound", "local_rate"):
            checks.positive(name, getattr(self, name))
        for name in ("spread", "clip", "anneal"):
            checks.at_least(name, getattr(self, name), 0)
        checks.within("bits", self.bits, 2, 32)

    @classmethod
    def paper(cls, directions: int = 100, batch: int = 32) -> Baffle:
        """Return the paper's settings with K = `directions` on `batch` samples, shared by all clients, in 16 bits.

        Its public code draws each client's directions apart and clips each client's estimate, which the protocol that
        the paper describes can't do: integers of shared directions are summed. `groups` gives clients their own.
        """
        return cls(
            forwards=(directions + 1) * batch,
            batch=batch,
            estimator=ForwardDifference(scale=1e-4),
            law=Gaussian(),
            blocks="whole",
            orthogonal=False,
            bits=16,
            clip=0.3,
            optimizer=Adam(rate=1e-2, beta1=0.9, beta2=0.99, weight_decay=5e-4),
            average=ExponentialAverage(decay=0.995),
        )

    @classmethod
    def grid(cls, odds: int = 16) -> Baffle:
        """Return settings for weights that lie on a grid of integers: a probe moves odds/128 of them by one step.

        Rates and slopes are in steps of the grid.
        """
        law = Sparse(odds)
        return cls(
            estimator=CentredDifference(scale=law.deviation),
            law=law,
            orthogonal=False,
            optimizer=Adam(rate=1.0, beta1=0.5, beta2=0.99),
        )

    def groups_of(self, cohort: int) -> int:
        """Return G for a cohort of that many clients: no more than clients."""
        return min(self.groups, cohort)

    def batch_of(self, federation: Federation) -> int:
        """Return B: what is set, or else what the rule says.

        It is at most what leaves each block its least directions, and at least what makes use of all forwards where
        every block is measured to the full.
        """
        if self.batch:
            return self.batch
        costs, once = self._costs(federation), self._once(federation)
        blocks = [
            self._candidate(block, cost, 0.0)
            for block, cost in zip(federation.layout.blocks(self.blocks), costs, strict=True)
        ]
        forwards = self.forwards / self.local_steps
        largest = math.floor(forwards / (once + sum(block.least * block.cost for block in blocks)))
        smallest = math.floor(forwards / (once + sum(block.price for block in blocks)))
        chosen = allocation.samples(self.forwards, federation.cohort_size, self.local_steps)
        return max(1, smallest, min(chosen, largest))

    def _costs(self, federation: Federation) -> tuple[float, ...]:
        """Return what a probe of each block costs, in forward passes."""
        blocks = len(federation.layout.blocks(self.blocks))
        if len(federation.costs) not in (0, blocks):
            raise SettingsError("costs", federation.costs, f"must be one for each of {blocks} blocks, or none")
        return federation.costs or (1.0,) * blocks

    def _once(self, federation: Federation) -> float:
        """Return the forward passes of a step that are no probes: the base, and what lies before the blocks."""
        return self.estimator.base + 1.0 - min(self._costs(federation))

    def blocks_of(self, federation: Federation, state: State) -> tuple[BlockPlan, ...]:
        """Return the blocks with budgets and bounds that follow the slopes seen.

        Raises:
            SettingsError: `forwards` leaves a block too few directions.
        """
        blocks = federation.layout.blocks(self.blocks)
        costs = self._costs(federation)
        probes, candidates = self.shared_of(federation, state)
        try:
            budgets = allocation.share(probes, candidates, [RULES[self.allocation](block) for block in candidates])
        except SettingsError as error:
            rule = f"on {self.batch_of(federation)} samples a probe {error.rule}"
            raise SettingsError("forwards", self.forwards, rule) from None
        return tuple(
            BlockPlan(
                block.start,
                block.stop,
                budget,
                self._bound(federation, state, number, sum(budgets)),
                self.law_of(block.size, budget),
                costs[number],
            )
            for number, (block, budget) in enumerate(zip(blocks, budgets, strict=True))
        )

    def shared_of(self, federation: Federation, state: State) -> tuple[float, tuple[Candidate, ...]]:
        """Return the forward passes that a step's probes may take together, and the blocks that share them."""
        floor = NOTHING * max(state.squares, default=0.0)
        squares = [max(square, floor) for square in state.squares]
        blocks = federation.layout.blocks(self.blocks)
        rows = zip(blocks, self._costs(federation), squares or [0.0] * len(blocks), strict=True)
        passes = self.forwards / (self.local_steps * self.batch_of(federation)) - self._once(federation)
        return passes, tuple(self._candidate(*row) for row in rows)

    def _candidate(self, block: Block, cost: float, square: float) -> Candidate:
        order = _order(block.size)
        most = 1 << order if self.orthogonal and order <= LARGEST_ORDER else MOST_SLOPES
        least = self.estimator.least
        return Candidate(block.size, cost * len(self.estimator.signs), square, max(most, least), least)

    def law_of(self, size: int, budget: int) -> Law:
        """Return what `budget` directions of a block of `size` weights are drawn from."""
        order = _order(size)
        near = self.orthogonal and order <= LARGEST_ORDER and NEAR * budget >= size and budget <= 1 << order
        return Orthogonal(order) if near else self.law

    def _bound(self, federation: Federation, state: State, block: int, slopes: int) -> float:
        if self.privacy is not None:
            return self.privacy.bound(state.size, slopes, self.spread)
        if not (state.squares and self.spread):
            return self.bound
        clients = federation.cohort_size / self.groups_of(federation.cohort_size)
        return max(self.spread * math.sqrt(clients * state.squares[block]), 1e-6 * self.bound)

    def protection(self, state: State, blocks: Sequence[BlockPlan]) -> Protection | None:
        """Return what a plan with these blocks asks clients to do to their slopes."""
        if self.privacy is None:
            return None
        slopes = sum(block.budget for block in blocks)
        levels = Quantiser(self.bits).levels
        return self.privacy.protection(state.size, slopes, self.local_steps, self.spread, levels)

    def update(self, state: State, gradient: Vector) -> State:
        """Return the state with θ, average and memory after one step along an estimate [n]."""
        done = min(1.0, state.round / self.anneal) if self.anneal else 0.0
        parameters, memory = self.optimizer(
            state.parameters, clip_by_largest(gradient, self.clip), state.memory, 1.0 - (1.0 - LAST_RATE) * done
        )
        average = self.average(state.average, parameters, state.round + 1)
        return replace(state, parameters=parameters, average=average, memory=memory)

    def start(self, parameters: Vector) -> State:
        """Return the state before the first round."""
        size = self.privacy.size if self.privacy is not None else 0.0
        return State(parameters, parameters, self.optimizer.init(parameters.size), size=size)


def _order(size: int) -> int:
    """Return log₂ of the smallest power of two above `size`: one column of a Hadamard matrix is left out."""
    return size.bit_length()
