import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from baffle.errors import SettingsError
from baffle.mechanisms.clip_norm import AdaptiveBound, clip_norm, norm

ANY = arrays(np.float64, (3, 4), elements=st.floats(allow_nan=True, allow_infinity=True))
BOUNDS = st.floats(1e-6, 1e6)


def test_by_hand():
    slopes = np.array([[3.0, -4.0], [0.3, 0.4], [0.0, 0.0], [np.nan, 10.0]])
    assert clip_norm(slopes, 1.0).tolist() == [[0.6000000000000001, -0.8], [0.3, 0.4], [0.0, 0.0], [0.0, 1.0]]
    assert norm(slopes).tolist() == [5.0, 0.5, 0.0, 10.0]


def test_sizes_whose_squares_are_no_floats():
    assert clip_norm(np.array([3e300, 4e300]), 5.0) == pytest.approx([3.0, 4.0], rel=1e-15)
    assert clip_norm(np.array([3e-300, 4e-300]), 5.0).tolist() == [3e-300, 4e-300]
    assert clip_norm(np.full(4, 1.7e308), 2.0) == pytest.approx(np.ones(4), rel=1e-15)
    assert norm(np.array([3e-300, 4e-300])) == pytest.approx(5e-300, rel=1e-15)
    assert norm(np.full(4, 1.7e308)) == np.inf


@given(ANY, BOUNDS)
def test_no_norm_exceeds_the_bound_and_no_direction_turns(slopes, bound):
    clipped = clip_norm(slopes, bound)
    known = np.where(np.isfinite(slopes), slopes, 0.0)
    assert np.isfinite(clipped).all()
    assert (np.linalg.norm(clipped, axis=-1) <= bound * (1 + 1e-15 * 4)).all()
    for before, after in zip(known, clipped, strict=True):
        if norm(before) <= bound * (1 - 1e-12):
            assert np.array_equal(before, after)
        large = np.abs(before).max()
        if large > 0:
            assert after / np.abs(after).max() == pytest.approx(before / large, rel=1e-6, abs=1e-6)


@pytest.mark.parametrize("bound", [0.0, -1.0, math.nan, math.inf])
def test_a_bound_that_is_none_is_refused(bound):
    with pytest.raises(SettingsError, match=rf"^bound = {bound}: must be a finite number > 0$"):
        clip_norm(np.ones(2), bound)


# The bound that adapts.


def test_a_step_by_hand():
    adaptive = AdaptiveBound(quantile=0.5, rate=0.2, deviation=1.0)
    assert adaptive(2.0, 7.5, 10) == pytest.approx(2.0 * math.exp(-0.2 * 0.25), rel=1e-15)
    assert adaptive(2.0, 5.0, 10) == 2.0
    assert adaptive(2.0, -3.0, 10) > 2.0
    assert adaptive.inside(np.array([[3.0, 4.0], [3.1, 4.0]]), 5.0).tolist() == [1, 0]


@pytest.mark.parametrize("quantile", [0.1, 0.5, 0.9])
@pytest.mark.parametrize("start", [1e-3, 1e3])
def test_it_finds_the_quantile_through_noise(quantile, start):
    """Norms of |N(0, 1)| of 100 clients, noise of a 20th of them: what lies inside is the quantile on average."""
    generator, clients = np.random.default_rng(11), 100
    adaptive, bound, shares = AdaptiveBound(quantile, 0.2, clients / 20), start, []
    for _ in range(1500):
        bits = adaptive.inside(generator.standard_normal((clients, 1)), bound)
        shares.append(bits.mean())
        bound = adaptive(bound, bits.sum() + generator.normal(0, adaptive.deviation), clients)
    assert abs(np.mean(shares[1000:]) - quantile) < 0.02
    assert abs(bound - {0.1: 0.126, 0.5: 0.674, 0.9: 1.645}[quantile]) < 0.35


@given(BOUNDS, st.floats(-1e3, 1e3), st.integers(1, 1000), st.floats(0, 1), st.floats(1e-3, 0.5))
def test_the_bound_moves_against_the_share_inside(bound, noised, clients, quantile, rate):
    moved = AdaptiveBound(quantile, rate)(bound, noised, clients)
    assert moved > 0
    off = quantile - noised / clients
    if abs(rate * off) > 1e-15:  # what is nearer to 0 is lost in rounding
        assert np.sign(moved - bound) == np.sign(off)
    else:
        assert moved == pytest.approx(bound, rel=1e-14)


def test_the_multiplier_of_the_slopes_by_hand():
    """z = 1 and σ_b = 1: z_Δ = (1 − ¼)^(−½)."""
    assert AdaptiveBound(deviation=1.0).slopes_multiplier(1.0) == pytest.approx(2 / math.sqrt(3), rel=1e-15)


@given(st.floats(0.01, 100), st.floats(1.01, 100))
def test_bits_and_slopes_together_cost_what_was_asked(multiplier, more):
    adaptive = AdaptiveBound(deviation=multiplier / 2 * more)
    found = adaptive.slopes_multiplier(multiplier)
    assert found > multiplier
    assert found**-2 + (2 * adaptive.deviation) ** -2 == pytest.approx(multiplier**-2, rel=1e-9)


@pytest.mark.parametrize(
    ("words", "given"),
    [
        ("quantile = 1.1: must be between 0 and 1", (1.1,)),
        ("quantile = -0.1: must be between 0 and 1", (-0.1,)),
        ("quantile = nan: must be between 0 and 1", (math.nan,)),
        ("rate = 0.0: must be a finite number > 0", (0.5, 0.0)),
        ("rate = nan: must be a finite number > 0", (0.5, math.nan)),
        ("deviation = -1: must be 0 or more", (0.5, 0.2, -1)),
        ("deviation = nan: must be 0 or more", (0.5, 0.2, math.nan)),
    ],
)
def test_settings_out_of_range_are_refused(words, given):
    with pytest.raises(SettingsError, match=f"^{words}$"):
        AdaptiveBound(*given)


def test_steps_that_make_no_sense_are_refused():
    with pytest.raises(SettingsError, match=r"^clients = 0: must be 1 or more$"):
        AdaptiveBound()(1.0, 0.0, 0)
    with pytest.raises(SettingsError, match=r"^rate = 0.2: would change the bound by a factor of e"):
        AdaptiveBound()(1.0, -1e6, 1)
    with pytest.raises(SettingsError, match=r"^rate = 0.2: would change the bound by a factor of e\^nan in a round$"):
        AdaptiveBound()(1.0, math.nan, 1)
    with pytest.raises(SettingsError, match=r"^bound = inf: must be a finite number > 0$"):
        AdaptiveBound(1.0, 1.0)(1e308, -600.0, 1)
    with pytest.raises(SettingsError, match=r"^deviation = 0.5: must be above half the multiplier, 0.5$"):
        AdaptiveBound(deviation=0.5).slopes_multiplier(1.0)
