"""The server's snapshots, handed out in parts."""

from __future__ import annotations

import hashlib
import logging
import math
from dataclasses import dataclass, field
from pathlib import Path

from baffle.engines.network.dialogue import PART, Offer
from baffle.errors import LedgerError, ModelError
from baffle.header import Header
from baffle.parameters import Layout
from baffle.snapshots import read_snapshot, snapshots

_ABOUT = 512
"""Bytes of a snapshot for each tensor beside its name and content, and for what is told of a block, at most."""
_AROUND = 1 << 16
"""Bytes of what else is in a snapshot."""

log = logging.getLogger("baffle")


def digest_of(data: bytes) -> bytes:
    """Return the digest under which a snapshot's bytes are offered."""
    return hashlib.blake2b(data, digest_size=32, person=b"baffle-offer").digest()


def largest(header: Header) -> int:
    """Return how many bytes a snapshot of a run can have, and a few more."""
    layout = header.federation.layout
    memory = header.algorithm.optimizer.init(0)
    dense = sum(math.prod(tensor.shape) for tensor in layout.tensors)
    vectors = 2 * dense + len(memory) * (layout.size + 2)
    names = sum(2 * (len(tensor.name.encode()) + _ABOUT) for tensor in layout.tensors)
    return 4 * vectors + names + _ABOUT * (len(layout.tensors) + len(memory)) + _AROUND


@dataclass(slots=True)
class Shelf:
    """A folder of snapshots that grows while it is read."""

    folder: Path
    layout: Layout
    _offers: dict[Path, Offer] = field(default_factory=dict[Path, Offer], repr=False)

    def newest(self) -> Offer | None:
        """Return the newest snapshot that is whole."""
        kept = snapshots(self.folder)
        self._offers = {path: offer for path, offer in self._offers.items() if path in kept}
        for path in kept:
            try:
                return self._offers.get(path) or self._looked_at(path)
            except (LedgerError, ModelError, OSError) as error:
                log.warning("%s; an older one is offered", error)
        return None

    def version(self) -> int:
        """Return the version of the newest snapshot by its name, 0 without any."""
        return next((int(path.stem) for path in snapshots(self.folder)), 0)

    def _looked_at(self, path: Path) -> Offer:
        state, _ = read_snapshot(path, self.layout)
        data = path.read_bytes()
        self._offers[path] = offer = Offer(state.round, len(data), digest_of(data))
        return offer

    def part(self, digest: bytes, offset: int) -> bytes | None:
        """Return a part of an offered snapshot; None where it is no longer kept, or has no such part."""
        path = next((path for path, offer in self._offers.items() if offer.digest == digest), None)
        if path is None:
            return None
        try:
            with path.open("rb") as file:
                file.seek(offset)
                return file.read(PART) or None
        except OSError:
            return None
