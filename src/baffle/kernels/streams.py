"""Random words of many streams in one call of the cipher."""

# pyright: standard
from __future__ import annotations

import threading

import numpy as np
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes

from baffle.kernels import loops
from baffle.keys import Key

_local = threading.local()


class Streams:
    """Blocks of successive streams of one key, the same bytes as `bits.words`.

    Setting up counter mode costs as much as 40,000 bytes of words, and a small block of weights needs fewer. So the
    counters are written here, for as many streams as wanted, and enciphered by one cipher that is kept.
    """

    def __init__(self, key: Key) -> None:
        self.use(key)
        self._reserve(1 << 12)

    def use(self, key: Key) -> None:
        """Turn to another key's streams; the arrays are kept."""
        self.key = key
        self._encryptor = Cipher(algorithms.AES128(key.aes()), modes.ECB()).encryptor()  # of counters: counter mode

    def _reserve(self, size: int) -> None:
        self._size, self._counters = size, np.empty(size // 8, np.uint64)
        self.octets = np.empty(size + 16, np.uint8)  # the cipher wants a block to spare
        self.words = self.octets.view(np.uint16)
        self._source, self._target = self._counters.view(np.uint8).data, self.octets.data

    def fill(self, first: int, streams: int, block: int, blocks: int) -> None:
        """Write blocks `block` to `block + blocks` of `streams` streams from `first` into `octets`, also as `words`."""
        size = 16 * streams * blocks
        if size > self._size:
            self._reserve(size)
        signed = (first ^ 1 << 63) - (1 << 63)  # numba takes Python's integers for signed ones
        loops.count(self._counters, signed, streams, block, blocks)
        self._encryptor.update_into(self._source[:size], self._target)


def of(key: Key) -> Streams:
    """Return the calling thread's streams, turned to `key`; a thread has one such object."""
    made: Streams | None = getattr(_local, "streams", None)
    if made is None:
        made = _local.streams = Streams(key)
    elif made.key is not key and made.key != key:
        made.use(key)
    return made
