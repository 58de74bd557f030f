"""Constants of several graphs, kept once beside them."""

# pyright: standard
from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from onnx import ModelProto, TensorProto, external_data_helper

from baffle.bundle import CONSTANTS
from baffle.export.model import value

_LARGE = 1024
"""Bytes from which on a constant lies beside the graphs, once for all of them."""
_PAGE = 4096
"""Bytes to whose multiples constants are moved, so that processes can map them."""


def shared(graphs: Mapping[str, ModelProto]) -> dict[str, bytes]:
    """Return the graphs' files, and one with the constants that they share."""
    places: dict[str, tuple[int, int]] = {}
    constants = bytearray()
    files: dict[str, bytes] = {}
    for name, graph in graphs.items():
        made = ModelProto()
        made.CopyFrom(graph)
        for tensor in made.graph.initializer:
            _move_out(tensor, places, constants)
        files[name] = made.SerializeToString()
    return {**files, CONSTANTS: bytes(constants)}


def _move_out(tensor: TensorProto, places: dict[str, tuple[int, int]], constants: bytearray) -> None:
    """Put a large constant's bytes behind those of others, if they are not there, and refer to them."""
    data = np.ascontiguousarray(value(tensor)).tobytes()
    if len(data) < _LARGE or tensor.data_type == TensorProto.STRING:
        return
    if tensor.name not in places:
        constants.extend(b"\0" * (-len(constants) % _PAGE))
        places[tensor.name] = (len(constants), len(data))
        constants.extend(data)
    kept = TensorProto(name=tensor.name, data_type=tensor.data_type, dims=tensor.dims, raw_data=b"")
    tensor.CopyFrom(kept)
    external_data_helper.set_external_data(tensor, CONSTANTS, *places[tensor.name])
