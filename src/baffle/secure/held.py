"""What a member keeps of a slot until it forgets the round."""

from __future__ import annotations

import msgspec

from baffle.secure.messages import Members, Slot


class Held(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """A member's secrets of one slot, and what it has done with them."""

    slot: Slot
    pledge: bytes
    """The name of its pledge."""
    own: bytes
    """b, its self-mask seed; nothing once a report is masked."""
    shares: bytes
    """Its own two shares of b and σ."""
    seeds: bytes
    """h_ij with every other member; nothing once a report is masked."""
    cohort: Members = ()
    """For which it has masked a report; empty before."""
    binding: bytes = b""
    reported: Members | None = None
    """U, as it has answered; another U is refused for ever."""

    def __repr__(self) -> str:
        return f"Held({self.slot})"


__all__ = ["Held"]
