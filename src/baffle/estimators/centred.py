"""The forward difference centred on the mean of its own probes."""

from __future__ import annotations

from typing import ClassVar

import msgspec
import numpy as np
from numpy.typing import NDArray

from baffle import checks


class CentredDifference(msgspec.Struct, frozen=True, tag_field="estimator", tag="centred"):
    """Slopes against the mean loss of a block's probes, without a pass at θ.

        sₖ = K/(K − 1) · (L(θ + σ zₖ) − L̄) / σ,   L̄ the mean over the block's K probes

    The common part of the curvature term σ zᵀHz/2 cancels, so σ may be orders of magnitude larger than a forward
    difference's; K/(K − 1) keeps the estimate unbiased, and K/(K − 1) · (N − 1)/N where directions are drawn from N
    orthogonal ones without replacement: with all of them the mean is no estimate. K forwards, K ≥ 2 a block. Probes
    whose loss is not finite are left out of the mean. Source: the leave-one-out baseline of Kool et al. 2019.
    """

    scale: float = 1e-2
    """σ, in parameter units, > 0."""

    signs: ClassVar[tuple[int, ...]] = (1,)
    """Sides on which each direction is evaluated."""
    base: ClassVar[bool] = False
    """Whether the loss at θ itself is needed."""
    least: ClassVar[int] = 2
    """Fewest directions of a block that give slopes."""

    def __post_init__(self) -> None:
        checks.positive("scale", self.scale)

    def __call__(
        self, losses: NDArray[np.float64], base: NDArray[np.float64], scale: float, most: int | None = None
    ) -> NDArray[np.float64]:
        """Return slopes [K, C] from `losses` [K, 1, C]; not finite where a loss is, or alone. `base` is unused."""
        del base
        values = losses[:, 0]
        present = np.isfinite(values)
        count = present.sum(axis=0)
        mean = np.where(present, values, 0.0).sum(axis=0) / np.maximum(count, 1)
        factor = np.where(count > 1, count, np.nan) / np.maximum(count - 1, 1) * (1.0 - 1.0 / most if most else 1.0)
        return np.where(present, factor * (values - mean), np.nan) / scale
