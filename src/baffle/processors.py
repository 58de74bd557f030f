"""What this process may run on."""

from __future__ import annotations

import os
from pathlib import Path

_VECTORS = ("avx512f", "avx2", "avx", "asimd")
_ABOUT = Path("/proc/cpuinfo")


def vectors() -> str:
    """Return the widest vectors that the processor has of those that compilers are asked for; empty where unknown."""
    lines = _ABOUT.read_text().splitlines() if _ABOUT.exists() else []
    flags = next((line for line in lines if line.startswith(("flags", "Features"))), "").split()
    return next((name for name in _VECTORS if name in flags), "")


def cores() -> int:
    """Return how many processor cores this process may use: not more than it is pinned to, where the system tells."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
