"""One paper a file, composition only."""

from __future__ import annotations

from baffle.algorithms.baffle import Baffle

__all__ = ["Baffle"]
