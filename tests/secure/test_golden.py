"""One tiny aggregation with fixed randomness, to the byte: what another implementation has to give."""

from __future__ import annotations

import hashlib
import hmac

import msgspec
import numpy as np
import pytest
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes

from baffle.messages import encode
from baffle.secure import Ring, Slot
from secured import Round, drawn, epoch


@pytest.fixture
def played(monkeypatch) -> Round:
    monkeypatch.setattr("Crypto.Protocol.SecretSharing.rng", drawn(5))
    ring = Ring(3, 10, 7)
    round_ = Round.begin(epoch(3)[1], Slot(2, 1), ring, 4)
    round_.report(3, np.array([1, -2, 7]), 10)
    round_.report(17, np.array([-7, 0, 3]), 2)
    round_.unmask([3, 17])
    return round_


def short(message) -> str:
    return hashlib.sha256(encode(message)).hexdigest()[:16]


def found_in(round_: Round) -> dict[str, str]:
    server = round_.server
    return {
        "roster": server.roster.digest.hex(),
        "pledge 3": short(server.pledges[0]),
        "pledge 10": short(server.pledges[1]),
        "words 3": server.reports[0].words.hex(),
        "words 17": server.reports[1].words.hex(),
        "report 3": short(server.reports[0]),
        "request 3": short(server.request(3)),
        "answer 3": short(server.answers[0]),
        "answer 17": short(server.answers[1]),
    }


def test_bytes(played) -> None:
    assert played.ring.bits == 9
    sums = played.server.sums()
    assert (sums.slopes.tolist(), sums.weight) == ([-4, -20, 76], 12)
    assert found_in(played) == GOLDEN


def expand(key: bytes, label: bytes, length: int) -> bytes:
    """RFC 5869, one block."""
    return hmac.digest(key, b"baffle-secure-1\0" + label + b"\1", "sha256")[:length]


def eight(*numbers: int) -> bytes:
    return b"".join(number.to_bytes(8, "big") for number in numbers)


def test_words_again_by_other_means(played) -> None:
    """From the private keys on, with the standard library's HMAC, and AES on counters one by one."""
    random = drawn(1)
    private = {number: X25519PrivateKey.from_private_bytes(random(32)) for number in (3, 10, 17)}
    roster = played.roster
    terms = msgspec.msgpack.encode([bytes(range(8)), 4, 0, 2, 2])
    publics = [private[number].public_key().public_bytes_raw() for number in (3, 10, 17)]
    whole = msgspec.msgpack.encode([[bytes(range(8)), 4, 0, 2, 2], [3, 10, 17], publics])
    digest = hashlib.sha256(b"baffle-secure-roster-1\0" + whole).digest()
    assert digest == roster.digest
    seeds = {}
    for other in (10, 17):
        shared = private[3].exchange(private[other].public_key())
        prk = hmac.digest(bytes(32), shared, "sha256")
        chain = expand(prk, b"pair" + terms + digest + eight(3, other), 32)
        for _ in range(2):
            chain = expand(chain, b"next\0", 32)
        seeds[other] = expand(chain, b"mask\0" + eight(1), 16)
    own = drawn(9)(16)

    def stream(key: bytes) -> np.ndarray:
        cipher = Cipher(algorithms.AES128(key), modes.ECB()).encryptor()
        return np.frombuffer(cipher.update(bytes(16))[:8], "<u2").astype(int)

    plain = np.array([10, -20, 70, 10])
    masked = (plain + stream(own) + stream(seeds[10]) + stream(seeds[17])) % 512
    bits = "".join(f"{word:09b}"[::-1] for word in masked).ljust(40, "0")
    data = bytes(int(bits[at : at + 8][::-1], 2) for at in range(0, 40, 8))
    assert data == played.server.reports[0].words


GOLDEN = {
    "roster": "4741ef939a56095e9a39b49afba596d7b015a974987439662dc2d11247ae1fa9",
    "pledge 3": "28f83b56db6e731e",
    "pledge 10": "b3c9fff3300290be",
    "words 3": "8151e82f06",
    "words 17": "6a18753e04",
    "report 3": "9703b3709db6c9cb",
    "request 3": "52a4dcbc311dbab9",
    "answer 3": "2455ab856a133cfa",
    "answer 17": "266fc266cf4b73c6",
}
