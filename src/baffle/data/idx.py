"""MNIST and Fashion-MNIST: images and labels in IDX files, gzipped or not."""

from __future__ import annotations

import gzip
import math
import zlib
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from baffle.data.dataset import Dataset, Split
from baffle.data.images import resize
from baffle.errors import DataError

FILES = (
    "train-images-idx3-ubyte",
    "train-labels-idx1-ubyte",
    "t10k-images-idx3-ubyte",
    "t10k-labels-idx1-ubyte",
)
"""The four files' names; each may end in .gz."""

CLASSES = 10


def load_idx(folder: Path, *, image_size: int = 0) -> Split:
    """Return the data set whose four IDX files lie in `folder`.

    Samples [1, H, W] (or [1, image_size, image_size], interpolated), uint8 scaled to [0, 1], 10 classes. Source of the
    format: LeCun, Cortes & Burges, "The MNIST database of handwritten digits".

    Raises:
        DataError: a file is missing or is not what its name says; the text names it.
        SettingsError: the image size is out of range.
    """
    train_images, train_labels, test_images, test_labels = (_find(folder, name) for name in FILES)
    return Split(_dataset(train_images, train_labels, image_size), _dataset(test_images, test_labels, image_size))


def missing_idx(folder: Path) -> tuple[str, ...]:
    """Return which of the four files are in `folder` neither plain nor gzipped."""
    return tuple(name for name in FILES if not any((folder / found).is_file() for found in (name, name + ".gz")))


def _find(folder: Path, name: str) -> Path:
    for path in (folder / name, folder / f"{name}.gz"):
        if path.is_file():
            return path
    raise DataError(f"{folder / name}: there is no such file, gzipped or not")


def _dataset(images_path: Path, labels_path: Path, image_size: int) -> Dataset:
    images, labels = _read(images_path, 3), _read(labels_path, 1)
    if len(images) != len(labels):
        raise DataError(f"{labels_path}: {len(labels)} labels for the {len(images)} images of {images_path.name}")
    try:
        return Dataset(resize(images[:, np.newaxis], image_size), labels.astype(np.int64), CLASSES, scale=1 / 255)
    except DataError as error:
        raise DataError(f"{labels_path}: {error}") from None


def _read(path: Path, dimensions: int) -> NDArray[np.uint8]:
    """Return the array of bytes, of that many dimensions, in an IDX file.

    The file is the magic number 0x0000_08_dd (08: unsigned bytes, dd: dimensions), dd big-endian lengths of 4 bytes,
    then the bytes in C order and nothing else.
    """
    content, magic, start = _bytes(path), bytes((0, 0, 8, dimensions)), 4 + 4 * dimensions
    if content[:4] != magic:
        raise DataError(f"{path}: begins with 0x{content[:4].hex()}, not the IDX magic number 0x{magic.hex()}")
    if len(content) < start:
        raise DataError(f"{path}: ends inside its header, after {len(content)} of {start} bytes")
    shape = tuple(int(length) for length in np.frombuffer(content, ">u4", dimensions, 4))
    payload, expected = len(content) - start, math.prod(shape)
    if payload != expected or expected == 0:
        lengths = " x ".join(map(str, shape))
        raise DataError(f"{path}: holds {payload} bytes of data where its header says {lengths} = {expected}")
    return np.frombuffer(content, np.uint8, offset=start).reshape(shape)


def _bytes(path: Path) -> bytes:
    try:
        return gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
    except (OSError, EOFError, zlib.error) as error:
        raise DataError(f"{path}: can't be read: {error}") from None
