"""The layout of a PyTorch module's parameters, and how they begin."""

# pyright: standard
from __future__ import annotations

import math

from torch import nn

from baffle.parameters import Constant, Given, Initial, Layout, Tensor, Uniform, mask_of

_NORMS = (nn.GroupNorm, nn.LayerNorm, nn.modules.batchnorm._BatchNorm)


def layout_of(model: nn.Module, *, drawn: bool, pruned: bool = False) -> Layout:
    """Return the layout of the model's trainable parameters, in the order in which the model names them.

    With `pruned`, weights that are zero are left out, and stay zero.

    With `drawn`, linear and convolution layers begin uniformly in ±1/√(fan-in), norms at 1 and 0, which is what PyTorch
    draws them from; anything else, and everything without it, begins as it is in the model.

    Raises:
        ModelError: no parameter has requires_grad set.
    """
    initials = _initials(model) if drawn else {}
    return Layout(
        tuple(
            Tensor(
                name,
                tuple(parameter.shape),
                initials.get(name, Given()),
                mask_of(parameter.detach().cpu().numpy()) if pruned else b"",
            )
            for name, parameter in model.named_parameters()
            if parameter.requires_grad
        )
    )


def _initials(model: nn.Module) -> dict[str, Initial]:
    """Return how the parameters of the known layers begin."""
    initials: dict[str, Initial] = {}
    for path, module in model.named_modules():
        for name, parameter in module.named_parameters(prefix=path, recurse=False):
            if isinstance(module, _NORMS):
                initials[name] = Constant(1.0 if name.endswith("weight") else 0.0)
            elif isinstance(module, nn.Linear | nn.modules.conv._ConvNd):
                fan_in = math.prod(module.weight.shape[1:])
                if parameter.numel():
                    initials[name] = Uniform(1.0 / math.sqrt(fan_in))
    return initials
