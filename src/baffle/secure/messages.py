"""What members and the server send each other, and how large it may be. `baffle.messages` encodes and decodes it."""

from __future__ import annotations

from itertools import pairwise
from typing import Annotated, TypeAlias

import msgspec
from msgspec import Meta

from baffle.errors import ReportError
from baffle.messages import MOST_SLOPES, Count
from baffle.secure.derive import CHECK, NONCE, TAG
from baffle.secure.shamir import SECRET

MOST_MEMBERS = 1_000
"""Most members of an epoch: a bound on what a message can make anybody allocate."""
SEALED = 2 * SECRET + TAG
"""Bytes of two shares under the channel's key."""

SIGNATURE = 64
"""Bytes of a signature."""

_M = MOST_MEMBERS
Digest: TypeAlias = Annotated[bytes, Meta(min_length=32, max_length=32)]
Short: TypeAlias = Annotated[bytes, Meta(min_length=16, max_length=16)]
Nonce: TypeAlias = Annotated[bytes, Meta(min_length=NONCE, max_length=NONCE)]
Members: TypeAlias = Annotated[tuple[Count, ...], Meta(max_length=_M)]


class Slot(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True, order=True):
    """One attempt at a round: what every secret is for, once."""

    round: Count
    attempt: Count


class Enrolment(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """A member's public key for an epoch, signed."""

    number: Count
    public: Annotated[bytes, Meta(min_length=32, max_length=32)]
    """X25519."""
    signature: Annotated[bytes, Meta(min_length=SIGNATURE, max_length=SIGNATURE)]
    certificate: Annotated[bytes, Meta(max_length=16_384)]
    """PEM."""


class Pledge(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """What a member leaves behind before a slot, so that the slot can be finished without it.

    80 + 8 bytes for each other member, and 16 for its seed in the escrow.
    """

    slot: Slot
    number: Count
    digest: Digest
    """Of the roster."""
    nonce: Nonce
    sealed: Annotated[bytes, Meta(max_length=_M * SEALED)]
    """For each other member, in the roster's order: its shares of b and σ."""
    escrow: Annotated[bytes, Meta(max_length=_M * SECRET + TAG)]
    """The seeds h_ij of all other members, under σ."""
    self_told: Short
    """Hash of b."""
    escrow_told: Short
    """Hash of σ."""
    shares_told: Annotated[bytes, Meta(max_length=_M * 2 * CHECK)]
    """For each member, itself among them: hashes of its two shares."""
    seeds_told: Annotated[bytes, Meta(max_length=_M * CHECK)]
    """For each other member: the hash of h_ij, the same in the pledges of both."""


class Masked(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """A member's masked report."""

    slot: Slot
    number: Count
    binding: Short
    """Hash of the cohort, the plan, θ and the member's pledge, as it sees them."""
    words: Annotated[bytes, Meta(max_length=8 * MOST_SLOPES)]
    """y_i."""
    witnesses: Annotated[bytes, Meta(max_length=_M * CHECK)]
    """For each other member of the cohort: that the report was masked for this cohort, under their key."""


class Closing(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """Says which reports came, and asks for a signature of it."""

    slot: Slot
    digest: Digest
    """Of the roster."""
    reported: Members
    """U."""


class Consent(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """A member's signature of what was asked of which cohort, and of whose reports came."""

    slot: Slot
    number: Count
    signature: Annotated[bytes, Meta(min_length=SIGNATURE, max_length=SIGNATURE)]


class Deposit(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """The part of a pledge for one holder."""

    nonce: Nonce
    sealed: Annotated[bytes, Meta(min_length=SEALED, max_length=SEALED)]
    told: Annotated[bytes, Meta(min_length=2 * CHECK, max_length=2 * CHECK)]
    witness: Annotated[bytes, Meta(max_length=CHECK)]
    """Of its masked report, or nothing where none came."""


class Request(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """Asks a member for its shares of a slot."""

    slot: Slot
    digest: Digest
    cohort: Members
    """C."""
    reported: Members
    """U; the others of the cohort are D."""
    deposits: Annotated[tuple[Deposit, ...], Meta(max_length=_M)]
    """Of the cohort's other members, in order."""
    signers: Members
    """Members in U that have signed it, ascending."""
    signatures: Annotated[bytes, Meta(max_length=_M * SIGNATURE)]
    """Theirs, in order."""


class Answer(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """A member's shares: of b for members in U, of σ for those in D, never both."""

    slot: Slot
    number: Count
    unreadable: Members
    """Of the cohort: whose deposit was not what its owner's key and hashes say."""
    shares: Annotated[bytes, Meta(max_length=_M * SECRET)]
    """Of the rest of the cohort, in order."""


def ascending(members: tuple[int, ...], what: str) -> None:
    """Raise ReportError unless members are in ascending order, each once."""
    if any(a >= b for a, b in pairwise(members)):
        raise ReportError(f"the {what} is not in ascending order")


__all__ = [
    "Answer",
    "Closing",
    "Consent",
    "Deposit",
    "Enrolment",
    "Masked",
    "Pledge",
    "Request",
    "Slot",
    "ascending",
]
