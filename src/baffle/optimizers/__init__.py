"""What the server does with an estimate of the gradient: element-wise float32 arithmetic in a stated order."""

from __future__ import annotations

from typing import TypeAlias

from baffle.optimizers.adam import Adam
from baffle.optimizers.average import ExponentialAverage
from baffle.optimizers.clip import clip_by_largest
from baffle.optimizers.sgd import Sgd

Optimizer: TypeAlias = Adam | Sgd
"""What a run may name. An optimizer has `init(n) -> memory` and is called as (θ, g, memory, factor) -> (θ, memory)."""

__all__ = ["Adam", "ExponentialAverage", "Optimizer", "Sgd", "clip_by_largest"]
