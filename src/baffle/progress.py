"""What a run reports while it goes on and when it is done; costs are of one client, on average."""

from __future__ import annotations

import resource
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from baffle.parameters import Layout, Vector


@dataclass(frozen=True, slots=True, kw_only=True)
class Progress:
    """Where a run is after a round; without held-out data, or in a round without evaluation, it has no accuracy."""

    round: int
    """Rounds done."""
    answered: int
    """Clients whose reports counted in the last round."""
    forward_equivalents: float
    upload_bytes: float
    download_bytes: float
    seconds: float
    """Since the run began, interruptions left out."""
    accuracy: float | None = None
    """Of the averaged weights, 0 to 1."""
    accuracy_last: float | None = None
    """Of the last round's weights, 0 to 1."""
    loss: float | None = None
    """Of the averaged weights, mean over held-out samples."""
    epsilon: float | None = None
    """ε that the client asked most often has spent; None where nothing is promised."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """A finished run."""

    accuracy: float | None
    """Of `parameters` on held-out data, 0 to 1."""
    accuracy_last: float | None
    """Of the last round's weights."""
    loss: float | None
    rounds: int
    forward_equivalents: float
    upload_bytes: float
    download_bytes: float
    seconds: float
    peak_memory_bytes: int
    """Largest resident memory of this process so far."""
    digest: str
    """Of the last round's θ, as in the ledger."""
    ledger_digest: str
    """Of the ledger's last record, hence of the whole ledger; empty for a run without a folder."""
    parameters: Vector = field(repr=False)
    """The averaged weights, float32 [n]."""
    layout: Layout = field(repr=False)
    clients: list[dict[str, Any]] = field(repr=False)
    """A row a client: samples, rounds sampled and answered, forwards, bytes."""
    epsilon: float | None = None
    """ε that the client asked most often has spent, at `delta`; None where nothing was promised."""
    delta: float | None = None

    def tensors(self) -> dict[str, NDArray[np.generic]]:
        """Return the averaged weights by name, as views of `parameters`."""
        return self.layout.unflatten(self.parameters)

    def summary(self) -> dict[str, Any]:
        """Return all but the weights, for a JSON file."""
        names = [name for name in self.__slots__ if name not in ("parameters", "layout")]
        return {name: getattr(self, name) for name in names} | {"parameters": self.layout.size}


def peak_memory() -> int:
    """Return this process's largest resident memory so far, in bytes.

    Linux tells it of the program that runs; what getrusage says there may be of the one that started it.
    """
    status = Path("/proc/self/status")
    if status.exists():
        held = next((line for line in status.read_text().splitlines() if line.startswith("VmHWM")), None)
        if held is not None:
            return int(held.split()[1]) * 1024
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024
