"""A model for clients that only run inference: a folder of ONNX graphs, first weights, and what they mean."""

# pyright: standard
from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, TypeAlias

import msgspec
import numpy as np
from msgspec import Meta
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import load_file

from baffle.errors import ModelError
from baffle.parameters import Layout
from baffle.processors import vectors
from baffle.storage import make_folder, remove, write_files

MANIFEST = "manifest.json"
WEIGHTS = "weights.safetensors"
FORMAT = "baffle-model-1"
CONSTANTS = "constants.bin"
LAYOUTS = "layouts.safetensors"
LAID_OUT = "@"
"""Between a tensor's name and that of the layout in which a graph takes it."""
GRID = 127
"""Largest magnitude of a weight on an int8 grid: the same on both sides, as quantisers have it."""
_PIECE = 1 << 20
_MOST_MANIFEST = 1 << 28
"""Bytes: room for the masks of a pruned model of a billion weights."""


Kind: TypeAlias = Literal[
    "bool", "float16", "float32", "float64", "int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64"
]
"""NumPy's names of the numbers that samples may have."""


class Feature(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One of a sample's arrays."""

    name: str
    dtype: Kind
    """Of its numbers."""
    shape: tuple[int, ...]
    """Of one sample; −1 for an axis of any length."""


class Cut(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The part of the model that depends on some tensors, as a graph of its own.

    Its inputs are trained tensors, samples, and values that `Manifest.trunk` computes before.
    """

    file: Annotated[str, Meta(min_length=1)]
    displaced: tuple[str, ...]
    """Trained tensors whose displacement it follows; others stay as they are."""
    operations: Annotated[int, Meta(ge=0)]
    """Floating-point operations a sample, the loss and moved numbers included."""
    settled: str = ""
    """The same for processors as `Manifest.settled_for` says, with some tensors in another layout."""


class Manifest(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What a folder holds; as JSON in manifest.json."""

    format: Literal["baffle-model-1"] = FORMAT
    layout: Layout
    """Of the trained tensors, which are inputs of the graphs under their names."""
    features: Annotated[tuple[Feature, ...], Meta(min_length=1)]
    """Of a sample; several come as fields of one structured array."""
    output: str
    whole: Cut
    """The model itself."""
    trunk: str = ""
    """Graph that computes the values that cuts begin with; empty where there are none."""
    cuts: tuple[Cut, ...] = ()
    coupled: bool = False
    """Whether samples of one pass share the range of their quantised activations."""
    grid: tuple[str, ...] = ()
    """Trained tensors that are int8: the vector counts them in steps of their grid."""
    settled_for: str = ""
    """Processors and version of ONNX Runtime that settled graphs are for, as `this_processor` says it."""
    files: dict[str, str]
    """BLAKE2b-256 of every other file, in hexadecimal."""

    @property
    def graphs(self) -> tuple[Cut, ...]:
        """Return the whole model and its cuts."""
        return (self.whole, *self.cuts)


@dataclass(frozen=True, slots=True)
class Bundle:
    """An exported model's folder, as `baffle export` writes it."""

    folder: Path
    manifest: Manifest
    digest: str
    """BLAKE2b-256 of the manifest, which has those of all files: one name for the whole model."""

    @classmethod
    def read(cls, folder: Path) -> Bundle:
        """Return what `folder` holds, every file compared with its digest.

        Raises:
            ModelError: it is no exported model, or a file is missing or damaged.
        """
        try:
            if (size := (folder / MANIFEST).stat().st_size) > _MOST_MANIFEST:
                raise ModelError(f"{folder / MANIFEST} has {size} bytes, and a manifest at most {_MOST_MANIFEST}")
            data = (folder / MANIFEST).read_bytes()
        except OSError as error:
            raise ModelError(f"{folder} is no exported model: {MANIFEST} can't be read ({error.strerror})") from None
        try:
            manifest = msgspec.json.decode(data, type=Manifest)
        except (msgspec.DecodeError, ModelError, ValueError) as error:
            raise ModelError(f"{folder / MANIFEST} is no manifest of an exported model: {error}") from None
        _refuse_strays(folder, manifest)
        for name, known in manifest.files.items():
            if _digest(folder / name) != known:
                raise ModelError(f"{folder / name} is not the file that was exported: export the model again")
        return cls(folder, manifest, hashlib.blake2b(data, digest_size=32).hexdigest())

    def layouts(self) -> Mapping[str, NDArray[np.int32]]:
        """Return where the entries of tensors in other layouts come from in the flattened tensor; −1 is a zero."""
        return _tensors(self.folder / LAYOUTS) if LAYOUTS in self.manifest.files else {}

    def given(self) -> Mapping[str, NDArray[np.generic]]:
        """Return the first values of the trained tensors, those in use only, [m] each."""
        return _tensors(self.folder / WEIGHTS)


def _tensors(path: Path) -> dict[str, NDArray[Any]]:
    try:
        return load_file(path)
    except (OSError, SafetensorError) as error:
        raise ModelError(f"{path} can't be read: {error}") from None


def this_processor(version: str) -> str:
    """Return what a settled graph depends on, the processor's vectors and ONNX Runtime's version; empty if unknown."""
    return f"{vectors()}, onnxruntime {version}" if vectors() else ""


def _refuse_strays(folder: Path, manifest: Manifest) -> None:
    """Refuse a manifest that names files elsewhere, or that it has no digest of."""
    used = {WEIGHTS, CONSTANTS, manifest.trunk, *(name for cut in manifest.graphs for name in (cut.file, cut.settled))}
    for name in sorted((used - {""}) | manifest.files.keys()):
        if name not in manifest.files or name != Path(name).name:
            raise ModelError(f"{folder / MANIFEST} names {name!r}, which is no file of the folder")


def _digest(path: Path) -> str:
    made = hashlib.blake2b(digest_size=32)
    try:
        with path.open("rb") as file:
            while piece := file.read(_PIECE):
                made.update(piece)
    except OSError as error:
        raise ModelError(f"{path} can't be read: {error.strerror}") from None
    return made.hexdigest()


def write(folder: Path, files: Mapping[str, bytes], **told: Any) -> Manifest:
    """Write an exported model: the manifest last, so that a folder that has one is whole.

    Args:
        folder: is made where it is missing.
        files: the content of each file.
        told: `Manifest`'s other fields.

    Raises:
        StorageError: a file can't be written.
    """
    make_folder(folder)
    digests = {name: hashlib.blake2b(data, digest_size=32).hexdigest() for name, data in files.items()}
    manifest = Manifest(files=digests, **told)
    clear(folder)
    write_files({folder / name: data for name, data in files.items()})
    write_files({folder / MANIFEST: msgspec.json.format(msgspec.json.encode(manifest), indent=1)})
    return manifest


def on_grid(weights: NDArray[np.floating]) -> NDArray[np.int8]:
    """Return weights that are counted in steps of a grid as the int8 numbers nearest to them, a half upwards."""
    return np.clip(np.floor(weights + 0.5), -GRID, GRID).astype(np.int8)


def clear(folder: Path) -> None:
    """Remove what an export left in `folder`, and nothing else."""
    try:
        before = msgspec.json.decode((folder / MANIFEST).read_bytes(), type=Manifest)
        _refuse_strays(folder, before)
    except (OSError, ValueError, ModelError):
        return
    for name in (MANIFEST, *before.files):
        remove(folder / name)
