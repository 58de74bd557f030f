"""Counter-mode random words: any part of any stream, made alone. See docs/noise.md, section 2."""

from __future__ import annotations

import numpy as np
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from numpy.typing import NDArray

from baffle.keys import Key

VERSION = 1
"""Of the whole construction in docs/noise.md; written into every ledger."""

_BLOCK = 16


def keystream(aes_key: bytes, counter: int, length: int) -> bytes:
    """Return the first `length` bytes of AES-128 in counter mode from the 128-bit big-endian `counter`.

    Source: NIST SP 800-38A, section 6.5 (the counter is incremented modulo 2¹²⁸).
    """
    encryptor = Cipher(algorithms.AES128(aes_key), modes.CTR(counter.to_bytes(_BLOCK, "big"))).encryptor()
    return encryptor.update(bytes(length))


def words(key: Key, stream: int, start: int, stop: int) -> bytes:
    """Return bytes `start` to `stop` of stream number `stream` (0 ≤ stream < 2⁶⁴) of `key`.

    A stream begins at the counter stream · 2⁶⁴, so streams never overlap and a slice costs only its own length.
    """
    first, skip = divmod(start, _BLOCK)
    return keystream(key.aes(), (stream << 64) + first, skip + stop - start)[skip:]


def words_many(key: Key, first: int, count: int, start: int, stop: int) -> NDArray[np.uint8]:
    """Return bytes `start` to `stop` of streams `first` to `first + count`, a row each, uint8.

    Counter mode enciphers counters: here those of all streams in one call, which costs as much as setting up a few.
    """
    block, last = start // _BLOCK, -(-stop // _BLOCK)
    counters = np.empty((count, last - block, 2), ">u8")
    counters[:, :, 0] = np.arange(first, first + count, dtype=np.uint64)[:, None]
    counters[:, :, 1] = np.arange(block, last, dtype=np.uint64)
    encryptor = Cipher(algorithms.AES128(key.aes()), modes.ECB()).encryptor()
    made = np.frombuffer(encryptor.update(counters.tobytes()), np.uint8).reshape(count, _BLOCK * (last - block))
    return made[:, start - block * _BLOCK : stop - block * _BLOCK]
