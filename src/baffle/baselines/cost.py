"""What one pass of a module costs: inference, backpropagation, and backpropagation with gradient checkpointing."""

# pyright: standard
from __future__ import annotations

import time
import weakref
from collections.abc import Callable, Iterable
from functools import partial
from typing import Any, Literal, TypeAlias

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from baffle.baselines.backpropagation import Backpropagation
from baffle.baselines.price import StepCost
from baffle.errors import ModelError
from baffle.parameters import Vector
from baffle.runtimes import Batch
from baffle.runtimes.torch import TorchRuntime

Mode: TypeAlias = Literal["inference", "backward", "checkpointed"]
MODES: tuple[Mode, ...] = ("inference", "backward", "checkpointed")
_FEWEST = 3
"""Passes that are timed at least."""


class Live(TorchDispatchMode):
    """Counts the bytes of tensors that operations make while this is entered, for as long as they are held.

    What an operation uses inside itself is not seen; views are not counted again.

    Attributes:
        bytes: held now.
        peak: most that were held.
    """

    def __init__(self, known: Iterable[Tensor]) -> None:
        super().__init__()
        self.bytes = self.peak = 0
        self._kept = [tensor.untyped_storage() for tensor in known]
        self._known = {storage._cdata for storage in self._kept}

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """Run an operation and count what it made."""
        del types
        made = func(*args, **(kwargs or {}))
        for leaf in tree_leaves(made):
            if isinstance(leaf, Tensor):
                self._count(leaf.untyped_storage())
        return made

    def _count(self, storage: torch.UntypedStorage) -> None:
        if storage._cdata in self._known:
            return
        self._known.add(storage._cdata)
        self.bytes += storage.nbytes()
        self.peak = max(self.peak, self.bytes)
        weakref.finalize(storage, self._free, storage._cdata, storage.nbytes()).atexit = False

    def _free(self, address: int, size: int) -> None:
        self._known.discard(address)
        self.bytes -= size


def costs_of(runtime: TorchRuntime, batch: Batch, seconds: float = 0.0) -> dict[str, StepCost]:
    """Return what each kind of pass costs on this machine, over one mini-batch and as a run makes it.

    A runtime's module, loss, precision, threads and pieces; dropout is off. Checkpointing as in `Backpropagation`. What
    a module can't do has no cost: checkpointing without parts, gradients through what has no derivative.

    Args:
        runtime: of the run.
        batch: inputs [B, ...] and targets [B].
        seconds: for how long each kind is timed, three passes at least.
    """
    point = runtime.layout.flatten(runtime.given)
    found: dict[str, StepCost] = {}
    for mode in MODES:
        try:
            step = _step(runtime, mode)
            found[mode] = _cost(partial(step, point, batch), step.known, seconds)
        except ModelError:  # one part alone, or an operation without a derivative
            continue
    return found


class _Step:
    """One pass, and the tensors that are there without it."""

    def __init__(self, run: Callable[[Vector, Batch], object], module: nn.Module) -> None:
        self.run = run
        self.known = [*module.parameters(), *module.buffers()]

    def __call__(self, parameters: Vector, batch: Batch) -> None:
        self.run(parameters, batch)


def _step(runtime: TorchRuntime, mode: Mode) -> _Step:
    if mode == "inference":
        module = runtime.module()
        return _Step(partial(_inference, runtime, module), module)
    gradient = Backpropagation(runtime, checkpointing=mode == "checkpointed")
    return _Step(gradient, gradient.module)


def _inference(runtime: TorchRuntime, module: nn.Module, _: Vector, batch: Batch) -> None:
    inputs, targets = runtime.tensors(batch)
    with torch.inference_mode(), runtime.on_threads(runtime.threads):
        for some, own in zip(inputs.split(runtime.chunk), targets.split(runtime.chunk), strict=True):
            runtime.loss(module(some), own).mean()


def _cost(step: Callable[[], None], known: Iterable[Tensor], seconds: float) -> StepCost:
    step()  # whatever is needed once is set up
    live = Live(known)
    with live:
        step()
    begun, passes = time.perf_counter(), 0
    while passes < _FEWEST or time.perf_counter() - begun < seconds:
        step()
        passes += 1
    return StepCost(live.peak, (time.perf_counter() - begun) / passes)
