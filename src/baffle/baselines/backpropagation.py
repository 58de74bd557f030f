"""Gradients of a PyTorch module: the only file here that differentiates."""

# pyright: standard
from __future__ import annotations

import copy
import functools
import math

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint, checkpoint_sequential

from baffle.errors import ModelError
from baffle.parameters import Vector
from baffle.runtimes import Batch
from baffle.runtimes.torch import TorchRuntime


class Backpropagation:
    """Gradients of the mean loss that a `TorchRuntime` evaluates: the same module, loss, device and precision.

    Batches go through the module in pieces of the runtime's `chunk`, on its threads. With `checkpointing`, activations
    inside parts of the module are computed again in the backward pass rather than kept: √L parts, two at
    least, of a Sequential of L layers, the children of any other module. Source: Chen et al. 2016, arXiv 1604.06174.

    Raises:
        ModelError: `checkpointing`, and the module has no two parts.
    """

    def __init__(self, runtime: TorchRuntime, *, checkpointing: bool = False) -> None:
        self.runtime = runtime
        self.module = runtime.module()
        """A copy of the runtime's, whose weights are those of the last call."""
        trained = {tensor.name for tensor in runtime.layout.tensors}
        self._parameters = {name: p for name, p in self.module.named_parameters() if name in trained}
        self._forward = _checkpointed(self.module) if checkpointing else self.module

    def __call__(self, parameters: Vector, batch: Batch) -> Vector:
        """Return the gradient of the batch's mean loss at `parameters` [n], float32 [n].

        Raises:
            ModelError: the module or the loss fails, or can't be differentiated.
        """
        self._put(parameters)
        inputs, targets = self.runtime.tensors(batch)
        with self.runtime.on_threads(self.runtime.threads):
            total = self._whole(inputs, targets) if len(targets) > self.runtime.chunk else self._part(inputs, targets)
        return self._flat(total)

    def _whole(self, inputs: Tensor, targets: Tensor) -> dict[str, Tensor]:
        """Return the gradient of the mean loss of samples that go through the module in pieces."""
        total: dict[str, Tensor] = {}
        for some, own in zip(inputs.split(self.runtime.chunk), targets.split(self.runtime.chunk), strict=True):
            for name, part in self._part(some, own).items():
                share = len(own) / len(targets)
                total[name] = part * share if name not in total else total[name].add_(part, alpha=share)
        return total

    def _part(self, inputs: Tensor, targets: Tensor) -> dict[str, Tensor]:
        """Return the gradient of the mean loss of samples that go through the module at once; none where it is 0."""
        loss = self._loss(inputs, targets)
        try:
            gradients = torch.autograd.grad(loss, list(self._parameters.values()), allow_unused=True)
        except RuntimeError as error:  # an operation without a derivative
            raise ModelError(f"the loss can't be differentiated: {_told(error)}") from error
        found = zip(self._parameters, gradients, strict=True)
        return {name: gradient for name, gradient in found if gradient is not None}

    def _loss(self, inputs: Tensor, targets: Tensor) -> Tensor:
        try:
            return self.runtime.loss(self._forward(inputs), targets).mean()
        except Exception as error:  # a user's own module or loss may fail in any way
            raise ModelError(f"the model or its loss fails: {_told(error)}") from error

    def _put(self, parameters: Vector) -> None:
        tensors = self.runtime.layout.unflatten(parameters)
        with torch.no_grad():
            for name, parameter in self._parameters.items():
                parameter.copy_(torch.from_numpy(np.ascontiguousarray(tensors[name])))

    def _flat(self, gradients: dict[str, Tensor]) -> Vector:
        """Return the flat vector, without the places of pruned weights; 0 where the loss depends on nothing."""
        parts: list[np.ndarray] = []
        for tensor in self.runtime.layout.tensors:
            found = gradients.get(tensor.name)
            dense = np.zeros(math.prod(tensor.shape)) if found is None else found.float().cpu().numpy().ravel()
            parts.append(dense[tensor.places()] if tensor.live else dense)
        return np.concatenate(parts).astype(np.float32, copy=False)


def _checkpointed(model: nn.Module) -> nn.Module:
    """Return a module with the outputs of `model` that keeps activations between its parts alone."""
    children = list(model.children())
    if len(children) < 2:
        raise ModelError("checkpointing needs a module of two parts or more, such as a Sequential")
    if isinstance(model, nn.Sequential):
        return _Segments(model, max(2, math.isqrt(len(children))))
    for child in copy.copy(children):
        for part in child.children() if isinstance(child, nn.ModuleList) else (child,):
            part.forward = functools.partial(checkpoint, part.forward, use_reentrant=False)
    return model


class _Segments(nn.Module):
    """A Sequential in parts of as many layers each."""

    def __init__(self, layers: nn.Sequential, parts: int) -> None:
        super().__init__()
        self.layers, self.parts = layers, parts

    def forward(self, inputs: Tensor) -> Tensor:
        return checkpoint_sequential(self.layers, self.parts, inputs, use_reentrant=False)


def _told(error: Exception) -> str:
    return f"{type(error).__name__}: {error}".strip().split("\n")[0]
