"""A data set by its name or its file: where its files are looked for, and downloaded where they are missing."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from baffle.data import cifar, idx
from baffle.data import download as remotes
from baffle.data.dataset import Split
from baffle.data.digits import load_digits
from baffle.data.images import check_size
from baffle.data.npz import load_npz
from baffle.data.table import CLIENT_COLUMN, load_csv
from baffle.errors import DataError, SettingsError
from baffle.keys import Key


class _Read(Protocol):
    def __call__(self, folder: Path, *, image_size: int = 0) -> Split: ...


@dataclass(frozen=True, slots=True)
class _Published:
    """A data set of published files."""

    read: _Read
    missing: Callable[[Path], tuple[str, ...]]
    remotes: tuple[remotes.Remote, ...]
    image_size: int = 0


PAPER_SIZE = 32
"""The side to which the paper resizes MNIST, pixels."""

_PUBLISHED = {
    "mnist": _Published(idx.load_idx, idx.missing_idx, remotes.MNIST, PAPER_SIZE),
    "fashion": _Published(idx.load_idx, idx.missing_idx, remotes.FASHION, PAPER_SIZE),
    "cifar10": _Published(cifar.CIFAR10.load, cifar.CIFAR10.missing, remotes.CIFAR10),
    "cifar100": _Published(cifar.CIFAR100.load, cifar.CIFAR100.missing, remotes.CIFAR100),
}


def load(
    dataset: str,
    *,
    data_dir: Path | None = None,
    image_size: int | None = None,
    key: Key,
    label_column: str = "label",
    client_column: str = CLIENT_COLUMN,
    download: bool = True,
) -> Split:
    """Return the data set named `dataset`.

    Args:
        dataset: digits, mnist, fashion, cifar10, cifar100, or the path of an .npz or .csv file.
        data_dir: the folder of a published data set's files; None is `default_folder(dataset)`. Others have none.
        image_size: the side to which images are resized, pixels; 0 leaves them as they are; None is 32 for mnist and
            fashion (as in the paper) and 0 for the others. Files of one's own are never resized.
        key: names the random stream that holds samples out where the data come without test samples.
        label_column: the column of a .csv file that holds the labels.
        client_column: the column of a .csv file that names each row's client; "client" need not be there.
        download: whether missing files are downloaded to the folder.

    Raises:
        SettingsError: there is no such data set, or the image size is out of range.
        DataError: files are missing or can't be used; the text names them.
        MissingExtraError: the digits need scikit-learn.
    """
    check_size(image_size or 0)
    suffix = Path(dataset).suffix.lower()
    if suffix in (".npz", ".csv") and image_size not in (None, 0):
        raise SettingsError("image_size", image_size, f"must be left out for {dataset}: its samples are not resized")
    if suffix == ".npz":
        return load_npz(Path(dataset), key)
    if suffix == ".csv":
        return load_csv(Path(dataset), key, label_column=label_column, client_column=client_column)
    if dataset == "digits":
        return load_digits(key, image_size=image_size or 0)
    if (published := _PUBLISHED.get(dataset)) is None:
        names = ", ".join(["digits", *_PUBLISHED])
        raise SettingsError("dataset", dataset, f"must be {names}, or the path of an .npz or .csv file")
    folder = data_dir or default_folder(dataset)
    _complete(dataset, published, folder, download)
    return published.read(folder, image_size=published.image_size if image_size is None else image_size)


def default_folder(dataset: str) -> Path:
    """Return the folder of a published data set's files: baffle/`dataset` in $XDG_CACHE_HOME, else in ~/.cache."""
    cache = os.environ.get("XDG_CACHE_HOME")
    return (Path(cache) if cache else Path.home() / ".cache") / "baffle" / dataset


def _complete(dataset: str, published: _Published, folder: Path, download: bool) -> None:
    missing = published.missing(folder)
    if not missing:
        return
    absent = f"{dataset}: {', '.join(missing)} missing in {folder}"
    if not download:
        raise DataError(f"{absent}, and downloading is off; with no data_dir the command line downloads them")
    try:
        for remote in published.remotes:
            # A gzipped remote stands for the file inside it; a lone archive for all the files.
            if len(published.remotes) == 1 or remote.name.removesuffix(".gz") in missing:
                remote.fetch(folder)
    except DataError as error:
        raise DataError(f"{absent}. {error}") from None
