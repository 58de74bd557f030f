"""A model's forward pass as a graph, cut where a block of parameters begins to matter."""

# pyright: standard
from __future__ import annotations

import inspect
import operator
import warnings
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor, fx, nn
from torch.fx.node import map_arg
from torch.nn import functional

from baffle.errors import ModelError
from baffle.runtimes.work import LOSS, MOVED

_PLAIN_POOL: Any = functional.max_pool2d
_POOLS = (functional.max_pool2d, torch.max_pool2d, torch.ops.aten.max_pool2d.default)
_PLAIN_NORM: Any = functional.group_norm
_GROUP_NORMS = (functional.group_norm, torch.group_norm, torch.ops.aten.group_norm.default)
_CONVOLUTIONS = (functional.conv2d, torch.ops.aten.conv2d.default)


@dataclass(frozen=True, slots=True)
class Split:
    """The part of a forward pass that depends on some parameters: all that a probe of a block has to run again."""

    displaced: tuple[str, ...]
    """Those parameters."""
    kept: tuple[str, ...]
    """Other parameters that this part uses."""
    cut: tuple[fx.Node, ...]
    """Values computed before."""
    run: Callable[..., Tensor]
    """(displaced, kept, cut tensors) -> outputs."""
    operations: int
    """Floating-point operations a sample, the loss and moved numbers included."""
    numbers: int
    """Numbers a sample that this part writes."""


class Graph:
    """A module as a list of pure operations on parameters, constants and one input.

    Traced by `torch.fx`; where Python's control flow forbids that, captured by `torch.export`, whose import takes two
    seconds and 96 MB of memory.

    Args:
        module: in evaluation mode.
        inputs: samples to capture it with [B, ...].

    Raises:
        ModelError: the module is no such list for any number of samples; says why.
    """

    def __init__(self, module: nn.Module, inputs: Tensor) -> None:
        sample = torch.cat([inputs] * 3)[:3] if len(inputs) < 3 else inputs[:3]
        try:
            self._take(module, _traced(module), sample)
        except Exception:  # a user's own module may fail in any way
            try:
                self._take(module, _exported(module, sample), sample)
            except ModelError:
                raise
            except Exception as error:
                raise ModelError(f"its graph fails: {_told(error)}") from error

    def _take(self, module: nn.Module, captured: _Captured, sample: Tensor) -> None:
        names = {id(tensor): name for name, tensor in module.named_parameters()}
        self.parameters = {node: names[id(t)] for node, t in captured.leaves.items() if id(t) in names}
        self.constants = {node: t.detach() for node, t in captured.leaves.items() if id(t) not in names}
        self.inputs, self.output = captured.inputs, captured.output
        self.nodes = _needed(captured.nodes, [self.output], set(captured.leaves) | {self.inputs})
        self._depends = self._dependences()
        self._splits: dict[frozenset[str], Split] = {}
        parameters = {name: tensor.detach() for name, tensor in module.named_parameters()}
        for some in (sample, sample[:1]):
            values = self._weigh(parameters, some)
            with torch.no_grad():
                _refuse_other(values[self.output], module(some), len(some))
        # At θ itself a part that does nothing yet (times one, plus zero) may be missing and not be missed.
        elsewhere = {name: tensor + 0.1 * _waves(tensor) for name, tensor in parameters.items()}
        with torch.no_grad():
            outputs = Trunk(self, elsewhere, sample)([self.output])[0]
            _refuse_other(outputs, torch.func.functional_call(module, elsewhere, (sample,)), len(sample))

    def _dependences(self) -> dict[fx.Node, frozenset[str]]:
        """Return the parameters on which each node depends."""
        depends: dict[fx.Node, frozenset[str]] = {}
        for node in self.nodes:
            own = {self.parameters[node]} if node in self.parameters else set()
            depends[node] = frozenset(own).union(*(depends[before] for before in node.all_input_nodes))
        return depends

    def _weigh(self, parameters: Mapping[str, Tensor], sample: Tensor) -> dict[fx.Node, Any]:
        """Return each node's value, and count what it does for one sample."""
        self.operations: dict[fx.Node, int] = {}
        self.numbers: dict[fx.Node, int] = {}
        self._kernels: dict[fx.Node, int] = {}
        values = self._bound(parameters, sample)
        self._images = {node for node in self.parameters if values[node].ndim == 4}
        for node in self._work(self.nodes):
            read = [values[before] for before in node.all_input_nodes]
            versions = [one._version for one in read if isinstance(one, Tensor)]
            with torch.no_grad():
                value = values[node] = _call(node, values)
            if versions != [one._version for one in read if isinstance(one, Tensor)]:
                raise ModelError(f"{node.name} changes a value in place")
            own = [one for one, before in zip(read, node.all_input_nodes, strict=True) if before not in self.parameters]
            given: list[Any] = []
            map_arg((node.args, node.kwargs), lambda before, given=given: given.append(values[before]))
            flops, moved = _products(node, [one for one in given if isinstance(one, Tensor)], value), _moved(value, own)
            self.numbers[node] = _size(value) // len(sample) if moved else 0
            self.operations[node] = (flops + MOVED * moved) // len(sample)
            if node.target in _CONVOLUTIONS:
                self._kernels[node] = max(read[1].shape[2:])
        self._loss = LOSS * max(1, _size(values[self.output]) // len(sample))
        return values

    def _work(self, nodes: Iterable[fx.Node]) -> list[fx.Node]:
        """Return those of `nodes` that compute something."""
        leaves = self.parameters.keys() | self.constants.keys() | {self.inputs}
        return [node for node in nodes if node not in leaves]

    @property
    def channels_last(self) -> bool:
        """Whether images are better laid out channels last: when small kernels do most of the work.

        On processors, PyTorch's convolutions of 5x5 and more are faster with each channel by itself.
        """
        small = sum(self.operations[node] for node, kernel in self._kernels.items() if kernel <= 3)
        large = sum(self.operations[node] for node, kernel in self._kernels.items() if kernel > 3)
        return small > large

    @property
    def kernels(self) -> frozenset[str]:
        """Names of the parameters that are kernels of 2D convolutions."""
        leaves = {before for node in self._kernels for before in node.all_input_nodes} & self.parameters.keys()
        return frozenset(self.parameters[node] for node in leaves if node in self._images)

    def split(self, names: Iterable[str]) -> Split:
        """Return what has to be run again when parameters `names` are displaced."""
        displaced = frozenset(names)
        if displaced not in self._splits:
            self._splits[displaced] = self._split(displaced)
        return self._splits[displaced]

    def cost(self, names: Iterable[str]) -> float:
        """Return the share of a forward pass that depends on parameters `names`, in (0, 1]."""
        return self.split(names).operations / (sum(self.operations.values()) + self._loss)

    def _split(self, displaced: frozenset[str]) -> Split:
        work = self._work(node for node in self.nodes if self._depends[node] & displaced)
        used = {before for node in work for before in node.all_input_nodes} | {self.output}
        own = [node for node, name in self.parameters.items() if name in displaced]
        kept = [node for node in self.parameters if node in used and node not in own]
        cut = [node for node in self.nodes if node in used and node not in work and node not in self.parameters]
        return Split(
            _once(self.parameters[node] for node in own),
            _once(self.parameters[node] for node in kept),
            tuple(cut),
            _compiled([*own, *kept], cut, work, self.output, self.parameters),
            sum(self.operations[node] for node in work) + self._loss,
            max(1, sum(self.numbers[node] for node in work)),
        )

    def _bound(self, parameters: Mapping[str, Tensor], inputs: Tensor) -> dict[fx.Node, Any]:
        values: dict[fx.Node, Any] = {node: parameters[name] for node, name in self.parameters.items()}
        return values | self.constants | {self.inputs: inputs}


class Trunk:
    """Values of a graph at θ itself, on one batch: only those that are asked for are kept.

    Asked for the cuts of a chain of blocks one after another, it runs one forward pass in all.
    """

    def __init__(self, graph: Graph, parameters: Mapping[str, Tensor], inputs: Tensor) -> None:
        self._graph = graph
        self._bound = graph._bound(parameters, inputs)
        self._values: dict[fx.Node, Any] = {}

    def __call__(self, nodes: Sequence[fx.Node]) -> list[Any]:
        """Return the values of `nodes`, and forget those of others."""
        values = self._bound | self._values
        missing = [node for node in _needed(self._graph.nodes, nodes, set(values)) if node not in values]
        uses = Counter(before for node in missing for before in node.all_input_nodes)
        for node in missing:
            values[node] = _call(node, values)
            for before in node.all_input_nodes:
                uses[before] -= 1
                if not uses[before] and before not in nodes:
                    del values[before]
        self._values = {node: values[node] for node in nodes}
        return list(self._values.values())


class _Captured(NamedTuple):
    """A graph and what its leaves stand for."""

    nodes: list[fx.Node]
    leaves: dict[fx.Node, Tensor]
    inputs: fx.Node
    output: fx.Node


def _traced(module: nn.Module) -> _Captured:
    """Return the module as its own Python code runs it."""
    given = inspect.signature(module.forward).parameters.values()
    fixed = {one.name: one.default for one in given if one.default is not inspect.Parameter.empty}
    graph = _Tracer().trace(module, fixed or None)
    found = list(graph.nodes)
    leaves = {node: operator.attrgetter(node.target)(module) for node in found if node.op == "get_attr"}
    return _checked(found, leaves, next(node for node in found if node.op == "placeholder"), found[-1].args[0])


class _Tracer(fx.Tracer):
    """Goes into every module, so that parameters are leaves of their own."""

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        del m, module_qualified_name
        return False


def _exported(module: nn.Module, sample: Tensor) -> _Captured:
    """Return the module as PyTorch's exporter runs it, with operations in place made pure."""
    dynamic = ({0: torch.export.Dim.DYNAMIC},)
    try:
        with warnings.catch_warnings():  # of its own functions, mostly
            warnings.simplefilter("ignore")
            program = torch.export.export(module, (sample,), dynamic_shapes=dynamic, strict=False)
            if any(_mutates(node) for node in program.graph.nodes):
                program = program.run_decompositions({})
    except Exception as error:  # a user's own module may fail in any way
        raise ModelError(f"torch.export fails: {_told(error)}") from error
    found = list(program.graph.nodes)
    bound = {node: _held(module, program, node.name) for node in found if node.op == "placeholder"}
    leaves = {node: tensor for node, tensor in bound.items() if tensor is not None}
    return _checked(found, leaves, *(bound.keys() - leaves.keys()), found[-1].args[0][0])


def _checked(nodes: list[fx.Node], leaves: dict[fx.Node, Tensor], *ends: fx.Node) -> _Captured:
    """Return the parts of a graph, which must be of the kinds that are known here."""
    if len(ends) != 2 or not all(isinstance(end, fx.Node) for end in ends):
        raise ModelError("it does not map one tensor to one tensor")
    if not all(isinstance(tensor, Tensor) for tensor in leaves.values()):
        raise ModelError("its graph has another graph inside")
    return _Captured(nodes, leaves, *ends)


def _mutates(node: fx.Node) -> bool:
    schema = getattr(node.target, "_schema", None)
    return schema is not None and schema.is_mutable


def _held(module: nn.Module, program: Any, name: str) -> Tensor | None:
    """Return the parameter, buffer or constant that a placeholder stands for, or None for the input."""
    signature = program.graph_signature
    if name in signature.inputs_to_parameters:
        return module.get_parameter(signature.inputs_to_parameters[name])
    if name in signature.inputs_to_buffers:
        path = signature.inputs_to_buffers[name]
        return program.constants[path] if path in signature.non_persistent_buffers else module.get_buffer(path)
    if name in signature.inputs_to_lifted_tensor_constants:
        return program.constants[signature.inputs_to_lifted_tensor_constants[name]]
    return None


def _refuse_other(outputs: Any, expected: Any, samples: int) -> None:
    """Raise ModelError if a graph's outputs are not the module's, or not one for each sample."""
    if not isinstance(expected, Tensor) or expected.shape[:1] != (samples,):
        raise ModelError("it does not give one output for each sample")
    same = outputs.shape == expected.shape
    if not same or not torch.allclose(outputs, expected, rtol=1e-3, atol=1e-4, equal_nan=True):
        raise ModelError("its graph gives other outputs than the module")


def _waves(like: Tensor) -> Tensor:
    return torch.arange(1, like.numel() + 1, device=like.device).cos().to(like.dtype).view(like.shape)


def _told(error: Exception) -> str:
    """Return the first line of what an error says, with its kind."""
    return f"{type(error).__name__}: {error}".strip().split("\n")[0][:200]


def _once(names: Iterable[str]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(names))


def _needed(nodes: Iterable[fx.Node], wanted: Sequence[fx.Node], known: set[fx.Node]) -> list[fx.Node]:
    """Return `wanted` and all that they are computed from, in the graph's order, nothing before what is `known`."""
    found: set[fx.Node] = set()
    open_ = list(wanted)
    while open_:
        node = open_.pop()
        if node not in found:
            found.add(node)
            open_ += [] if node in known else node.all_input_nodes
    return [node for node in nodes if node in found]


def _call(node: fx.Node, values: Mapping[fx.Node, Any]) -> Any:
    args = map_arg(node.args, values.__getitem__)
    kwargs = map_arg(node.kwargs, values.__getitem__)
    if node.op == "call_method":
        return getattr(args[0], str(node.target))(*args[1:], **kwargs)
    return _faster(node)(*args, **kwargs)


def _compiled(
    named: Sequence[fx.Node],
    cut: Sequence[fx.Node],
    work: Sequence[fx.Node],
    output: fx.Node,
    parameters: Mapping[fx.Node, str],
) -> Callable[..., Tensor]:
    """Return `work` as one function of parameters and values; a parameter that has two nodes is given once."""
    graph = fx.Graph()
    of: dict[str, fx.Node] = {}
    for node in named:
        if parameters[node] not in of:
            of[parameters[node]] = graph.placeholder(f"parameter_{len(of)}")
    copies = {node: of[parameters[node]] for node in named}
    copies |= {node: graph.placeholder(f"value_{number}") for number, node in enumerate(cut)}
    for node in work:
        copies[node] = graph.node_copy(node, copies.__getitem__)
        if node.op == "call_function":
            copies[node].target = _faster(node)
    graph.output(copies[output])
    return fx.GraphModule(nn.Module(), graph).forward


def _faster(node: fx.Node) -> Any:
    """Return a function that does what a node does, in less time or for several probes at once where one is known."""
    if node.target in _GROUP_NORMS:
        return _group_norm
    return _max_pool if node.target in _POOLS else node.target


def _group_norm(
    input: Tensor,  # noqa: A002 (called by this name)
    num_groups: int,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    eps: float = 1e-5,
    cudnn_enabled: bool = True,
) -> Tensor:
    """Return group normalisation, of several probes' channels-last numbers too.

    PyTorch asks how numbers lie, and can't under vmap unless they lie in the usual order.
    """
    del cudnn_enabled
    try:
        return _PLAIN_NORM(input, num_groups, weight, bias, eps)
    except RuntimeError:
        return _PLAIN_NORM(input.contiguous(), num_groups, weight, bias, eps)


def _max_pool(
    input: Tensor,  # noqa: A002 (called by this name)
    kernel_size: int | Sequence[int],
    stride: int | Sequence[int] | None = None,
    padding: int | Sequence[int] = 0,
    dilation: int | Sequence[int] = 1,
    ceil_mode: bool = False,
    return_indices: bool = False,
) -> Any:
    """Return the maximum over windows; where they touch but don't overlap, as maxima of strided views.

    PyTorch's own loop over a channel's windows is not vectorised on a CPU: 97 µs against 7 for 16 x 32 x 32 numbers.
    """
    window = _pair(kernel_size)
    disjoint = _pair(stride or window) == window and _pair(padding) == (0, 0) and _pair(dilation) == (1, 1)
    there = input.device.type == "cpu" and input.is_contiguous() and min(window) > 1
    if (
        not (disjoint and there)
        or ceil_mode
        or return_indices
        or min(map(operator.floordiv, input.shape[-2:], window)) < 1
    ):
        return _PLAIN_POOL(input, kernel_size, stride or None, padding, dilation, ceil_mode, return_indices)
    rows, columns = (size // step * step for size, step in zip(input.shape[-2:], window, strict=True))
    image = input[..., :rows, :columns]
    tall = _largest([image[..., start :: window[0], :] for start in range(window[0])])
    return _largest([tall[..., start :: window[1]] for start in range(window[1])])


def _pair(value: int | Sequence[int]) -> tuple[int, ...]:
    return (value, value) if isinstance(value, int) else tuple(value) * (2 // len(value))


def _largest(parts: Sequence[Tensor]) -> Tensor:
    found = parts[0]
    for part in parts[1:]:
        found = torch.maximum(found, part)
    return found


def _products(node: fx.Node, read: Sequence[Tensor], value: Any) -> int:
    """Return the floating-point operations of a matrix product, convolution or attention; of others, 0.

    PyTorch's own counter imports its compiler, two seconds and 85 MB of it.
    """
    name = str(getattr(node.target, "__name__", node.target)).removesuffix(".default")
    if not isinstance(value, Tensor) or len(read) < 2:
        return 0
    if "conv_transpose" in name:
        return 2 * read[0].numel() * read[1][0].numel()
    if "conv" in name or "linear" in name:
        return 2 * value.numel() * read[1][0].numel()
    if "attention" in name:
        return 4 * read[0].numel() * read[1].shape[-2]
    return 2 * value.numel() * read[-2].shape[-1] if name.endswith(("mm", "matmul")) else 0


def _moved(value: Any, read: Sequence[Any]) -> int:
    """Return how many numbers an operation reads and writes; a view of what is there moves none."""
    tensors = [one for one in read if isinstance(one, Tensor)]
    if not isinstance(value, Tensor) or any(value.data_ptr() == one.data_ptr() for one in tensors):
        return 0
    return value.numel() + sum(one.numel() for one in tensors)


def _size(value: Any) -> int:
    return value.numel() if isinstance(value, Tensor) else 0


__all__ = ["Graph", "Split", "Trunk"]
