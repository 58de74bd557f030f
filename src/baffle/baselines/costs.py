"""What a baseline's work and messages are counted as."""

from __future__ import annotations

from typing import NamedTuple

BACKWARD = 2.0
"""Forward equivalents of a backward pass over one sample: it computes two products where the forward pass computes one,
with respect to a layer's inputs and to its weights. `benchmarks/backward.py` measures it."""


class Traffic(NamedTuple):
    """Bytes of one client and round: of arrays alone, as there is no envelope."""

    up: int
    """That a client sends if it answers."""
    down: int
    """That a client is sent if it is asked."""
    news: int = 0
    """That every client is sent when the round is over, so as to follow."""


def passes(*, checkpointing: bool) -> float:
    """Return what the gradient of one sample's loss costs, in forward equivalents."""
    return 1.0 + BACKWARD + (1.0 if checkpointing else 0.0)


def models(weights: int) -> Traffic:
    """Return the traffic of a model each way: float32, four bytes a weight."""
    return Traffic(up=4 * weights, down=4 * weights)
