"""Set-up: signatures, rosters that differ, thresholds."""

from __future__ import annotations

from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from baffle import certificates
from baffle.certificates import Signer
from baffle.errors import ReportError, SettingsError
from baffle.secure import Candidate, Member, Roster, Slot, Terms, checked, usual_threshold
from secured import CA, NOW, RUN, drawn, enrolled, epoch, signing, terms

TERMS = terms(3)
CANDIDATES = [Candidate.draw(number, TERMS, drawn(number)) for number in (2, 5, 8)]
ENROLMENTS = [enrolled(one) for one in CANDIDATES]


def roster(enrolments, agreed=TERMS) -> Roster:
    return Roster.of(agreed, enrolments, CA.certificate, NOW)


def test_pairs_share_a_chain_that_nobody_else_has() -> None:
    members = [Member.of(one, roster(ENROLMENTS)) for one in CANDIDATES]
    a, b, c = (member.chains for member in members)
    assert (a[1], a[2], b[2]) == (b[0], c[0], c[1])
    assert a[0] == b[1] == c[2] == b""
    assert len({a[1], a[2], b[2]}) == 3


def test_the_order_in_which_keys_come_is_of_no_account() -> None:
    assert roster(ENROLMENTS[::-1]).digest == roster(ENROLMENTS).digest


@pytest.mark.parametrize(
    "change",
    [{"epoch": 5}, {"run": bytes(8)}, {"start": 1}, {"threshold": 3}, {"minimum": 3}],
)
def test_a_signature_is_for_these_terms_alone(change) -> None:
    with pytest.raises(ReportError, match="signature"):
        roster(ENROLMENTS, replace(TERMS, **change))


def test_enrolments_that_are_refused() -> None:
    first, second, third = ENROLMENTS
    other = certificates.authority("Ours", 365, NOW)
    foreign = certificates.signing(other, 2, 30, NOW)
    for wrong, words in (
        (replace(first, public=second.public), "signature"),
        (replace(first, number=3), "client 2 enrols as member 3"),
        (replace(first, certificate=signing(5).certificate), "client 5 enrols as member 2"),
        (replace(first, certificate=foreign.certificate), "another authority"),
        (replace(first, signature=bytes(64)), "signature"),
        (second, "ascending"),
    ):
        with pytest.raises(ReportError, match=words):
            roster([wrong, second, third])
    with pytest.raises(ReportError, match="expired"):
        Roster.of(TERMS, ENROLMENTS, CA.certificate, NOW + timedelta(days=400))


def test_a_signature_of_a_report_is_none_of_a_key() -> None:
    first = ENROLMENTS[0]
    signature = Signer.read(signing(2).key).sign(first.public)
    with pytest.raises(ReportError, match="signature"):
        roster([replace(first, signature=signature), *ENROLMENTS[1:]])


def test_one_key_twice_and_keys_that_are_none() -> None:
    twin = Candidate(5, TERMS, CANDIDATES[0].private)
    with pytest.raises(ReportError, match="one key"):
        roster([ENROLMENTS[0], enrolled(twin), ENROLMENTS[2]])

    class Nothing(Candidate):
        public = bytes(32)  # a point of low order

    with pytest.raises(ReportError, match="key of member 5 is none"):
        Member.of(CANDIDATES[0], roster([ENROLMENTS[0], enrolled(Nothing(5, TERMS, bytes(32))), ENROLMENTS[2]]))


def test_a_roster_without_me_or_with_another_key_of_mine() -> None:
    with pytest.raises(ReportError, match="not in the roster"):
        Member.of(CANDIDATES[0], roster(ENROLMENTS[1:]))
    again = Candidate.draw(2, TERMS, drawn(99))
    with pytest.raises(ReportError, match="another key for member 2"):
        Member.of(again, roster(ENROLMENTS))
    with pytest.raises(ReportError, match="terms"):
        Member.of(Candidate.draw(2, terms(3, epoch=9), drawn(1)), roster(ENROLMENTS))


def test_rosters_that_differ_are_found_out() -> None:
    spare = enrolled(Candidate.draw(9, TERMS, drawn(55)))
    mine = roster(ENROLMENTS)
    theirs = roster([*ENROLMENTS[:2], spare])
    one, two = Member.of(CANDIDATES[0], mine), Member.of(CANDIDATES[1], theirs)
    assert one.chains[1] != two.chains[0]
    _, pledge = two.pledge(Slot(0, 0), drawn(3))
    with pytest.raises(ReportError, match="another roster"):
        checked(mine, pledge)


@pytest.mark.parametrize(("n", "threshold", "minimum"), [(4, 2, 2), (4, 5, 2), (5, 2, 2), (3, 2, 4), (1, 2, 2)])
def test_thresholds_that_are_refused(n, threshold, minimum) -> None:
    with pytest.raises(ReportError, match="a threshold of"):
        epoch(n, threshold, minimum)


@given(st.integers(2, 1000))
def test_the_usual_threshold_is_two_thirds(n) -> None:
    assert usual_threshold(n) == -(-2 * n // 3)
    assert n < 2 * usual_threshold(n) <= 2 * n


@pytest.mark.parametrize("change", [{"threshold": 1}, {"threshold": 1001}, {"minimum": 1}, {"run": b"short"}])
def test_terms_that_are_refused(change) -> None:
    with pytest.raises(SettingsError):
        Terms(**({"run": RUN, "epoch": 0, "start": 0, "threshold": 2, "minimum": 2} | change))


def test_secrets_are_not_shown() -> None:
    member, _ = epoch(3)[1][0].pledge(Slot(0, 0), drawn(1))
    assert "private" not in repr(CANDIDATES[0])
    assert repr(member.held) == "(Held(Slot(round=0, attempt=0)),)"


def test_rosters_that_are_too_large_are_refused_before_any_signature() -> None:
    with pytest.raises(ReportError, match="1001 members"):
        roster([ENROLMENTS[0]] * 1001)
    with pytest.raises(ReportError, match="at most 1000"):
        Roster(TERMS, (1, 2), (bytes(32),), (bytes(32),))
    with pytest.raises(SettingsError, match="number"):
        Candidate.draw(-1, TERMS, drawn(1))
