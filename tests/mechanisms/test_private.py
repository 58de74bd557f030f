"""What a plan asks clients to do to their slopes: by hand, and for slopes of any kind."""

from __future__ import annotations

import math
import secrets
from random import Random

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from baffle.errors import ReportError, SettingsError
from baffle.mechanisms import MISSING, GaussianPrivacy, Quantiser, RandomisedPrivacy
from baffle.mechanisms.discrete_gaussian import DiscreteGaussian
from baffle.mechanisms.private import MOST_SHARES, MOST_SLOPES, SMOOTH, Noised, Randomised
from baffle.messages import Plan, decode, encode

BITS = 8
L = Quantiser(BITS).levels


def nothing(_: int) -> bytes:
    raise AssertionError("no randomness is needed here")


@pytest.mark.parametrize(
    ("size", "slopes", "spread", "largest"),
    [(2.0, 16, 0.0, 8.0), (2.0, 16, 3.0, 6.0), (2.0, 16, 9.0, 8.0), (0.5, 1, 0.0, 0.5)],
)
def test_the_largest_slope_by_hand(size, slopes, spread, largest) -> None:
    """C = size · √K is what one slope alone may have; a spread below √K limits it further."""
    assert GaussianPrivacy(multiplier=1.0).bound(size, slopes, spread) == largest
    randomised = RandomisedPrivacy(keep=0.1, extension=0.5, slopes=100)
    assert randomised.bound(size, slopes, spread) == 1.5 * largest


@pytest.mark.parametrize(
    ("slopes", "steps", "spread", "quantile", "moved"),
    [
        (16, 1, 0.0, 0.0, 127 + 4),  # C/c = 1
        (16, 1, 2.0, 0.0, 2 * 127 + 4),  # C = 4 sizes, c = 2
        (16, 4, 0.0, 0.0, 2 * 127 + 8),  # four steps: √4 of the norm, √64 of rounding
        (16, 1, 0.0, 0.5, math.hypot(131, 127)),  # and ±127 that tells whether the norm was within
        (1, 1, 0.0, 0.0, 127 + 1),
    ],
)
def test_noise_by_hand(slopes, steps, spread, quantile, moved) -> None:
    privacy = GaussianPrivacy(multiplier=3.0, size=1.0, quantile=quantile)
    made = privacy.protection(0.25, slopes, steps, spread, L)
    assert made.variance == pytest.approx((3 * moved) ** 2, rel=1e-12)
    assert (made.size, made.shares, made.counts) == (0.25, 0, quantile > 0)


@pytest.mark.parametrize(("shares", "least"), [(0, 4.0), (1, 4.0), (5, 20.0)])
def test_little_noise_is_made_enough_to_add_up_like_one_draw(shares, least) -> None:
    made = GaussianPrivacy(multiplier=1e-3, shares=shares).protection(1.0, 16, 1, 0.0, L)
    assert made.variance == least
    assert least == SMOOTH * max(1, shares)


anything = st.floats(allow_nan=True, allow_infinity=True)


@given(
    slopes=hnp.arrays(np.float64, hnp.array_shapes(min_dims=2, max_dims=2, max_side=6), elements=anything),
    bits=st.integers(2, 16),
    size=st.floats(1e-9, 1e9),
    spread=st.sampled_from([0.0, 0.5, 2.0, 6.0]),
    quantile=st.sampled_from([0.0, 0.5]),
    seed=st.integers(0, 99),
)
def test_no_slopes_move_a_sum_farther_than_the_noise_is_made_for(slopes, bits, size, spread, quantile, seed) -> None:
    """H steps of K slopes of any kind, NaN and ∞ among them: ‖integers‖ ≤ σ/z, the integer that counts included."""
    privacy, quantiser = GaussianPrivacy(multiplier=1e3, quantile=quantile), Quantiser(bits)
    steps, count = slopes.shape
    made = privacy.protection(size, count, steps, spread, quantiser.levels)
    bounds = np.full(count, privacy.bound(size, count, spread))
    drawn = np.random.default_rng(seed).random(slopes.shape)
    integers = np.concatenate(
        [
            made.step(own[None], bounds, quantiser, uniforms[None], nothing)
            for own, uniforms in zip(slopes, drawn, strict=True)
        ]
    )
    assert (integers != MISSING).all()
    assert np.abs(integers).max() <= quantiser.levels
    words = [*integers.ravel().tolist(), *([quantiser.levels] if quantile else [])]
    assert math.hypot(*words) <= math.sqrt(made.variance) / 1e3 * (1 + 1e-9)


def test_norms_are_within_or_not_step_by_step() -> None:
    made = Noised(1.0, 4.0, 0, True)
    slopes = np.array([[1.0, -1.0], [1.0, 1.1], [np.nan, np.sqrt(2) - 1e-9], [np.inf, 9.0], [0.0, 0.0]])
    assert made.inside(slopes).tolist() == [True, False, True, False, True]
    assert Randomised(0.1, 1.0).inside(slopes).all()


def test_shares_add_up_to_the_noise_that_was_asked() -> None:
    """Four shares of σ² = 64 in all; 5 deviations of what 3,000 sums of them tell, and a share's own reach."""
    made, randomness, many = Noised(1.0, 64.0, 4, False), Random(3).randbytes, 3000
    drawn = np.array([made.share(many, randomness) for _ in range(4)])
    assert drawn.sum(0).var() == pytest.approx(64.0, rel=5 * math.sqrt(2 / many))
    assert np.abs(drawn.sum(0).mean()) < 5 * 8 / math.sqrt(many)
    assert made.reach == 48
    assert np.abs(drawn).max() <= 48
    assert made.most(7) == 7 * 48
    assert not made.noise(5, nothing).any()


def test_a_share_never_leaves_its_reach() -> None:
    """Sums in a ring are made for it; a draw beyond is cut off."""
    made = Noised(1.0, 4.0, 1, False)
    draws = DiscreteGaussian(4.0)(2000, Random(1).randbytes)
    assert np.array_equal(made.share(2000, Random(1).randbytes), draws)
    assert np.abs(draws).max() < made.reach == 24


def test_the_servers_noise_is_its_own() -> None:
    made, many = Noised(1.0, 100.0, 0, True), 3000
    drawn = made.noise(many, Random(5).randbytes)
    assert drawn.var() == pytest.approx(100.0, rel=5 * math.sqrt(2 / many))
    assert np.abs(drawn).max() <= made.most(3) == 140
    assert not made.share(5, nothing).any()
    assert made.reach == 0
    assert not np.array_equal(made.noise(many, secrets.token_bytes), made.noise(many, secrets.token_bytes))


@pytest.mark.parametrize(
    ("inside", "factor"), [(8.0, -0.2 * (0.8 - 0.5)), (-3.0, 0.1), (14.0, -0.1), (5.0, 0.0)], ids=str
)
def test_the_bound_moves_by_hand(inside, factor) -> None:
    """Noise may tell of fewer than none or more than all; they are taken for none and all."""
    privacy = GaussianPrivacy(multiplier=1.0, quantile=0.5, rate=0.2)
    assert privacy.adapted(3.0, inside, 10) == pytest.approx(3.0 * math.exp(factor), rel=1e-15)
    assert GaussianPrivacy(multiplier=1.0).adapted(3.0, inside, 10) == 3.0
    assert RandomisedPrivacy(keep=0.1, extension=1.0, slopes=9).adapted(3.0, inside, 10) == 3.0


@pytest.mark.parametrize("quantile", [0.2, 0.5, 0.9])
@pytest.mark.parametrize("start", [1e-3, 1e3])
def test_the_bound_comes_to_the_quantile_of_made_up_norms(quantile, start) -> None:
    rng = np.random.default_rng(0)
    privacy, size = GaussianPrivacy(multiplier=1.0, quantile=quantile), start
    within = []
    for number in range(700):
        sizes = np.exp(rng.normal(size=200))
        inside = int((sizes <= size).sum())
        size = privacy.adapted(size, inside + rng.normal(0, 5), 200)
        within += [inside / 200] if number >= 400 else []
    assert np.mean(within) == pytest.approx(quantile, abs=0.02)


@pytest.mark.parametrize("multiplier", [0.3, 1.0, 50.0])
def test_a_round_costs_what_the_accountant_says_of_its_noise(multiplier) -> None:
    pytest.importorskip("dp_accounting")
    from baffle.accounting import Gaussian

    orders = [1.5, 2.0, 8.0, 64.0]
    found = GaussianPrivacy(multiplier=multiplier).account(L).divergences(orders)
    assert found == pytest.approx(Gaussian(multiplier).divergences(orders), rel=1e-12)
    assert found == pytest.approx([2 * order / multiplier**2 for order in orders], rel=1e-12)
    shared = GaussianPrivacy(multiplier=multiplier, shares=3).account(L).divergences(orders)
    more = DiscreteGaussian(SMOOTH).inflation(MOST_SHARES) * MOST_SLOPES
    assert shared == pytest.approx(found + more, rel=1e-12)
    assert 0 < more < 1e-7


def test_randomised_slopes_are_right_in_the_mean() -> None:
    """X = c + Δ stands at the largest level."""
    made, quantiser, randomness = Randomised(0.3, 1.0), Quantiser(4), Random(2).randbytes
    slopes = np.tile([-1.0, -0.3, 0.0, 0.9, 5.0, np.nan], (20_000, 1))
    bounds = np.full(6, 2.0)  # so c = 1
    found = made.step(slopes, bounds, quantiser, slopes, randomness)
    assert found.min() >= -7
    assert found.max() <= 7
    mean, deviation = 2 * found.mean(0) / 7, 2 * found.std(0) / 7 / math.sqrt(20_000)
    assert (np.abs(mean - [-1.0, -0.3, 0.0, 0.9, 1.0, 0.0]) < 5 * deviation).all()
    assert not made.share(4, nothing).any()
    assert not made.noise(4, nothing).any()
    assert (made.most(9), made.reach, made.counts) == (0, 0, False)


def test_randomised_slopes_are_no_more_than_were_accounted_for() -> None:
    privacy = RandomisedPrivacy(keep=0.1, extension=2.0, slopes=12)
    assert privacy.protection(1.0, 6, 2, 0.0, 7) == Randomised(0.1, 2.0)
    with pytest.raises(SettingsError, match="slopes = 14: must be between 1 and 12"):
        privacy.protection(1.0, 7, 2, 0.0, 7)


def test_k_slopes_cost_k_times_one() -> None:
    pytest.importorskip("dp_accounting")
    orders = [1.5, 4.0]
    one, many = (RandomisedPrivacy(keep=0.1, extension=2.0, slopes=k, summed=3).account(3) for k in (1, 12))
    assert many.divergences(orders) == pytest.approx(12 * one.divergences(orders), rel=1e-12)
    alone = RandomisedPrivacy(keep=0.1, extension=2.0, slopes=1).account(3)
    assert (alone.divergences(orders) > one.divergences(orders)).all()


@pytest.mark.parametrize(
    ("kind", "changes"),
    [
        (GaussianPrivacy, {"multiplier": 0.0}),
        (GaussianPrivacy, {"multiplier": math.nan}),
        (GaussianPrivacy, {"size": -1.0}),
        (GaussianPrivacy, {"rate": 0.0}),
        (GaussianPrivacy, {"quantile": 1.0}),
        (GaussianPrivacy, {"shares": -1}),
        (RandomisedPrivacy, {"keep": 0.0}),
        (RandomisedPrivacy, {"extension": math.inf}),
        (RandomisedPrivacy, {"slopes": 0}),
        (RandomisedPrivacy, {"size": 0.0}),
        (RandomisedPrivacy, {"summed": -1}),
    ],
    ids=str,
)
def test_settings_out_of_range_are_refused(kind, changes) -> None:
    good = {"multiplier": 1.0} if kind is GaussianPrivacy else {"keep": 0.1, "extension": 1.0, "slopes": 3}
    with pytest.raises(SettingsError, match=next(iter(changes))):
        kind(**(good | changes))


def test_a_plan_carries_its_protection(make_plan) -> None:
    for privacy in (Noised(0.5, 9.0, 2, True), Randomised(0.1, 3.0), None):
        plan = make_plan(privacy=privacy)
        assert decode(encode(plan), Plan) == plan
    assert make_plan(privacy=Noised(0.5, 9.0, 0, True)).words == 8
    assert make_plan(privacy=Noised(0.5, 9.0, 0, False)).words == 7


@pytest.mark.parametrize(
    "privacy",
    [
        ["noised", 0.0, 9.0, 0, False],
        ["noised", 1.0, 0.1, 0, False],
        ["noised", 1.0, math.nan, 0, False],
        ["noised", 1.0, math.inf, 0, False],
        ["noised", 1.0, 9.0, -1, False],
        ["noised", 1.0, 9.0, 1001, False],
        ["noised", 1.0, 9.0, 1, False, 0],
        ["randomised", 1.0, 1.0],
        ["randomised", 0.1, 0.0],
        ["randomised", 0.1, 1.0, True],
        ["other", 1.0],
    ],
    ids=str,
)
def test_a_protection_that_protects_nobody_is_no_plan(privacy, make_plan) -> None:
    fields = msgspec.msgpack.decode(encode(make_plan()))
    with pytest.raises(ReportError, match="not a plan"):
        decode(msgspec.msgpack.encode([*fields[:-1], privacy]), Plan)


def test_randomised_integers_of_many_clients_spread_as_many_times_as_one() -> None:
    protection = Randomised(0.3, 2.0)
    one = protection.spread(1, 3)
    assert one > 0.1
    assert protection.spread(7, 3) == pytest.approx(7 * one, rel=1e-12)
