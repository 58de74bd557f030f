"""The innermost loops, compiled by numba on first use and kept in its cache.

Everything here is exact or rounds as IEEE 754 says: no fast-math, so a product and a sum are never fused. Words of
several directions lie in one array, those of a direction `stride` items after those of the one before.
"""

# pyright: standard
from __future__ import annotations

import numpy as np
from numba import njit

_TILE = 1024  # entries worked on at a time, a multiple of 8: they stay in the first-level cache
_BYTE, _EIGHT = np.uint64(255), np.uint64(8)


@njit(cache=True, nogil=True)
def count(counters, first, streams, block, blocks):
    """Write the counter blocks of `blocks` AES blocks of each of `streams` streams, both halves highest byte first."""
    for row in range(streams):
        stream, part = _swapped(np.uint64(first) + np.uint64(row)), counters[2 * row * blocks : 2 * (row + 1) * blocks]
        for i in range(blocks):
            part[2 * i] = stream
            part[2 * i + 1] = _swapped(np.uint64(block + i))


@njit(cache=True)
def _swapped(x):
    even, pairs = np.uint64(0x00FF00FF00FF00FF), np.uint64(0x0000FFFF0000FFFF)
    x = ((x >> np.uint64(8)) & even) | ((x & even) << np.uint64(8))
    x = ((x >> np.uint64(16)) & pairs) | ((x & pairs) << np.uint64(16))
    return (x >> np.uint64(32)) | (x << np.uint64(32))


@njit(cache=True, nogil=True)
def flip(packed, columns, rows, patterns, word, stride):
    """Write the bits of reversed Hadamard rows times the columns' signs, `stride` words of 64 from `word` each."""
    for k in range(rows.size):
        low, high = patterns[rows[k] & 63], rows[k] >> 6
        part = packed[k * stride : (k + 1) * stride]
        for i in range(stride):
            odd = np.uint32((high & (word + i)) ^ rows[k])
            odd ^= odd >> 16
            odd ^= odd >> 8
            odd ^= odd >> 4
            odd ^= odd >> 2
            odd ^= odd >> 1
            part[i] = columns[i] ^ low ^ np.uint64(-(odd & 1))


@njit(cache=True)
def _expand(octets, packed, table):
    for i in range(packed.size):
        octets[i] = table[packed[i]]


@njit(cache=True, nogil=True)
def displace_signs(out, base, step, packed, stride, table, row, rows, start, stop):
    """Write base + step · z into `rows` rows of `out` from `row`, columns `start` to `stop`; z as bits."""
    entries = np.empty(_TILE, np.int8)
    octets = entries.view(np.uint64)
    for k in range(rows):
        for left in range(start, stop, _TILE):
            to, here = out[row + k, left : min(left + _TILE, stop)], base[left : min(left + _TILE, stop)]
            byte = k * stride + ((left - start) >> 3)
            _expand(octets, packed[byte : byte + ((to.size + 7) >> 3)], table)
            for i in range(to.size):
                to[i] = here[i] + step * out.dtype.type(entries[i])


@njit(cache=True, nogil=True)
def displace_table(out, base, step, words, stride, table, row, rows, start, stop):
    """Write base + step · table[words] into `rows` rows of `out` from `row`, columns `start` to `stop`."""
    for k in range(rows):
        to, here, index = out[row + k, start:stop], base[start:stop], words[k * stride : (k + 1) * stride]
        for i in range(to.size):
            to[i] = here[i] + step * out.dtype.type(table[index[i]])


@njit(cache=True, nogil=True)
def accumulate_table(total, weights, words, stride, table, start, stop):
    """Add Σₖ weights[k] · table[words] to `total`, entries `start` to `stop`."""
    for left in range(start, stop, _TILE):
        part = total[left : min(left + _TILE, stop)]
        for k in range(weights.size):
            weight, word = weights[k], k * stride + left - start
            index = words[word : word + part.size]
            for i in range(part.size):
                part[i] += weight * table[index[i]]


@njit(cache=True, nogil=True)
def accumulate_signs(total, weights, packed, stride, table, start, stop):
    """Add Σₖ weights[k] · z_k to `total`, entries `start` to `stop`, z as bits, eight directions at a time."""
    if weights.size == 1:
        _accumulate_one(total[start:stop], weights[0], packed, table)
        return
    sums = np.empty(((weights.size + 7) >> 3, 256), np.int64)
    for k in range(0, weights.size, 8):
        _write_sums(sums[k >> 3], weights[k : k + 8])
    mixed = np.empty(_TILE >> 3, np.uint64)
    for left in range(start, stop, _TILE):
        part = total[left : min(left + _TILE, stop)]
        for k in range(0, weights.size, 8):
            byte = k * stride + ((left - start) >> 3)
            _mix(mixed, packed[byte:], stride, min(8, weights.size - k), (part.size + 7) >> 3)
            _look_up(part, mixed, sums[k >> 3])


@njit(cache=True)
def _accumulate_one(total, weight, packed, table):
    entries = np.empty(_TILE, np.int8)
    octets = entries.view(np.uint64)
    for left in range(0, total.size, _TILE):
        part = total[left : left + _TILE]
        _expand(octets, packed[left >> 3 : (left + part.size + 7) >> 3], table)
        for i in range(part.size):
            part[i] += weight if entries[i] > 0 else -weight


@njit(cache=True)
def _write_sums(sums, weights):
    """Write what each combination of bits adds up to, ±w₀ ± w₁ ... ± w₇, the first weight's in the lowest bit."""
    sums[0] = -weights.sum()
    for k in range(weights.size):
        for low in range(1 << k):
            sums[low + (1 << k)] = sums[low] + 2 * weights[k]


@njit(cache=True)
def _mix(mixed, packed, stride, rows, count):
    """Gather an entry's bits from all directions: byte j of word i is of entry 8i + j, a bit a direction."""
    mixed[:count] = 0
    for k in range(rows):
        octets, shift = packed[k * stride : k * stride + count], np.uint64(8 * k)
        for i in range(count):
            mixed[i] |= np.uint64(octets[i]) << shift
    for i in range(count):
        mixed[i] = _transposed(mixed[i])


@njit(cache=True)
def _transposed(x):
    """Return a word's 8 × 8 bits transposed: bit i of byte j is bit j of byte i. Source: Warren, Hacker's Delight."""
    y = (x ^ (x >> np.uint64(7))) & np.uint64(0x00AA00AA00AA00AA)
    x = x ^ y ^ (y << np.uint64(7))
    y = (x ^ (x >> np.uint64(14))) & np.uint64(0x0000CCCC0000CCCC)
    x = x ^ y ^ (y << np.uint64(14))
    y = (x ^ (x >> np.uint64(28))) & np.uint64(0x00000000F0F0F0F0)
    return x ^ y ^ (y << np.uint64(28))


@njit(cache=True)
def _look_up(total, mixed, sums):
    """Add each entry's sum: one look-up for eight directions, the method of four Russians."""
    for i in range(total.size >> 3):
        index = mixed[i]
        for bit in range(8):
            total[8 * i + bit] += sums[index & _BYTE]
            index >>= _EIGHT
    for i in range(total.size & ~7, total.size):
        total[i] += sums[(mixed[i >> 3] >> np.uint64(8 * (i & 7))) & _BYTE]


@njit(cache=True, nogil=True)
def transform(values):
    """Return H · values, H the Sylvester-Hadamard matrix of 2^order rows, in place, two steps at a time."""
    half = 1
    while 2 * half < values.size:
        for left in range(0, values.size, 4 * half):
            a, b = values[left : left + half], values[left + half : left + 2 * half]
            c, d = values[left + 2 * half : left + 3 * half], values[left + 3 * half : left + 4 * half]
            for i in range(half):
                p, q, r, s = a[i] + b[i], a[i] - b[i], c[i] + d[i], c[i] - d[i]
                a[i], b[i], c[i], d[i] = p + r, q + s, p - r, q - s
        half *= 4
    for i in range(values.size - half):  # the last step of an odd order
        p, q = values[i], values[i + half]
        values[i], values[i + half] = p + q, p - q
    return values
