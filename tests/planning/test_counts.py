"""What is counted beforehand against what a run then counted."""

from __future__ import annotations

import itertools
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from baffle import Baffle, CentralDifference, DivergenceError, ForwardDifference
from baffle.budget import Target
from baffle.directions import Gaussian
from baffle.estimators import CentredDifference
from baffle.messages import encode
from baffle.parameters import Constant, Layout, Tensor
from baffle.planning.amount import Amount
from baffle.planning.budgets import block_bytes, budgets, state_with
from baffle.planning.counts import attempts, count
from baffle.server import Federation
from federation import METHOD, Layered, rounds_in, simulation

FIXED = {
    "equal": METHOD,
    "whole": msgspec.structs.replace(METHOD, blocks="whole", allocation="adaptive"),
    "paper": msgspec.structs.replace(Baffle.paper(7, 5), bits=12),
    "groups": msgspec.structs.replace(METHOD, groups=2, estimator=CentralDifference(1e-2)),
    "local steps": msgspec.structs.replace(METHOD, local_steps=2, forwards=90, estimator=ForwardDifference(1e-3)),
    "all of a cheap block": msgspec.structs.replace(METHOD, orthogonal=True, forwards=3000),
}
ADAPTIVE = {
    rule: msgspec.structs.replace(METHOD, allocation=rule, forwards=100, orthogonal=orthogonal)
    for rule, orthogonal in (("adaptive", True), ("variance", False))
}


def told(made, rounds: int):
    header = made.header()
    blocks = made.algorithm.blocks_of(header.federation, state_with(made.algorithm))
    return count(made, header, rounds, lambda _: blocks)


def ran(made, rounds: int, folder: Path) -> dict[str, float]:
    result = made.run(rounds, out=folder)
    return {
        "forwards": result.forward_equivalents,
        "upload": result.upload_bytes,
        "download": result.download_bytes,
        "received": sum(row["upload_bytes"] for row in result.clients),
        "sent": sum(row["download_bytes"] for row in result.clients),
        "ledger": (folder / "ledger").stat().st_size,
    }


@pytest.mark.parametrize(
    ("name", "weight", "rounds"),
    [*((name, "samples", 12) for name in FIXED), ("equal", "equal", 140)],
    ids=[*FIXED, "equal weights"],
)
def test_a_run_with_fixed_budgets_costs_what_was_told(name, weight, rounds, tmp_path) -> None:
    made = simulation(FIXED[name], sizes=(9, 12, 30, 5), runtime=Layered(), weight=weight)
    before = told(made, rounds)
    after = ran(made, rounds, tmp_path / "run")
    assert before.forwards.exact
    assert before.upload.exact
    for name in ("forwards", "upload", "received"):
        assert getattr(before, name).expected == pytest.approx(after[name], rel=1e-12)
    for name in ("download", "sent", "ledger"):
        amount = getattr(before, name)
        assert amount.least <= after[name] <= amount.most


@pytest.mark.parametrize("name", ["equal", "whole", "local steps"])
def test_bytes_down_and_of_the_ledger_are_exact_where_sums_are_wide(name, tmp_path) -> None:
    made = simulation(FIXED[name], sizes=(90, 120, 300), runtime=Layered())
    before = told(made, 20)
    after = ran(made, 20, tmp_path / "run")
    for name in ("download", "sent", "ledger"):
        assert getattr(before, name).expected == after[name]


@pytest.mark.parametrize(("clients", "exact"), [(6, True), (7, False)])
def test_groups_that_are_summed_by_themselves_send_what_was_told(clients, exact, tmp_path) -> None:
    """To the byte where all groups have one size, and no more than that where some are smaller."""
    made = simulation(FIXED["equal"], (12,) * clients, runtime=Layered(), secure="masks", sum_size=3)
    before, after = told(made, 3), ran(made, 3, tmp_path / "run")
    assert (before.upload.expected == after["upload"]) == exact
    assert 0.9 * before.upload.expected <= after["upload"] <= before.upload.expected
    assert before.upload.expected < told(replace(made, sum_size=0), 3).upload.expected


COMING_AND_GOING = {"sizes": (90, 120, 300, 80, 130), "participation": 0.8, "quorum": 0.6}


def test_who_answers_and_what_is_tried_again_is_drawn_as_the_run_draws_it(tmp_path) -> None:
    made = simulation(runtime=Layered(), unavailable=0.3, **COMING_AND_GOING)
    before = told(made, 40)
    after = ran(made, 40, tmp_path / "run")
    assert before.attempts > 40
    assert before.stops is None
    assert {name: getattr(before, name).expected for name in after} == pytest.approx(after, rel=1e-12)


TARGETS = {
    "gaussian": ({}, {"mechanism": "gaussian"}),
    "adapted": ({}, {"mechanism": "gaussian", "quantile": 0.5}),
    "in groups": ({}, {"mechanism": "gaussian", "quantile": 0.5}),
    "shares": ({"secure": "ideal"}, {"mechanism": "shares"}),
    "masks": ({"secure": "masks"}, {"mechanism": "shares", "quantile": 0.5}),
    "rqm": ({"secure": "ideal"}, {"mechanism": "rqm"}),
}


def hiding(name: str, **settings: Any):
    own, target = TARGETS[name]
    method = msgspec.structs.replace(METHOD, bits=4) if name == "rqm" else METHOD
    method = msgspec.structs.replace(method, groups=2 if name == "in groups" else 1)
    target = Target(epsilon=50.0, rounds=12, **target)
    return simulation(
        method, weight="equal", runtime=Layered(), sizes=(9, 12, 30, 3), **own, **settings, privacy=target
    )


@pytest.mark.parametrize("name", TARGETS)
def test_private_runs_cost_what_was_told(name, tmp_path) -> None:
    made = hiding(name)
    before, after = told(made, 12), ran(made, 12, tmp_path / "run")
    assert before.stops is None
    for name, value in after.items():
        amount = getattr(before, name)
        assert amount.least - 1e-9 <= value <= amount.most + 1e-9
    assert before.forwards.expected == pytest.approx(after["forwards"], rel=1e-12)
    assert before.upload.expected == after["upload"]


def test_a_run_that_ends_for_want_of_budget_is_foreseen(tmp_path) -> None:
    made = hiding("gaussian", unavailable=0.5, quorum=0.75)
    before, after = told(made, 12), ran(made, 12, tmp_path / "run")
    assert before.spent
    assert before.stops is not None
    assert 0 < before.stops < 12
    kept = rounds_in(tmp_path / "run")
    assert before.stops == len([record for record in kept if record.aggregate is not None])
    assert before.forwards.expected == pytest.approx(after["forwards"], rel=1e-12)
    assert before.upload.expected == after["upload"]


def test_a_round_that_never_meets_its_quorum_is_foreseen() -> None:
    made = simulation(runtime=Layered(), unavailable=0.6, **COMING_AND_GOING)
    before = told(made, 40)
    assert before.stops == 4
    assert not before.spent
    with pytest.raises(DivergenceError, match="round 4 was tried 20 times"):
        made.run(40)


@pytest.mark.parametrize("name", ADAPTIVE)
def test_a_run_with_budgets_that_follow_the_slopes_stays_within_the_bounds(name, tmp_path) -> None:
    made = simulation(ADAPTIVE[name], sizes=(90, 120, 300), runtime=Layered())
    before = told(made, 60)
    after = ran(made, 60, tmp_path / "run")
    assert not before.upload.exact
    for name, value in after.items():
        amount = getattr(before, name)
        assert amount.least <= value <= amount.most


@st.composite
def federations(draw) -> tuple[Baffle, Federation]:
    sizes = draw(st.lists(st.integers(1, 3000), min_size=1, max_size=5))
    tensors = tuple(Tensor(f"{number}.weight", (size,), Constant(0.0)) for number, size in enumerate(sizes))
    costs = draw(st.lists(st.floats(1e-4, 1.0), min_size=len(sizes), max_size=len(sizes)))
    estimator = draw(st.sampled_from([CentredDifference(), CentralDifference(), ForwardDifference()]))
    algorithm = Baffle(
        forwards=draw(st.integers(300, 20_000)),
        batch=draw(st.integers(1, 12)),
        allocation=draw(st.sampled_from(["adaptive", "variance", "equal"])),
        orthogonal=draw(st.booleans()),
        law=Gaussian(),
        estimator=estimator,
    )
    return algorithm, Federation(key=bytes(32), layout=Layout(tensors), clients=3, costs=tuple(costs))


@given(made=federations(), data=st.data())
def test_no_slopes_lead_beyond_the_bounds(made, data) -> None:
    algorithm, federation = made
    bounds = budgets(algorithm, federation)
    low, high = block_bytes(algorithm, federation, bounds)
    count = len(bounds.blocks)
    size = st.one_of(st.just(0.0), st.floats(1e-30, 1e30))
    squares = data.draw(st.lists(size, min_size=count, max_size=count))
    blocks = algorithm.blocks_of(federation, state_with(algorithm, squares))
    for block, (least, most) in zip(blocks, bounds.blocks, strict=True):
        assert least <= block.budget <= most
    directions = sum(block.budget for block in blocks)
    assert bounds.directions[0] <= directions <= bounds.directions[1]
    assert low <= sum(len(encode(block)) for block in blocks) <= high
    probes = sum(block.budget * block.cost for block in blocks) * len(algorithm.estimator.signs)
    once = algorithm.estimator.base + 1 - min(federation.costs)
    forwards = algorithm.batch_of(federation) * (probes + once)
    assert bounds.forwards[0] <= forwards + 1e-6
    assert forwards <= bounds.forwards[1] + 1e-6


def test_an_amount_knows_whether_it_is_exact() -> None:
    assert Amount.of(3).exact
    assert not Amount(1, 2, 3).exact
    assert Amount(1, 2, 3).times(2) == Amount(2, 4, 6)


def test_attempts_follow_one_another() -> None:
    made = simulation(unavailable=0.4, quorum=0.7, sizes=(12,) * 4)
    seen = [
        (plan.round, plan.attempt, len(answered) >= plan.quorum) for plan, answered in attempts(made, made.header(), 9)
    ]
    for (number, attempt, closed), (later, again, _) in itertools.pairwise(seen):
        assert (later, again) == ((number + 1, 0) if closed else (number, attempt + 1))
    assert seen[-1][0] == 8
    assert np.mean([attempt for _, attempt, _ in seen]) > 0
