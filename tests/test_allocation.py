import math
from itertools import product

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from baffle.allocation import RULES, Candidate, balanced, equal, samples, share, variance
from baffle.allocation import floors as floors_of
from baffle.errors import SettingsError

PLENTY = 1 << 28
ROUNDING = 1e-6
"""What a budget may be rounded up by."""


def candidate(size=1000, cost=1.0, square=0.0, most=PLENTY, least=1):
    return Candidate(size, cost, square, most, least)


def price(budgets, candidates):
    return sum(budget * block.cost for budget, block in zip(budgets, candidates, strict=True))


def floors(candidates):
    return [min(block.least, block.most) for block in candidates]


# Shares by hand.


@pytest.mark.parametrize(
    ("passes", "blocks", "least", "budgets"),
    [(10, 3, 1, (4, 3, 3)), (11, 3, 2, (4, 4, 3)), (12, 3, 4, (4, 4, 4)), (7, 1, 1, (7,)), (3, 3, 1, (1, 1, 1))],
)
def test_equal_shares_by_hand(passes, blocks, least, budgets):
    assert share(passes, [candidate(least=least)] * blocks, [1.0] * blocks) == budgets


@pytest.mark.parametrize(
    ("passes", "blocks", "weights", "budgets"),
    [
        (12, [{}, {"cost": 0.5}], [1, 2], (6, 12)),  # equal prices
        (12, [{}, {"cost": 0.5}], [1, 1], (8, 8)),
        (12.9, [{}, {}], [3, 1], (9, 3)),
        (13, [{}, {}], [3, 1], (10, 3)),  # 9.75 and 3.25 are 9 and 3; the first has room for one more
        (20, [{"most": 4}, {}], [1, 1], (4, 16)),  # what a block can't use goes to the other
        (20, [{"most": 4}, {"most": 5}], [1, 1], (4, 5)),  # and is left over where nobody can
        (20, [{"least": 7}, {}], [1, 9], (7, 13)),
        (10, [{"cost": 2}, {"cost": 2, "least": 2}], [1, 1], (3, 2)),
        (1000, [{"most": 16}, {}], [1e-9, 1], (16, 984)),  # cheap: 2 % of the passes or less
        (1000, [{"most": 20}, {}], [1e-9, 1], (20, 980)),
        (1000, [{"most": 21}, {}], [1e-9, 1], (1, 999)),
        (1000, [{"most": 60, "cost": 1 / 3}, {}], [1e-9, 1], (60, 980)),
        (3.5, [{"least": 2, "most": 1}, {}], [1, 1], (1, 2)),  # a block of one weight that wants two
    ],
)
def test_shares_by_hand(passes, blocks, weights, budgets):
    assert share(passes, [candidate(**block) for block in blocks], weights) == budgets


def test_cheap_blocks_together_take_no_more_than_half():
    """Of 60 blocks at 20 passes each, 1000 passes fill 23: 23 · 20 + 37 · 1 + 1 is 498, and one more would be 517."""
    blocks = [candidate(most=20)] * 60 + [candidate()]
    assert share(1000, blocks, [1e-9] * 60 + [1.0]) == (*[20] * 23, *[1] * 37, 503)


def test_the_cheapest_blocks_are_filled_first():
    blocks = [candidate(most=20), candidate(most=10)] * 30 + [candidate()]
    budgets = share(1000, blocks, [1e-9] * 60 + [1.0])
    # 30 · 10 + 31 are 331; eight of the others add 19 each, a ninth would lead to 502.
    assert budgets == (*[20, 10] * 8, *[1, 10] * 22, 1000 - 300 - 160 - 22)


# Rules by hand.


def test_weights_by_hand():
    block = candidate(size=16, cost=1 / 16, square=81.0)
    assert equal(block) == 16
    assert balanced(block) == pytest.approx(2 * 8 * 3)  # 16^¼ · 16^¾ · 9^½
    assert variance(block) == pytest.approx(16 * 9)  # √(16 · 16) · 9
    assert {"adaptive": balanced, "equal": equal, "variance": variance} == RULES


@pytest.mark.parametrize("rule", RULES.values())
def test_before_anything_is_known_prices_are_equal(rule):
    assert rule(candidate(cost=0.25)) == 4


@given(st.integers(1, 10**6), st.floats(1e-3, 2), st.floats(1e-20, 1e6))
def test_the_adaptive_rule_is_the_geometric_mean_of_the_others(size, cost, square):
    block = candidate(size=size, cost=cost, square=square)
    assert balanced(block) == pytest.approx(math.sqrt(equal(block) * variance(block)), rel=1e-12)


def test_no_other_budgets_at_the_price_have_less_squared_error_than_the_rule_of_least_variance():
    """Σ n‖g‖²/K over all budgets that 60 passes pay for, three blocks; integers cost a percent."""
    blocks = [
        candidate(100, 1.0, 4.0),
        candidate(900, 0.5, 0.25),
        candidate(30, 0.2, 9.0),
    ]

    def error(budgets):
        return sum(block.size * block.square / budget for block, budget in zip(blocks, budgets, strict=True))

    found = share(60, blocks, [variance(block) for block in blocks])
    best = min(
        error((a, b, int((60 - a - b * 0.5) / 0.2 + ROUNDING)))
        for a, b in product(range(1, 60), range(1, 120))
        if a + b * 0.5 + 0.2 <= 60
    )
    assert best <= error(found) <= 1.01 * best
    assert error(share(60, blocks, [equal(block) for block in blocks])) > 1.15 * best


@pytest.mark.parametrize("rule", [balanced, variance])
@pytest.mark.parametrize("scale", [2.0**-40, 1e-3, 1e6])
def test_the_unit_of_the_loss_does_not_move_budgets(rule, scale):
    """A loss in other units has slopes in other units, block by block."""
    squares = (4.0, 1e-4, 1.0, 2.0)

    def budgets(unit):
        blocks = [candidate(10**n, 1 / n, unit * square) for n, square in enumerate(squares, 1)]
        return share(5000, blocks, [rule(block) for block in blocks])

    assert budgets(scale) == pytest.approx(budgets(1.0), abs=1)


# Whatever is asked.


@st.composite
def tasks(draw):
    """Return passes, candidates and weights."""
    candidates = [
        candidate(
            draw(st.integers(1, 10**6)),
            draw(st.floats(0.01, 1.0)) * draw(st.sampled_from([1, 2])),
            draw(st.sampled_from([0.0, 1e-12, 1e-3, 1.0, 7.0, 1e9])),
            draw(st.one_of(st.integers(0, 12).map(lambda order: 1 << order), st.just(PLENTY))),
            draw(st.integers(1, 2)),
        )
        for _ in range(draw(st.integers(1, 12)))
    ]
    rule = draw(st.sampled_from([*RULES.values(), None]))
    weights = [rule(block) if rule else draw(st.floats(1e-9, 1e9)) for block in candidates]
    return draw(st.floats(0.5, 20_000)), candidates, weights


def possible(task):
    passes, candidates, _ = task
    return price(floors(candidates), candidates) <= passes


@given(tasks())
def test_a_share_is_paid_for_and_within_its_bounds(task):
    assume(possible(task))
    passes, candidates, weights = task
    budgets = share(passes, candidates, weights)
    assert all(isinstance(budget, int) for budget in budgets)
    assert price(budgets, candidates) <= passes + ROUNDING * (1 + sum(block.cost for block in candidates))
    for budget, block, low in zip(budgets, candidates, floors(candidates), strict=True):
        assert low <= budget <= block.most


@given(tasks())
def test_nothing_is_left_over_that_pays_for_a_direction_of_every_block(task):
    assume(possible(task))
    passes, candidates, weights = task
    budgets = share(passes, candidates, weights)
    wanting = [block.cost for budget, block in zip(budgets, candidates, strict=True) if budget < block.most]
    assert passes - price(budgets, candidates) < max(wanting, default=math.inf)


@given(tasks())
def test_weights_are_respected_where_no_bound_binds(task):
    """There is a level with K = level · weight to a whole number more or less, but for blocks at a bound, or cheap."""
    assume(possible(task))
    passes, candidates, weights = task
    budgets = share(passes, candidates, weights)
    rows = list(zip(budgets, candidates, weights, floors(candidates), strict=True))
    below = [
        (budget - 1 - ROUNDING) / weight
        for budget, block, weight, low in rows
        if budget > low + 1 and not (budget == block.most and block.price <= passes / 50)
    ]
    above = [(budget + 1) / weight for budget, block, weight, _ in rows if budget < block.most]
    assert max(below, default=0.0) <= min(above, default=math.inf) * (1 + 1e-9)


@given(tasks())
def test_cheap_blocks_are_measured_to_the_full_where_half_of_the_passes_do(task):
    """Cheap is what a fiftieth of the passes pays for to the full; by hand in the tests above."""
    assume(possible(task))
    passes, candidates, weights = task
    cheap = [block.price <= passes / 50 for block in candidates]
    full = [
        block.most if is_cheap else low
        for block, is_cheap, low in zip(candidates, cheap, floors(candidates), strict=True)
    ]
    assume(any(cheap) and price(full, candidates) <= 0.5 * passes)
    budgets = share(passes, candidates, weights)
    assert [b for b, c in zip(budgets, cheap, strict=True) if c] == [f for f, c in zip(full, cheap, strict=True) if c]


@pytest.mark.parametrize(("cheap", "full"), [(25, 25), (26, 24)])
def test_cheap_blocks_may_take_half_of_the_passes_and_no_more(cheap, full):
    """Of 100 passes, 25 blocks of 2 take 50; 24 of them and the least of two others, 1 each, take 50 as well."""
    blocks = [candidate(most=2)] * cheap
    assert floors_of(100.0, blocks) == [2] * full + [1] * (cheap - full)


@given(tasks(), st.integers(-60, 60))
def test_shares_repeat_and_only_ratios_of_weights_count(task, power):
    assume(possible(task))
    passes, candidates, weights = task
    scaled = [math.ldexp(weight, power) for weight in weights]
    first = share(passes, candidates, weights)
    assert first == share(passes, list(candidates), tuple(weights)) == share(passes, candidates, scaled)


@given(tasks())
def test_too_few_passes_are_refused_exactly_when_there_are(task):
    passes, candidates, weights = task
    least = price(floors(candidates), candidates)
    assume(abs(least - passes) > 2 * ROUNDING)
    if passes > least:
        share(passes, candidates, weights)
        return
    with pytest.raises(SettingsError) as caught:
        share(passes, candidates, weights)
    assert (caught.value.field, caught.value.value) == ("forwards", passes)
    assert caught.value.rule.startswith(f"must give each of {len(candidates)} block(s) ")


def test_as_few_as_there_must_be_are_enough():
    blocks = [candidate(cost=0.1, least=2)] * 3  # 3 · 2 · 0.1 is more than 0.6 in binary
    assert share(0.6, blocks, [1.0] * 3) == (2, 2, 2)


def test_the_refusal_says_how_many_are_needed():
    blocks = [candidate(least=2)] * 3
    with pytest.raises(SettingsError, match=r"^forwards = 5: must give each of 3 block\(s\) 2 directions$"):
        share(5, blocks, [1.0] * 3)


# Samples.


@pytest.mark.parametrize(
    ("forwards", "cohort", "count"),
    [(3200, 10, 4), (320, 10, 2), (32_000, 10, 13), (3200, 1, 13), (3200, 100, 2), (1, 1, 2), (10**9, 1, 7071)],
)
def test_samples_of_a_probe_by_hand(forwards, cohort, count):
    assert samples(forwards, cohort, 1) == count


@given(st.integers(1, 10**9), st.integers(1, 10**4), st.integers(1, 50))
def test_local_steps_share_the_forwards(forwards, cohort, steps):
    assert samples(steps * forwards, cohort, steps) == samples(forwards, cohort, 1)
    assert samples(forwards, cohort, steps) <= samples(2 * forwards, cohort, steps)
