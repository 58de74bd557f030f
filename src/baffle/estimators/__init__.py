"""Which points to evaluate, and how losses there become slopes."""

from __future__ import annotations

from typing import TypeAlias

from baffle.estimators.central import CentralDifference
from baffle.estimators.centred import CentredDifference
from baffle.estimators.forward import ForwardDifference

Estimator: TypeAlias = ForwardDifference | CentralDifference | CentredDifference
"""What a plan may name. An estimator has `scale`, `signs`, `base`, `least` and is called as
(losses, base, scale, most) -> slopes; `most` is how many directions there are in all, None for independent ones."""

__all__ = ["CentralDifference", "CentredDifference", "Estimator", "ForwardDifference"]
