"""What one pass of a module costs: inference, backpropagation, and backpropagation with gradient checkpointing."""

# pyright: standard
from __future__ import annotations

import copy
import math
import time
import weakref
from collections.abc import Callable, Iterable
from functools import partial
from typing import Any, Literal, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.checkpoint import checkpoint, checkpoint_sequential

from baffle.baselines.price import StepCost

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


def costs_of(module: nn.Module, batch: tuple[NDArray[Any], NDArray[Any]], seconds: float = 0.0) -> dict[str, StepCost]:
    """Return what each kind of pass costs on one mini-batch of arrays, on one thread; see `step_cost`."""
    inputs, targets = (torch.from_numpy(np.ascontiguousarray(part)) for part in batch)
    inputs = inputs.float() if inputs.is_floating_point() else inputs
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        return {mode: step_cost(module, inputs, targets, mode, seconds) for mode in MODES}
    finally:
        torch.set_num_threads(before)


def step_cost(module: nn.Module, inputs: Tensor, targets: Tensor, mode: Mode, seconds: float = 0.0) -> StepCost:
    """Return what a pass of `module`, with cross-entropy, over one batch costs on this machine.

    Checkpointing cuts a sequence of L layers into equal runs and keeps what lies between them: √L, L/2 or L of them,
    whichever holds least; another module is cut into its children. The module is not changed, and dropout is off.

    Args:
        module: (inputs [B, ...]) -> logits [B, classes].
        inputs: one mini-batch.
        targets: its classes [B].
        mode: what is done.
        seconds: for how long it is timed, three passes at least.
    """
    module = copy.deepcopy(module).eval()
    ways = _checkpointed(module) if mode == "checkpointed" else [module]
    peaks = [_peak(module, way, inputs, targets, mode) for way in ways]
    best = ways[peaks.index(min(peaks))]
    begun, passes = time.perf_counter(), 0
    while passes < _FEWEST or time.perf_counter() - begun < seconds:
        _pass(module, best, inputs, targets, mode)
        passes += 1
    return StepCost(min(peaks), (time.perf_counter() - begun) / passes)


def _peak(module: nn.Module, forward: Callable[[Tensor], Tensor], inputs: Tensor, targets: Tensor, mode: Mode) -> int:
    """Return the most bytes that a pass holds, after one in which whatever is needed once was set up."""
    _pass(module, forward, inputs, targets, mode)
    module.zero_grad(set_to_none=True)
    live = Live([*module.parameters(), *module.buffers(), inputs, targets])
    with live:
        _pass(module, forward, inputs, targets, mode)
    return live.peak


def _pass(module: nn.Module, forward: Callable[[Tensor], Tensor], inputs: Tensor, targets: Tensor, mode: Mode) -> None:
    module.zero_grad(set_to_none=True)
    with torch.set_grad_enabled(mode != "inference"):
        loss = nn.functional.cross_entropy(forward(inputs), targets)
        if mode != "inference":
            loss.backward()


def _checkpointed(module: nn.Module) -> list[Callable[[Tensor], Tensor]]:
    """Return forward passes of `module` that keep only what lies between some of its parts."""
    if isinstance(module, nn.Sequential):
        layers = len(module)
        cuts = {max(1, round(math.sqrt(layers))), max(1, layers // 2), layers}
        return [partial(_in_parts, module, parts) for parts in sorted(cuts)]
    for child in module.children():
        child.forward = _again(child.forward)
    return [module]


def _in_parts(module: nn.Sequential, parts: int, inputs: Tensor) -> Tensor:
    return checkpoint_sequential(module, parts, inputs, use_reentrant=False, preserve_rng_state=False)


def _again(forward: Callable[..., Any]) -> Callable[..., Any]:
    """Return `forward`, computed once more where its gradients are."""

    def run(*arguments: Any) -> Any:
        return checkpoint(forward, *arguments, use_reentrant=False, preserve_rng_state=False)

    return run
