"""How many probes each block gets, and how many samples a probe sees."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal, NamedTuple, TypeAlias

from baffle.errors import SettingsError

CHEAP = 0.02
"""Share of a round's passes up to which a block is measured to the full, while all such blocks take half at most."""
_HALVINGS = 120
_ROUNDING = 1e-6


class Candidate(NamedTuple):
    """A block, as far as its budget is concerned."""

    size: int
    """n_b, weights."""
    cost: float
    """Of one direction, all its probes together, in forward passes; > 0."""
    square: float
    """Recent mean square slope, which estimates ‖g_b‖²; 0 before anything is known."""
    most: int
    """Directions beyond which more are of no use, ≥ 1."""
    least: int
    """Fewest directions that give slopes, ≥ 1."""

    @property
    def price(self) -> float:
        """Forward passes that the block takes when it is measured to the full."""
        return self.most * self.cost


def samples(forwards: int, cohort: int, steps: int) -> int:
    """Return how many samples a probe sees: max(2, √(F/(20·C))), rounded.

    At a given price, error falls with probes, n·B/F, and with samples, r/(C·B), r being the gradient's noise scale: so
    B ∝ √(F/C). The 20 was found by experiment on networks of 15,000 to 27,000 weights (docs/results.md); the optimum
    is broad. F is of one local step.

    Args:
        forwards: F of a round, ≥ 1.
        cohort: C, ≥ 1.
        steps: H, ≥ 1.
    """
    return max(2, round(math.sqrt(forwards / (steps * 20 * cohort))))


def equal(block: Candidate) -> float:
    """Return the weight of a block whose price is to be everyone's: 1/cost."""
    return 1.0 / block.cost


def balanced(block: Candidate) -> float:
    """Return n^¼ · cost^−¾ · ‖g‖^½: the geometric mean of equal prices and of the least squared error.

    Adam moves every weight alike, so a block's own relative error n/K counts, however small its gradient: budgets that
    follow ‖g‖ starve small layers. Half of the way was never clearly worse than either end (docs/results.md).
    """
    return math.sqrt(math.sqrt(block.size / block.cost**3) * math.sqrt(block.square)) if block.square else equal(block)


def variance(block: Candidate) -> float:
    """Return √(n/cost) · ‖g‖: of all budgets at a price, these have the least Σ n_b‖g_b‖²/K_b, the squared error."""
    return math.sqrt(block.size / block.cost * block.square) if block.square else equal(block)


RULES = {"adaptive": balanced, "equal": equal, "variance": variance}
Rule: TypeAlias = Literal["adaptive", "equal", "variance"]


def share(passes: float, candidates: Sequence[Candidate], weights: Sequence[float]) -> tuple[int, ...]:
    """Return budgets K_b ∝ weights, from `least` to `most`, of a price Σ K_b · cost_b of at most `passes`.

    Blocks that are cheap to measure to the full get `most`; what a block can't use goes to the others. Sums, products
    and comparisons in a stated order: the same on every machine.

    Raises:
        SettingsError: `passes` do not give every block its least directions.
    """
    least = floors(passes, candidates)

    def at(level: float) -> list[float]:
        rows = zip(candidates, weights, least, strict=True)
        return [min(max(level * weight, low), block.most) for block, weight, low in rows]

    low, high = 0.0, max(block.most / weight for block, weight in zip(candidates, weights, strict=True))
    for _ in range(_HALVINGS):
        before, middle = (low, high), 0.5 * (low + high)
        low, high = (middle, high) if _price(at(middle), candidates) <= passes else (low, middle)
        if (low, high) == before:
            break
    budgets = [math.floor(budget + _ROUNDING) for budget in at(low)]
    for number, block in enumerate(candidates):
        if budgets[number] < block.most and _price(budgets, candidates) + block.cost <= passes + _ROUNDING:
            budgets[number] += 1
    return tuple(budgets)


def floors(passes: float, candidates: Sequence[Candidate]) -> list[int]:
    """Return the budgets that no weights go below: a block's least directions, or all where those are cheap.

    Raises:
        SettingsError: `passes` do not give every block its least directions.
    """
    least = [min(block.least, block.most) for block in candidates]
    if _price(least, candidates) > passes + _ROUNDING:
        each = max(block.least for block in candidates)
        raise SettingsError("forwards", passes, f"must give each of {len(candidates)} block(s) {each} directions")
    for number in sorted(range(len(candidates)), key=lambda number: (candidates[number].price, number)):
        full = [*least[:number], candidates[number].most, *least[number + 1 :]]
        if candidates[number].price <= CHEAP * passes and _price(full, candidates) <= 0.5 * passes:
            least = full
    return least


def _price(budgets: Sequence[float], candidates: Sequence[Candidate]) -> float:
    """Return what budgets cost, in forward passes."""
    return sum(budget * block.cost for budget, block in zip(budgets, candidates, strict=True))
