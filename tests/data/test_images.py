import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from baffle.data import images, resize
from baffle.errors import SettingsError


def bytes_like(*shape):
    return np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)


def test_growing_by_hand():
    # Centres of 4 pixels over 2: -0.25 (clamped), 0.25, 0.75, 1.25 (clamped).
    row = np.array([[[[0, 100]]]], np.uint8)
    np.testing.assert_array_equal(resize(row.repeat(2, axis=2), 4)[0, 0], [[0, 25, 75, 100]] * 4)


def test_halving_is_the_mean_of_four():
    image = np.array([[[[0, 10], [20, 31]]]], np.uint8)
    assert resize(image, 1)[0, 0, 0, 0] == 15  # 15.25


def test_a_half_is_rounded_up():
    assert resize(np.array([[[[0, 1], [0, 1]]]], np.uint8), 1)[0, 0, 0, 0] == 1


def naive(image, size):
    """One pixel after the other, in floating point."""
    height, width = image.shape
    out = np.empty((size, size))
    for i in range(size):
        for j in range(size):
            y = min(max((i + 0.5) * height / size - 0.5, 0), height - 1)
            x = min(max((j + 0.5) * width / size - 0.5, 0), width - 1)
            top, left = int(y), int(x)
            bottom, right = min(top + 1, height - 1), min(left + 1, width - 1)
            upper = image[top, left] * (1 - (x - left)) + image[top, right] * (x - left)
            lower = image[bottom, left] * (1 - (x - left)) + image[bottom, right] * (x - left)
            out[i, j] = upper * (1 - (y - top)) + lower * (y - top)
    return out


@given(height=st.integers(1, 9), width=st.integers(1, 9), size=st.integers(1, 12), seed=st.integers(0, 99))
@settings(deadline=None)
def test_it_is_bilinear_interpolation(height, width, size, seed):
    image = np.random.default_rng(seed).integers(0, 256, (1, 1, height, width), dtype=np.uint8)
    assert np.abs(resize(image, size)[0, 0] - naive(image[0, 0].astype(float), size)).max() <= 0.5 + 1e-9


@given(value=st.integers(0, 255), height=st.integers(1, 40), width=st.integers(1, 40), size=st.integers(1, 64))
@settings(deadline=None)
def test_a_plain_image_stays_plain(value, height, width, size):
    assert (resize(np.full((1, 1, height, width), value, np.uint8), size) == value).all()


def test_the_largest_size_does_not_overflow():
    assert (resize(np.full((1, 1, 2, 1000), 255, np.uint8), images.LARGEST) == 255).all()


def test_chunks_do_not_show(monkeypatch):
    batch = bytes_like(7, 3, 5, 5)
    whole = resize(batch, 8)
    monkeypatch.setattr(images, "CHUNK", 1)
    np.testing.assert_array_equal(resize(batch, 8), whole)


@pytest.mark.parametrize("size", [0, 5])
def test_their_own_size_leaves_them_untouched(size):
    batch = bytes_like(2, 1, 5, 5)
    assert resize(batch, size) is batch


@pytest.mark.parametrize("size", [-1, 1025])
def test_a_size_out_of_range_is_refused(size):
    with pytest.raises(SettingsError, match=f"image_size = {size}: must be between 0"):
        resize(bytes_like(1, 1, 2, 2), size)
