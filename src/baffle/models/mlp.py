"""A multilayer perceptron."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

from torch import nn

from baffle.models.layers import Activation


def mlp(
    features: int, classes: int, hidden: Sequence[int] = (32,), activation: Activation = nn.Hardswish
) -> nn.Sequential:
    """Return linear layers of the `hidden` widths, each followed by the activation, and a linear layer of `classes`.

    Takes samples [B, ...] of `features` numbers each, gives logits [B, classes]. No hidden width makes it a linear
    classifier.
    """
    layers: list[nn.Module] = [nn.Flatten()]
    widths = (features, *hidden)
    for inputs, outputs in pairwise(widths):
        layers += [nn.Linear(inputs, outputs), activation()]
    return nn.Sequential(*layers, nn.Linear(widths[-1], classes))
