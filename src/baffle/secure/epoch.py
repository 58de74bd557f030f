"""Who takes part: an epoch's terms, its members' signed keys, and the roster that all of them must see alike."""

from __future__ import annotations

import hashlib
from bisect import bisect_left
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import datetime
from typing import Annotated

import msgspec
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from msgspec import Meta

from baffle import checks
from baffle.certificates import Signatory, Signer
from baffle.errors import ReportError
from baffle.messages import Count, encode
from baffle.secure.derive import pair
from baffle.secure.messages import MOST_MEMBERS, Digest, Enrolment, Members, ascending
from baffle.secure.shamir import Random

LONGEST = 10_000
"""Most rounds of an epoch: a bound on how far a server can make members turn their ratchets."""
ENROLMENT = b"baffle-secure-enrolment-2\0"
"""Stands before what a member signs here, so that it is a signature of nothing else."""


class Terms(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """What the members of an epoch agree to, by their signatures.

    Raises:
        SettingsError: a field is out of its range.
    """

    run: Annotated[bytes, Meta(min_length=8, max_length=32)]
    """The run's public name."""
    epoch: Count
    """Never used for other members."""
    start: Count
    """First round."""
    threshold: Annotated[int, Meta(ge=2, le=MOST_MEMBERS)]
    """t, members whose answers finish a slot; above half of them all."""
    minimum: Annotated[int, Meta(ge=2, le=MOST_MEMBERS)]
    """Fewest reports that are added up, ≥ 2."""

    def __post_init__(self) -> None:
        checks.within("run", len(self.run), 8, 32)
        checks.within("threshold", self.threshold, 2, MOST_MEMBERS)
        checks.within("minimum", self.minimum, 2, MOST_MEMBERS)

    @property
    def least(self) -> int:
        """Fewest reports of a slot: no fewer than `minimum`, nor than t."""
        return max(self.threshold, self.minimum)


def usual_threshold(members: int) -> int:
    """Return t = ⌈2n/3⌉, and at least 2, for `members` n."""
    return max(2, -(-2 * members // 3))


class Roster(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """The members of an epoch and their public keys, as their signatures bear out.

    Raises:
        ReportError: a member is there twice, there are too many, or the threshold is not above half and within n.
    """

    terms: Terms
    members: Members
    """Numbers, ascending; the i-th has Shamir's index i + 1."""
    publics: tuple[Digest, ...]
    """X25519, for the epoch."""
    signing: tuple[Digest, ...]
    """Ed25519, of the members' certificates: what they sign in the epoch is checked with these."""

    def __post_init__(self) -> None:
        count = len(self.members)
        ascending(self.members, "roster")
        if not len(self.publics) == len(self.signing) == count or count > MOST_MEMBERS:
            raise ReportError(f"a roster of {count} members; at most {MOST_MEMBERS} are possible")
        if not count < 2 * self.terms.threshold <= 2 * count or self.terms.minimum > count:
            raise ReportError(
                f"a threshold of {self.terms.threshold} and a minimum of {self.terms.minimum} among {count} members: "
                f"must be above {count // 2} and at most {count}"
            )
        if len(set(self.publics)) != count or len(set(self.signing)) != count:
            raise ReportError("two members of the roster have one key")

    @classmethod
    def of(cls, terms: Terms, enrolments: Iterable[Enrolment], authority: bytes, now: datetime) -> Roster:
        """Return the roster of these enrolments, each under its member's signature.

        Args:
            terms: those that this side has agreed to; a signature under others is wrong.
            enrolments: untrusted.
            authority: `ca.pem`, trusted.
            now: when the certificates must be valid.

        Raises:
            ReportError: a certificate or signature is wrong, or is another member's; or as the class.
            SettingsError: the authority is none.
        """
        found = sorted(enrolments, key=lambda one: one.number)
        if len(found) > MOST_MEMBERS:
            raise ReportError(f"a roster of {len(found)} members; at most {MOST_MEMBERS} are possible")
        signing = tuple(signatory_of(terms, one, authority, now).public for one in found)
        return cls(terms, tuple(one.number for one in found), tuple(one.public for one in found), signing)

    @property
    def digest(self) -> bytes:
        """SHA-256 of the whole roster, which every later message is bound to."""
        return hashlib.sha256(b"baffle-secure-roster-2\0" + encode(self)).digest()

    def place(self, member: int) -> int:
        """Return where a member stands in the roster, from 0.

        Raises:
            ReportError: it is not in the roster.
        """
        place = bisect_left(self.members, member)
        if place == len(self.members) or self.members[place] != member:
            raise ReportError(f"client {member} is not in the roster of epoch {self.terms.epoch}")
        return place

    def others(self, member: int) -> tuple[int, ...]:
        """Return all members but one."""
        place = self.place(member)
        return self.members[:place] + self.members[place + 1 :]


def signatory_of(terms: Terms, enrolment: Enrolment, authority: bytes, now: datetime) -> Signatory:
    """Return who has signed an enrolment: its member; the arguments are those of `Roster.of`.

    Raises:
        ReportError: it is not under its member's signature.
    """
    signatory = Signatory.read(enrolment.certificate, authority, now)
    if signatory.number != enrolment.number:
        raise ReportError(f"client {signatory.number} enrols as member {enrolment.number}")
    signatory.check(_signed(terms, enrolment.number, enrolment.public), enrolment.signature, now)
    return signatory


@dataclass(frozen=True, slots=True)
class Candidate:
    """A member while an epoch is being set up: its private key is forgotten once the roster is there."""

    number: int
    terms: Terms
    private: bytes = field(repr=False)
    """X25519, 32 bytes."""

    @classmethod
    def draw(cls, number: int, terms: Terms, random: Random) -> Candidate:
        """Return client `number` with a new key.

        Raises:
            SettingsError: a number outside [0, 2⁶³ − 1].
        """
        checks.within("number", number, 0, (1 << 63) - 1)
        return cls(number, terms, random(32))

    @property
    def public(self) -> bytes:
        """X25519, 32 bytes."""
        return X25519PrivateKey.from_private_bytes(self.private).public_key().public_bytes_raw()

    def enrolment(self, signer: Signer, certificate: bytes) -> Enrolment:
        """Return the signed key, for the server to relay."""
        signature = signer.sign(_signed(self.terms, self.number, self.public))
        return Enrolment(self.number, self.public, signature, certificate)

    def chains(self, roster: Roster) -> tuple[bytes, ...]:
        """Return c_0 with every member, in the roster's order, and nothing at its own place.

        Raises:
            ReportError: the roster has other terms, or not this member with this key, or a key that is none.
        """
        if roster.terms != self.terms:
            raise ReportError("the roster's terms are not those that were signed")
        if roster.publics[roster.place(self.number)] != self.public:
            raise ReportError(f"the roster has another key for member {self.number}")
        private = X25519PrivateKey.from_private_bytes(self.private)
        context = encode(self.terms) + roster.digest
        return tuple(
            b"" if number == self.number else pair(private, public, context, self.number, number)
            for number, public in zip(roster.members, roster.publics, strict=True)
        )


def _signed(terms: Terms, number: int, public: bytes) -> bytes:
    """Return what a member signs; a list in MessagePack has one reading."""
    return ENROLMENT + msgspec.msgpack.encode((terms, number, public))


__all__ = ["Candidate", "Random", "Roster", "Terms", "signatory_of", "usual_threshold"]
