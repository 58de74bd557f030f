"""How the C library gives memory back."""

from __future__ import annotations

import ctypes
import sys

_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3
_LARGE = (1 << 30, 32 << 20)
"""Bytes: what newer versions take as a threshold, and the most that older ones do."""


def keep_freed_memory() -> None:
    """Have glibc keep large blocks that are freed, for this process; elsewhere, do nothing.

    By default it returns every block above some hundred kilobytes to the system at once, and each layer's activations
    are paid for again in page faults. What the process holds is then its peak.
    """
    if not sys.platform.startswith("linux"):
        return
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is None:
        return
    for threshold in (_MMAP_THRESHOLD, _TRIM_THRESHOLD):
        any(mallopt(threshold, size) for size in _LARGE)
