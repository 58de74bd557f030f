"""PyTorch: any module and loss, on a CPU or a GPU."""

# pyright: standard
from __future__ import annotations

import copy
import logging
import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from baffle import checks
from baffle.errors import ModelError
from baffle.parameters import Block
from baffle.probes import Probes
from baffle.runtimes import Batch, Evaluation, slices
from baffle.runtimes.allocator import keep_freed_memory
from baffle.runtimes.graph import Graph
from baffle.runtimes.sweep import Sweep, channels_last
from baffle.runtimes.torch_layout import layout_of

Loss = Callable[[Tensor, Tensor], Tensor]
"""(outputs, targets) -> the loss of each sample [B, ...], or one number, their mean."""

_WORTH_A_CALL = {True: 1 << 27, False: 1 << 36}
"""Floating-point operations of one call, on a CPU or not: the calls' own time is small beside it."""
_PART = 32
"""Most samples that a thread evaluates at a time."""
log = logging.getLogger("baffle")


def cross_entropy(outputs: Tensor, targets: Tensor) -> Tensor:
    """Return each sample's cross-entropy [B] from logits [B, classes], computed in float64.

    In float32 a loss near 2.3 carries a rounding of 2e-7, which a small σ makes a visible part of a slope.
    """
    return nn.functional.cross_entropy(outputs.double(), targets, reduction="none")


class TorchRuntime:
    """Losses of a PyTorch module.

    The module is copied and captured as a graph (`baffle.runtimes.graph`): what lies before a displaced block is
    computed once a batch, and probes of cheap blocks are evaluated many at a time. A module that can't be captured is
    called whole for every probe, and a warning says so. Dropout is off. Parameters without requires_grad stay constant.

    Args:
        model: (inputs [B, ...]) -> outputs [B, ...], samples independent of each other.
        loss: (outputs, targets) -> the loss of each sample, or their mean.
        device: "cpu", "cuda", "cuda:1", ...; "auto" takes a GPU where there is one.
        precision: "float32", or "float64", in which losses do not depend on how clients are batched.
        drawn: begin known layers from the run's key rather than with the module's own values.
        chunk: most samples in one forward pass, ≥ 1: bounds the memory of activations, once for each thread.
        channels_last: lay images out channels last, which small convolutions on a CPU are faster with; None lets the
            captured graph decide.
        threads: probes evaluated at the same time on a CPU, each on one thread, ≥ 1: results do not depend on it.
        memory: most mebibytes of activations for probes evaluated together, ≥ 1; one probe alone may take more.
        capture: whether to capture the module at all.
        pruned: keep weights that are zero in `model` at zero, and out of the trained vector.

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
        chunk: int = 256,
        channels_last: bool | None = None,
        threads: int = 1,
        memory: int = 64,
        capture: bool = True,
        pruned: bool = False,
    ) -> None:
        _refuse_batch_norm(model)
        for name, number in (("chunk", chunk), ("threads", threads), ("memory", memory)):
            checks.at_least(name, number, 1)
        self.layout = layout_of(model, drawn=drawn, pruned=pruned)
        self.precision: np.dtype[Any] = np.dtype(precision)
        self.device = torch.device(("cuda" if torch.cuda.is_available() else "cpu") if device == "auto" else device)
        self.threads = threads
        self.loss = loss
        self._arguments: dict[str, Any] = {
            "device": device,
            "precision": precision,
            "drawn": drawn,
            "chunk": chunk,
            "channels_last": channels_last,
            "threads": threads,
            "memory": memory,
            "capture": capture,
            "pruned": pruned,
        }
        self.chunk = chunk
        self._memory = memory << 20
        self._channels_last = channels_last
        self._capture = capture
        self._dtype = getattr(torch, precision)
        self._model = copy.deepcopy(model).to(self.device, self._dtype).eval()
        self._flat = torch.empty(self.layout.size, dtype=self._dtype, device=self.device)
        self._sweeps: dict[tuple[int, ...], Sweep] = {}
        self.given = {
            name: parameter.detach().cpu().float().numpy().copy()
            for name, parameter in model.named_parameters()
            if parameter.requires_grad
        }
        self._places = {t.name: torch.from_numpy(t.places()).to(self.device) for t in self.layout.tensors if t.live}
        slices = self.layout.slices()
        for name, parameter in self._model.named_parameters():
            parameter.requires_grad_(False)
            if name in slices and name not in self._places:
                parameter.data = self._flat[slices[name]].view(parameter.shape)
        if self.device.type == "cpu":
            keep_freed_memory()

    def __reduce__(self) -> tuple[Any, ...]:
        """Travel as the module with its first weights, and the arguments it was wrapped with."""
        return _again, (self.module().cpu(), self.loss, self._arguments)

    def module(self) -> nn.Module:
        """Return a copy of the module with its first weights, those that are trained with requires_grad set."""
        model = copy.deepcopy(self._model)
        named = dict(model.named_parameters())
        for name, values in self.given.items():
            named[name].data = torch.from_numpy(values).to(self.device, self._dtype, copy=True)
            named[name].requires_grad_(True)
        return model

    def losses(self, points: Iterable[NDArray[np.floating]], batches: Sequence[Batch]) -> NDArray[np.float64]:
        """Return the mean loss at each of P points on each of C batches, float64 [P, C], the module called whole."""
        inputs, targets, sizes = self._joined(batches)
        with torch.inference_mode(), self.on_threads(1):
            rows = []
            for point in points:
                self._put(point)
                rows.append(self._means(self._forward(inputs, targets)[None], targets, sizes)[0])
            return torch.stack(rows).cpu().numpy()

    def sweep(self, blocks: Sequence[Probes], batches: Sequence[Batch]) -> list[NDArray[np.float64]]:
        """Return the mean loss at each block's probes on each of C batches, float64 [P, C] each.

        Clients are joined into passes of at most `chunk` samples, the same ones on every machine.
        """
        sweep = self._captured(blocks[0].parameters, batches[0])
        if sweep is None:
            return [self.losses(probes, batches) for probes in blocks]
        with self.on_threads(1):
            parts = [self._pass(sweep, blocks, batches[some]) for some in slices(batches, self.chunk)]
        return [np.concatenate(columns, axis=1) for columns in zip(*parts, strict=True)]

    def _pass(self, sweep: Sweep, blocks: Sequence[Probes], batches: Sequence[Batch]) -> list[NDArray[np.float64]]:
        """Return losses on batches that make one forward pass; one that is too large for that is taken in pieces."""
        inputs, targets, sizes = self._joined(batches)
        inputs = sweep.laid_out(inputs)
        if len(targets) <= self.chunk:
            return sweep(blocks, inputs, targets, sizes)
        pieces = list(zip(inputs.split(self.chunk), targets.split(self.chunk), strict=True))
        found = [sweep(blocks, some, own, [len(own)]) for some, own in pieces]
        shares = [len(own) / len(targets) for _, own in pieces]
        return [np.tensordot(shares, np.stack(parts), 1) for parts in zip(*found, strict=True)]

    def together(self, probes: Probes, batches: Sequence[Batch]) -> int:
        """Return how many of a block's probes are evaluated in one call on `batches`, which make one pass.

        A range of directions that begins at a multiple of it gives the same bits by itself.
        """
        sweep = self._captured(probes.parameters, batches[0])
        samples = sum(len(targets) for _, targets in batches)
        if samples > self.chunk:  # the last piece of a large batch is the smallest
            samples = samples % self.chunk or self.chunk
        return 1 if sweep is None else sweep.together(probes.block, samples)

    def costs(self, blocks: Sequence[Block], batch: Batch) -> tuple[float, ...]:
        """Return the share of a forward pass that a probe of each block has to run again, in (0, 1]: counted.

        1 for every block where the module can't be captured.
        """
        point = self.layout.flatten(self.given).astype(self.precision)
        sweep = self._captured(point, batch)
        if sweep is None:
            return (1.0,) * len(blocks)
        return tuple(sweep.graph.cost(self.layout.within(block.start, block.stop)) for block in blocks)

    def evaluate(self, parameters: NDArray[np.floating], batches: Iterable[Batch]) -> Evaluation:
        """Return the mean loss and the accuracy of `parameters` [n] over all samples of `batches`."""
        total, correct, samples = 0.0, 0, 0
        with torch.inference_mode():
            self._put(parameters)
            for batch in batches:
                inputs, targets = self.tensors(batch)
                outputs = self._outputs(parameters, inputs, targets)
                total += float(self._means(outputs[None], targets, [len(targets)])[0, 0]) * len(targets)
                if outputs.ndim == 2 and targets.ndim == 1 and not targets.is_floating_point():
                    correct += int((outputs.argmax(1) == targets).sum())
                else:
                    correct = math.nan
                samples += len(targets)
        return Evaluation(total / samples, correct / samples)

    def _outputs(self, parameters: NDArray[np.floating], inputs: Tensor, targets: Tensor) -> Tensor:
        """Return the outputs for `inputs` at `parameters`, by the graph if there is one."""
        sweep = self._captured(parameters, (inputs[:3].cpu().numpy(), targets[:3].cpu().numpy()))
        if sweep is None:
            with self.on_threads(1):
                return self._forward(inputs, targets)
        with self.on_threads(1):
            parts = sweep.laid_out(inputs).split(min(self.chunk, _PART))
            return torch.cat(sweep.forward(self._flat, parts))

    def _captured(self, parameters: NDArray[np.floating], batch: Batch) -> Sweep | None:
        """Return what evaluates probes on the module's graph, made at the first call, or None if that can't be."""
        shape = batch[0].shape[1:]
        if self._capture and shape not in self._sweeps:
            try:
                with torch.inference_mode(False):
                    self._put(parameters)
                    self._sweeps[shape] = self._captured_with(self.tensors(batch)[0])
            except ModelError as error:
                self._capture = False
                log.warning("every probe runs the whole model: it can't be captured as a graph, %s", error)
        return self._sweeps.get(shape)

    def _captured_with(self, inputs: Tensor) -> Sweep:
        with self.on_threads(1):
            graph = Graph(copy.deepcopy(self._model), inputs)
        named = dict(self._model.named_parameters())
        trained = {tensor.name for tensor in self.layout.tensors}
        sweep = Sweep(
            graph=graph,
            layout=self.layout,
            places=self._places,
            frozen={name: parameter.detach() for name, parameter in named.items() if name not in trained},
            device=self.device,
            channels_last=graph.channels_last if self._channels_last is None else self._channels_last,
            losses=self._means,
            threads=self.threads if self.device.type == "cpu" else 1,
            operations=_WORTH_A_CALL[self.device.type == "cpu"],
            memory=self._memory,
        )
        try:
            sweep.forward(self._flat, [sweep.laid_out(torch.cat([inputs] * 2)[:2])])
        except Exception:  # some modules reshape images in a way that only one layout allows
            sweep = replace(sweep, channels_last=False)
        return sweep

    def _put(self, point: NDArray[np.floating]) -> None:
        """Have the module stand at θ [n]."""
        self._flat.copy_(torch.from_numpy(point) if point.flags.writeable else torch.tensor(point))
        slices = self.layout.slices()
        for name, places in self._places.items():
            self._model.get_parameter(name).data.view(-1)[places] = self._flat[slices[name]]

    def _joined(self, batches: Sequence[Batch]) -> tuple[Tensor, Tensor, list[int]]:
        """Return the samples of all batches, their targets, and how many are of each."""
        data = [self.tensors(batch) for batch in batches]
        inputs, targets = (torch.cat(parts) for parts in zip(*data, strict=True))
        return inputs, targets, [len(own) for _, own in data]

    def tensors(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Return a batch's inputs and targets on the device, inputs in the runtime's precision and layout."""
        inputs, targets = (torch.from_numpy(np.ascontiguousarray(part)).to(self.device) for part in batch)
        if inputs.is_floating_point():
            inputs = inputs.to(self._dtype)
        return (channels_last(inputs) if self._channels_last else inputs), targets

    def _forward(self, inputs: Tensor, targets: Tensor) -> Tensor:
        """Return the module's outputs for `inputs`, called on at most `chunk` of them at a time."""
        try:
            outputs = torch.cat([self._model(part) for part in inputs.split(self.chunk)])
        except Exception as error:  # a user's own module may fail in any way
            raise ModelError(f"the model fails on samples of shape {list(inputs.shape[1:])}: {_told(error)}") from error
        if len(outputs) != len(targets):
            raise ModelError(f"the model gave {len(outputs)} outputs for {len(targets)} samples")
        return outputs

    def _means(self, outputs: Tensor, targets: Tensor, sizes: list[int]) -> Tensor:
        """Return the mean loss at each of P probes over each run of `sizes` samples, float64 [P, C]."""
        several = targets.repeat(len(outputs), *[1] * (targets.ndim - 1)) if len(outputs) > 1 else targets
        values = self._losses_of(outputs.flatten(0, 1), several)
        if values.ndim == 0:
            if len(outputs) == len(sizes) == 1:
                return values.double().reshape(1, 1)
            parts = [zip(own.split(sizes), targets.split(sizes), strict=True) for own in outputs]
            return torch.stack([torch.stack([self._losses_of(o, t) for o, t in pairs]) for pairs in parts]).double()
        values = values.double().reshape(len(outputs), len(targets), -1).mean(2)
        if len(set(sizes)) == 1:
            return values.reshape(len(outputs), len(sizes), -1).mean(2)
        return torch.stack([part.mean(1) for part in values.split(sizes, 1)], 1)

    def _losses_of(self, outputs: Tensor, targets: Tensor) -> Tensor:
        try:
            return self.loss(outputs, targets)
        except Exception as error:  # a user's own loss may fail in any way
            shapes = f"outputs of shape {list(outputs.shape)} and targets of shape {list(targets.shape)}"
            raise ModelError(f"the loss fails on {shapes}: {_told(error)}") from error

    @contextmanager
    def on_threads(self, count: int) -> Iterator[None]:
        """Run PyTorch's operations on that many threads for a while."""
        before = torch.get_num_threads()
        torch.set_num_threads(count)
        try:
            yield
        finally:
            torch.set_num_threads(before)


def _again(model: nn.Module, loss: Loss, arguments: dict[str, Any]) -> TorchRuntime:
    return TorchRuntime(model, loss, **arguments)


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
