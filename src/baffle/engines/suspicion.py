"""What an engine makes of spoilt sums: who is left out of the next, who is named, and when a run had better stop."""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass, field, replace
from functools import reduce

import numpy as np

from baffle.errors import StoppedError
from baffle.messages import Plan, Round
from baffle.secure.group_testing import TOGETHER, GroupTesting, Members
from baffle.server import Summed, nobody

SPOILT = "was in a sum that breaks the rules; whose report it was is not known"
LEFT = "was left out of the sum to find whose report breaks the rules"
NAMED = "its masked reports break the rules"
ASIDE = (SPOILT, LEFT)
"""Reasons that are no refusal of what a client has sent."""
LOST = 2
"""Spoilt sums in a row after which a private run stops: each has spent of everybody's budget."""
LOST_GROUPS = 50
"""Attempts in a row with too few sound groups after which any run stops."""
_TOLD = 20
"""Clients that a sentence names at most."""

log = logging.getLogger("baffle")


@dataclass(slots=True)
class Suspicion:
    """What is known of clients that spoil secure sums, from attempt to attempt."""

    testing: GroupTesting
    size: int = 0
    """Fewest members of a group that is summed by itself; 0 sums all of a cohort together."""
    _groups: tuple[Members, ...] = ()
    """Of the last attempt."""
    _without: Members = frozenset()
    """Whom the last attempt left out."""
    _lost: list[Members] = field(default_factory=list[Members])
    """Members of spoilt sums, attempt by attempt, since the last one that counted."""
    _private: bool = False
    """Whether attempts spend of a privacy budget."""
    _vain: str = ""
    """Why the search has ended without a result."""

    @property
    def found(self) -> Members:
        """Clients that are named: they are asked no more."""
        return self.testing.found

    def recall(self, record: Round) -> None:
        """Take note of a record that an earlier process of the run has left."""
        named = frozenset(number for number, why in record.left_out if number is not None and why == NAMED)
        self.testing = replace(self.testing, found=self.found | named)
        spoilt = frozenset(number for number, why in record.left_out if number is not None and why == SPOILT)
        self._note(record.plan, spoilt, counts=record.aggregate is not None)

    def refuse_going_on(self, admits: Callable[[int], bool] = lambda _: True) -> None:
        """Raise StoppedError where another attempt would spend or wait in vain.

        Args:
            admits: whether a client may still take part; without one of those that spoilt the last sum, it is worth a
                try.
        """
        if not self._lost or not all(admits(number) for number in self._lost[-1]):
            return
        if self._private and len(self._lost) >= LOST:
            raise StoppedError(
                f"{self._broken}: one of {_names(self._lost[-1])} sends what no report can be. To go on would spend "
                "everybody's privacy budget and learn nothing, so nothing more is asked; the run can be resumed. Who "
                "it is can be found without a budget: another run of the same clients with mechanism = 'none' names "
                "it. Then resume this one without it, by --admit with the others"
            )
        if self._vain:
            raise StoppedError(self._vain)

    def groups(self, plan: Plan, asked: Sequence[int]) -> tuple[tuple[int, ...], ...]:
        """Return the groups of an attempt, each to be summed by itself; to find who lies, some may be in none.

        Args:
            plan: the attempt's.
            asked: clients of its cohort that can take part, ascending, none of them named.
        """
        everybody = frozenset(asked)
        count = len(asked) // self.size if self.size else 1
        kept = tuple(group & everybody for group in self._groups)
        if count <= 1:
            kept = (everybody - (self.testing.left_out(asked, self._least(plan)) or frozenset()),)
        elif self.testing.searching or _union(kept) != everybody or min(map(len, kept)) < self.size:
            kept = self.testing.spread(asked, count, plan.round, plan.attempt)
        self._groups, self._without = kept, everybody - _union(kept)
        return tuple(tuple(sorted(group)) for group in kept)

    def total(
        self,
        plan: Plan,
        sound: Sequence[Summed],
        spoilt: Sequence[Collection[int]] = (),
        left_out: Iterable[tuple[int, str]] = (),
    ) -> Summed:
        """Return what an attempt comes to: the sum of its sound groups. Takes note of the spoilt ones.

        Args:
            plan: the attempt's, for which `groups` was called last.
            sound: sums of groups.
            spoilt: members in sums of groups that no reports within the rules have.
            left_out: clients that are in no sum for a reason known already.
        """
        before = self.found
        for members in spoilt:
            self.testing = self.testing.after_spoilt(members)
        for one in sound:
            self.testing = self.testing.after_sound(one.uploads)
        summed = _added(sound)
        among = _union(spoilt)
        self._note(plan, among, counts=len(summed.uploads) >= plan.quorum)
        if among:
            self._look_ahead(plan)
        reasons = dict.fromkeys(self._without, LEFT) | dict.fromkeys(among, SPOILT) | dict(left_out)
        reasons |= dict.fromkeys(self.found & frozenset(plan.cohort), NAMED)
        if self.found != before:
            log.warning("round %d: %s: %s", plan.round, _names(self.found - before), NAMED)
        told = tuple(sorted((number, why) for number, why in reasons.items() if number not in summed.uploads))
        return replace(summed, left_out=told)

    def _note(self, plan: Plan, spoilt: Members, *, counts: bool) -> None:
        self._private = plan.privacy is not None
        if counts:
            self._lost.clear()
        elif spoilt:
            self._lost.append(spoilt)

    def _look_ahead(self, plan: Plan) -> None:
        """See whether there is another attempt that could tell more."""
        asked, least = frozenset(plan.cohort) - self.found, self._least(plan)
        suspects, room = _names(self.testing.suspects), len(asked) - least
        if self.size and len(asked) // self.size > 1:
            many = f"{self._broken}: too many of {suspects} send what no report can be. Keep clients out with --admit"
            self._vain = many if len(self._lost) >= LOST_GROUPS else ""
        elif self.testing.left_out(asked, least) is not None:
            self._vain = ""
        elif room <= 0:
            self._vain = (
                f"{self._broken}: one of {suspects} sends what no report can be, and which one can't be told, since "
                f"{len(asked)} clients are asked, a sum of fewer than {least} is never opened, and so nobody can be "
                "left out. Keep clients out with --admit, or begin a run with a smaller quorum or more clients"
            )
        else:
            self._vain = (
                f"{self._broken}: more than {min(TOGETHER, room)} of {suspects} send what no report can be, and so "
                f"many can't be found, as every sum has {least} of {len(asked)}. Keep clients out with --admit, or "
                "begin a run that sums groups (sum_size)"
            )

    @property
    def _broken(self) -> str:
        return f"the secure sums of {len(self._lost)} attempts in a row break the rules"

    def _least(self, plan: Plan) -> int:
        return max(plan.quorum, self.size)


def _added(sums: Sequence[Summed]) -> Summed:
    """Return the sum of sums; nobody's where there is none."""
    if not sums:
        return nobody()
    integers = reduce(np.add, (one.integers for one in sums))
    uploads = {number: size for one in sums for number, size in one.uploads.items()}
    return Summed(integers, sum(one.weight for one in sums), uploads)


def _union(groups: Iterable[Collection[int]]) -> Members:
    return frozenset(number for group in groups for number in group)


def _names(members: Collection[int]) -> str:
    if len(members) == 1:
        return f"client {next(iter(members))}"
    told = ", ".join(map(str, sorted(members)[:_TOLD]))
    return f"clients {told}{', ...' if len(members) > _TOLD else ''}"


__all__ = ["ASIDE", "LEFT", "NAMED", "SPOILT", "Suspicion"]
