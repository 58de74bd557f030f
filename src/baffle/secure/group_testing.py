"""Who spoils a cohort's sums: adaptive group testing, one attempt at a round after another. Pure."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import combinations

from baffle.keys import Key

Members = frozenset[int]

TOGETHER = 3
"""Most liars of one cohort that are searched for: each further one makes the search three times as long, or more."""
PATIENCE = 3
"""Sound sums in a row after which fewer are left out, half as many each time: whoever lied has stopped."""
CALM = 64
"""Sound sums in a row after which a search without a result ends."""
VAIN = 3
"""Spoilt sums of the same members in a row after which a search in which nobody can be left out ends."""
MOST_KEPT = 512
"""Spoilt sums that are remembered: the latest."""


@dataclass(frozen=True, slots=True)
class GroupTesting:
    """What spoilt and sound sums tell of who lies, and whom the next sum is to do without.

    A sum is a test of the members in it together: a spoilt one has a liar. Members admit no sum of fewer than `least`
    reports, so that of n asked only a = n − least can be left out, and every test has most of the cohort.

    **One liar** is in every spoilt sum. Whoever is left out of one is no suspect any more, which a part of the suspects
    is each time: a of them at most, half at most. The last suspect is named once a sum without it is sound and all
    others have been in sound sums. So one liar spoils

        1 + ⌈n/a⌉ + ⌊log₂ a⌋

    sums at most before it is named if it always lies, and may be quiet meanwhile; **no other member is ever named
    because of it, whatever it does**. If nobody is in all spoilt sums, there are **several liars**. Then parts are left
    out, two and two together, then three and three, until a sum is sound, whose members are cleared; from there each
    liar is found by halves, among those that are not cleared, in ⌈log₂ a⌉ + 1 tests: a spoilt sum whose members are
    all cleared but one names that one. The first sound sum needs C(⌈n/⌊a/f⌋⌉, f) attempts for f liars at most, and no
    method needs fewer than C(n, f)/C(a, f): hence `TOGETHER`. Several that work together can have another one named.

    Sound sums are rounds that count. Source: Dorfman 1943; Du & Hwang, "Combinatorial Group Testing" (2000), for tests
    of any size; here tests are large, and who is ill may feign health.
    """

    key: Key
    """What decides who is left out first."""
    found: Members = frozenset()
    """Liars that have been named."""
    spoilt: tuple[Members, ...] = ()
    """Members of the spoilt sums that no liar found explains, oldest first."""
    cleared: Members = frozenset()
    """Members of sound sums since the first spoilt one."""
    several: bool = False
    """Whether no single liar explains the spoilt sums."""
    quiet: int = 0
    """Sound sums since the last spoilt one."""
    vain: int = 0
    """Spoilt sums in a row of members that had one together before."""

    @property
    def searching(self) -> bool:
        """Whether there was a spoilt sum that is not explained."""
        return bool(self.spoilt) or self.several

    @property
    def common(self) -> Members:
        """Return the members of all spoilt sums: one of them lies, if it is one that lies."""
        return self.spoilt[0].intersection(*self.spoilt) if self.spoilt else frozenset()

    @property
    def suspects(self) -> Members:
        """Return those who may lie, and are not named."""
        if not self.spoilt:
            return frozenset()
        return self.spoilt[0].union(*self.spoilt) - self.cleared if self.several else self.common

    def after_sound(self, members: Iterable[int]) -> GroupTesting:
        """Return what is known after a sum of these members kept the rules."""
        if not self.searching:
            return self
        known = replace(self, cleared=self.cleared | frozenset(members), quiet=self.quiet + 1, vain=0)._judged()
        return GroupTesting(self.key, known.found) if not known.spoilt or known.quiet >= CALM else known

    def after_spoilt(self, members: Iterable[int]) -> GroupTesting:
        """Return what is known after a sum of these members broke the rules."""
        if not self.searching:
            return GroupTesting(self.key, self.found, (frozenset(members) - self.found,))
        among = frozenset(members) - self.found
        vain = self.vain + 1 if any(one <= among for one in self.spoilt) else 0
        # Where all are cleared, somebody among them lies now and then: none of them is cleared.
        cleared = self.cleared - among if among <= self.cleared else self.cleared
        kept = (*self.spoilt, among)[-MOST_KEPT:]
        known = replace(self, spoilt=kept, cleared=cleared, quiet=0, vain=vain)
        return replace(known, several=self.several or not known.common)._judged()

    def left_out(self, asked: Collection[int], least: int) -> Members | None:
        """Return whom the next sum is to do without; None where the search is in vain.

        Args:
            asked: members that could be in it, without those found.
            least: fewest that must be.
        """
        there, room = frozenset(asked), len(asked) - least
        if room <= 0:
            return None if self.vain >= VAIN - 1 else frozenset()
        if not self.spoilt:
            return frozenset()
        return self._among_several(there, room) if self.several else self._of_one(there, room)

    def spread(self, asked: Collection[int], count: int, *path: int) -> tuple[Members, ...]:
        """Return those asked in so many groups that are summed each by itself: of nearly one size, suspects apart.

        Args:
            asked: members that can be in a sum, without those found.
            count: of groups, 1 to as many as are asked.
            path: names this drawing; another has other groups.
        """
        key, suspects = self.key.fold("groups", *path), self.suspects
        order = sorted(asked, key=lambda number: (number not in suspects, key.fold(number).secret))
        return tuple(frozenset(order[first::count]) for first in range(count))

    def _of_one(self, there: Members, room: int) -> Members:
        common = self.common
        suspects = common & there
        if len(suspects) <= room and (len(common) == 1 or not self.cleared):
            return suspects  # a sum that is spoilt all the same has another liar
        size = min(room, -(-len(suspects) // 2)) if len(suspects) > 1 else 0
        eased = max(size >> max(0, self.quiet - PATIENCE), min(size, 1))
        return frozenset(sorted(self._ordered(suspects), key=lambda number: number not in self.cleared)[:eased])

    def _among_several(self, there: Members, room: int) -> Members | None:
        unknown = there - self.cleared
        parts = [part for one in self.spoilt if (part := (one - self.cleared) & there)]
        if not parts:
            return frozenset()
        narrowest = self._ordered(min(parts, key=len))
        half = frozenset(narrowest[: -(-len(narrowest) // 2)])
        without = unknown - half
        return without if len(without) <= room else self._untried(there, unknown, room)

    def _untried(self, there: Members, unknown: Members, room: int) -> Members | None:
        """Return a set to leave out such that the rest is not known to be spoilt: all sets have been tried one day."""
        order = self._ordered(unknown)
        for liars in range(1, min(TOGETHER, room) + 1):
            size = room // liars
            parts = [order[first : first + size] for first in range(0, len(order), size)]
            for chosen in combinations(parts, min(liars, len(parts))):
                without = frozenset(number for part in chosen for number in part)
                if not any(one <= there - without for one in self.spoilt):
                    return without
        return None

    def _judged(self) -> GroupTesting:
        """Return the state with those named whom the sums convict."""
        liar = next(iter(self._convicted()), None)
        if liar is None:
            return self
        left = tuple(one for one in self.spoilt if liar not in one)
        return replace(self, found=self.found | {liar}, spoilt=left, cleared=self.cleared - {liar})._judged()

    def _convicted(self) -> Iterable[int]:
        if not self.several:
            common = self.common
            return common if len(common) == 1 and any(one - common <= self.cleared for one in self.spoilt) else ()
        alone = (one - self.cleared for one in self.spoilt)
        return [number for rest in alone if len(rest) == 1 for number in rest]

    def _ordered(self, members: Members) -> Sequence[int]:
        """Return members in an order that the key alone decides."""
        return sorted(members, key=lambda number: self.key.fold(number).secret)


__all__ = ["GroupTesting"]
