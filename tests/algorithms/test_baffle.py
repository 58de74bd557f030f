from __future__ import annotations

import msgspec
import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from baffle import (
    Baffle,
    CentralDifference,
    CentredDifference,
    ForwardDifference,
    Gaussian,
    Rademacher,
    ReportError,
    SettingsError,
    server,
)
from baffle.directions import Orthogonal
from baffle.keys import Key
from baffle.parameters import Layout, Tensor
from baffle.server import Federation, State

KEY = Key.root(3).secret


def layout(*sizes: int) -> Layout:
    return Layout(tuple(Tensor(f"layer{number}.weight", (size,)) for number, size in enumerate(sizes)))


def federation(*sizes: int, costs: tuple[float, ...] = (), clients: int = 1, **changes: object) -> Federation:
    return Federation(key=KEY, layout=layout(*sizes), clients=clients, costs=costs, **changes)


def plan(method: Baffle, where: Federation, squares: tuple[float, ...] = ()) -> server.Plan:
    zeros = np.zeros(where.layout.size, np.float32)
    return server.plan(method, where, State(zeros, zeros, {}, squares=squares))


def budgets(method: Baffle, where: Federation, squares: tuple[float, ...] = ()) -> list[int]:
    return [block.budget for block in plan(method, where, squares).blocks]


# Settings.


def test_the_defaults_spend_as_much_as_a_hundred_passes_over_32_samples() -> None:
    method = Baffle()
    assert (method.forwards, method.batch, method.allocation, method.orthogonal) == (3200, 0, "adaptive", True)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"forwards": 0}, "forwards = 0: must be 1 or more"),
        ({"batch": -1}, "batch = -1: must be 0 or more"),
        ({"allocation": "best"}, "allocation = 'best': must be one of adaptive, equal, variance"),
        ({"groups": 0}, "groups = 0: must be 1 or more"),
        ({"local_steps": 0}, "local_steps = 0: must be 1 or more"),
        ({"bits": 33}, "bits = 33: must be between 2 and 32"),
    ],
)
def test_a_setting_out_of_its_range_is_named_with_its_value_and_rule(changes, words) -> None:
    with pytest.raises(SettingsError) as caught:
        Baffle(**changes)
    assert str(caught.value) == words


@pytest.mark.parametrize("blocks", ["*", "layer", "first.*", "", ["*"], ("*", 3)], ids=repr)
def test_blocks_are_named_by_a_word_or_a_tuple_of_patterns(blocks) -> None:
    """A text would be taken for a pattern a letter, and a list for another method than the ledger's tuple."""
    with pytest.raises(SettingsError) as caught:
        Baffle(blocks=blocks)
    assert (caught.value.field, caught.value.value) == ("blocks", blocks)
    assert caught.value.rule == "must be whole, layers, or a tuple of patterns of tensor names"


@pytest.mark.parametrize("cost", [0.0, -0.5, 1.5, float("nan")])
def test_a_cost_is_a_share_of_a_pass(cost) -> None:
    with pytest.raises(SettingsError, match=r"costs = .*: must be above 0 and at most 1"):
        federation(5, 5, costs=(1.0, cost))


# How many samples.


@pytest.mark.parametrize(
    ("forwards", "clients", "batch"), [(3200, 10, 4), (320, 10, 2), (32_000, 10, 13), (3200, 1, 13), (3200, 100, 2)]
)
def test_the_method_chooses_samples_by_forwards_and_cohort(forwards, clients, batch) -> None:
    assert Baffle(forwards=forwards).batch_of(federation(90_000, 900, clients=clients)) == batch
    half = federation(90_000, 900, clients=2 * clients, participation=0.5)
    assert Baffle(forwards=forwards).batch_of(half) == batch
    assert Baffle(forwards=3 * forwards, local_steps=3).batch_of(half) == batch
    assert plan(Baffle(forwards=forwards), half).batch == batch


def test_samples_that_are_asked_for_are_taken() -> None:
    assert Baffle(batch=32).batch_of(federation(900, 90)) == 32
    assert plan(Baffle(batch=32), federation(900, 90)).batch == 32


@pytest.mark.parametrize(
    ("estimator", "forwards", "batch"),
    [
        (CentredDifference(), 799, 3),  # 100 blocks of 2 probes are 200 passes
        (CentredDifference(), 800, 4),
        (CentredDifference(), 1000, 5),
        (CentredDifference(), 200, 1),
        (CentralDifference(), 1000, 5),
        (ForwardDifference(), 1009, 7),  # 100 blocks of 1 probe and the base; the rule alone would say 7
        (ForwardDifference(), 201, 1),
        (ForwardDifference(), 202, 2),
    ],
)
def test_samples_are_so_few_that_every_block_has_its_least_directions(estimator, forwards, batch) -> None:
    made = plan(Baffle(forwards=forwards, estimator=estimator), federation(*[50] * 100))
    assert made.batch == batch
    assert min(block.budget for block in made.blocks) >= estimator.least
    assert made.forwards <= forwards


@pytest.mark.parametrize(
    ("method", "words"),
    [
        (Baffle(forwards=199), "forwards = 199: on 1 samples a probe must give each of 100 block(s) 2 directions"),
        (
            Baffle(forwards=100, estimator=ForwardDifference()),
            "forwards = 100: on 1 samples a probe must give each of 100 block(s) 1 directions",
        ),
        (
            Baffle(forwards=6399, batch=32),
            "forwards = 6399: on 32 samples a probe must give each of 100 block(s) 2 directions",
        ),
        (
            Baffle(forwards=399, local_steps=2),
            "forwards = 399: on 1 samples a probe must give each of 100 block(s) 2 directions",
        ),
    ],
)
def test_too_few_forwards_are_refused_in_words_and_one_more_is_enough(method, words) -> None:
    where = federation(*[50] * 100)
    with pytest.raises(SettingsError) as caught:
        plan(method, where)
    assert str(caught.value) == words
    plan(msgspec.structs.replace(method, forwards=method.forwards + 1), where)


@st.composite
def tasks(draw):
    sizes = draw(st.lists(st.integers(1, 3000), min_size=1, max_size=8))
    kind = draw(st.sampled_from([ForwardDifference, CentralDifference, CentredDifference]))
    method = Baffle(
        forwards=draw(st.integers(1, 100_000)),
        batch=draw(st.integers(0, 40)),
        estimator=kind(),
        allocation=draw(st.sampled_from(["adaptive", "equal", "variance"])),
        orthogonal=draw(st.booleans()),
        local_steps=draw(st.integers(1, 4)),
        blocks=draw(st.sampled_from(["layers", "whole"])),
    )
    count = len(sizes) if method.blocks == "layers" else 1
    costs = draw(st.one_of(st.just(()), st.tuples(*[st.floats(0.001, 1)] * count)))
    squares = draw(st.one_of(st.just(()), st.tuples(*[st.floats(1e-12, 1e6)] * count)))
    return method, federation(*sizes, costs=costs, clients=draw(st.integers(1, 30))), squares


@given(tasks())
def test_a_plan_never_asks_for_more_forwards_than_there_are(task) -> None:
    method, where, squares = task
    try:
        made = plan(method, where, squares)
    except SettingsError:
        assume(False)
    assert made.forwards <= method.forwards + 1e-5 * made.steps * made.batch
    for block in made.blocks:
        size = block.stop - block.start
        assert block.budget >= method.estimator.least
        if isinstance(block.law, Orthogonal):
            assert method.orthogonal
            assert size < block.law.most <= 2 * size
            assert size <= 4 * block.budget <= 4 * block.law.most
        else:
            assert block.law == method.law
            assert not (method.orthogonal and 4 * block.budget >= size and block.budget <= size)


@given(tasks())
def test_where_the_method_chooses_samples_it_is_refused_only_if_one_sample_is_too_many(task) -> None:
    method, where, squares = task
    chosen, single = (msgspec.structs.replace(method, batch=batch) for batch in (0, 1))
    try:
        plan(single, where, squares)
    except SettingsError:
        with pytest.raises(SettingsError, match="on 1 samples a probe must give"):
            plan(chosen, where, squares)
        return
    assert plan(chosen, where, squares).batch >= 1


# How many directions.


@pytest.mark.parametrize(("rule", "shares"), [("equal", [150, 150]), ("adaptive", [100, 200]), ("variance", [60, 240])])
def test_budgets_adapt_to_the_slopes_seen(rule, shares) -> None:
    """Two blocks of 10,000 weights, the second with four times the gradient: 1 : 1, 1 : 2 and 1 : 4."""
    method = Baffle(forwards=600, batch=2, allocation=rule)
    where = federation(10_000, 10_000)
    assert budgets(method, where) == [150, 150]
    assert budgets(method, where, (0.25, 4.0)) == shares
    assert budgets(method, where, (4.0, 0.25)) == shares[::-1]
    assert budgets(method, where, (7e-9, 7e-9)) == [150, 150]


@pytest.mark.parametrize(("rule", "ratio"), [("equal", 16), ("adaptive", 8), ("variance", 4)])
def test_budgets_follow_what_a_probe_costs(rule, ratio) -> None:
    """Probes of the second block run a sixteenth; what lies before it is run once: 15/16."""
    method = Baffle(forwards=401, batch=1, allocation=rule)
    where = federation(10_000, 10_000, costs=(1.0, 1 / 16))
    first, second = budgets(method, where, (0.5, 0.5))
    level = (401 - 15 / 16) / (1 + ratio / 16)
    assert abs(first - level) <= 1
    assert abs(second - ratio * level) <= ratio
    made = plan(method, where, (0.5, 0.5))
    assert [block.cost for block in made.blocks] == [1.0, 1 / 16]
    assert 400 < made.forwards <= 401


@pytest.mark.parametrize("rule", ["adaptive", "variance"])
@pytest.mark.parametrize("squares", [(4.0, 1e-3, 1.0), (4.0, 0.0, 1.0)], ids=["slopes", "a block without"])
def test_the_unit_of_the_loss_does_not_move_budgets(rule, squares) -> None:
    """A loss in other units has slopes in other units; a block that the loss does not depend on has none in any."""
    method, where = Baffle(forwards=30_000, batch=10, allocation=rule), federation(90_000, 50_000, 20_000)
    found = [budgets(method, where, tuple(unit * square for square in squares)) for unit in (2.0**-40, 1.0, 2.0**30)]
    assert found[0] == found[1] == found[2]
    assert found[1][1] < found[1][0]


def test_both_sides_of_a_central_difference_are_paid_for() -> None:
    where = federation(10_000, 10_000)
    assert budgets(Baffle(forwards=600, batch=2, estimator=CentralDifference()), where) == [75, 75]
    assert budgets(Baffle(forwards=600, batch=2, estimator=ForwardDifference()), where) == [150, 149]


def test_a_small_block_is_measured_to_the_full_where_that_is_cheap() -> None:
    """A bias of 10 has 16 orthogonal directions: less than 2 % of 1,000 passes."""
    where = federation(100_000, 10)
    made = plan(Baffle(forwards=1000, batch=1), where, (1.0, 1e-9))
    assert [(block.budget, block.law) for block in made.blocks] == [(984, Rademacher()), (16, Orthogonal(4))]
    plain = plan(Baffle(forwards=1000, batch=1, orthogonal=False), where, (1.0, 1e-9))
    assert [(block.budget, block.law) for block in plain.blocks] == [(998, Rademacher()), (2, Rademacher())]


# Which directions.


@pytest.mark.parametrize(
    ("size", "forwards", "law"),
    [
        (400, 99, Gaussian()),
        (400, 100, Orthogonal(9)),  # a quarter
        (400, 512, Orthogonal(9)),
        (511, 512, Orthogonal(9)),
        (512, 512, Orthogonal(10)),  # one column of the matrix is left out
        (4, 2, Orthogonal(3)),
        (2, 2, Orthogonal(2)),
        (1, 2, Orthogonal(1)),
    ],
)
def test_blocks_with_a_quarter_of_their_size_or_more_get_orthogonal_directions(size, forwards, law) -> None:
    method = Baffle(forwards=forwards, batch=1, law=Gaussian())
    (block,) = plan(method, federation(size)).blocks
    assert (block.law, block.budget) == (law, forwards)
    (plain,) = plan(msgspec.structs.replace(method, orthogonal=False), federation(size)).blocks
    assert (plain.law, plain.budget) == (Gaussian(), forwards)


def test_there_are_no_more_orthogonal_directions_than_weights_rounded_up() -> None:
    made = plan(Baffle(forwards=10_000, batch=1), federation(400, 900))
    assert [(block.budget, block.law) for block in made.blocks] == [(512, Orthogonal(9)), (1024, Orthogonal(10))]
    assert made.forwards == 1536  # the rest is left over


def test_a_block_too_long_to_be_orthogonal_is_not() -> None:
    method = Baffle(forwards=1 << 23, batch=1)
    nothing = State(np.zeros(1, np.float32), np.zeros(1, np.float32), {})
    for size, law in (((1 << 24) - 1, Orthogonal(24)), (1 << 24, Rademacher())):
        (block,) = method.blocks_of(federation(size), nothing)
        assert (block.law, block.budget) == (law, 1 << 23)


def test_a_plan_that_claims_too_many_orthogonal_directions_is_not_made() -> None:
    """Not by the method, but by whoever writes a plan."""
    made = plan(Baffle(forwards=1000, batch=1), federation(400))
    (block,) = made.blocks
    assert (block.law, block.budget) == (Orthogonal(9), 512)
    with pytest.raises(ReportError, match="513 directions of 400 weights where at most 512 are orthogonal"):
        msgspec.structs.replace(made, blocks=(msgspec.structs.replace(block, budget=513),))


# Which blocks.


def test_patterns_of_names_make_the_blocks_of_a_plan() -> None:
    where = federation(100, 200, 300, 400)
    made = plan(Baffle(forwards=900, batch=1, blocks=("layer[12].*",)), where)
    assert [(block.start, block.stop) for block in made.blocks] == [(0, 100), (100, 600), (600, 1000)]
    with pytest.raises(SettingsError, match=r"blocks = 'head\.\*': must match a tensor; there are layer0\.weight, lay"):
        plan(Baffle(blocks=("layer0.*", "head.*")), where)
