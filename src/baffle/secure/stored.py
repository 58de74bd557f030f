"""A member's state as bytes, and what makes bytes one."""

from __future__ import annotations

import msgspec

from baffle.errors import ReportError
from baffle.messages import Count
from baffle.secure.epoch import LONGEST, Roster
from baffle.secure.held import Held
from baffle.secure.messages import ascending
from baffle.secure.shamir import SECRET

CHAIN = 32
"""Bytes of a chain with another member."""


class Stored(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """All that a member keeps: see `baffle.secure.member.Member`."""

    number: Count
    roster: Roster
    round: Count
    chains: tuple[bytes, ...]
    held: tuple[Held, ...]

    def refuse_damaged(self) -> None:
        """Raise ReportError unless every part fits the others, so that nothing fails later than here."""
        place = self.roster.place(self.number)
        due = [0 if at == place else CHAIN for at in range(len(self.roster.members))]
        if [len(chain) for chain in self.chains] != due:
            raise ReportError("the state has not one chain for each other member")
        if len({held.slot for held in self.held}) != len(self.held):
            raise ReportError("the state holds secrets of a slot twice")
        last = self.roster.terms.start + LONGEST
        for held in self.held:
            if not self.round <= held.slot.round <= last:
                raise ReportError(f"the state holds secrets of round {held.slot.round}, and round {self.round} is next")
            _refuse_damaged(self.roster, self.number, held)


def _refuse_damaged(roster: Roster, number: int, held: Held) -> None:
    masked = bool(held.cohort)
    sizes = len(held.pledge), len(held.own), len(held.shares), len(held.seeds), len(held.binding)
    others = len(roster.members) - 1
    if sizes != ((SECRET, 0, 2 * SECRET, 0, SECRET) if masked else (SECRET, SECRET, 2 * SECRET, SECRET * others, 0)):
        raise ReportError(f"the secrets of round {held.slot.round} have other lengths than a member keeps")
    ascending(held.cohort, "cohort")
    if masked and not {number} <= set(held.cohort) <= set(roster.members):
        raise ReportError("the cohort has strangers, or lacks this member")
    if not set(held.reported or ()) <= set(held.cohort):
        raise ReportError("a report is named that is not of the cohort")


__all__ = ["Stored"]
