"""PyTorch: any module and loss, on a CPU or a GPU."""

# pyright: standard
from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from baffle import checks
from baffle.errors import ModelError
from baffle.parameters import Constant, Given, Initial, Layout, Uniform
from baffle.parameters import Tensor as Named
from baffle.runtimes import Batch, Evaluation

Loss = Callable[[Tensor, Tensor], Tensor]
"""(outputs, targets) -> the loss of each sample [B, ...], or one number, their mean."""

_NORMS = (nn.GroupNorm, nn.LayerNorm, nn.modules.batchnorm._BatchNorm)


def cross_entropy(outputs: Tensor, targets: Tensor) -> Tensor:
    """Return each sample's cross-entropy [B] from logits [B, classes], computed in float64.

    In float32 a loss near 2.3 carries a rounding of 2e-7, which a small σ makes a visible part of a slope.
    """
    return nn.functional.cross_entropy(outputs.double(), targets, reduction="none")


def layout_of(model: nn.Module, *, drawn: bool) -> Layout:
    """Return the layout of the model's trainable parameters, in the order in which the model names them.

    With `drawn`, linear and convolution layers begin uniformly in ±1/√(fan-in), norms at 1 and 0, which is what PyTorch
    draws them from; anything else, and everything without it, begins as it is in the model.

    Raises:
        ModelError: no parameter has requires_grad set.
    """
    initials = _initials(model) if drawn else {}
    return Layout(
        tuple(
            Named(name, tuple(parameter.shape), initials.get(name, Given()))
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


class TorchRuntime:
    """Losses of a PyTorch module.

    The module is copied; its trainable parameters become views of one flat tensor into which each point is written, so
    a probe costs one copy of θ beside its forward pass. Dropout is off. Parameters without requires_grad stay constant.

    Args:
        model: (inputs [B, ...]) -> outputs [B, ...], samples independent of each other.
        loss: (outputs, targets) -> the loss of each sample, or their mean.
        device: "cpu", "cuda", "cuda:1", ...; "auto" takes a GPU where there is one.
        precision: "float32", or "float64", in which losses do not depend on how clients are batched.
        drawn: begin known layers from the run's key rather than with the module's own values.
        chunk: most samples in one forward pass, ≥ 1: bounds the memory of activations.
        channels_last: lay images out channels last, which convolutions on a CPU are faster with; a model that calls
            `view` on a feature map can't have it.

    Raises:
        ModelError: nothing is trainable, or BatchNorm is in training mode.
    """

    def __init__(
        self,
        model: nn.Module,
        loss: Loss = cross_entropy,
        *,
        device: str = "auto",
        precision: str = "float32",
        drawn: bool = False,
        chunk: int = 1024,
        channels_last: bool = False,
    ) -> None:
        _refuse_batch_norm(model)
        checks.at_least("chunk", chunk, 1)
        self.layout = layout_of(model, drawn=drawn)
        self.precision: np.dtype[Any] = np.dtype(precision)
        self.device = torch.device(("cuda" if torch.cuda.is_available() else "cpu") if device == "auto" else device)
        self._loss = loss
        self._chunk = chunk
        self._channels_last = channels_last
        self._dtype = getattr(torch, precision)
        self._model = copy.deepcopy(model).to(self.device, self._dtype).eval()
        self._flat = torch.empty(self.layout.size, dtype=self._dtype, device=self.device)
        self.given = {
            name: parameter.detach().cpu().float().numpy().copy()
            for name, parameter in model.named_parameters()
            if parameter.requires_grad
        }
        slices = self.layout.slices()
        for name, parameter in self._model.named_parameters():
            parameter.requires_grad_(False)
            if name in slices:
                parameter.data = self._flat[slices[name]].view(parameter.shape)

    def losses(self, points: Iterable[NDArray[np.floating]], batches: Sequence[Batch]) -> NDArray[np.float64]:
        """Return the mean loss at each of P points on each of C batches, float64 [P, C]."""
        data = [self._tensors(batch) for batch in batches]
        sizes = [len(targets) for _, targets in data]
        inputs, targets = (torch.cat(parts) for parts in zip(*data, strict=True))
        with torch.inference_mode():
            rows = []
            for point in points:
                self._flat.copy_(torch.from_numpy(point))
                rows.append(self._mean_losses(inputs, targets, sizes))
            return torch.stack(rows).cpu().numpy()

    def evaluate(self, parameters: NDArray[np.floating], batches: Iterable[Batch]) -> Evaluation:
        """Return the mean loss and the accuracy of `parameters` [n] over all samples of `batches`."""
        total, correct, samples = 0.0, 0, 0
        with torch.inference_mode():
            self._flat.copy_(torch.from_numpy(np.asarray(parameters)))
            for batch in batches:
                inputs, targets = self._tensors(batch)
                outputs = self._forward(inputs, targets)
                total += float(self._segments(outputs, targets, [len(targets)])[0]) * len(targets)
                if outputs.ndim == 2 and targets.ndim == 1 and not targets.is_floating_point():
                    correct += int((outputs.argmax(1) == targets).sum())
                else:
                    correct = math.nan
                samples += len(targets)
        return Evaluation(total / samples, correct / samples)

    def _tensors(self, batch: Batch) -> tuple[Tensor, Tensor]:
        inputs, targets = (torch.from_numpy(np.ascontiguousarray(part)).to(self.device) for part in batch)
        if inputs.is_floating_point():
            inputs = inputs.to(self._dtype)
        if self._channels_last and inputs.ndim == 4:
            inputs = inputs.contiguous(memory_format=torch.channels_last)
        return inputs, targets

    def _mean_losses(self, inputs: Tensor, targets: Tensor, sizes: list[int]) -> Tensor:
        """Return the mean loss of each batch, float64 [C]."""
        return self._segments(self._forward(inputs, targets), targets, sizes)

    def _forward(self, inputs: Tensor, targets: Tensor) -> Tensor:
        try:
            outputs = torch.cat([self._model(part) for part in inputs.split(self._chunk)])
        except Exception as error:  # a user's own module may fail in any way
            raise ModelError(f"the model fails on samples of shape {list(inputs.shape[1:])}: {_told(error)}") from error
        if len(outputs) != len(targets):
            raise ModelError(f"the model gave {len(outputs)} outputs for {len(targets)} samples")
        return outputs

    def _segments(self, outputs: Tensor, targets: Tensor, sizes: list[int]) -> Tensor:
        """Return the mean loss over each run of `sizes` samples, float64 [C]."""
        values = self._losses_of(outputs, targets)
        if values.ndim == 0 and len(sizes) > 1:
            parts = zip(outputs.split(sizes), targets.split(sizes), strict=True)
            return torch.stack([self._losses_of(o, t) for o, t in parts]).double()
        if values.ndim == 0:
            return values.double()[None]
        if len(set(sizes)) == 1:
            return values.double().reshape(len(sizes), -1).mean(1)
        return torch.stack([part.double().mean() for part in values.split(sizes)])

    def _losses_of(self, outputs: Tensor, targets: Tensor) -> Tensor:
        try:
            return self._loss(outputs, targets)
        except Exception as error:  # a user's own loss may fail in any way
            shapes = f"outputs of shape {list(outputs.shape)} and targets of shape {list(targets.shape)}"
            raise ModelError(f"the loss fails on {shapes}: {_told(error)}") from error


def _told(error: Exception) -> str:
    """Return the first line of what an error says, with its kind."""
    return f"{type(error).__name__}: {error}".strip().split("\n")[0]


def _refuse_batch_norm(model: nn.Module) -> None:
    for name, module in model.named_modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm) and module.training:
            raise ModelError(
                f"{name or 'the model'} is BatchNorm in training mode, which mixes the samples of a batch: "
                "use GroupNorm, or freeze its statistics with .eval() on that layer"
            )
