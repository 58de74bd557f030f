"""The paper's wide residual network, WRN-10-2."""

from __future__ import annotations

import torch
from torch import nn

from baffle.models.layers import Activation, Norm, group_norm

STEM = 16
WIDTHS = (32, 64, 128)
"""Channels of the three stages: 16, 32 and 64, widened twice."""


class Block(nn.Module):
    """A pre-activation residual block whose shortcut is a 1x1 convolution of the activated input.

        a = act(norm(x)),  y = conv(act(norm(conv(a, stride)))) + shortcut(a, stride)

    Takes [B, inputs, H, W], gives [B, outputs, ⌈H/stride⌉, ⌈W/stride⌉]. Its convolutions have no bias. Source: He et
    al., "Identity mappings in deep residual networks", ECCV 2016.
    """

    def __init__(self, inputs: int, outputs: int, stride: int, activation: Activation, norm: Norm) -> None:
        super().__init__()
        self.before = nn.Sequential(norm(inputs), activation())
        self.shortcut = nn.Conv2d(inputs, outputs, kernel_size=1, stride=stride, bias=False)
        self.residual = nn.Sequential(
            nn.Conv2d(inputs, outputs, kernel_size=3, stride=stride, padding=1, bias=False),
            norm(outputs),
            activation(),
            nn.Conv2d(outputs, outputs, kernel_size=3, padding=1, bias=False),
        )

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        """Return the block's output."""
        activated = self.before(inputs)
        return self.residual(activated) + self.shortcut(activated)


def wide_resnet(
    channels: int, classes: int, activation: Activation = nn.Hardswish, norm: Norm = group_norm
) -> nn.Sequential:
    """Return WRN-10-2: a 3x3 convolution, three stages of one block each, norm, global average pooling, linear.

    Takes images [B, channels, H, W], gives logits [B, classes]. Only the first convolution and the last layer have
    biases and norms have no weights: 302,506 weights for MNIST, 302,794 for CIFAR-10, 314,404 for CIFAR-100. Source:
    Zagoruyko & Komodakis, "Wide residual networks", BMVC 2016; sizes as in Feng et al., "BAFFLE", ECCV 2024.
    """
    first, second, third = WIDTHS
    return nn.Sequential(
        nn.Conv2d(channels, STEM, kernel_size=3, padding=1),
        Block(STEM, first, 1, activation, norm),
        Block(first, second, 2, activation, norm),
        Block(second, third, 2, activation, norm),
        norm(third),
        activation(),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(third, classes),
    )
