"""How many bytes a member sends in a slot, told without making a message."""

from __future__ import annotations

from functools import lru_cache

from baffle.messages import encode
from baffle.packing import packed_size
from baffle.secure.derive import CHECK, NONCE, TAG
from baffle.secure.messages import SEALED, SIGNATURE, Answer, Consent, Masked, Pledge, Slot
from baffle.secure.ring import Ring
from baffle.secure.shamir import SECRET


@lru_cache(maxsize=1 << 16)
def upload(slot: Slot, number: int, members: int, ring: Ring, count: int) -> int:
    """Return the bytes of member `number`'s pledge, masked report, signature and answer.

    Args:
        slot: round and attempt.
        number: the member's.
        members: of the epoch, all of them in the cohort.
        ring: in which sums are.
        count: words of a report, K + 1.
    """
    others = members - 1
    short, digest = bytes(16), bytes(32)
    pledge = Pledge(
        slot,
        number,
        digest,
        bytes(NONCE),
        bytes(others * SEALED),
        bytes(others * SECRET + TAG),
        short,
        short,
        bytes(members * 2 * CHECK),
        bytes(others * CHECK),
    )
    masked = Masked(slot, number, short, bytes(packed_size(count, ring.bits)), bytes(others * CHECK))
    answer = Answer(slot, number, (), bytes(members * SECRET))
    consent = Consent(slot, number, bytes(SIGNATURE))
    return sum(len(encode(part)) for part in (pledge, masked, consent, answer))
