"""CIFAR-10 and CIFAR-100 in their binary form: loose files, the usual subfolder, or still in the archive."""

from __future__ import annotations

import tarfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from baffle.data.dataset import Dataset, Split
from baffle.data.images import resize
from baffle.errors import DataError

SHAPE = (3, 32, 32)
PIXELS = 3 * 32 * 32


@dataclass(frozen=True, slots=True)
class Cifar:
    """One of the two data sets: where its files lie and what a record is.

    A record is `label_bytes` labels, the last of which counts (CIFAR-100 has the coarse one first), then 3,072 bytes:
    red, green and blue planes of 32 x 32. Source: Krizhevsky, "Learning multiple layers of features from tiny images",
    2009.
    """

    archive: str
    subfolder: str
    train: tuple[str, ...]
    test: tuple[str, ...]
    label_bytes: int
    classes: int

    def load(self, folder: Path, *, image_size: int = 0) -> Split:
        """Return the data set in `folder`: samples [3, 32, 32] (or [3, image_size, image_size]), scaled to [0, 1].

        The files may be shorter than the published ones, by whole records.

        Raises:
            DataError: a file is missing or is not made of records; the text names it.
            SettingsError: the image size is out of range.
        """
        files = dict(self._files(folder))
        train, test = (
            self._dataset({name: files[name] for name in names}, folder, image_size)
            for names in (self.train, self.test)
        )
        return Split(train, test)

    def missing(self, folder: Path) -> tuple[str, ...]:
        """Return the files that are neither in `folder`, nor in its subfolder, nor in the archive there."""
        if (folder / self.archive).is_file():
            return ()
        return min((self._absent(place) for place in (folder, folder / self.subfolder)), key=len)

    def _absent(self, place: Path) -> tuple[str, ...]:
        return tuple(name for name in self.train + self.test if not (place / name).is_file())

    def _files(self, folder: Path) -> Iterator[tuple[str, bytes]]:
        for place in (folder, folder / self.subfolder):
            if not self._absent(place):
                return ((name, _bytes(place / name)) for name in self.train + self.test)
        if (folder / self.archive).is_file():
            return _members(folder / self.archive, self.train + self.test)
        raise DataError(f"{folder}: {', '.join(self.missing(folder))} missing, and no {self.archive} either")

    def _dataset(self, files: dict[str, bytes], folder: Path, image_size: int) -> Dataset:
        records = [self._records(folder / name, content) for name, content in files.items()]
        images = np.concatenate([part[:, self.label_bytes :] for part in records]).reshape(-1, *SHAPE)
        labels = np.concatenate([part[:, self.label_bytes - 1] for part in records]).astype(np.int64)
        try:
            return Dataset(resize(images, image_size), labels, self.classes, scale=1 / 255)
        except DataError as error:
            raise DataError(f"{folder}: {', '.join(files)}: {error}") from None

    def _records(self, path: Path, content: bytes) -> NDArray[np.uint8]:
        length = self.label_bytes + PIXELS
        if not content or len(content) % length:
            raise DataError(f"{path}: {len(content)} bytes; must be one or more records of {length} bytes")
        return np.frombuffer(content, np.uint8).reshape(-1, length)


CIFAR10 = Cifar(
    archive="cifar-10-binary.tar.gz",
    subfolder="cifar-10-batches-bin",
    train=tuple(f"data_batch_{number}.bin" for number in range(1, 6)),
    test=("test_batch.bin",),
    label_bytes=1,
    classes=10,
)

CIFAR100 = Cifar(
    archive="cifar-100-binary.tar.gz",
    subfolder="cifar-100-binary",
    train=("train.bin",),
    test=("test.bin",),
    label_bytes=2,
    classes=100,
)


def _bytes(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise DataError(f"{path}: can't be read: {error}") from None


def _members(archive: Path, names: tuple[str, ...]) -> Iterator[tuple[str, bytes]]:
    """Yield the named files of a gzipped tar archive, read in place: nothing is unpacked to disk."""
    found: set[str] = set()
    try:
        with tarfile.open(archive, "r:gz") as tar:
            for member in tar:
                name = Path(member.name).name
                if name in names and member.isfile() and (stream := tar.extractfile(member)) is not None:
                    found.add(name)
                    yield name, stream.read()
    except (OSError, EOFError, zlib.error, tarfile.TarError) as error:
        raise DataError(f"{archive}: can't be read: {error}") from None
    if absent := [name for name in names if name not in found]:
        raise DataError(f"{archive}: holds no {', '.join(absent)}")
