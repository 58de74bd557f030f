"""States on disk: safetensors files, written whole or not at all."""

# pyright: standard
from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import cast

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import load, save

from baffle.errors import LedgerError
from baffle.memory import Memory
from baffle.parameters import Layout
from baffle.server import State
from baffle.storage import remove, write_atomically

INITIAL = "initial.safetensors"
"""Tensors that came with the model, in a folder of snapshots."""
_BLANK = b"0" * 64
_SEAL = re.compile(rb'"seal":"([0-9a-f]{64})"')
_UNFIT = (KeyError, ValueError, TypeError, AttributeError, OverflowError, RecursionError)
"""What else goes wrong with a file that somebody else made and sealed."""
KEEP = 2
"""Snapshots kept beside the newest: enough to survive one that was damaged."""


def write_tensors(path: Path, tensors: Mapping[str, NDArray[np.generic]], about: Mapping[str, str]) -> None:
    """Write named tensors and a few words about them, with a digest over the whole file."""
    contiguous = {name: np.ascontiguousarray(tensor) for name, tensor in tensors.items()}
    data = save(contiguous, metadata={**about, "seal": _BLANK.decode()})
    place = _place(data)
    write_atomically(path, data[: place.start] + _seal(data) + data[place.stop :])


def read_tensors(path: Path) -> tuple[dict[str, NDArray[np.generic]], dict[str, str]]:
    """Return what `write_tensors` wrote.

    Raises:
        LedgerError: the file is missing or damaged.
    """
    try:
        data = path.read_bytes()
        place = _place(data)
        if data[place] != _seal(data[: place.start] + _BLANK + data[place.stop :]):
            raise ValueError("it was changed after it was written")
        header = data[8 : 8 + int.from_bytes(data[:8], "little")]
        tensors = {name: tensor.copy() for name, tensor in load(data).items()}
        about: dict[str, str] = json.loads(header)["__metadata__"]
        del about["seal"]
        return tensors, about
    except (SafetensorError, OSError, *_UNFIT) as error:
        raise LedgerError(0, f"{path} can't be read: {error}") from None


def _seal(data: bytes) -> bytes:
    """Return the digest of a file whose seal is still blank."""
    return hashlib.blake2b(data, digest_size=32, person=b"baffle-snapshot").hexdigest().encode()


def _place(data: bytes) -> slice:
    """Return where a file's seal stands."""
    found = _SEAL.search(data)
    if found is None:
        raise ValueError("it was changed after it was written")
    return slice(*found.span(1))


def write_snapshot(folder: Path, layout: Layout, state: State, head: bytes) -> Path:
    """Write the state after `state.round` rounds, of the ledger whose last record's digest is `head`; drop old ones."""
    tensors: dict[str, NDArray[np.generic]] = {}
    tensors |= {f"parameters.{name}": tensor for name, tensor in layout.unflatten(state.parameters).items()}
    tensors |= {f"average.{name}": tensor for name, tensor in layout.unflatten(state.average).items()}
    tensors |= {f"memory.{name}": array for name, array in state.memory.items()}
    about = {
        "round": str(state.round),
        "attempt": str(state.attempt),
        "squares": json.dumps([value.hex() for value in state.squares]),
        "size": state.size.hex(),
        "head": head.hex(),
    }
    path = folder / f"{state.round:08d}.safetensors"
    write_tensors(path, tensors, about)
    for old in snapshots(folder)[KEEP + 1 :]:
        remove(old)
    return path


def snapshots(folder: Path) -> list[Path]:
    """Return the folder's snapshots, newest first."""
    return sorted(folder.glob("[0-9]*.safetensors"), reverse=True)


def read_snapshot(path: Path, layout: Layout) -> tuple[State, bytes]:
    """Return a state, and the digest of the ledger's record that it follows.

    Raises:
        LedgerError: the file is damaged, or no snapshot.
        ModelError: it is of another model.
    """
    tensors, about = read_tensors(path)

    def part(prefix: str) -> dict[str, NDArray[np.generic]]:
        return {name.removeprefix(prefix): array for name, array in tensors.items() if name.startswith(prefix)}

    try:
        state = State(
            parameters=layout.flatten(part("parameters.")),
            average=layout.flatten(part("average.")),
            memory=cast("Memory", part("memory.")),
            round=int(about["round"]),
            attempt=int(about["attempt"]),
            squares=tuple(float.fromhex(value) for value in json.loads(about["squares"])),
            size=float.fromhex(about.get("size", "0x0p+0")),
        )
        return state, bytes.fromhex(about["head"])
    except _UNFIT as error:
        raise LedgerError(0, f"{path} is no snapshot: {error}") from None
