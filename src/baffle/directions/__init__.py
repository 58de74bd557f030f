"""Laws that directions are drawn from: integers, the same on every machine."""

from __future__ import annotations

from typing import TypeAlias

from baffle.directions.gaussian import Gaussian
from baffle.directions.rademacher import Rademacher

Law: TypeAlias = Gaussian | Rademacher
"""What a plan may name. A law has `deviation`, `peak` and `entries(key, direction, start, stop)`."""

__all__ = ["Gaussian", "Law", "Rademacher"]
