"""What colluding members and the server can compute, and what they can't.

Shown here: with the same randomness, two inputs of two victims with one sum give a coalition of t − 1 members and the
server the same view to the byte, except for the victims' masked words; and what is left of those, after every mask
that the coalition knows is taken off, differs by the inputs alone, under one mask whose seed is nowhere in the view,
and is uniform. Not shown, but assumed: that AES-128 in counter mode, HKDF and X25519 are what they are taken for.
"""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from baffle.errors import ReportError
from baffle.messages import encode
from baffle.secure import Aggregation, Closing, Request, Ring, Slot
from baffle.secure.pledge import cut, opened
from baffle.secure.recovery import recovered
from secured import SUBJECT, Round, drawn, epoch, signed

SLOT = Slot(1, 0)
RING = Ring(5, 1, 127)
assert RING.bits == 11
K = 1 << 16
VICTIMS, COALITION = (3, 10), (17, 24, 31)


def played(first: int, second: int, key: int = 1) -> Round:
    """Return a slot in which the victims' slopes are these, K times, and all members answer."""
    round_ = Round.begin(epoch(5, 4, seed=key)[1], SLOT, RING, K + 1)
    for number, slope in zip(round_.roster.members, (first, second, 0, 0, 0), strict=True):
        round_.report(number, np.full(K, slope))
    round_.unmask(round_.roster.members)
    return round_


def seeds_of(round_: Round, number: int, key: int = 1) -> dict[int, bytes]:
    """Return h_ij of a member, which its pledge makes again with the same randomness."""
    member, _ = epoch(5, 4, seed=key)[1][round_.roster.place(number)].pledge(round_.slot, drawn(1))
    return dict(zip(round_.roster.others(number), cut(member.held[-1].seeds, 16), strict=True))


def stripped(round_: Round, victim: int, key: int = 1) -> np.ndarray:
    """Return a victim's masked words without what the coalition can take off: b, and the masks with its members."""
    server = round_.server
    own, _ = recovered(round_.roster, server.pledges, server.reported, server.answers)
    masked = next(one for one in server.reports if one.number == victim)
    words = RING.unpack(masked.words, K + 1) - RING.mask(own[victim], K + 1)
    for j in COALITION:
        words = words - RING.mask(seeds_of(round_, j, key)[victim], K + 1)  # victim < j
    return words & 0x7FF


def p_value(words: np.ndarray) -> float:
    return float(stats.chisquare(np.bincount(words, minlength=2048)).pvalue)


def test_two_inputs_with_one_sum_look_alike_to_t_minus_1_members_and_the_server() -> None:
    one, two = played(100, -30), played(-50, 120)
    np.testing.assert_array_equal(one.server.sums().slopes, two.server.sums().slopes)
    assert one.server.pledges == two.server.pledges
    assert one.server.answers == two.server.answers
    for i, j in zip(one.server.reports, two.server.reports, strict=True):
        assert (i.words == j.words) == (i.number in COALITION)
        assert (i.slot, i.binding, i.witnesses) == (j.slot, j.binding, j.witnesses)
    for member in COALITION:
        assert one.members[member] == two.members[member]
    assert [one.server.request(i) for i in COALITION] == [two.server.request(i) for i in COALITION]
    # What is left of the victims' words differs by the inputs, and is noise in both worlds.
    for victim, change in zip(VICTIMS, (-150, 150), strict=True):
        left = [stripped(world, victim) for world in (one, two)]
        assert set(((left[1].astype(int) - left[0]) % 2048)[:-1]) == {change % 2048}
        assert all(p_value(words) > 0.001 for words in left)
    # The seed of that noise is in nothing that the coalition holds, before and after.
    seed = seeds_of(one, VICTIMS[0])[VICTIMS[1]]
    assert seed == seeds_of(one, VICTIMS[1])[VICTIMS[0]]
    chain = epoch(5, 4)[1][0].chains[1]
    server = one.server
    view = [*server.pledges, *server.reports, *server.answers, *(server.request(i) for i in one.members)]
    states = [state.stored() for i in COALITION for state in (one.members[i], epoch(5, 4)[1][i // 7])]
    assert not any(secret in data for data in [*map(encode, view), *states] for secret in (seed, chain))


def test_worlds_with_their_own_randomness_do_not_differ_either() -> None:
    one, two = played(100, -30), played(-50, 120, key=2)
    left = stripped(one, 3), stripped(two, 3, key=2)
    assert (left[0] != left[1]).any()
    assert stats.ks_2samp(*left).pvalue > 0.001
    # The test would tell a mask of one bit less.
    assert stats.ks_2samp(left[0], left[1] >> 1).pvalue < 1e-9


def test_a_late_report_of_a_member_that_was_taken_for_gone_stays_sealed() -> None:
    round_ = Round.begin(epoch(5, 4)[1], SLOT, RING, K + 1)
    for number in round_.roster.members[1:]:
        round_.report(number, np.zeros(K, np.int64))
    late = round_.mask(3, np.full(K, 100))
    round_.unmask(round_.roster.members)
    _, seeds = recovered(round_.roster, round_.server.pledges, round_.server.reported, round_.server.answers)
    words = RING.unpack(late.words, K + 1)
    for j in round_.roster.members[1:]:
        words = words - RING.mask(seeds[3][j], K + 1)
    words &= 0x7FF
    assert p_value(words) > 0.001  # x + PRG(b), of which the coalition has t − 1 shares
    # The fourth share of b is what honest members now refuse for ever.
    everybody = Aggregation(
        round_.roster,
        SLOT,
        RING,
        K + 1,
        SUBJECT,
        round_.server.pledges,
        (*round_.server.reports, late),
        round_.roster.members,
    )
    for holder in (3, 10):
        with pytest.raises(ReportError, match="signed or answered for other reports"):
            round_.ask(holder, signed(everybody).request(holder))


def test_below_t_answers_or_the_minimum_nothing_is_told() -> None:
    round_ = Round.begin(epoch(5, 4)[1], SLOT, RING, K + 1)
    for number in round_.roster.members[:3]:
        round_.report(number, np.full(K, 7))
    three = Aggregation(
        round_.roster,
        SLOT,
        RING,
        K + 1,
        SUBJECT,
        round_.server.pledges,
        round_.server.reports,
        round_.roster.members[:3],
    )
    with pytest.raises(ReportError, match="3 signatures where 4 are needed"):
        signed(three).request(3)
    # A server that does not mind asks for signatures and for shares nevertheless.
    closing = Closing(SLOT, round_.roster.digest, three.reported)
    request = Request(SLOT, round_.roster.digest, round_.server.cohort, three.reported, (), three.reported, bytes(192))
    for holder in three.reported:
        with pytest.raises(ReportError, match="at least 4"):
            round_.confirm(holder, closing)
        with pytest.raises(ReportError, match="at least 4"):
            round_.ask(holder, request)


def test_what_one_slot_reveals_opens_no_other() -> None:
    """Every secret of a slot is drawn for it, or comes by HKDF from a chain that is never revealed.

    So with all that is revealed in one slot (b of those that reported; σ, and with it all seeds, of those that did
    not) and the pledges of all slots, no seed of another slot is at hand.
    """
    drawn_here: list[bytes] = []
    source = drawn(123)

    def random(count: int) -> bytes:
        drawn_here.append(source(count))
        return drawn_here[-1]

    roster, members = epoch(4, 3)
    states = {member.number: member for member in members}
    slots = [Slot(0, 0), Slot(0, 1), Slot(1, 0), Slot(2, 0)]
    pledges = {}
    for slot in slots:
        for number in states:
            states[number], pledges[slot, number] = states[number].pledge(slot, random)
    # b, σ, the nonce, and two coefficients for each of the two polynomials.
    assert [len(data) for data in drawn_here] == [16, 16, 12, 16, 16, 16, 16] * len(pledges)
    assert len(set(drawn_here)) == len(drawn_here)
    secrets = {}
    for slot in slots:
        held = [next(one for one in states[i].held if one.slot == slot) for i in roster.members]
        secrets[slot] = {one.own for one in held} | {seed for one in held for seed in cut(one.seeds, 16)}
        # Every b is one of those drawn for this slot; the others, 6 pairs of 4, are by HKDF.
        assert len(secrets[slot] & set(drawn_here)) == 4
        assert len(secrets[slot]) == 10
    for one in slots:
        revealed = set()
        for number in roster.members:
            drawn_for = drawn_here[7 * list(pledges).index((one, number)) :][:2]
            revealed |= {*drawn_for, *(opened(roster, pledges[one, number], drawn_for[1]) or {}).values()}
        assert len(revealed) == 4 + 4 + 6
        for other in slots:
            if other != one:
                assert not revealed & secrets[other]
                for number in roster.members:
                    assert all(opened(roster, pledges[other, number], key) is None for key in revealed)
