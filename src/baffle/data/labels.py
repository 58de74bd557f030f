"""Numbers for names: classes and clients that the data call by texts or by arbitrary whole numbers."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray


def numbered(values: Sequence[str | int]) -> tuple[NDArray[np.int64], tuple[str, ...]]:
    """Return each value's number in sorted order, and the values as text in that order.

    The order is that of whole numbers where all are whole numbers, else of their texts.

    >>> numbered(["10", "9", "10"])
    (array([1, 0, 1]), ('9', '10'))
    """
    try:
        keys: list[int] | list[str] = [int(value) for value in values]
    except ValueError:
        keys = [str(value) for value in values]
    order = sorted(set(keys))
    number = {value: index for index, value in enumerate(order)}
    return np.array([number[value] for value in keys], np.int64), tuple(map(str, order))
