"""Bounding slopes."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def clip(slopes: NDArray[np.float64], bounds: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return `slopes` [..., K] limited to ±`bounds` [K]; what is not finite becomes NaN: its size means nothing."""
    return np.where(np.isfinite(slopes), np.clip(slopes, -bounds, bounds), np.nan)
