"""Laws that directions are drawn from: integers, the same on every machine."""

from __future__ import annotations

from typing import TypeAlias

from baffle.directions.gaussian import Gaussian
from baffle.directions.orthogonal import Orthogonal
from baffle.directions.rademacher import Rademacher
from baffle.directions.sparse import Sparse

Law: TypeAlias = Gaussian | Orthogonal | Rademacher | Sparse
"""What a plan may name.

A law has `deviation`, `peak`, `most` and `entries(key, direction, start, stop)`; one of signs has `packed`, too.
"""

__all__ = ["Gaussian", "Law", "Orthogonal", "Rademacher", "Sparse"]
