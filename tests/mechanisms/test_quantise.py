import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from baffle.errors import SettingsError
from baffle.mechanisms import MISSING, Quantiser

UNIT = st.floats(0, 1, exclude_max=True)


def test_integers_by_hand():
    quantiser, slopes = Quantiser(8), np.array([2.0, -2.0, 0.0, 1.0, 1.0, -1.0])
    uniforms = np.array([0.999, 0.999, 0.999, 0.25, 0.5, 0.75])  # 63.5 + 0.25, 63.5 + 0.5, −63.5 + 0.75
    assert quantiser(slopes, np.full(6, 2.0), uniforms).tolist() == [127, -127, 0, 63, 64, -63]


@pytest.mark.parametrize(("bits", "levels"), [(2, 1), (3, 3), (8, 127), (16, 32767), (32, 2**31 - 1)])
def test_a_slope_at_its_bound_is_the_largest_integer_whatever_is_drawn(bits, levels):
    quantiser = Quantiser(bits)
    slopes = np.array([[3.0, -3.0]]).repeat(3, axis=0)
    uniforms = np.array([[0.0], [0.5], [1 - 2**-20]]).repeat(2, axis=1)
    assert quantiser.levels == levels
    assert quantiser(slopes, np.full(2, 3.0), uniforms).tolist() == 3 * [[levels, -levels]]


@given(st.integers(2, 32), st.floats(-1, 1), st.floats(1e-6, 1e6), UNIT)
def test_an_integer_is_a_neighbour_of_the_slope_and_in_range(bits, share, bound, uniform):
    quantiser, bounds = Quantiser(bits), np.array([bound])
    slopes = np.clip(np.array([share * bound]), -bounds, bounds)
    integers = quantiser(slopes, bounds, np.array([uniform]))
    assert integers.dtype == np.int64
    assert abs(int(integers[0])) <= quantiser.levels
    error = quantiser.slopes(integers, bounds) - slopes
    assert abs(error[0]) <= bound / quantiser.levels * (1 + 1e-6)


@given(st.integers(2, 12), st.floats(-1, 1))
def test_rounding_is_unbiased_over_an_even_grid_of_uniforms(bits, share):
    uniforms = (np.arange(1000) + 0.5) / 1000
    integers = Quantiser(bits)(np.full(1000, share), np.ones(1000), uniforms)
    assert abs(integers.mean() - share * Quantiser(bits).levels) <= 1 / 1000


@pytest.mark.parametrize("share", [-0.999, -0.5, -0.003, 0.0, 0.26, 0.75, 1.0])
@pytest.mark.parametrize("bits", [2, 4, 8])
def test_random_rounding_is_unbiased_with_variance_at_most_a_quarter(bits, share):
    n = 100_000
    uniforms = np.random.default_rng(7).random(n)
    integers = Quantiser(bits)(np.full(n, share), np.ones(n), uniforms)
    up = share * Quantiser(bits).levels % 1.0
    assert abs(integers.mean() - share * Quantiser(bits).levels) <= 4 * np.sqrt(up * (1 - up) / n) + 1e-12
    assert integers.var() <= 0.25 + 1e-12


def test_what_is_not_finite_is_missing_and_comes_back_as_nan():
    quantiser, bounds = Quantiser(8), np.array([1.0, 2.0, 4.0, 8.0])
    integers = quantiser(np.array([np.nan, np.inf, -np.inf, 8.0]), bounds, np.full(4, 0.5))
    assert integers.tolist() == [MISSING, MISSING, MISSING, 127]
    slopes = quantiser.slopes(integers, bounds)
    assert np.isnan(slopes[:3]).all()
    assert slopes[3] == pytest.approx(8.0)


def test_a_slope_beyond_its_bound_never_takes_the_code_of_a_missing_one():
    integers = Quantiser(4)(np.array([-9.0, 9.0]), np.ones(2), np.array([0.0, 0.99]))
    assert integers.tolist() == [-7, 7]


def test_missing_is_no_value_of_any_width():
    assert MISSING == -(2**63)
    assert -Quantiser(32).levels > MISSING


@pytest.mark.parametrize("bits", [-1, 0, 1, 33])
def test_a_width_out_of_range_is_refused(bits):
    with pytest.raises(SettingsError, match=f"^bits = {bits}: must be between 2 and 32$"):
        Quantiser(bits)
