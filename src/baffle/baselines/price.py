"""What backpropagation costs a client, as numbers: no torch is needed to say it."""

from __future__ import annotations

from typing import Any

import msgspec

from baffle.runtimes import Runtime


class StepCost(msgspec.Struct, frozen=True):
    """Of one pass over a batch."""

    peak: int
    """Most bytes of tensors that the pass made and still held: activations, and gradients where it makes them."""
    seconds: float
    """Mean wall time."""


def upload_bytes(size: int) -> int:
    """Return the bytes that a client of FedSGD or FedAvg sends a round: n float32. Source: McMahan et al. 2017."""
    return 4 * size


def download_bytes(size: int) -> int:
    """Return the bytes that a client of FedSGD or FedAvg is sent a round: n float32. Source: McMahan et al. 2017."""
    return 4 * size


def forwards(samples: int, *, checkpointed: bool) -> int:
    """Return the forward equivalents of a gradient on `samples`: a backward pass is two, a checkpointed one three."""
    return (4 if checkpointed else 3) * samples


def kinds(runtime: Runtime) -> tuple[str, ...]:
    """Return the kinds of gradient that a runtime's model can have: none through a graph for inference.

    Checkpointing needs a module of two parts at least.
    """
    module: Any = getattr(runtime, "module", None)
    if module is None:
        return ()
    return ("backward", "checkpointed") if len(list(module().children())) > 1 else ("backward",)
