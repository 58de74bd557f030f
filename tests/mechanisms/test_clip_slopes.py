import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from baffle.mechanisms import clip

ANY = arrays(np.float64, (3, 4), elements=st.floats(allow_nan=True, allow_infinity=True))
BOUNDS = arrays(np.float64, 4, elements=st.floats(1e-6, 1e6))


def test_each_column_has_its_own_bound():
    slopes = np.array([[5.0, -5.0, 0.5], [-0.5, 2.0, -3.0]])
    assert clip(slopes, np.array([1.0, 2.0, 3.0])).tolist() == [[1.0, -2.0, 0.5], [-0.5, 2.0, -3.0]]


def test_what_is_not_finite_is_not_taken_for_a_large_slope():
    clipped = clip(np.array([np.inf, -np.inf, np.nan, 1e308]), np.ones(4))
    assert np.isnan(clipped[:3]).all()
    assert clipped[3] == 1.0


@given(ANY, BOUNDS)
def test_nothing_leaves_the_bounds_and_what_is_inside_stays(slopes, bounds):
    clipped = clip(slopes, bounds)
    finite = np.isfinite(slopes)
    inside = finite & (np.abs(slopes) <= bounds)
    assert np.array_equal(np.isnan(clipped), ~finite)
    assert (np.abs(clipped[finite]) <= np.broadcast_to(bounds, slopes.shape)[finite]).all()
    assert np.array_equal(clipped[inside], slopes[inside])
    assert np.array_equal(np.sign(clipped[finite]), np.sign(slopes[finite]))
