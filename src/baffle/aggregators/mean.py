"""The weighted mean, as an exact integer sum and its weight."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from baffle.mechanisms import MISSING


def weighted_mean(
    integers: NDArray[np.int64], weights: NDArray[np.int64], blocks: NDArray[np.int64]
) -> NDArray[np.int64]:
    """Return Σ_c w_c q_c, int64 [H, K], from `integers` [C, H, K] and `weights` [C]: divided by Σ w_c it is the mean.

    Where a client's probe is missing, the others stand in for it: a sum that lacks weight is scaled up to the full
    weight, and where no client has a probe, the block's other probes are scaled up to its budget (`blocks` [K] gives
    each probe's block). Both are rational and rounded half to even, hence exact on every machine. A block of which no
    client measured anything in a step stays 0.
    """
    present = integers != MISSING
    sums = (np.where(present, integers, 0) * weights[:, None, None]).sum(axis=0)
    if present.all():
        return sums
    total = int(weights.sum())
    seen = (present * weights[:, None, None]).sum(axis=0)
    for step in range(sums.shape[0]):
        for block in np.unique(blocks):
            inside = np.flatnonzero(blocks == block)
            measured = inside[seen[step, inside] > 0]
            for k in measured:
                numerator = int(sums[step, k]) * total * inside.size
                sums[step, k] = _divide(numerator, int(seen[step, k]) * measured.size)
    return sums


def _divide(numerator: int, denominator: int) -> int:
    """Return the quotient rounded to the nearest integer, ties to even."""
    quotient, rest = divmod(numerator, denominator)
    return quotient + (2 * rest > denominator or (2 * rest == denominator and quotient % 2 == 1))
