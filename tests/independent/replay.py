"""A ledger replayed from docs/noise.md and docs/ledger.md: nothing of Baffle, no NumPy, Python's own numbers alone.

    python tests/independent/replay.py RUN [RUN ...]

It checks the chain, makes θ₀, follows every round, compares the digest of θ with each record's and prints the last
ones. Only AES comes from a package. Vectors are lists of floats; f32 rounds each to binary32. Sums, products, quotients
and roots of binary32 numbers, made in binary64 and then rounded, are what binary32 gives by itself (Figueroa 1995).
"""

import hashlib
import json
import math
import struct
import sys
import zlib
from array import array
from functools import cache
from pathlib import Path
from statistics import NormalDist

from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes

VERSIONS = {b"BAFFLE\x01\n": 1, b"BAFFLE\x02\n": 2}
TABLE = "1ea009ce409dac97d6bd609266910f809c5fb912f78e16bd89145b08174d6fc5"


# The file: docs/ledger.md, sections 1 and 4


def frames(data):
    """Yield the payload and the digest of every record."""
    at, before, number = 8, bytes(32), 0
    while at < len(data):
        length, check = struct.unpack("<II", data[at : at + 8].ljust(8, b"\0"))
        end = at + 8 + length
        if zlib.crc32(before + data[at : at + 4]) != check or end + 32 > len(data):
            raise ValueError(f"record {number}: length")
        before = blake(before + data[at : at + 4] + data[at + 8 : end], b"baffle-ledger")
        if before != data[end : end + 32]:
            raise ValueError(f"record {number}: digest")
        yield data[at + 8 : end], before
        at, number = end + 32, number + 1


FIXED = {0xC0: None, 0xC2: False, 0xC3: True}
SIZED = {0xC4: (1, "bin"), 0xC5: (2, "bin"), 0xC6: (4, "bin"), 0xD9: (1, "str"), 0xDA: (2, "str"), 0xDB: (4, "str")}
SIZED |= {0xDC: (2, "array"), 0xDD: (4, "array"), 0xDE: (2, "map"), 0xDF: (4, "map")}


def item(data, at=0):
    """Return what MessagePack bytes from `at` on stand for, and where they end."""
    first, at = data[at], at + 1
    if first < 0x80 or first >= 0xE0:
        return first - 256 * (first >= 0xE0), at
    if first in FIXED:
        return FIXED[first], at
    if 0xCA <= first <= 0xD3:
        kind = ">" + "fdBHIQbhiq"[first - 0xCA]
        return struct.unpack_from(kind, data, at)[0], at + struct.calcsize(kind)
    if first in SIZED:
        width, kind = SIZED[first]
        size, at = int.from_bytes(data[at : at + width], "big"), at + width
    elif first >= 0xA0:
        size, kind = first & 31, "str"
    else:
        size, kind = first & 15, "map" if first < 0x90 else "array"
    if kind in ("bin", "str"):
        part = bytes(data[at : at + size])
        return (part.decode() if kind == "str" else part), at + size
    items = []
    for _ in range(size * (2 if kind == "map" else 1)):
        one, at = item(data, at)
        items.append(one)
    return (dict(zip(items[::2], items[1::2], strict=True)) if kind == "map" else items), at


def tensors(path):
    """Return the named tensors of a safetensors file, each a flat list."""
    data = path.read_bytes()
    start = 8 + int.from_bytes(data[:8], "little")
    kinds, named = {"F32": "<f", "F64": "<d", "I8": "<b"}, json.loads(data[8:start])
    named.pop("__metadata__", None)
    parts = {name: (kinds[one["dtype"]], data[start:][slice(*one["data_offsets"])]) for name, one in named.items()}
    return {name: [value for (value,) in struct.iter_unpack(*part)] for name, part in parts.items()}


# Randomness: docs/noise.md


def blake(data, person=b"", size=32, key=b""):
    return hashlib.blake2b(data, digest_size=size, key=key, person=person).digest()


def fold(key, *path):
    for name in path:
        data = b"s" + name.encode() if isinstance(name, str) else b"i" + name.to_bytes(8, "little")
        key = blake(data, b"baffle-key-v1", key=key)
    return key


def stream(key, number, size):
    """Return the first bytes of a key's stream."""
    aes, counter = blake(b"", b"baffle-aes-v1", 16, key), number.to_bytes(8, "big") + bytes(8)
    return Cipher(algorithms.AES128(aes), modes.CTR(counter)).encryptor().update(bytes(size))


@cache
def table():
    upper = [round(4096 * NormalDist().inv_cdf((i + 0.5) / 65536)) for i in range(32768, 65536)]
    made = [-z for z in reversed(upper)] + upper
    if hashlib.sha256(struct.pack("<65536h", *made)).hexdigest() != TABLE:
        raise ValueError("the table of normals is another")
    return made


def deviation(law):
    square = {"gaussian": 1_099_488_447_576 / 65536, "sparse": law.get("odds", 0) / 128}
    return math.sqrt(square.get(law["law"], 1.0))


def signs(law, key, count, size):
    """Yield directions of signs, each an integer of which bit i is 1 where entry i is +1."""
    ones, width = (1 << size) - 1, (size + 7) // 8
    if law["law"] == "rademacher":
        for k in range(count):
            yield int.from_bytes(stream(key, k, width), "little") & ones
        return
    order = 1 << law["order"]
    drawn = struct.unpack(f"<{order}I", stream(key, 1, 4 * order))
    columns = int.from_bytes(stream(key, 0, width), "little")
    for row in sorted(range(order), key=lambda j: (drawn[j], j))[:count]:
        odd = row.bit_count() & 1  # bit i becomes 1 where row AND (N − 1 − i) has an odd number of ones
        for bit in range(law["order"]):
            odd |= (odd ^ ((1 << (1 << bit)) - 1 if row >> bit & 1 else 0)) << (1 << bit)
        yield (columns ^ odd) & ones


def entries(law, key, k, size):
    """Return the entries of a direction that are no signs."""
    if law["law"] == "gaussian":
        return [table()[u] for u in struct.unpack(f"<{size}H", stream(key, k, 2 * size))]
    odds = law["odds"]
    return [(byte >= 256 - odds) - (byte < odds) for byte in stream(key, k, size)]


def added(law, parts, size):
    """Return Σ weight · z over the parts, each a key and its weights, in whole numbers."""
    if law["law"] not in ("rademacher", "orthogonal"):
        total = [0] * size
        for key, weights in parts:
            for k, weight in enumerate(weights):
                if weight:
                    total = [t + weight * z for t, z in zip(total, entries(law, key, k, size), strict=True)]
        return total
    # |w| (2b − 1), added in binary for all entries at once: bit i of planes[j] is digit j of entry i's Σ |w| b.
    planes, all_of_them, ones = [0] * 80, 0, (1 << size) - 1
    for key, weights in parts:
        for weight, row in zip(weights, signs(law, key, len(weights), size), strict=True):
            all_of_them += abs(weight)
            for place in range(weight.bit_length()):
                carry, j = (row if weight > 0 else row ^ ones) * (abs(weight) >> place & 1), place
                while carry:
                    planes[j], carry = planes[j] ^ carry, planes[j] & carry
                    j += 1
    digits = zip(*(format(plane, f"0{size}b")[::-1] for plane in reversed(planes)), strict=True)
    return [2 * int("".join(one), 2) - all_of_them for one in digits]


# Where θ begins, and what a round makes of it: docs/noise.md, section 5, and docs/ledger.md, section 3


def f32(values):
    """Return the values, each rounded to binary32."""
    return array("f", values).tolist()


def digest(vector):
    return blake(struct.pack(f"<{len(vector)}f", *vector)).hex()


def flat(layout, named):
    """Return one vector of the layout's tensors, without weights that are pruned."""
    made = []
    for tensor in layout["tensors"]:
        values, live = named[tensor["name"]], int.from_bytes(tensor.get("live", b""), "little")
        made += [value for i, value in enumerate(values) if not live or live >> i & 1]
    return f32(made)


def first_weights(header, folder):
    layout, key = header["federation"]["layout"], fold(header["federation"]["key"], "initial")
    given = any(tensor["initial"]["initial"] == "given" for tensor in layout["tensors"])
    named = tensors(folder / "snapshots" / "initial.safetensors") if given else {}
    for number, tensor in enumerate(layout["tensors"]):
        size, start = math.prod(tensor["shape"]), tensor["initial"]
        if start["initial"] == "uniform":
            unit, words = start["bound"] / 65536, struct.unpack(f"<{size}H", stream(key, number, 2 * size))
            named[tensor["name"]] = [unit * (2 * u + 1 - 65536) for u in words]
        elif start["initial"] == "constant":
            named[tensor["name"]] = [start["value"]] * size
    return flat(layout, named)


def sums_of(aggregate, count):
    width, shift = aggregate[1], aggregate[3] if len(aggregate) > 3 else 0
    packed = int.from_bytes(aggregate[2], "little")
    if len(aggregate[2]) != (count * width + 7) // 8 or packed >> count * width:
        raise ValueError("sums of another length")
    codes = ((packed >> i * width) & ((1 << width) - 1) for i in range(count))
    return [(code - (code >> (width - 1) << width)) << shift for code in codes]


def gradient(plan, aggregate, size):
    groups, steps, blocks = plan[6], plan[7], plan[13]
    each = sum(block[2] for block in blocks)
    sums = sums_of(aggregate, groups * steps * each)
    made, first = [0.0] * size, 0
    for number, (start, stop, budget, bound, law, *_) in enumerate(blocks):
        sets = [(g, h) for g in range(groups) for h in range(steps)]
        parts = [(fold(plan[3], g, h, number), sums[(g * steps + h) * each + first :][:budget]) for g, h in sets]
        divisor = (2 ** (plan[11] - 1) - 1) * deviation(law) * (budget * steps * aggregate[0])
        made[start:stop] = f32(total * (bound / divisor) for total in added(law, parts, stop - start))
        first += budget
    return made


def scaled(factor, vector):
    """Return the vector times a factor, both binary32."""
    (factor,) = f32([factor])
    return f32(factor * x for x in vector)


def plus(a, b):
    return f32(x + y for x, y in zip(a, b, strict=True))


def moved(how, theta, g, memory, factor):
    """Return θ after a step along g. The memory is changed."""
    if how["weight_decay"]:
        g = plus(g, scaled(how["weight_decay"], theta))
    if how["optimizer"] == "sgd":
        if how["momentum"]:
            g = memory["momentum"] = plus(scaled(how["momentum"], memory.get("momentum", [0.0] * len(g))), g)
        return plus(theta, scaled(-how["rate"] * factor, g))
    for name, beta, what in (("1", how["beta1"], g), ("2", how["beta2"], f32(x * x for x in g))):
        before = memory.get(name, [0.0] * len(g))
        memory[name] = plus(scaled(beta, before), scaled(1 - beta, what))
        memory["power" + name] = memory.get("power" + name, 1.0) * beta
    (under,) = f32([math.sqrt(1 - memory["power2"])])
    roots = plus(f32(x / under for x in f32(map(math.sqrt, memory["2"]))), f32([how["epsilon"]] * len(g)))
    ratio = f32(x / y for x, y in zip(memory["1"], roots, strict=True))
    return plus(theta, scaled(-how["rate"] * factor / (1 - memory["power1"]), ratio))


def stepped(method, theta, average, g, memory, done):
    """Return θ and the averaged weights after one more round than `done`. The memory is changed."""
    factor = 1 - (1 - 0.02) * min(1.0, done / method["anneal"]) if method["anneal"] else 1.0
    largest, (limit,) = max(map(abs, g)), f32([method["clip"]])
    if method["clip"] and largest > limit:
        g = scaled(limit / largest, g)
    theta = moved(method["optimizer"], theta, g, memory, factor)
    decay = min(method["average"]["decay"], (done + 2) / (done + 11))
    return theta, plus(scaled(decay, average), scaled(1 - decay, theta)) if decay else theta


def replay(folder):
    """Return rounds, θ, averaged weights, the ledger's digest and the header; raise ValueError at what is not right."""
    data = (Path(folder) / "ledger").read_bytes()
    if data[:8] not in VERSIONS:
        raise ValueError("no ledger of a version known here")
    version, records = VERSIONS[data[:8]], frames(data)
    payload, last = next(records)
    header, _ = item(payload)
    theta = average = first_weights(header, Path(folder))
    if header["noise"] != 1 or digest(theta) != header["initial"]:
        raise ValueError("record 0: noise of another version, or θ₀ has another digest")
    done, attempt, memory = 0, 0, {}
    for number, (payload, last) in enumerate(records, 1):  # noqa: B007
        kind, *record = item(payload)[0] if version > 1 else ["round", *item(payload)[0]]
        if kind != "round":  # version 2 also writes down what is about to be asked
            continue
        plan, aggregate, told = record[0], record[4], record[5]
        if plan[1] != done or plan[2] < attempt or (version == 1 and plan[2] != attempt):
            raise ValueError(f"record {number}: round {plan[1]}, attempt {plan[2]} where {done}, {attempt} follow")
        attempt = plan[2] + 1
        if aggregate is None:
            continue
        estimate = gradient(plan, aggregate, len(theta))
        theta, average = stepped(header["algorithm"], theta, average, estimate, memory, done)
        done, attempt = done + 1, 0
        if digest(theta) != told or (version > 1 and digest(average) != record[7]):
            raise ValueError(f"record {number}: θ has digest {digest(theta)}, or its average {digest(average)}")
    return done, theta, average, last.hex(), header


if __name__ == "__main__":
    for name in sys.argv[1:]:
        rounds, theta, average, head, _ = replay(name)
        told = f"θ {digest(theta)}, averaged weights {digest(average)}, ledger {head}"
        sys.stdout.write(f"{name}: {rounds} rounds, {told}\n")
