"""A federation with secure aggregation in one process, for its tests and benchmarks."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import cache
from unittest.mock import patch

import numpy as np
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes

from baffle import certificates
from baffle.certificates import Pair, Signer
from baffle.messages import decode, encode
from baffle.secure import (
    Aggregation,
    Answer,
    Candidate,
    Closing,
    Consent,
    Masked,
    Member,
    Pledge,
    Request,
    Ring,
    Roster,
    Slot,
    Sums,
    Terms,
    usual_threshold,
)
from baffle.secure.consent import consent_to
from baffle.secure.pledge import transcript_of

NOW = datetime(2030, 6, 15, 12, 30, tzinfo=UTC)
CA = certificates.authority("Ours", 3650, NOW)
RUN = bytes(range(8))
SUBJECT = bytes(range(32))
"""Of a plan and θ that nobody here has."""


def drawn(seed: int) -> Callable[[int], bytes]:
    """Return a source of random bytes that repeats."""
    made = Cipher(algorithms.AES128(seed.to_bytes(16, "big")), modes.CTR(bytes(16))).encryptor()
    return lambda count: made.update(bytes(count))


@cache
def signing(number: int) -> Pair:
    """Return a member's, with the same key in every run of the tests."""
    key = Ed25519PrivateKey.from_private_bytes(drawn(1 << 64 | number)(32))
    with patch.object(Ed25519PrivateKey, "generate", lambda: key):
        return certificates.signing(CA, number, 365, NOW)


def terms(n: int, threshold: int | None = None, minimum: int = 2, epoch: int = 4) -> Terms:
    return Terms(RUN, epoch, 0, usual_threshold(n) if threshold is None else threshold, minimum)


@cache
def signer(number: int) -> Signer:
    return Signer.read(signing(number).key)


def enrolled(candidate: Candidate):
    return candidate.enrolment(signer(candidate.number), signing(candidate.number).certificate)


@cache
def epoch(
    n: int, threshold: int | None = None, minimum: int = 2, epoch: int = 4, seed: int = 1
) -> tuple[Roster, tuple[Member, ...]]:
    """Return n members with numbers 3, 10, 17, ..., freshly set up."""
    random = drawn(seed)
    agreed = terms(n, threshold, minimum, epoch)
    candidates = [Candidate.draw(3 + 7 * i, agreed, random) for i in range(n)]
    enrolments = [enrolled(one) for one in candidates]
    roster = Roster.of(agreed, enrolments, CA.certificate, NOW)
    return roster, tuple(Member.of(one, roster) for one in candidates)


def wired(message):
    """Return what arrives of a message."""
    return decode(encode(message), type(message))


@dataclass
class Round:
    """One slot, step by step; `members` changes as it goes."""

    roster: Roster
    members: dict[int, Member]
    slot: Slot
    ring: Ring
    server: Aggregation
    pledges: dict[int, Pledge]

    @classmethod
    def begin(
        cls, members: Iterable[Member], slot: Slot, ring: Ring, count: int, cohort: Sequence[int] | None = None, seed=9
    ) -> Round:
        random = drawn(seed)
        states: dict[int, Member] = {}
        pledges: dict[int, Pledge] = {}
        for member in members:
            states[member.number], pledge = member.pledge(slot, random)
            pledges[member.number] = wired(pledge)
        roster = next(iter(states.values())).roster
        chosen = tuple(pledges[i] for i in (sorted(states) if cohort is None else cohort))
        return cls(roster, states, slot, ring, Aggregation.of(roster, slot, ring, count, SUBJECT, chosen), pledges)

    def mask(self, number: int, slopes: np.ndarray, weight: int = 1) -> Masked:
        self.members[number], masked = self.members[number].mask(
            self.slot, self.server.cohort, self.ring, slopes, weight, SUBJECT
        )
        return wired(masked)

    def report(self, number: int, slopes: np.ndarray, weight: int = 1) -> None:
        self.server = self.server.report(self.mask(number, slopes, weight))

    def close(self) -> None:
        """Take no more reports, and have those signed that came, beside what the members do."""
        self.server = signed(self.server.close())

    def confirm(self, number: int, closing: Closing | None = None) -> Consent:
        closing = self.server.closing() if closing is None else closing
        self.members[number], consent = self.members[number].confirm(wired(closing), signer(number))
        return wired(consent)

    def ask(self, number: int, request: Request | None = None) -> Answer:
        request = self.server.request(number) if request is None else request
        self.members[number], answer = self.members[number].unmask(wired(request))
        return wired(answer)

    def unmask(self, answering: Iterable[int]) -> Sums:
        self.server = self.server.close()
        for number in () if self.server.agreed else self.server.reported[: self.roster.terms.threshold]:
            self.server = self.server.consent(self.confirm(number))
        for number in answering:
            self.server = self.server.answer(self.ask(number))
        return self.server.sums()


def signed(server: Aggregation) -> Aggregation:
    """Return the state with signatures of all that are said to have reported, as if all worked with the server."""
    transcript = transcript_of(server._binding(), server.reported)
    consents = tuple(consent_to(transcript, server.slot, number, signer(number)) for number in server.reported)
    return replace(server, consents=consents)


def inputs(n: int, slopes: int, ring: Ring, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Return slopes [n, K] and weights [n], anywhere in the ring's range."""
    generator = np.random.default_rng(seed)
    return (
        generator.integers(-ring.levels, ring.levels + 1, (n, slopes)),
        generator.integers(1, ring.most_weight + 1, n),
    )
