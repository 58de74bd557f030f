"""What a report is about: members that were asked different things must never be added up."""

from __future__ import annotations

from baffle.messages import Plan, encode
from baffle.parameters import Vector, digest
from baffle.secure.derive import told


def subject_of(plan: Plan, parameters: Vector) -> bytes:
    """Return 32 bytes that name a plan and the θ [n] from which it is answered.

    Each side computes it from its own state, so that a server which gives members different models or plans for one
    slot gets reports that do not go together: their masks stay.
    """
    return told("subject", bytes.fromhex(digest(parameters)), encode(plan), 32)


__all__ = ["subject_of"]
