"""Lies are found out and named, and never end in a wrong sum."""

from __future__ import annotations

import numpy as np
import pytest
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from msgspec.structs import replace

from baffle.errors import ReportError
from baffle.secure import AbandonedError, Aggregation, ForgeryError, Ring, Slot, checked, consistent
from baffle.secure import pledge as pledging
from baffle.secure.derive import numbers
from secured import SUBJECT, Round, epoch, signed

SLOT = Slot(1, 0)
RING = Ring(9, 1, 127)
SLOPES = np.arange(4)


def begun(n: int = 5, threshold: int = 4) -> Round:
    return Round.begin(epoch(n, threshold)[1], SLOT, RING, 5)


def lying(monkeypatch, liar: int, name: str, lie) -> Round:
    """Return a slot in which one member makes its pledge with another function."""
    honest = getattr(pledging, name)
    members = epoch(5, 4)[1]
    make = pledging.make

    def made(roster, number, *rest):
        with monkeypatch.context() as patch:
            if number == liar:
                patch.setattr(pledging, name, lambda *given: lie(honest, *given))
            return make(roster, number, *rest)

    monkeypatch.setattr("baffle.secure.member.make", made)
    return Round.begin(members, SLOT, RING, 5)


def flipped(data: bytes, at: int = 0) -> bytes:
    return data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :]


@pytest.mark.parametrize("at", [0, 16, 79])
def test_a_forged_share_names_the_holder_and_the_rest_still_finish(at) -> None:
    round_ = begun()
    for number in round_.roster.members[:4]:
        round_.report(number, SLOPES)
    round_.mask(31, SLOPES)
    round_.close()
    answer = round_.ask(10)
    with pytest.raises(ForgeryError, match="member 10") as caught:
        round_.server.answer(replace(answer, shares=flipped(answer.shares, at)))
    assert caught.value.members == (10,)
    found = round_.unmask([3, 17, 24, 31])
    assert (found.slopes.tolist(), found.weight) == ([0, 4, 8, 12], 4)


def test_shares_of_the_wrong_kind_are_forged_ones() -> None:
    round_ = begun()
    for number in round_.roster.members:
        round_.report(number, SLOPES)
    fewer = Aggregation(
        round_.roster, SLOT, RING, 5, SUBJECT, round_.server.pledges, round_.server.reports[:4], (3, 10, 17, 24)
    )
    answer = round_.ask(10, signed(fewer).request(10))
    with pytest.raises(ForgeryError, match="member 10"):
        signed(round_.server.close()).answer(answer)


@pytest.mark.parametrize("drops", [True, False])
@pytest.mark.parametrize("kind", ["self", "escrow"])
def test_shares_that_make_another_secret_than_was_told_name_the_owner(monkeypatch, kind, drops) -> None:
    def lie(honest, what, where, owner, secret):
        return honest(what, where, owner, flipped(secret) if what == kind else secret)

    round_ = lying(monkeypatch, 17, "secret_told", lie)
    for number in round_.roster.members:
        if number != 17 or not drops:
            round_.report(number, SLOPES)
    if drops == (kind == "escrow"):
        with pytest.raises(ForgeryError, match="a pledge is false: member 17") as caught:
            round_.unmask([3, 10, 24, 31])
        assert caught.value.members == (17,)
    else:
        assert round_.unmask([3, 10, 24, 31]).slopes.tolist()[1] == (4 if drops else 5)


def test_an_escrow_with_other_seeds_names_its_owner() -> None:
    round_ = begun()
    pledge = round_.pledges[17]
    key = bytes(16)
    where = pledging.place_of(round_.roster.digest, SLOT) + numbers(17)
    # 17 seals noise under σ = 0 and deals shares of that σ: constants, so that any t of them tell it.
    false = AESGCM(key).encrypt(bytes(12), bytes(64), where)
    assert pledging.opened(round_.roster, replace(pledge, escrow=false), key) is None
    assert pledging.opened(round_.roster, replace(pledge, escrow=flipped(false)), key) is None


def test_an_escrow_found_false_when_its_owner_is_gone(monkeypatch) -> None:
    round_ = lying(monkeypatch, 17, "seed_told", lambda honest, where, i, j, seed: honest(where, i, j, flipped(seed)))
    for number in round_.roster.members:
        if number != 17:
            round_.report(number, SLOPES)
    with pytest.raises(ForgeryError, match="member 17"):
        round_.unmask([3, 10, 24, 31])


def test_seeds_on_which_two_do_not_agree_are_found_before_the_round(monkeypatch) -> None:
    honest = begun()
    assert consistent(honest.roster, honest.pledges) == (honest.roster.members, ())
    round_ = lying(monkeypatch, 17, "seed_told", lambda honest, where, i, j, seed: honest(where, i, j, flipped(seed)))
    cohort, disputes = consistent(round_.roster, round_.pledges)
    assert cohort == (3, 10, 24, 31)
    assert disputes == ((3, 17), (10, 17), (17, 24), (17, 31))


def test_a_share_that_is_not_what_was_told_is_complained_of(monkeypatch) -> None:
    def lie(honest, where, owner, holder, shares):
        return honest(where, owner, holder, (flipped(shares[0]), shares[1]) if holder in (3, 10) else shares)

    round_ = lying(monkeypatch, 17, "share_told", lie)
    for number in round_.roster.members:
        round_.report(number, SLOPES)
    with pytest.raises(AbandonedError, match="needed for each member"):
        round_.unmask(round_.roster.members)
    assert round_.server.complaints == ((3, 17), (10, 17))


def test_a_deposit_that_was_tampered_with_is_complained_of() -> None:
    round_ = begun()
    for number in round_.roster.members:
        round_.report(number, SLOPES)
    round_.close()
    request = round_.server.request(3)
    first = request.deposits[0]
    for change in (
        {"sealed": flipped(first.sealed)},
        {"nonce": flipped(first.nonce)},
        {"told": flipped(first.told)},
        {"witness": flipped(first.witness)},
        {"witness": b""},
    ):
        fresh = begun()
        fresh.members[3] = round_.members[3]
        assert fresh.ask(
            3, replace(request, deposits=(replace(first, **change), *request.deposits[1:]))
        ).unreadable == (10,)


def test_answers_of_another_form_are_refused() -> None:
    round_ = begun()
    for number in round_.roster.members:
        round_.report(number, SLOPES)
    with pytest.raises(ReportError, match="still taken"):
        round_.server.request(3)
    with pytest.raises(AbandonedError):
        round_.server.sums()
    open_ = round_.server
    round_.close()
    assert round_.server.close() is round_.server
    answer = round_.ask(3)
    with pytest.raises(ReportError, match="still taken"):
        open_.answer(answer)
    for change in (
        {"shares": answer.shares[:-16]},
        {"unreadable": (10,)},
        {"unreadable": (10, 10), "shares": answer.shares[:-16]},
        {"unreadable": (11,), "shares": answer.shares},
        {"number": 11},
        {"slot": Slot(9, 9)},
    ):
        with pytest.raises(ReportError):
            round_.server.answer(replace(answer, **change))
    round_.server = round_.server.answer(answer)
    with pytest.raises(ReportError, match="second answer"):
        round_.server.answer(answer)


@pytest.mark.parametrize("field", ["sealed", "escrow", "shares_told", "seeds_told"])
def test_pledges_of_another_form_are_refused(field) -> None:
    round_ = begun()
    pledge = round_.pledges[3]
    with pytest.raises(ReportError, match="other lengths"):
        checked(round_.roster, replace(pledge, **{field: getattr(pledge, field)[:-1]}))
    with pytest.raises(ReportError, match="not in the roster"):
        checked(round_.roster, replace(pledge, number=4))


def test_cohorts_and_reports_that_do_not_fit_are_refused() -> None:
    round_ = begun()
    pledges = round_.server.pledges
    for chosen, ring, words in (
        (pledges[:3], RING, "a cohort of 3 where 4 to 9"),
        (pledges, Ring(4, 1, 127), "a cohort of 5 where 4 to 4"),
        ((*pledges[:4], pledges[0]), RING, "ascending"),
    ):
        with pytest.raises(ReportError, match=words):
            Aggregation.of(round_.roster, SLOT, ring, 5, SUBJECT, chosen)
    masked = round_.mask(3, SLOPES)
    for change, words in (
        ({"witnesses": masked.witnesses[:-8]}, "too few or too many witnesses"),
        ({"words": masked.words + b"\0"}, "bytes of masked words"),
        ({"number": 4}, "not in the cohort"),
        ({"number": 10}, "another cohort, plan, model or pledge"),
    ):
        with pytest.raises(ReportError, match=words):
            round_.server.report(replace(masked, **change))
