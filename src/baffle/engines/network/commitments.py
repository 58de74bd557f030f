"""What a client has given away of a run: kept before the message leaves that gives it, over restarts and epochs.

A member of an epoch opens one sum a slot, but a server can begin another epoch and ask for the slot again. Two sums of
one slot that differ by one member would tell that member's report. So a client remembers the highest slot of which it
has let a sum be opened, and has no part in any other sum at or below it.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from typing import Annotated, Protocol

import msgspec
from msgspec import Meta

from baffle.errors import ReportError
from baffle.messages import Count, decode, encode
from baffle.secure import Slot

_HEAD = b"baffle commitments 1\n"
_CHECK = 16


class Commitments(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """What a client has given away of one run."""

    answered: Count = 0
    """Attempts that it has answered, each of which spends of its privacy budget."""
    opened: Slot | None = None
    """The highest slot of which it has let a sum be opened, by a signature or by shares."""
    transcript: Annotated[bytes, Meta(min_length=32, max_length=32)] = bytes(32)
    """Of that sum: the epoch, the cohort, what it was asked, and whose reports came."""

    def opening(self, slot: Slot, transcript: bytes) -> Commitments:
        """Return what is given away once the sum of this `transcript` may be opened.

        Raises:
            ReportError: another sum of this slot, or one of a later slot, may be opened already.
        """
        if self.opened is not None and (slot < self.opened or (slot == self.opened and transcript != self.transcript)):
            raise ReportError(f"{_told(slot)} can't be opened: this client has let {_told(self.opened)} be opened")
        return msgspec.structs.replace(self, opened=slot, transcript=transcript)

    def refuse_masking(self, slot: Slot) -> None:
        """Raise ReportError where a report of this slot would be one in a second sum."""
        if self.opened is not None and slot <= self.opened:
            raise ReportError(f"{_told(slot)} is not reported on: this client has let {_told(self.opened)} be opened")

    def stored(self) -> bytes:
        """Return this as a file's bytes."""
        body = encode(self)
        return _HEAD + _digest(body) + body

    @classmethod
    def restored(cls, data: bytes) -> Commitments:
        """Return what was stored.

        Raises:
            ReportError: it is damaged.
        """
        head, body = data[: len(_HEAD) + _CHECK], data[len(_HEAD) + _CHECK :]
        if head != _HEAD + _digest(body):
            raise ReportError("what this client has given away of a run is damaged")
        return decode(body, cls)


class Book(Protocol):
    """Where commitments are kept, by run."""

    def commitments(self, run: str) -> Commitments:
        """Return what is given away of a run; nothing, where nothing was kept.

        Raises:
            SettingsError: what was kept can't be read.
        """
        ...

    def commit(self, run: str, value: Commitments) -> None:
        """Keep what is given away of a run, before it is.

        Raises:
            ReportError: it can't be kept.
        """
        ...


@dataclass(frozen=True, slots=True)
class MemoryBook:
    """A book that is forgotten with its process: for tests and research."""

    runs: dict[str, Commitments] = field(default_factory=dict[str, Commitments])

    def commitments(self, run: str) -> Commitments:
        """Return what is given away of a run."""
        return self.runs.get(run, Commitments())

    def commit(self, run: str, value: Commitments) -> None:
        """Keep what is given away of a run."""
        self.runs[run] = value


def _told(slot: Slot) -> str:
    return f"round {slot.round}, attempt {slot.attempt}"


def _digest(body: bytes) -> bytes:
    return hashlib.blake2b(body, digest_size=_CHECK, person=b"baffle-commit").digest()


__all__ = ["Book", "Commitments", "MemoryBook"]
