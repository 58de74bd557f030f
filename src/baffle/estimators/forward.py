"""The forward difference."""

from __future__ import annotations

from typing import ClassVar

import msgspec
import numpy as np
from numpy.typing import NDArray

from baffle import checks


class ForwardDifference(msgspec.Struct, frozen=True, tag_field="estimator", tag="forward"):
    """Slopes from one probe a direction and one pass at θ itself.

        sₖ = (L(θ + σ zₖ) − L(θ)) / σ

    Bias O(σ) a slope; under a symmetric law the estimate's own bias is O(σ²), but the curvature term σ zₖᵀHzₖ/2 stays
    as noise. K + 1 forwards. Source: BAFFLE (arXiv 2301.12195), where it is the method's own choice.
    """

    scale: float = 1e-3
    """σ, in parameter units, > 0."""

    signs: ClassVar[tuple[int, ...]] = (1,)
    """Sides on which each direction is evaluated."""
    base: ClassVar[bool] = True
    """Whether the loss at θ itself is needed."""
    least: ClassVar[int] = 1
    """Fewest directions of a block that give slopes."""

    def __post_init__(self) -> None:
        checks.positive("scale", self.scale)

    def __call__(
        self, losses: NDArray[np.float64], base: NDArray[np.float64], scale: float, most: int | None = None
    ) -> NDArray[np.float64]:
        """Return slopes [K, C] from `losses` [K, 1, C] at θ + scale · zₖ and `base` [C] at θ; some not finite."""
        del most
        return (losses[:, 0] - base) / scale
