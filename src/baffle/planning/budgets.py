"""Between which bounds the budgets of all rounds stay, whatever slopes are seen."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import NamedTuple

import numpy as np

from baffle import allocation
from baffle.algorithms import Baffle
from baffle.allocation import Candidate
from baffle.messages import BlockPlan, encode
from baffle.server import Federation, State

_ROUNDING = 1e-5
"""Forward passes by which a price may be off: what `allocation.share` rounds by, and more."""
_NONE = np.zeros(0, np.float32)


class Budgets(NamedTuple):
    """Of every round of a run; they always hold, as K_b grows with its own slopes and falls with the others'."""

    blocks: tuple[tuple[int, int], ...]
    """Least and most K_b of each block."""
    directions: tuple[int, int]
    """Least and most K = Σ K_b of a round."""
    forwards: tuple[float, float]
    """Least and most forward equivalents of a client and round."""

    @property
    def fixed(self) -> bool:
        """Whether every round has the same."""
        return all(least == most for least, most in self.blocks)


def state_with(algorithm: Baffle, squares: Sequence[float] = ()) -> State:
    """Return a state that a plan can be made from, as it is before the first round; it has no parameters."""
    return replace(algorithm.start(_NONE), squares=tuple(squares))


def budgets(algorithm: Baffle, federation: Federation) -> Budgets:
    """Return the bounds of the budgets.

    The rules of `allocation` give a block more when its own slopes grow and less when another's do, so K_b is largest
    when it alone has slopes, and smallest when it alone has none; slopes that are seen as nothing are bounded from
    below. Whole budgets may differ from that by one. What the budgets cost together is at most the passes there are,
    and less by no more than one probe.

    Raises:
        SettingsError: a block would get too few directions.
    """
    blocks = algorithm.blocks_of(federation, state_with(algorithm))
    passes, candidates = algorithm.shared_of(federation, state_with(algorithm))
    first = [block.budget for block in blocks]
    floors = allocation.floors(passes, candidates)
    free = [number for number, block in enumerate(candidates) if floors[number] < block.most]
    if algorithm.allocation == "equal" or len(free) < 2:
        bounds = tuple((budget, budget) for budget in first)
    else:
        bounds = tuple(
            _bounds(algorithm, federation, number, first[number], floors[number], block.most)
            for number, block in enumerate(candidates)
        )
    once = algorithm.forwards / (algorithm.local_steps * algorithm.batch_of(federation)) - passes
    low, high = _prices(bounds, candidates, passes, free)
    each = algorithm.local_steps * algorithm.batch_of(federation)
    directions = _directions(bounds, candidates, low, high)
    return Budgets(bounds, directions, (each * (low + once), each * (high + once)))


def _bounds(
    algorithm: Baffle, federation: Federation, number: int, first: int, floor: int, most: int
) -> tuple[int, int]:
    """Return least and most K_b of one block: when it alone has no slopes, and when it alone has some."""
    count = len(algorithm.shared_of(federation, state_with(algorithm))[1])
    alone = [float(other == number) for other in range(count)]
    ends = [
        algorithm.blocks_of(federation, state_with(algorithm, squares))[number].budget
        for squares in ([1.0 - own for own in alone], alone)
    ]
    return max(floor, min(*ends, first) - 1), min(most, max(*ends, first) + 1)


def _prices(
    bounds: Sequence[tuple[int, int]], candidates: Sequence[Candidate], passes: float, free: Sequence[int]
) -> tuple[float, float]:
    """Return between which forward passes a step's probes stay."""
    lows, highs = (
        [k * block.cost for k, block in zip(ks, candidates, strict=True)] for ks in zip(*bounds, strict=True)
    )
    if list(lows) == list(highs):
        return sum(lows), sum(highs)
    left = max(candidates[number].cost for number in free)
    high = min(sum(highs), passes + _ROUNDING)
    return min(high, max(sum(lows), passes - left - _ROUNDING)), high


def _directions(
    bounds: Sequence[tuple[int, int]], candidates: Sequence[Candidate], low: float, high: float
) -> tuple[int, int]:
    """Return least and most Σ K_b at a price from `low` to `high`: dear blocks first, or cheap ones first."""
    rows = [(block.cost, *bound) for block, bound in zip(candidates, bounds, strict=True)]
    least = math.ceil(_filled(sorted(rows, reverse=True), low) - _ROUNDING)
    return least, math.floor(_filled(sorted(rows), high) + _ROUNDING)


def _filled(rows: Sequence[tuple[float, int, int]], price: float) -> float:
    """Return Σ K_b, from the least, when the price is spent on one block after the other."""
    total, spent = 0.0, sum(cost * least for cost, least, _ in rows)
    for cost, least, most in rows:
        more = min(most - least, max(0.0, price - spent) / cost)
        total += least + more
        spent += more * cost
    return total


def block_bytes(algorithm: Baffle, federation: Federation, bounds: Budgets) -> tuple[int, int]:
    """Return least and most bytes that a plan's blocks take.

    A larger budget takes more bytes, and so may the orthogonal law, which begins at a quarter of the block's size.
    """
    least = most = 0
    for block, (low, high) in zip(algorithm.blocks_of(federation, state_with(algorithm)), bounds.blocks, strict=True):
        turn = -(-(block.stop - block.start) // 4)
        turns = {low, high, *(k for k in (turn - 1, turn) if low < k < high)}
        sizes = [_encoded(algorithm, block, budget) for budget in turns]
        least, most = least + min(sizes), most + max(sizes)
    return least, most


def _encoded(algorithm: Baffle, block: BlockPlan, budget: int) -> int:
    law = algorithm.law_of(block.stop - block.start, budget)
    return len(encode(BlockPlan(block.start, block.stop, budget, block.bound, law, block.cost)))
