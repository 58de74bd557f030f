"""A user's own arrays in an .npz file."""

from __future__ import annotations

import math
import zipfile
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import IO

import numpy as np

from baffle.data.dataset import Dataset, Split, hold_out
from baffle.data.labels import numbered
from baffle.errors import DataError
from baffle.keys import Key

HELD_OUT = 0.2
"""The share of samples held out where the file names no test samples."""

ARRAYS = ("x", "y", "x_test", "y_test", "client", "classes")
"""What an .npz file may hold; other arrays are not read."""

_UNREADABLE = (OSError, EOFError, ValueError, TypeError, RuntimeError, MemoryError)
_MOST_RATIO = 100
"""Times its file's size that arrays may take in memory: zlib can make a thousand out of one."""
_MOST_SMALL = 1 << 28
"""Bytes that arrays may take however small their file is."""


def load_npz(path: Path, key: Key) -> Split:
    """Return the arrays of an .npz file.

    - `x` [N, ...]: uint8 (scaled by 1/255 to [0, 1]) or any real numbers (float32, as they are);
    - `y` [N]: class numbers from 0, or strings, numbered in sorted order and then the classes' names;
    - `x_test`, `y_test`, optional: the same of the test samples; without them a random fifth is held out;
    - `client` [N], optional: whole numbers or strings, numbered in sorted order;
    - `classes`, optional: the number of classes, where the file may lack the last ones; the classes have no names where
      it is not the number of strings.

    Raises:
        DataError: the file can't be read or an array can't be used; the text names it.
    """
    try:
        return _split(read_arrays(path), key)
    except DataError as error:
        raise DataError(f"{path}: {error}") from None


def read_arrays(path: Path, names: Sequence[str] = ARRAYS) -> dict[str, np.ndarray]:
    """Return those of the named arrays that an .npz file holds, `x` and `y` among them.

    Raises:
        DataError: the file can't be read or lacks `x` or `y`; the text does not name the file.
    """
    try:
        with path.open("rb") as opened, np.load(opened, allow_pickle=False) as file:
            _refuse_bombs(file.zip, path.stat().st_size, names)
            arrays = {name: file[name] for name in file.files if name in names}
    except (
        MemoryError,
        OSError,
        EOFError,
        ValueError,
        TypeError,
        RuntimeError,
        zipfile.BadZipFile,
        zlib.error,
    ) as error:
        raise DataError(f"can't be read as .npz: {error}") from None
    if absent := sorted({"x", "y"} - arrays.keys()):
        raise DataError(
            f"no array {' and '.join(absent)}; it holds {', '.join(arrays) or 'none'} of {', '.join(names)}"
        )
    return arrays


def _refuse_bombs(archive: zipfile.ZipFile, size: int, names: Sequence[str]) -> None:
    """Raise DataError where arrays would be far larger than their file, or than the file says: before they are made.

    What is looked at is a file's directory and each array's first bytes.
    """
    wanted = {f"{name}.npy": name for name in names}
    held = [(wanted[info.filename], info) for info in archive.infolist() if info.filename in wanted]
    if (total := sum(info.file_size for _, info in held)) > max(_MOST_SMALL, _MOST_RATIO * size):
        raise DataError(
            f"{', '.join(name for name, _ in held)} would take {total} bytes, and the file has {size}: at most "
            f"{_MOST_RATIO} times as many are read, or {_MOST_SMALL}; np.savez writes without compression"
        )
    for name, info in held:
        with archive.open(info) as member:
            claimed, left = _claimed(member), info.file_size - member.tell()
        if claimed > left:
            raise DataError(f"{name} says that it has {claimed} bytes, and there are {left}")


def _claimed(member: IO[bytes]) -> int:
    """Return how many bytes an array in the .npy format says that it has."""
    version = np.lib.format.read_magic(member)
    read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    shape, _, dtype = read(member)
    return math.prod(shape) * dtype.itemsize


def class_count(classes: np.ndarray) -> int:
    """Return the number in the array `classes`. Raises DataError: it is not one whole number."""
    if classes.ndim != 0 or classes.dtype.kind not in "ui":
        raise DataError(f"classes of type {classes.dtype} and shape {list(classes.shape)}: must be one whole number")
    return int(classes)


def scale_of(inputs: np.ndarray) -> float:
    """Return what the array `x` is multiplied by when it is taken: bytes become [0, 1], others stay."""
    return 1 / 255 if inputs.dtype == np.uint8 else 1.0


def _split(arrays: dict[str, np.ndarray], key: Key) -> Split:
    if ("x_test" in arrays) != ("y_test" in arrays):
        raise DataError("x_test and y_test must come together")
    labels, classes, class_names = _class_numbers([arrays[name] for name in ("y", "y_test") if name in arrays])
    classes = class_count(arrays["classes"]) if "classes" in arrays else classes
    class_names = class_names if len(class_names) == classes else ()
    owners, owner_names = _clients(arrays.get("client"))
    train = Dataset(arrays["x"], labels[0], classes, scale_of(arrays["x"]), owners, owner_names, class_names)
    if "x_test" not in arrays:
        return hold_out(train, HELD_OUT, key)
    test = Dataset(arrays["x_test"], labels[1], classes, scale_of(arrays["x_test"]), class_names=class_names)
    return Split(train, test)


def _class_numbers(labels: list[np.ndarray]) -> tuple[list[np.ndarray], int, tuple[str, ...]]:
    """Return the labels as class numbers, how many classes there are, and the strings that they were, by number.

    What is wrong is left for `Dataset`.
    """
    together = np.concatenate([part.ravel() for part in labels])
    if together.dtype.kind == "U" and all(part.ndim == 1 for part in labels):
        numbers, names = numbered(together.tolist())
        return np.split(numbers, [len(labels[0])]), len(names), names
    finite = together.dtype.kind in "buif" and np.isfinite(together)
    return labels, int(np.max(together, where=finite, initial=0)) + 1 if np.any(finite) else 1, ()


def _clients(clients: np.ndarray | None) -> tuple[np.ndarray | None, tuple[str, ...]]:
    if clients is None:
        return None, ()
    if clients.ndim != 1 or clients.dtype.kind not in "Uui":
        shape = list(clients.shape)
        raise DataError(f"client of type {clients.dtype} and shape {shape}: must be whole numbers or strings [N]")
    return numbered(clients.tolist())
