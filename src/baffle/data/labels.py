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


def looked_up(values: Sequence[str], names: Sequence[str]) -> NDArray[np.int64]:
    """Return each value's place in `names`, which are as `numbered` returns them; -1 where it is none of them.

    They are compared as whole numbers where all names are whole numbers, else as texts.

    >>> looked_up(["09", "10", "cat"], ["9", "10"])
    array([ 0,  1, -1])
    """
    key = _whole if are_whole(names) else str
    number = {key(name): index for index, name in enumerate(names)}
    return np.array([number.get(key(value), -1) for value in values], np.int64)


def are_whole(names: Sequence[str]) -> bool:
    """Return whether there are names, all of them whole numbers.

    >>> are_whole(["1", "2"]), are_whole(["1", "cat"]), are_whole([])
    (True, False, False)
    """
    return bool(names) and all(isinstance(_whole(name), int) for name in names)


def _whole(text: str) -> int | str:
    try:
        return int(text)
    except ValueError:
        return text
