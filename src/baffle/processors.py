"""What this process may run on."""

from __future__ import annotations

import os


def cores() -> int:
    """Return how many processor cores this process may use: not more than it is pinned to, where the system tells."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
