"""The paper's LeNet."""

from __future__ import annotations

from torch import nn

from baffle.models.layers import Activation, Norm, no_norm

WIDTHS = (16, 64)


def lenet(channels: int, classes: int, activation: Activation = nn.Hardswish, norm: Norm = no_norm) -> nn.Sequential:
    """Return two 5x5 convolutions of 16 and 64 channels, global average pooling and a linear layer.

    Takes images [B, channels, H, W] of any size from 2 x 2, gives logits [B, classes]. 26,730 weights for MNIST, 27,530
    for CIFAR-10. Norms have no weights and stand before the activations; the paper has none. Source: Feng et al.,
    "BAFFLE", ECCV 2024, after LeCun et al. 1998.
    """
    first, second = WIDTHS
    return nn.Sequential(
        nn.Conv2d(channels, first, kernel_size=5, padding=2),
        norm(first),
        activation(),
        nn.MaxPool2d(2),
        nn.Conv2d(first, second, kernel_size=5, padding=2),
        norm(second),
        activation(),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(second, classes),
    )
