"""What a ledger's payloads are in each of its versions, and in which order they may come. See docs/ledger-2.md."""

from __future__ import annotations

from dataclasses import dataclass

import msgspec

from baffle.errors import LedgerError
from baffle.messages import Aggregate, Count, Intent, Plan, Record, Round, decode_by, encode, plan_digest

_SECOND: msgspec.msgpack.Decoder[Record] = msgspec.msgpack.Decoder(Record)


class _FirstRound(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """A round as version 1 writes it: without a tag, and without the digest of the averaged weights."""

    plan: Plan
    answered: tuple[Count, ...]
    uploads: tuple[Count, ...]
    left_out: tuple[tuple[int | None, str], ...]
    aggregate: Aggregate | None
    digest: str | None
    epsilon: float | None = None


_FIRST = _FirstRound.__struct_fields__
_FIRST_READER = msgspec.msgpack.Decoder(_FirstRound)


def encode_record(record: Record, version: int) -> bytes:
    """Return a record's payload in a ledger of a version.

    Raises:
        LedgerError: version 1 has no such record.
    """
    if version > 1:
        return encode(record)
    if isinstance(record, Intent):
        raise LedgerError(0, "a ledger of version 1 has no room for intents")
    return encode(_FirstRound(*(getattr(record, name) for name in _FIRST)))


def decode_record(payload: bytes, version: int) -> Record:
    """Return the record in a payload of a ledger of a version.

    Raises:
        ReportError: it is none.
    """
    if version > 1:
        return decode_by(_SECOND, payload, "record")
    found = decode_by(_FIRST_READER, payload, "record")
    return Round(*(getattr(found, name) for name in _FIRST))


@dataclass(slots=True)
class Course:
    """How far a ledger has come: it takes one record after another, and refuses what does not follow.

    An intent moves on to the next attempt at once: an attempt that was cut off stays spent, and is never asked again.

        round r, attempt a   →   intent (r, a), where the run is guarded   →   round (r, a): done, or attempt a + 1
                                                                           →   intent (r, a + 1), after a crash
    """

    guarded: bool
    """Whether an intent must be on disk before anybody is asked: a budget is kept, or sums are secure."""
    round: int = 0
    """Rounds done."""
    attempt: int = 0
    """The next one at this round."""
    _intent: Intent | None = None
    """That no round has followed yet."""

    def take(self, record: Record, number: int) -> None:
        """Go on by record `number` of the ledger.

        Raises:
            LedgerError: it does not follow from those before.
        """
        if isinstance(record, Intent):
            self._refuse_other((record.round, record.attempt), (self.round, self.attempt), number)
            if not self.guarded:
                raise LedgerError(number, "an intent in a run that has neither a budget nor secure sums")
            self._intent, self.attempt = record, record.attempt + 1
            return
        plan = record.plan
        due = self.attempt if self._intent is None else self._intent.attempt
        self._refuse_other((plan.round, plan.attempt), (self.round, due), number)
        if self.guarded and (self._intent is None or self._intent.plan != plan_digest(plan)):
            raise LedgerError(number, f"round {plan.round}, attempt {plan.attempt} has no intent with this plan")
        self._intent = None
        self.round, self.attempt = (plan.round, plan.attempt + 1) if record.aggregate is None else (plan.round + 1, 0)

    @staticmethod
    def _refuse_other(found: tuple[int, int], due: tuple[int, int], number: int) -> None:
        if found != due:
            told = f"round {found[0]}, attempt {found[1]} where round {due[0]}, attempt {due[1]} follows"
            raise LedgerError(number, told)


__all__ = ["Course", "decode_record", "encode_record"]
