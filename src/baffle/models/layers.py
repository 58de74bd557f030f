"""The choices inside a network: its activation and its normalisation."""

from __future__ import annotations

from collections.abc import Callable

from torch import nn

Activation = Callable[[], nn.Module]
"""Makes an activation layer."""

Norm = Callable[[int], nn.Module]
"""Makes a normalisation layer for that many channels."""

ACTIVATIONS: dict[str, Activation] = {
    "hardswish": nn.Hardswish,
    "relu": nn.ReLU,
    "selu": nn.SELU,
    "gelu": nn.GELU,
}


def group_norm(channels: int) -> nn.Module:
    """Return group normalisation of max(2, channels / 16) groups, as in the paper: without weights of its own.

    Source: Wu & He, "Group normalization", ECCV 2018.
    """
    return nn.GroupNorm(max(2, channels // 16), channels, affine=False)


no_norm: Norm = nn.Identity
"""Makes a layer that leaves its input [B, channels, ...] as it is."""

NORMS: dict[str, Norm] = {"group": group_norm, "none": no_norm}
