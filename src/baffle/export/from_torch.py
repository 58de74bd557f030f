"""A PyTorch module as an ONNX graph, its trained parameters inputs from the start."""

# pyright: standard
from __future__ import annotations

import contextlib
import copy
import io
import logging
import re
import warnings
from collections.abc import Iterator, Mapping
from glob import escape
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, cast

import numpy as np
import onnx
import torch
from numpy.typing import NDArray
from onnx import numpy_helper
from torch import nn

from baffle.errors import MissingExtraError, ModelError
from baffle.export.model import nodes, normal
from baffle.export.prepare import Source
from baffle.runtimes.torch_layout import layout_of

SAMPLES, OUTPUTS, _VALUE = "/samples", "/outputs", "/"
"""Names of the graph's input and output, and an end that no parameter's name has."""
_COLOURS = re.compile(r"\x1b\[[0-9;]*m")


class _Called(nn.Module):
    """A module as a function of its samples and of some parameters."""

    def __init__(self, module: nn.Module, names: list[str]) -> None:
        super().__init__()
        self.module = module
        self.names = names

    def forward(self, samples: torch.Tensor, parameters: list[torch.Tensor]) -> torch.Tensor:
        given = dict(zip(self.names, parameters, strict=True))
        return torch.func.functional_call(self.module, given, (samples,))


def from_torch(module: nn.Module, sample: NDArray[Any], *, drawn: bool = False) -> Source:
    """Return a module as an ONNX model in which no parameter has been folded into another constant.

    What is trained, where nobody says otherwise, is what has requires_grad.

    Args:
        module: (samples [B, ...]) -> outputs [B, ...]; called in evaluation mode, float32.
        sample: one sample, without a batch axis.
        drawn: begin known layers from the run's key rather than with the module's own values.

    Raises:
        ModelError: nothing is trained, or the module can't be written as ONNX for any number of samples.
        MissingExtraError: onnx or onnxscript is not installed.
    """
    layout = layout_of(module, drawn=drawn)
    module = _copied(module)
    names = [name for name, _ in module.named_parameters()]
    given = {name: parameter.detach() for name, parameter in module.named_parameters()}
    shown = torch.from_numpy(np.stack([sample] * 3))
    model = _exported(_Called(module, names), shown, list(given.values()))
    _name_inputs(model, names)
    model.graph.initializer.extend(numpy_helper.from_array(tensor.numpy(), name) for name, tensor in given.items())

    def outputs(given: Mapping[str, NDArray[Any]]) -> NDArray[Any]:
        with torch.inference_mode():
            return module(torch.from_numpy(given[SAMPLES])).numpy()

    initial = {tensor.name: tensor.initial for tensor in layout.tensors}
    order = tuple(tensor.name for tensor in layout.tensors)
    return Source(normal(model), outputs, tuple(escape(name) for name in order), initial=initial, order=order)


def _copied(module: nn.Module) -> nn.Module:
    return copy.deepcopy(module).cpu().float().eval().requires_grad_(requires_grad=False)


def _exported(called: _Called, samples: torch.Tensor, parameters: list[torch.Tensor]) -> onnx.ModelProto:
    dynamic: Any = ({0: torch.export.Dim.DYNAMIC}, [None] * len(parameters))
    called.eval()
    try:
        with TemporaryDirectory() as folder, _quiet():
            path = Path(folder) / "model.onnx"
            program = torch.onnx.export(
                called, (samples, parameters), dynamo=True, dynamic_shapes=dynamic, verbose=False
            )
            cast("torch.onnx.ONNXProgram", program).save(path)
            return onnx.load(path)
    except ImportError as error:
        raise MissingExtraError("onnxscript", "onnx") from error
    except Exception as error:  # a user's own module may fail in any way
        raise ModelError(f"it can't be written as ONNX: {_told(error)}") from error


def _name_inputs(model: onnx.ModelProto, names: list[str]) -> None:
    """Give the graph's inputs and output the names that the library knows them by, and no other value one of these."""
    if len(model.graph.output) != 1:
        raise ModelError(f"it gives {len(model.graph.output)} outputs, and must give one tensor")
    known = dict(zip([one.name for one in model.graph.input], [SAMPLES, *names], strict=True))
    known[model.graph.output[0].name] = OUTPUTS
    inner = [name for node in nodes(model.graph) for name in node.output if name and name not in known]
    constants = [tensor.name for tensor in model.graph.initializer]
    known |= {name: f"{name}{_VALUE}" for name in (*inner, *constants)}
    for node in nodes(model.graph):
        for field in (node.input, node.output):
            renamed = [known.get(name, name) for name in field]
            del field[:]
            field.extend(renamed)
    for one in (*model.graph.input, *model.graph.output, *model.graph.initializer):
        one.name = known[one.name]
    model.graph.input[0].type.tensor_type.shape.dim[0].dim_param = "batch"


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keep the exporter from telling of its progress, and of packages that nobody asked for."""
    level = logging.root.manager.disable
    logging.disable(logging.ERROR)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(level)


def _told(error: BaseException) -> str:
    """Return the first line of what the first of a chain of errors says, with its kind."""
    while error.__cause__ is not None:
        error = error.__cause__
    return _COLOURS.sub("", f"{type(error).__name__}: {error}").strip().split("\n")[0][:300]
