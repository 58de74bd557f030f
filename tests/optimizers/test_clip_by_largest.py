import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from baffle.optimizers import clip_by_largest

GRADIENTS = arrays(np.float32, st.integers(1, 20), elements=st.floats(-1e6, 1e6, width=32))


@pytest.mark.parametrize(
    ("gradient", "bound", "expected"),
    [
        ([3.0, -6.0], 3.0, [1.5, -3.0]),
        ([3.0, -6.0], 6.0, [3.0, -6.0]),
        ([3.0, -6.0], 100.0, [3.0, -6.0]),
        ([3.0, -6.0], 0.0, [3.0, -6.0]),
        ([0.0, 0.0], 0.25, [0.0, 0.0]),
        ([-8.0], 0.25, [-0.25]),
    ],
)
def test_by_hand(gradient, bound, expected):
    clipped = clip_by_largest(np.array(gradient, np.float32), bound)
    assert clipped.dtype == np.float32
    assert clipped.tolist() == expected


@given(GRADIENTS, st.floats(1e-3, 1e6))
def test_no_entry_exceeds_the_bound_and_the_direction_stays(gradient, bound):
    clipped = clip_by_largest(gradient, bound)
    assert np.abs(clipped).max() <= bound * (1 + 2**-22)  # three roundings of float32
    factor = min(1.0, bound / max(np.abs(gradient).max(), 1e-30))
    np.testing.assert_allclose(clipped, gradient * np.float64(factor), rtol=1e-6, atol=1e-37)


def test_nothing_is_changed_in_place():
    gradient = np.array([3.0, -6.0], np.float32)
    gradient.flags.writeable = False
    clip_by_largest(gradient, 1.0)
    assert gradient.tolist() == [3.0, -6.0]
