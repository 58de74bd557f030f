"""Sums over many orthogonal directions at once, by the fast Walsh-Hadamard transform."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from baffle.directions import Orthogonal
from baffle.directions.orthogonal import parity
from baffle.directions.signs import expand
from baffle.keys import Key

Integers = NDArray[np.int64]


def pays(law: Orthogonal, directions: int, size: int, price: float) -> bool:
    """Return whether N log₂ N steps at `price` cost less than adding up directions one by one."""
    return directions * size > price * law.most * law.order


def accumulate(
    total: Integers, weights: Integers, law: Orthogonal, key: Key, transform: Callable[[Integers], Integers]
) -> None:
    """Add Σₖ weights[k] · zₖ to `total` [m] as d · H v, with ±weights[k] at place r_k of v and 0 elsewhere.

    Its sign is that of the parity of r_k: H[r, N − 1 − i] = (−1)^popcount(r) · H[r, i].

    The same integers as direction by direction: no sum on the way is larger than Σ |weights|. Holds N of them.
    """
    law.refuse_longer(total.size)
    spread = np.zeros(law.most, np.int64)
    rows = law.rows(key, 0, weights.size)
    spread[rows] = weights * (1 - 2 * parity(rows).astype(np.int64))
    columns = expand(law.columns(key, 0, -(-total.size // 8)), 0, total.size)
    total += columns * transform(spread)[: total.size]


def transform(values: Integers) -> Integers:
    """Return H · values, H the Sylvester-Hadamard matrix of 2^order rows; `values` is used up.

    Each step adds and subtracts neighbours and moves the lowest bit of their index to the top; after log₂ N steps
    every bit is back in its place. Source: Pease 1968.
    """
    other, half = np.empty_like(values), values.size // 2
    for _ in range(values.size.bit_length() - 1):
        np.add(values[0::2], values[1::2], other[:half])
        np.subtract(values[0::2], values[1::2], other[half:])
        values, other = other, values
    return values
