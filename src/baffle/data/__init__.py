"""Data sets, and their partitions over clients. Importing this needs NumPy alone."""

from __future__ import annotations

from baffle.data.cifar import CIFAR10, CIFAR100, Cifar
from baffle.data.dataset import Dataset, Split, hold_out
from baffle.data.digits import load_digits
from baffle.data.download import fetch
from baffle.data.idx import load_idx
from baffle.data.images import resize
from baffle.data.load import default_folder, load
from baffle.data.npz import load_npz
from baffle.data.own import load_own
from baffle.data.partition import Indices, by_owner, dirichlet, iid, shards
from baffle.data.table import load_csv

__all__ = [
    "CIFAR10",
    "CIFAR100",
    "Cifar",
    "Dataset",
    "Indices",
    "Split",
    "by_owner",
    "default_folder",
    "dirichlet",
    "fetch",
    "hold_out",
    "iid",
    "load",
    "load_csv",
    "load_digits",
    "load_idx",
    "load_npz",
    "load_own",
    "resize",
    "shards",
]
