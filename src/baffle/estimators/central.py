"""The central difference."""

from __future__ import annotations

from typing import ClassVar

import msgspec
import numpy as np
from numpy.typing import NDArray

from baffle import checks


class CentralDifference(msgspec.Struct, frozen=True, tag_field="estimator", tag="central"):
    """Slopes from two probes a direction.

        sₖ = (L(θ + σ zₖ) − L(θ − σ zₖ)) / 2σ

    Bias O(σ²), exact for quadratics; 2K forwards. Source: Nesterov & Spokoiny 2017.
    """

    scale: float = 1e-2
    """σ, in parameter units, > 0."""

    signs: ClassVar[tuple[int, ...]] = (1, -1)
    """Sides on which each direction is evaluated."""
    base: ClassVar[bool] = False
    """Whether the loss at θ itself is needed."""
    least: ClassVar[int] = 1
    """Fewest directions of a block that give slopes."""

    def __post_init__(self) -> None:
        checks.positive("scale", self.scale)

    def __call__(
        self, losses: NDArray[np.float64], base: NDArray[np.float64], scale: float, most: int | None = None
    ) -> NDArray[np.float64]:
        """Return slopes [K, C] from `losses` [K, 2, C] at θ ± scale · zₖ; not finite where a loss is. No `base`."""
        del base, most
        return (losses[:, 0] - losses[:, 1]) / (2 * scale)
