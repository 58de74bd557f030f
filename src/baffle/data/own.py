"""One client's own samples in a real federation: a file whose labels mean what they mean at the server."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from baffle.data.dataset import Dataset, check_class_names
from baffle.data.labels import are_whole, looked_up
from baffle.data.npz import class_count, read_arrays, scale_of
from baffle.data.table import CLIENT_COLUMN, read_table
from baffle.errors import DataError

ARRAYS = ("x", "y", "classes")
"""What is read of an .npz file."""

LISTED = 5
"""How many of the federation's classes an error lists."""


def load_own(
    path: Path,
    *,
    classes: int,
    class_names: Sequence[str] = (),
    shape: tuple[int, ...],
    label_column: str = "label",
    client_column: str = CLIENT_COLUMN,
) -> Dataset:
    """Return all samples of one client's .npz or .csv file; nothing is held out, and no sample has an owner.

    The files are as for `load_npz` and `load_csv`, but for the labels. Strings in an .npz, and a .csv's labels always,
    are looked up in `class_names`; without names they are whole numbers from 0. Whole numbers in an .npz are looked up
    where all names are whole numbers (a class may be called "1" and be the first), else they are class numbers from 0.
    Of an .npz, `x_test`, `y_test` and `client` are not read.

    Args:
        path: the file; its suffix says which kind it is.
        classes: the federation's number of classes, ≥ 1.
        class_names: the federation's names of classes by number, as `Dataset.class_names`; none or `classes` of them.
        shape: the shape of one sample in the federation; a table's is its number of features alone.
        label_column: the column of a .csv file that holds the labels.
        client_column: the column of a .csv file that is neither a feature nor read; "client" need not be there.

    Raises:
        DataError: the file can't be read or is of another kind, a label is none of the federation's classes, or the
            samples have another shape: the text names the file, what was found and what the federation has. Or there
            are names of classes, but not one for each.
    """
    check_class_names(class_names, classes)
    try:
        inputs, labels = _read(path, label_column, client_column, classes)
        if isinstance(labels, np.ndarray) and labels.ndim == 1 and labels.dtype.kind in "ui" and are_whole(class_names):
            labels = [str(label) for label in labels.tolist()]
        numbers = _class_numbers(labels, classes, tuple(class_names))
        dataset = Dataset(inputs, numbers, classes, scale_of(inputs), class_names=tuple(class_names))
        if dataset.shape != tuple(shape):
            raise DataError(f"samples of shape {list(dataset.shape)}: the federation's have {list(shape)}")
        return dataset
    except DataError as error:
        raise DataError(f"{path}: {error}") from None


def _read(path: Path, label_column: str, client_column: str, classes: int) -> tuple[np.ndarray, np.ndarray | list[str]]:
    """Return a file's inputs, and its labels: a list where they are strings [N], else an array as it is."""
    match path.suffix.lower():
        case ".csv":
            table = read_table(path, label_column, client_column)
            return table.inputs, table.labels
        case ".npz":
            arrays = read_arrays(path, ARRAYS)
            if "classes" in arrays and (announced := class_count(arrays["classes"])) != classes:
                raise DataError(f"classes = {announced}: the federation has {classes}")
            labels = arrays["y"]
            return arrays["x"], labels.tolist() if labels.ndim == 1 and labels.dtype.kind == "U" else labels
        case suffix:
            raise DataError(f"a client's samples of kind {suffix or 'none'}: must be an .npz or .csv file")


def _class_numbers(labels: np.ndarray | list[str], classes: int, names: tuple[str, ...]) -> np.ndarray:
    """Return the labels [N] as class numbers; what can't be a label at all is left for `Dataset`."""
    names = names or tuple(map(str, range(classes)))
    listed = f"the federation's classes, {classes} in all: {', '.join(names[:LISTED])}" + ", ..." * (classes > LISTED)
    if isinstance(labels, list):
        numbers = looked_up(labels, names)
        if (numbers < 0).any():
            stray = int(np.argmax(numbers < 0))
            raise DataError(f"label {labels[stray]!r} of sample {stray}: must be one of {listed}")
        return numbers
    if labels.ndim == 1 and labels.dtype.kind in "uif":
        outside = (labels < 0) | (labels >= classes)
        if outside.any():
            stray = int(np.argmax(outside))
            rule = f"must be from 0 to {classes - 1}, the number of one of {listed}"
            raise DataError(f"label {labels[stray]} of sample {stray}: {rule}")
    return labels
