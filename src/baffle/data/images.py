"""Resizing images in exact integer arithmetic: the same bytes on every machine."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from baffle.errors import SettingsError

LARGEST = 1024
"""The largest side; 255 · (2 · 1024)² still fits an int32."""

CHUNK = 1 << 19
"""How many output pixels are worked on at a time."""


def check_size(size: int) -> None:
    """Refuse a size that `resize` can't give.

    Raises:
        SettingsError: the size is not between 0 and 1,024.
    """
    if not 0 <= size <= LARGEST:
        raise SettingsError("image_size", size, f"must be between 0 (as they are) and {LARGEST} pixels")


def resize(images: NDArray[np.uint8], size: int) -> NDArray[np.uint8]:
    """Return `images` [N, C, H, W] as [N, C, size, size]; size 0 (or their own) leaves them as they are.

    Separable bilinear interpolation between pixel centres, edges clamped, rounded half up:

        output i lies at ((2i + 1) H - size) / (2 size) of the input

    so every weight is a whole number over 2 · size and nothing is rounded before the end. Shrinking does not smooth
    first: below half the side pixels are skipped.

    Raises:
        SettingsError: the size is not between 0 and 1,024.
    """
    check_size(size)
    count, channels, height, width = images.shape
    if size == 0 or (height, width) == (size, size):
        return images
    resized = np.empty((count, channels, size, size), np.uint8)
    step = max(1, CHUNK // (channels * size * max(size, height)))
    for start in range(0, count, step):
        resized[start : start + step] = _resize(images[start : start + step], size)
    return resized


def _resize(images: NDArray[np.uint8], size: int) -> NDArray[np.int32]:
    wide = _interpolate(images.astype(np.int32), size)
    tall = _interpolate(wide.swapaxes(2, 3), size).swapaxes(2, 3)
    scale = (2 * size) ** 2
    return (tall + scale // 2) // scale


def _interpolate(images: NDArray[np.int32], size: int) -> NDArray[np.int32]:
    """Return `images` [..., W] as [..., size], times 2 · size."""
    width = images.shape[-1]
    places = np.clip((2 * np.arange(size, dtype=np.int32) + 1) * width - size, 0, 2 * size * (width - 1))
    left, weight = np.divmod(places.astype(np.int32), np.int32(2 * size))
    right = np.minimum(left + 1, width - 1)
    return images[..., left] * (2 * size - weight) + images[..., right] * weight
