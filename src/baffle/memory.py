"""What an optimizer remembers between rounds."""

from __future__ import annotations

from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

Memory: TypeAlias = dict[str, NDArray[np.floating[Any]]]
"""Named arrays: float32 [n] for what each weight has, float64 [1] for a scalar. Never changed in place."""
