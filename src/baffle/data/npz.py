"""A user's own arrays in an .npz file."""

from __future__ import annotations

import zipfile
import zlib
from pathlib import Path

import numpy as np

from baffle.data.dataset import Dataset, Split, hold_out
from baffle.data.labels import numbered
from baffle.errors import DataError
from baffle.keys import Key

HELD_OUT = 0.2
"""The share of samples held out where the file names no test samples."""

ARRAYS = ("x", "y", "x_test", "y_test", "client", "classes")
"""What an .npz file may hold; other arrays are not read."""


def load_npz(path: Path, key: Key) -> Split:
    """Return the arrays of an .npz file.

    - `x` [N, ...]: uint8 (scaled by 1/255 to [0, 1]) or any real numbers (float32, as they are);
    - `y` [N]: class numbers from 0, or strings, numbered in sorted order;
    - `x_test`, `y_test`, optional: the same of the test samples; without them a random fifth is held out;
    - `client` [N], optional: whole numbers or strings, numbered in sorted order;
    - `classes`, optional: the number of classes, where the file may lack the last ones.

    Raises:
        DataError: the file can't be read or an array can't be used; the text names it.
    """
    arrays = _arrays(path)
    try:
        return _split(arrays, key)
    except DataError as error:
        raise DataError(f"{path}: {error}") from None


def _arrays(path: Path) -> dict[str, np.ndarray]:
    try:
        with path.open("rb") as opened, np.load(opened, allow_pickle=False) as file:
            return {name: file[name] for name in file.files if name in ARRAYS}
    except (OSError, EOFError, ValueError, TypeError, RuntimeError, zipfile.BadZipFile, zlib.error) as error:
        raise DataError(f"{path}: can't be read as .npz: {error}") from None


def _split(arrays: dict[str, np.ndarray], key: Key) -> Split:
    if absent := sorted({"x", "y"} - arrays.keys()):
        held = ", ".join(arrays) or "none"
        raise DataError(f"no array {' and '.join(absent)}; it holds {held} of {', '.join(ARRAYS)}")
    if ("x_test" in arrays) != ("y_test" in arrays):
        raise DataError("x_test and y_test must come together")
    labels, classes = _class_numbers([arrays[name] for name in ("y", "y_test") if name in arrays])
    classes = _whole(arrays["classes"]) if "classes" in arrays else classes
    owners, names = _clients(arrays.get("client"))
    train = Dataset(arrays["x"], labels[0], classes, _scale(arrays["x"]), owners, names)
    if "x_test" not in arrays:
        return hold_out(train, HELD_OUT, key)
    return Split(train, Dataset(arrays["x_test"], labels[1], classes, _scale(arrays["x_test"])))


def _whole(classes: np.ndarray) -> int:
    if classes.ndim != 0 or classes.dtype.kind not in "ui":
        raise DataError(f"classes of type {classes.dtype} and shape {list(classes.shape)}: must be one whole number")
    return int(classes)


def _class_numbers(labels: list[np.ndarray]) -> tuple[list[np.ndarray], int]:
    """Return the labels as class numbers, and how many classes they name; what is wrong is left for `Dataset`."""
    together = np.concatenate([part.ravel() for part in labels])
    if together.dtype.kind == "U" and all(part.ndim == 1 for part in labels):
        numbers, names = numbered(together.tolist())
        return np.split(numbers, [len(labels[0])]), len(names)
    finite = together.dtype.kind in "buif" and np.isfinite(together)
    return labels, int(np.max(together, where=finite, initial=0)) + 1 if np.any(finite) else 1


def _clients(clients: np.ndarray | None) -> tuple[np.ndarray | None, tuple[str, ...]]:
    if clients is None:
        return None, ()
    if clients.ndim != 1 or clients.dtype.kind not in "Uui":
        shape = list(clients.shape)
        raise DataError(f"client of type {clients.dtype} and shape {shape}: must be whole numbers or strings [N]")
    return numbered(clients.tolist())


def _scale(inputs: np.ndarray) -> float:
    return 1 / 255 if inputs.dtype == np.uint8 else 1.0
