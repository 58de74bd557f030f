"""Integers of any width from 2 to 64 bits, side by side in bytes."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from baffle.errors import ReportError


def packed_size(count: int, bits: int) -> int:
    """Return the bytes that `count` integers of `bits` bits take."""
    return (count * bits + 7) // 8


def pack(values: NDArray[np.int64], bits: int) -> bytes:
    """Return `values` [N] (two's complement in `bits` bits, lowest bit first, no gaps) as bytes; spare bits are 0."""
    planes = (values[:, None] >> np.arange(bits)) & 1
    return np.packbits(planes.astype(np.uint8).ravel(), bitorder="little").tobytes()


def unpack(data: bytes, count: int, bits: int) -> NDArray[np.int64]:
    """Return the `count` integers [N] that `pack` wrote.

    Raises:
        ReportError: the length is wrong or a spare bit is set.
    """
    if len(data) != packed_size(count, bits):
        raise ReportError(f"{len(data)} bytes of slopes where {packed_size(count, bits)} were due")
    flat = np.unpackbits(np.frombuffer(data, np.uint8), bitorder="little")
    if flat[count * bits :].any():
        raise ReportError("spare bits are not zero")
    planes = flat[: count * bits].reshape(count, bits).astype(np.int64)
    shifts = np.arange(bits)
    return ((planes[:, :-1] << shifts[:-1]).sum(axis=1)) - (planes[:, -1] << shifts[-1])
