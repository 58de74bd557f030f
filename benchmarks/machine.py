"""On what a benchmark ran: said without the name of any host or folder."""

from __future__ import annotations

import os
import platform
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

PACKAGES = ("numpy", "torch", "numba")
_VECTORS = ("avx512f", "avx2", "avx", "asimd")


def describe() -> dict[str, str | int]:
    """Return the processor, the cores that this process may use, and the versions of what does the work.

    Nothing is imported for it, so that a parent of measured processes stays small.
    """
    about: dict[str, str | int] = {
        "cpu": _cpu("model name") or platform.processor() or platform.machine(),
        "vectors": next((name for name in _VECTORS if name in (_cpu("flags") or _cpu("Features")).split()), ""),
        "cores": len(cores()),
        "system": platform.system(),
        "python": platform.python_version(),
    }
    return about | {name: _version(name) for name in PACKAGES}


def told() -> str:
    """Return the same in one line."""
    about = describe()
    packages = ", ".join(f"{name} {about[name]}" for name in ("python", *PACKAGES))
    return f"{about['cpu']} ({about['vectors']}), {about['cores']} cores; {packages}"


def cores() -> list[int]:
    """Return the numbers of the processor cores that this process may run on."""
    if hasattr(os, "sched_getaffinity"):
        return sorted(os.sched_getaffinity(0))
    return list(range(os.cpu_count() or 1))


def pin(core: int) -> None:
    """Keep this process, and all threads that it starts from now on, on one core, where the system has that."""
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {core})


def _cpu(field: str) -> str:
    """Return a field of the first processor in Linux's list, or nothing."""
    path = Path("/proc/cpuinfo")
    lines = path.read_text().splitlines() if path.exists() else []
    return next((line.partition(":")[2].strip() for line in lines if line.partition(":")[0].strip() == field), "")


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "none"
