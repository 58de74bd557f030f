"""What a client and its server say to each other for secure sums, inside the dialogue."""

from __future__ import annotations

from typing import Annotated

import msgspec
from msgspec import Meta

from baffle.secure.epoch import Terms
from baffle.secure.messages import MOST_MEMBERS, Answer, Closing, Consent, Enrolment, Masked, Pledge, Request, Slot


class Told(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """A client's part of the protocol: what it was asked for, and the pledge for the next round with its report."""

    enrolment: Enrolment | None = None
    pledge: Pledge | None = None
    masked: Masked | None = None
    answer: Answer | None = None
    consent: Consent | None = None


class Enrol(msgspec.Struct, frozen=True, array_like=True, tag="enrol"):
    """Asks for a key for an epoch."""

    terms: Terms


class Meet(msgspec.Struct, frozen=True, array_like=True, tag="meet"):
    """All keys of an epoch, and what to pledge for."""

    enrolments: Annotated[tuple[Enrolment, ...], Meta(max_length=MOST_MEMBERS)]
    slot: Slot


class Vow(msgspec.Struct, frozen=True, array_like=True, tag="vow"):
    """Asks for a pledge."""

    slot: Slot


class Confirm(msgspec.Struct, frozen=True, array_like=True, tag="confirm"):
    """Says whose reports came, and asks for a signature of it."""

    closing: Closing


class Open(msgspec.Struct, frozen=True, array_like=True, tag="open"):
    """Asks for shares, to finish a round."""

    request: Request
