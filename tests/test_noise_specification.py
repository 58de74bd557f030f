"""docs/noise.md implemented once more from its words alone, and the library held against it.

Nothing of `baffle.bits` or `baffle.directions` is used on the page's side: BLAKE2b, single AES blocks (ECB) of counter
blocks that are written out, Python's integers, and a table that comes from Φ instead of its inverse.
"""

import hashlib
import json
import math
from bisect import bisect_left
from functools import cache

import numpy as np
import pytest
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from hypothesis import given, settings
from hypothesis import strategies as st

from baffle import Baffle, Gaussian, Rademacher, bits
from baffle.directions import Orthogonal
from baffle.kernels import PlainKernels
from baffle.keys import Key
from baffle.messages import BlockPlan
from baffle.parameters import Constant, Layout, Tensor, Uniform, digest
from baffle.probes import Probes
from baffle.server import Federation, State, plan


def blake(data, size, person, key=b""):
    return hashlib.blake2b(data, digest_size=size, key=key, person=person.encode().ljust(16, b"\0")).digest()


def root(seed):
    return blake(seed.to_bytes(8, "little"), 32, "baffle-root-v1")


def fold(key, *path):
    for name in path:
        data = b"\x73" + name.encode("utf-8") if isinstance(name, str) else b"\x69" + name.to_bytes(8, "little")
        key = blake(data, 32, "baffle-key-v1", key)
    return key


def at(path):
    first, *names = path.split("/")
    return fold(root(int(first[5:-1])), *map(json.loads, names))


def stream_bytes(key, stream, start, stop):
    aes = Cipher(algorithms.AES128(blake(b"", 16, "baffle-aes-v1", key)), modes.ECB()).encryptor()
    made = b""
    for block in range(start // 16, -(-stop // 16)):
        made += aes.update(stream.to_bytes(8, "big") + block.to_bytes(8, "big"))
    return made[start % 16 : start % 16 + stop - start]


def rademacher(key, direction, start, stop):
    first = start // 8
    data = stream_bytes(key, direction, first, stop // 8 + 1)
    return [2 * (data[i // 8 - first] >> i % 8 & 1) - 1 for i in range(start, stop)]


@cache
def normal_table():
    """T[i] is the z with Φ((z − ½)/4096) < (i + ½)/65536 < Φ((z + ½)/4096); the upper half from the upper tail."""
    tails = [-math.erfc((z - 0.5) / 4096 / math.sqrt(2)) / 2 for z in range(1, 20000)]
    upper = [bisect_left(tails, -(65535.5 - i) / 65536) for i in range(32768, 65536)]
    return [-z for z in reversed(upper)] + upper


def gaussian(key, direction, start, stop):
    data = stream_bytes(key, direction, 2 * start, 2 * stop)
    return [normal_table()[data[2 * i] + 256 * data[2 * i + 1]] for i in range(stop - start)]


@cache
def row_order(key, order):
    data = stream_bytes(key, 1, 0, 4 << order)
    u = [sum(data[4 * j + byte] << 8 * byte for byte in range(4)) for j in range(1 << order)]
    return [j for _, j in sorted(zip(u, range(1 << order), strict=True))]


def orthogonal(order):
    def entries(key, direction, start, stop):
        row, signs = row_order(key, order)[direction], rademacher(key, 0, start, stop)
        return [d * (-1) ** bin(row & ((1 << order) - 1 - i)).count("1") for i, d in enumerate(signs, start)]

    return entries


ENTRIES = {
    "rademacher": rademacher,
    "gaussian": gaussian,
    "orthogonal(4)": orthogonal(4),
    "orthogonal(15)": orthogonal(15),
}
LAWS = {
    "rademacher": Rademacher(),
    "gaussian": Gaussian(),
    "orthogonal(4)": Orthogonal(4),
    "orthogonal(15)": Orthogonal(15),
}
PATHS = st.lists(st.one_of(st.integers(0, 2**64 - 1), st.text(max_size=10)), max_size=5)
SEEDS = st.integers(0, 2**64 - 1)


def test_the_page_is_of_this_version():
    assert bits.VERSION == 1


def test_golden_keys(golden):
    rows = golden("Keys")
    assert len(rows) == 11
    for path, key, aes in rows:
        assert (at(path).hex(), blake(b"", 16, "baffle-aes-v1", at(path)).hex()) == (key, aes)


def test_golden_streams(golden):
    rows = golden("Streams")
    assert len(rows) == 7
    for path, stream, start, words in rows:
        assert stream_bytes(at(path), int(stream), int(start), int(start) + 16).hex() == words


def test_golden_directions(golden):
    rows = golden("Directions")
    assert len(rows) == 12
    for path, law, direction, start, z in rows:
        assert ENTRIES[law](at(path), int(direction), int(start), int(start) + 12) == [*map(int, z.split())]


def test_golden_first_weights(golden):
    rows = golden("First weights")
    assert len(rows) == 3
    for path, tensor, bound, weights in rows:
        assert [f"{w:08x}" for w in uniform(at(path), int(tensor), 4, float(bound)).view(np.uint32)] == weights.split()


def test_golden_displaced_copies(golden):
    rows = golden("Displaced copies")
    assert len(rows) == 8
    key = 'root(0)/"run"/"round"/0/0/"directions"/0/0/0'
    for law, precision, sign, step, points in rows:
        kind, word = (np.float32, np.uint32) if precision == "float32" else (np.float64, np.uint64)
        deviation = math.sqrt(1_099_488_447_576 / 65536) if law == "gaussian" else 1.0
        size = kind(1e-3 / deviation)
        start, signed = kind(np.float32(0.1)), size if sign == "+" else -size
        made = np.array([start + signed * kind(z) for z in ENTRIES[law](at(key), 0, 0, 4)], kind)
        assert f"{size.view(word):x}" == step
        assert [f"{point:x}" for point in made.view(word)] == points.split()
        block = BlockPlan(1, 5, 1, 1.0, LAWS[law])
        plain = PlainKernels()
        probes = Probes(np.full(6, np.float32(0.1)).astype(kind), block, Key(at(key)), 1e-3, (1, -1), plain)
        both = [point.copy() for point in probes]
        assert np.array_equal(both[0 if sign == "+" else 1][1:5], made)


def test_the_table_is_the_same_from_the_other_side():
    packed = np.array(normal_table(), "<i2").tobytes()
    assert hashlib.sha256(packed).hexdigest() == "1ea009ce409dac97d6bd609266910f809c5fb912f78e16bd89145b08174d6fc5"


@given(SEEDS, PATHS)
def test_keys_agree_on_random_paths(seed, path):
    assert Key.root(seed).fold(*path).secret == fold(root(seed), *path)


@given(PATHS, st.integers(0, 2**64 - 1), st.integers(0, 2**60), st.integers(0, 80))
def test_words_agree_on_random_slices(path, stream, start, length):
    made = bits.words(Key.root(1).fold(*path), stream, start, start + length)
    assert made == stream_bytes(fold(root(1), *path), stream, start, start + length)


@pytest.mark.parametrize("law", ["rademacher", "gaussian"])
@given(path=PATHS, direction=st.integers(0, 2**64 - 1), start=st.integers(0, 2**50), length=st.integers(0, 60))
@settings(max_examples=50)
def test_directions_agree_on_random_slices(law, path, direction, start, length):
    made = LAWS[law].entries(Key.root(2).fold(*path), direction, start, start + length)
    assert made.tolist() == ENTRIES[law](fold(root(2), *path), direction, start, start + length)


@given(path=PATHS, order=st.integers(0, 9), data=st.data())
@settings(max_examples=50)
def test_orthogonal_directions_agree_on_random_slices(path, order, data):
    direction = data.draw(st.integers(0, 2**order - 1))
    start = data.draw(st.integers(0, 2**order))
    stop = data.draw(st.integers(start, 2**order))
    made = Orthogonal(order).entries(Key.root(2).fold(*path), direction, start, stop)
    assert made.tolist() == orthogonal(order)(fold(root(2), *path), direction, start, stop)


def uniform(key, tensor, size, bound):
    data = stream_bytes(key, tensor, 0, 2 * size)
    words = [data[2 * i] + 256 * data[2 * i + 1] for i in range(size)]
    return np.array([(2 * u + 1 - 65536) * (bound / 65536) for u in words]).astype(np.float32)


@given(PATHS, st.floats(1e-6, 1e3), st.integers(1, 40))
def test_first_weights_agree(path, bound, size):
    layout = Layout((Tensor("a", (3,), Constant(0.1)), Tensor("b", (size,), Uniform(bound))))
    key = fold(root(5), *path)
    expected = np.concatenate([np.full(3, np.float32(0.1)), uniform(key, 1, size, bound)])
    made = layout.initial(Key(key))
    assert np.array_equal(made.view(np.uint32), expected.view(np.uint32))
    assert digest(made) == blake(expected.astype("<f4").tobytes(), 32, "").hex()


@given(SEEDS, st.integers(0, 2**63 - 1), st.integers(0, 2**63 - 1))
@settings(max_examples=20)
def test_a_rounds_directions_are_where_the_page_says(seed, number, attempt):
    layout = Layout((Tensor("a.weight", (3,)), Tensor("b.weight", (4,))))
    secret = fold(root(seed), "run")
    zeros = np.zeros(7, np.float32)
    made = plan(
        Baffle(forwards=12, local_steps=2, groups=3),
        Federation(key=secret, layout=layout, clients=4),
        State(zeros, zeros, {}, round=number, attempt=attempt),
    )
    below = fold(secret, "round", number, attempt, "directions")
    assert made.key == below
    assert [made.group(client) for client in range(4)] == [0, 1, 2, 0]
    for group, step, block in ((0, 0, 0), (2, 1, 1), (1, 0, 1)):
        assert made.stream(group, step, block).secret == fold(below, group, step, block)
