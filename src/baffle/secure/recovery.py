"""Secrets from shares: checked against what their owners told before the slot, with names where that fails."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from baffle.secure.derive import CHECK
from baffle.secure.epoch import Roster
from baffle.secure.messages import Answer, Pledge
from baffle.secure.pledge import ESCROW, SELF, cut, opened, place_of, secret_told, share_check
from baffle.secure.refusals import ForgeryError
from baffle.secure.shamir import SECRET, Combiner


@dataclass(frozen=True, slots=True)
class Answers:
    """Shares of members' secrets, by owner and holder."""

    shares: Mapping[int, Mapping[int, bytes]]

    @classmethod
    def of(cls, cohort: Sequence[int], answers: Iterable[Answer]) -> Answers:
        """Return the shares in `answers` of the right lengths."""
        shares: dict[int, dict[int, bytes]] = {i: {} for i in cohort}
        for answer in sorted(answers, key=lambda one: one.number):
            for i, share in shares_in(cohort, answer):
                shares[i][answer.number] = share
        return cls(shares)

    def holders(self, owner: int) -> tuple[int, ...]:
        """Return who has given a share of an owner's secret, ascending."""
        return tuple(self.shares[owner])


def shares_in(cohort: Sequence[int], answer: Answer) -> list[tuple[int, bytes]]:
    """Return the shares of an answer with their owners."""
    given = [i for i in cohort if i not in answer.unreadable]
    return list(zip(given, cut(answer.shares, SECRET), strict=True))


def refuse_forged(roster: Roster, pledges: Sequence[Pledge], reported: Sequence[int], answer: Answer) -> None:
    """Raise ForgeryError where a share is not the one whose hash its owner told everybody.

    An honest holder has compared the two itself and complained, so whoever sends such a share lies.
    """
    first = 2 * CHECK * roster.place(answer.number)
    check = share_check(place_of(roster.digest, answer.slot))
    shares, came = dict(shares_in([one.number for one in pledges], answer)), set(reported)
    for pledge in pledges:
        i = pledge.number
        if i not in shares:
            continue
        kind, at = (SELF, first) if i in came else (ESCROW, first + CHECK)
        if check(kind, i, answer.number, shares[i]) != pledge.shares_told[at : at + CHECK]:
            raise ForgeryError([answer.number], f"a share of the secret of member {i} is forged")


def recovered(
    roster: Roster, pledges: Sequence[Pledge], reported: Sequence[int], answers: Sequence[Answer]
) -> tuple[dict[int, bytes], dict[int, dict[int, bytes]]]:
    """Return b_i of every member that reported, and the seeds h_dj of every other of the cohort.

    All shares agree with the hashes that their owner told, so where they do not make the secret whose hash it told as
    well, or an escrow does not open or has other seeds than told, the owner lies. Checks all before it names any.

    Args:
        roster: the epoch's.
        pledges: of the cohort.
        reported: U.
        answers: with at least t shares of every secret.

    Raises:
        ForgeryError: names the owners of pledges that are false.
    """
    held, digest = Answers.of([pledge.number for pledge in pledges], answers), roster.digest
    combiners: dict[tuple[int, ...], Combiner] = {}
    own: dict[int, bytes] = {}
    seeds: dict[int, dict[int, bytes]] = {}
    liars: list[int] = []
    for pledge in pledges:
        i = pledge.number
        holders = held.holders(i)[: roster.terms.threshold]
        if holders not in combiners:
            combiners[holders] = Combiner.of(roster.place(holder) + 1 for holder in holders)
        secret = combiners[holders]([held.shares[i][holder] for holder in holders])
        where = place_of(digest, pledge.slot)
        if i in reported:
            own[i] = secret
            if secret_told(SELF, where, i, secret) != pledge.self_told:
                liars.append(i)
        else:
            found = opened(roster, pledge, secret)
            if found is None or secret_told(ESCROW, where, i, secret) != pledge.escrow_told:
                liars.append(i)
            else:
                seeds[i] = found
    if liars:
        raise ForgeryError(liars, "a pledge is false")
    return own, seeds


__all__ = ["Answers", "recovered", "refuse_forged", "shares_in"]
