"""What a member gives out as a holder of others' shares."""

from __future__ import annotations

import hmac
from collections.abc import Mapping

from baffle.secure.derive import unseal, witness
from baffle.secure.messages import Answer, Deposit, Request, Slot
from baffle.secure.pledge import bound, place_of, share_told
from baffle.secure.shamir import SECRET


def shares_of(
    digest: bytes, number: int, chains: Mapping[int, bytes], request: Request, own: bytes, binding: bytes
) -> Answer:
    """Return a holder's answer to a request whose U, cohort and slot have been checked.

    A peer's share is withheld, and the peer named, where its deposit does not open, differs from the hashes that the
    peer told everybody, or, for a peer that reported, where the witness says that it has masked for another cohort: a
    server that shows cohorts that differ gets no self-mask of those who saw another.

    Args:
        digest: of the roster.
        number: the holder's.
        chains: c_r by member, at the slot's round.
        request: the server's.
        own: the holder's own two shares.
        binding: of the cohort and the form of its reports, as the holder masked.
    """
    reported = set(request.reported)
    deposits = iter(request.deposits)
    unreadable: list[int] = []
    shares: list[bytes] = []
    for i in request.cohort:
        pair: bytes | None = own
        if i != number:
            deposit = next(deposits)
            pair = _opened(digest, request.slot, number, i, chains[i], deposit)
            if i in reported and not hmac.compare_digest(deposit.witness, witness(chains[i], i, number, binding)):
                pair = None
        if pair is None:
            unreadable.append(i)
        else:
            shares.append(pair[:SECRET] if i in reported else pair[SECRET:])
    return Answer(request.slot, number, tuple(unreadable), b"".join(shares))


def _opened(digest: bytes, slot: Slot, holder: int, owner: int, chain: bytes, deposit: Deposit) -> bytes | None:
    """Return a holder's two shares of an owner's secrets, or None where they are not what the owner told."""
    where = place_of(digest, slot)
    authentic = bound(where, owner, holder, deposit.told)
    pair = unseal(chain, owner, holder, deposit.nonce, deposit.sealed, authentic)
    if pair is None or share_told(where, owner, holder, (pair[:SECRET], pair[SECRET:])) != deposit.told:
        return None
    return pair


__all__ = ["shares_of"]
