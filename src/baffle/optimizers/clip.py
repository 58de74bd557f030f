"""Bounding an estimate of the gradient."""

from __future__ import annotations

import numpy as np

from baffle.parameters import Vector


def clip_by_largest(gradient: Vector, bound: float) -> Vector:
    """Return `gradient` [n] scaled down to a largest magnitude of `bound`, up to rounding; 0 is no bound.

    Direction is kept: g ← g · min(1, bound/‖g‖_∞), in float32. Source: BAFFLE's code (its 0.3 is this bound).
    """
    largest, limit = np.abs(gradient).max(), np.float32(bound)
    if bound == 0 or not largest > limit:  # both float32: NumPy before 2 would compare with the float64
        return gradient
    return gradient * (limit / largest)
