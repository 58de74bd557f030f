"""Names of random streams: a key is a path hashed from a secret. See docs/noise.md, section 1."""

from __future__ import annotations

import hashlib
import operator
from dataclasses import dataclass, field

import numpy as np

from baffle.errors import SettingsError

BYTES = 32
"""Length of a key's secret."""


@dataclass(frozen=True, slots=True)
class Key:
    """The name of a family of random streams.

        child = BLAKE2b-256(key=parent, person="baffle-key-v1", data=tag ‖ value)

    Equal paths give equal streams on every machine; different paths give unrelated ones. A key is folded, never
    advanced: nothing here has a state. Whoever knows a key knows everything below it and nothing above it.

    >>> Key.root(0).fold("directions", 3) == Key.root(0).fold("directions").fold(3)
    True
    """

    secret: bytes = field(repr=False)
    """32 bytes."""

    def __post_init__(self) -> None:
        if len(self.secret) != BYTES:
            raise SettingsError("key", f"{len(self.secret)} bytes", f"must be {BYTES} bytes")

    @classmethod
    def root(cls, seed: int) -> Key:
        """Return the key of an experiment's `seed`, 0 ≤ seed < 2⁶⁴.

        Raises:
            SettingsError: the seed is out of range.
        """
        data = _eight_bytes("seed", seed)
        return cls(hashlib.blake2b(data, digest_size=BYTES, person=b"baffle-root-v1").digest())

    def fold(self, *path: int | str) -> Key:
        """Return the key at `path` below this one.

        Raises:
            SettingsError: an integer is not 0 ≤ i < 2⁶⁴.
        """
        secret = self.secret
        for name in path:
            data = b"s" + name.encode() if isinstance(name, str) else b"i" + _eight_bytes("key path", name)
            secret = hashlib.blake2b(data, digest_size=BYTES, key=secret, person=b"baffle-key-v1").digest()
        return Key(secret)

    def aes(self) -> bytes:
        """Return the AES-128 key of this key's streams of words, 16 bytes."""
        return hashlib.blake2b(digest_size=16, key=self.secret, person=b"baffle-aes-v1").digest()

    def generator(self) -> np.random.Generator:
        """Return NumPy's generator for what only one machine draws: batches, shares of data, stochastic rounding.

        Its streams are NumPy's and may change with NumPy's version; nothing that two machines must agree on uses it.
        """
        return np.random.Generator(np.random.Philox(np.random.SeedSequence(int.from_bytes(self.secret, "little"))))


def _eight_bytes(field: str, number: int) -> bytes:
    if not 0 <= number < 1 << 64:
        raise SettingsError(field, number, "must be between 0 and 2**64 - 1")
    return operator.index(number).to_bytes(8, "little")
