"""A pledge: what a member's peers and the server need to finish a slot when the member has gone."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from baffle.errors import ReportError
from baffle.messages import encode
from baffle.secure.derive import CHECK, NONCE, TAG, begun, mask_seed, numbers, seal, told
from baffle.secure.epoch import Random, Roster
from baffle.secure.messages import SEALED, Pledge, Slot
from baffle.secure.shamir import SECRET, draw, split

SELF, ESCROW = "self", "escrow"
"""The two kinds of secret and of share: b and σ."""

_FRESH = bytes(NONCE)  # the nonce under σ, a key that seals once


@dataclass(frozen=True, slots=True)
class Made:
    """A pledge and what its owner keeps of it."""

    message: Pledge
    own: bytes = field(repr=False)
    """b."""
    shares: bytes = field(repr=False)
    """Its own two shares, one after the other."""
    seeds: bytes = field(repr=False)
    """h_ij with every other member, in the roster's order."""


def make(roster: Roster, number: int, chains: Sequence[bytes], slot: Slot, random: Random) -> Made:
    """Return a member's pledge for a slot.

        b, σ random;  (b_j), (σ_j) = Shamir(t, n);  to j: AES-GCM(ch_ij; b_j ‖ σ_j);  escrow: AES-GCM(σ; h_ij for all j)

    Args:
        roster: the epoch's.
        number: the member's.
        chains: c_r with every member, at the slot's round.
        slot: what the pledge is for.
        random: of b, σ, a nonce of 12 bytes, and the polynomials of both.
    """
    where = place_of(roster.digest, slot)
    own, opens, nonce = draw(random), draw(random), random(NONCE)
    threshold, count = roster.terms.threshold, len(roster.members)
    dealt = [split(threshold, count, secret, random) for secret in (own, opens)]
    pairs = list(zip(*dealt, strict=True))
    hashes = [share_told(where, number, j, pair) for j, pair in zip(roster.members, pairs, strict=True)]
    others = roster.others(number)
    by_number = dict(zip(roster.members, zip(chains, pairs, hashes, strict=True), strict=True))
    seeds = [mask_seed(by_number[j][0], slot.attempt) for j in others]
    sealed = [
        seal(chain, number, j, nonce, b"".join(pair), bound(where, number, j, hashed))
        for j in others
        for chain, pair, hashed in [by_number[j]]
    ]
    message = Pledge(
        slot,
        number,
        roster.digest,
        nonce,
        b"".join(sealed),
        AESGCM(opens).encrypt(_FRESH, b"".join(seeds), where + numbers(number)),
        secret_told(SELF, where, number, own),
        secret_told(ESCROW, where, number, opens),
        b"".join(hashes),
        b"".join(seed_told(where, number, j, seed) for j, seed in zip(others, seeds, strict=True)),
    )
    return Made(message, own, b"".join(pairs[roster.place(number)]), b"".join(seeds))


def checked(roster: Roster, pledge: Pledge) -> Pledge:
    """Return a pledge that fits the roster; whether what is sealed in it is true, its holders find out.

    Raises:
        ReportError: it is of another roster, a stranger's, or of other lengths.
    """
    if pledge.digest != roster.digest:
        raise ReportError(f"the pledge of member {pledge.number} is for another roster")
    roster.place(pledge.number)
    n = len(roster.members)
    due = (n - 1) * SEALED, (n - 1) * SECRET + TAG, n * 2 * CHECK, (n - 1) * CHECK
    if due != (len(pledge.sealed), len(pledge.escrow), len(pledge.shares_told), len(pledge.seeds_told)):
        raise ReportError(f"the pledge of member {pledge.number} has other lengths than {n} members have")
    return pledge


def consistent(roster: Roster, pledges: Mapping[int, Pledge]) -> tuple[tuple[int, ...], tuple[tuple[int, int], ...]]:
    """Return the members that can be one cohort, ascending, and the disputes that kept the others out.

    Both of a pair tell the hash of their common seed. Where they differ, one of them lies (which one, nobody can tell
    of two), so whoever is in most disputes goes, until none is left; of equals, the greater number.

    Args:
        roster: the epoch's.
        pledges: of one slot, checked, by member.
    """
    members = sorted(pledges)
    places = [roster.place(i) for i in members]
    told = np.zeros((len(members), len(roster.members)), np.uint64)
    for row, (i, place) in enumerate(zip(members, places, strict=True)):
        told[row, np.arange(told.shape[1]) != place] = np.frombuffer(pledges[i].seeds_told, np.uint64)
    told = told[:, places]
    disputes = [(members[a], members[b]) for a, b in np.argwhere(told != told.T).tolist() if a < b]
    left, open_ = set(pledges), list(disputes)
    while open_:
        worst = max(left, key=lambda i: (sum(i in pair for pair in open_), i))
        left.discard(worst)
        open_ = [pair for pair in open_ if worst not in pair]
    return tuple(sorted(left)), tuple(sorted(disputes))


def opened(roster: Roster, pledge: Pledge, opens: bytes) -> dict[int, bytes] | None:
    """Return the seeds in the escrow of a checked `pledge` by member, from σ; None where they are not what it told."""
    where = place_of(roster.digest, pledge.slot)
    try:
        plain = AESGCM(opens).decrypt(_FRESH, pledge.escrow, where + numbers(pledge.number))
    except InvalidTag:
        return None
    seeds = dict(zip(roster.others(pledge.number), cut(plain, SECRET), strict=True))
    hashes = [seed_told(where, pledge.number, j, seed) for j, seed in seeds.items()]
    return seeds if b"".join(hashes) == pledge.seeds_told else None


def place_of(digest: bytes, slot: Slot) -> bytes:
    """Return the roster and slot as bytes, to bind to."""
    return digest + numbers(slot.round, slot.attempt)


def bound(where: bytes, sender: int, receiver: int, hashes: bytes) -> bytes:
    """Return what is authenticated beside two sealed shares."""
    return where + numbers(sender, receiver) + hashes


def secret_told(kind: str, where: bytes, owner: int, secret: bytes) -> bytes:
    """Return the hash of b or σ, 16 bytes."""
    return told(kind, where + numbers(owner), secret, 16)


def share_told(where: bytes, owner: int, holder: int, shares: Sequence[bytes]) -> bytes:
    """Return the hashes of a holder's shares of b and σ, 8 bytes each."""
    check = share_check(where)
    return check(SELF, owner, holder, shares[0]) + check(ESCROW, owner, holder, shares[1])


def share_check(where: bytes) -> Callable[[str, int, int, bytes], bytes]:
    """Return what tells the hash of a share, 8 bytes, from its kind, owner, holder and value: n² of them a slot."""
    hashes = {kind: begun(kind + " share", where) for kind in (SELF, ESCROW)}

    def check(kind: str, owner: int, holder: int, share: bytes) -> bytes:
        hashing = hashes[kind].copy()
        hashing.update(numbers(owner, holder) + share)
        return hashing.digest()[:CHECK]

    return check


def seed_told(where: bytes, one: int, other: int, seed: bytes) -> bytes:
    """Return the hash of h_ij, 8 bytes, the same for both."""
    return told("seed", where + numbers(*sorted((one, other))), seed, CHECK)


def name_of(pledge: Pledge) -> bytes:
    """Return 16 bytes that name a pledge."""
    return told("pledge", b"", encode(pledge), 16)


def binding_of(digest: bytes, slot: Slot, cohort: tuple[int, ...], bits: int, words: int, subject: bytes) -> bytes:
    """Return 16 bytes that name a cohort of a slot, the form of its reports and what they are about, 32 bytes."""
    return told("cohort", place_of(digest, slot) + numbers(bits, words) + subject, numbers(*cohort), 16)


def transcript_of(binding: bytes, reported: tuple[int, ...]) -> bytes:
    """Return 32 bytes that name all of a sum: the cohort, what it was asked, and whose reports came."""
    return told("transcript", binding, numbers(*reported), 32)


def report_binding(binding: bytes, pledge: bytes) -> bytes:
    """Return 16 bytes that name the cohort, and the pledge whose secrets mask a report."""
    return told("report", binding, pledge, 16)


def cut(data: bytes, size: int) -> list[bytes]:
    """Return pieces of `size` bytes."""
    return [data[at : at + size] for at in range(0, len(data), size)]
