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
from secured import SUBJECT, Round, drawn, epoch, signer


@pytest.fixture
def played() -> Round:
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
        "consent 3": short(server.consents[0]),
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
    return hmac.digest(key, b"baffle-secure-2\0" + label + b"\1", "sha256")[:length]


def eight(*numbers: int) -> bytes:
    return b"".join(number.to_bytes(8, "big") for number in numbers)


def test_words_again_by_other_means(played) -> None:
    """From the private keys on, with the standard library's HMAC, and AES on counters one by one."""
    random = drawn(1)
    private = {number: X25519PrivateKey.from_private_bytes(random(32)) for number in (3, 10, 17)}
    roster = played.roster
    terms = msgspec.msgpack.encode([bytes(range(8)), 4, 0, 2, 2])
    publics = [private[number].public_key().public_bytes_raw() for number in (3, 10, 17)]
    signing = [signer(number).key.public_key().public_bytes_raw() for number in (3, 10, 17)]
    whole = msgspec.msgpack.encode([[bytes(range(8)), 4, 0, 2, 2], [3, 10, 17], publics, signing])
    digest = hashlib.sha256(b"baffle-secure-roster-2\0" + whole).digest()
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


def told(kind: str, data: bytes, length: int) -> bytes:
    return hashlib.sha256(b"baffle-secure-2\0" + kind.encode() + b"\0" + data).digest()[:length]


def test_what_is_signed_again_by_other_means(played) -> None:
    """Roster, slot, width, words, subject and cohort; then the pledge for the report, or U for the signature."""
    server = played.server
    about = played.roster.digest + eight(2, 1) + eight(9, 4) + SUBJECT
    binding = told("cohort", about + eight(3, 10, 17), 16)
    pledge = told("pledge", encode(server.pledges[0]), 16)
    assert server.reports[0].binding == told("report", binding + pledge, 16)
    signed = b"baffle-report-1\0baffle-secure-consent-2\0" + told("transcript", binding + eight(3, 17), 32)
    for consent in server.consents:
        signer(consent.number).key.public_key().verify(consent.signature, signed)
    assert server.request(3).signatures == b"".join(one.signature for one in server.consents)


GOLDEN = {
    "roster": "46ba15e76c5de41e92408dd13fd93d61e9f32a1d1106465ee86ce7b7546eb7f6",
    "pledge 3": "66186cd498d39606",
    "pledge 10": "365090ed5b133381",
    "words 3": "294a1b0d0e",
    "words 17": "872ea01b03",
    "report 3": "e94ec81a9cce9905",
    "consent 3": "64a456b56055f2e4",
    "request 3": "f332a0a372f0e006",
    "answer 3": "8b7c3a25fac7098f",
    "answer 17": "e4dfb55b1bb86eca",
}
