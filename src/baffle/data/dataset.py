"""Samples with labels, held once as they came, converted only when taken."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import ArrayLike, NDArray

from baffle.errors import DataError, SettingsError
from baffle.keys import Key


@dataclass(frozen=True, slots=True, eq=False)
class Dataset:
    """N labelled samples of one shape.

    Raises:
        DataError: there is no sample; lengths differ; an input is NaN or infinite; a label is not one of the classes;
            there are names of classes, but not one for each.
    """

    inputs: np.ndarray
    """[N, ...], uint8 or float32; other real numbers are converted to float32. Finite."""

    targets: NDArray[np.int64]
    """[N], labels 0 ≤ y < classes; other types of whole numbers are converted."""

    classes: int
    """Number of classes, ≥ 1; some may have no sample."""

    scale: float = 1.0
    """What uint8 inputs are multiplied by when they are taken; 1 where the inputs are float32."""

    owners: NDArray[np.int64] | None = None
    """[N], the number ≥ 0 of the client that each sample belongs to, where the data name their clients."""

    owner_names: tuple[str, ...] = ()
    """The clients' names by number, where they have names."""

    class_names: tuple[str, ...] = ()
    """The classes' names by number, where they have names: for labels that were strings in .npz, and for .csv labels
    always. Empty or one for each class, no two alike."""

    def __post_init__(self) -> None:
        inputs = _numbers(self.inputs)
        if inputs.ndim == 0 or len(inputs) == 0:
            raise DataError(f"inputs of shape {list(inputs.shape)}: there must be at least one sample")
        _refuse_nonfinite(inputs)
        if not math.isfinite(self.scale) or (self.scale != 1.0 and inputs.dtype != np.uint8):
            raise DataError(f"scale = {self.scale}: must be finite, and 1 where the inputs are not uint8")
        check_class_names(self.class_names, self.classes)
        object.__setattr__(self, "inputs", inputs)
        object.__setattr__(self, "targets", _labels(self.targets, len(inputs), self.classes))
        if self.owners is not None:
            object.__setattr__(self, "owners", _owners(self.owners, len(inputs), self.owner_names))

    def __len__(self) -> int:
        return len(self.inputs)

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape of one sample."""
        return self.inputs.shape[1:]

    def take(self, indices: NDArray[np.integer]) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
        """Return the inputs [B, ...] (float32, scaled; a copy) and labels [B] at `indices`, B whole numbers 0 ≤ i < N.

        Raises:
            IndexError: there is no such sample.
        """
        taken = np.take(self.inputs, indices, axis=0)
        if taken.dtype == np.uint8:
            taken = np.multiply(taken, np.float32(self.scale), dtype=np.float32)
        return taken, np.take(self.targets, indices)


@dataclass(frozen=True, slots=True)
class Split:
    """Samples to learn from and samples that only measure."""

    train: Dataset
    test: Dataset

    def __post_init__(self) -> None:
        if self.train.shape != self.test.shape or self.train.classes != self.test.classes:
            raise DataError(
                f"training samples have shape {list(self.train.shape)} and {self.train.classes} classes, "
                f"test samples {list(self.test.shape)} and {self.test.classes}: must be equal"
            )


def hold_out(dataset: Dataset, share: float, key: Key) -> Split:
    """Return a split whose test part is a uniformly random `share` of the samples, 0 < share < 1.

    Both parts keep the samples' order and have at least one sample. The share is the nearest whole number of samples.

    Raises:
        SettingsError: the share is out of range.
        DataError: there is only one sample.
    """
    if not 0 < share < 1:
        raise SettingsError("share", share, "must be above 0 and below 1")
    if len(dataset) < 2:
        raise DataError("1 sample: at least 2 are needed to hold some out")
    count = min(max(round(share * len(dataset)), 1), len(dataset) - 1)
    held = np.zeros(len(dataset), bool)
    held[key.generator().choice(len(dataset), count, replace=False)] = True
    return Split(_part(dataset, ~held), _part(dataset, held))


def check_class_names(names: Sequence[str], classes: int) -> None:
    """Raise DataError: there are names of classes, but not one for each, or two alike."""
    if names and len(names) != classes:
        raise DataError(f"{len(names)} names of classes, but {classes} classes: must be none, or one for each class")
    if twice := [name for name, count in Counter(names).items() if count > 1]:
        raise DataError(f"name of classes {twice[0]!r}: must stand for one class alone")


def _part(dataset: Dataset, chosen: NDArray[np.bool_]) -> Dataset:
    owners = None if dataset.owners is None else dataset.owners[chosen]
    return replace(dataset, inputs=dataset.inputs[chosen], targets=dataset.targets[chosen], owners=owners)


def _numbers(inputs: ArrayLike) -> np.ndarray:
    inputs = np.asarray(inputs)
    if inputs.dtype in (np.dtype(np.uint8), np.dtype(np.float32)):
        return inputs
    if inputs.dtype.kind not in "buif":
        raise DataError(f"inputs of type {inputs.dtype}: must be real numbers")
    with np.errstate(over="ignore"):  # what overflows becomes infinite and is refused by name
        return inputs.astype(np.float32)


def _refuse_nonfinite(inputs: np.ndarray) -> None:
    if inputs.dtype == np.uint8:
        return
    finite = np.isfinite(inputs).reshape(len(inputs), -1).all(axis=1)
    if not finite.all():
        raise DataError(f"inputs: sample {int(np.argmin(finite))} holds a NaN or an infinity (as float32)")


def _labels(targets: ArrayLike, samples: int, classes: int) -> NDArray[np.int64]:
    targets = np.asarray(targets)
    if classes < 1:
        raise DataError(f"classes = {classes}: must be at least 1")
    if targets.shape != (samples,):
        raise DataError(f"labels of shape {list(targets.shape)}: must be [{samples}], one for each sample")
    if targets.dtype.kind not in "buif":
        raise DataError(f"labels of type {targets.dtype}: must be whole numbers")
    good = (targets >= 0) & (targets < classes) & (targets == np.floor(targets))
    if not good.all():
        sample = int(np.argmin(good))
        raise DataError(f"label {targets[sample]} of sample {sample}: must be a whole number from 0 to {classes - 1}")
    return targets.astype(np.int64, copy=False)


def _owners(owners: ArrayLike, samples: int, names: tuple[str, ...]) -> NDArray[np.int64]:
    owners = np.asarray(owners)
    if owners.shape != (samples,) or owners.dtype.kind not in "ui":
        raise DataError(
            f"owners (clients) of type {owners.dtype} and shape {list(owners.shape)}: must be whole numbers [{samples}]"
        )
    if owners.min() < 0 or (names and owners.max() >= len(names)):
        raise DataError(f"owners from {owners.min()} to {owners.max()}: must be at least 0 and below the names' count")
    return owners.astype(np.int64, copy=False)
