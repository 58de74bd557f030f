"""Bytes of signs to entries: bit 1 is +1, bit 0 is −1, the lowest bit first."""

from __future__ import annotations

from functools import cache

import numpy as np
from numpy.typing import NDArray


@cache
def octets() -> NDArray[np.int8]:
    """Return the eight entries that each byte stands for, int8 [256, 8]. Read-only."""
    bits = np.unpackbits(np.arange(256, dtype=np.uint8)[:, None], axis=1, bitorder="little")
    values = 2 * bits.view(np.int8) - 1
    values.flags.writeable = False
    return values


def expand(packed: NDArray[np.uint8], start: int, stop: int) -> NDArray[np.int8]:
    """Return entries `start` to `stop`, int8 [stop − start], of bytes that begin with entry 8 · ⌊start/8⌋."""
    skip = start % 8
    # Eight entries are one word of 64 bits: NumPy copies it whole, and unpacks bits one by one.
    return octets().view(np.uint64).ravel().take(packed).view(np.int8)[skip : skip + stop - start]
