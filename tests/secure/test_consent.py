"""One set of reports is opened for a slot, whatever the server tells whom: t members have signed it before."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest
from msgspec.structs import replace

from baffle.errors import ReportError
from baffle.secure import Closing, Request, Ring, Slot
from baffle.secure.consent import CONSENT
from baffle.secure.pledge import transcript_of
from secured import Round, epoch, signed, signer

SLOT = Slot(1, 0)
RING = Ring(9, 1, 127)
ONES = np.ones(4, np.int64)


def masked(n: int = 5, threshold: int = 4, slot: Slot = SLOT) -> Round:
    """Return a slot in which all have reported, closed and not signed."""
    round_ = Round.begin(epoch(n, threshold)[1], slot, RING, 5)
    for number in round_.roster.members:
        round_.report(number, ONES)
    round_.server = round_.server.close()
    return round_


def test_a_member_signs_one_set_for_a_slot() -> None:
    round_ = masked()
    members = round_.roster.members
    first = round_.confirm(3)
    assert round_.confirm(3) == first
    with pytest.raises(ReportError, match="was signed or answered for other reports"):
        round_.confirm(3, Closing(SLOT, round_.roster.digest, members[:4]))


def test_two_sets_never_have_enough_signatures() -> None:
    """Every way to tell some members of one set and the others of another."""
    members = masked().roster.members
    whole, fewer = members, members[:4]
    for count in range(len(members) + 1):
        for some in combinations(members, count):
            round_ = masked()
            signatures = {whole: 0, fewer: 0}
            for number in members:
                reported = whole if number in some else fewer
                if number in reported:
                    round_.confirm(number, Closing(SLOT, round_.roster.digest, reported))
                    signatures[reported] += 1
            assert sum(told >= round_.roster.terms.threshold for told in signatures.values()) <= 1


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"reported": (10, 17, 24, 31)}, "the report of this member is not among"),
        ({"reported": (3, 10, 17)}, "3 reports where at least 4"),
        ({"reported": (3, 10, 17, 25)}, "not of the cohort"),
        ({"reported": (10, 3, 17, 24)}, "ascending"),
        ({"digest": bytes(32)}, "another roster"),
        ({"slot": Slot(1, 1)}, "no pledge"),
    ],
)
def test_closings_that_are_refused(changes, words) -> None:
    round_ = masked()
    before = round_.members[3]
    with pytest.raises(ReportError, match=words):
        round_.confirm(3, replace(round_.server.closing(), **changes))
    assert round_.members[3] is before


def test_nothing_is_signed_before_a_report_or_for_two_attempts() -> None:
    round_ = Round.begin(epoch(4, 3)[1], SLOT, RING, 5)
    closing = Closing(SLOT, round_.roster.digest, round_.roster.members)
    with pytest.raises(ReportError, match="no report of round 1, attempt 0 is masked"):
        round_.confirm(3, closing)
    for number in round_.roster.members:
        round_.report(number, ONES)
    second = Round.begin(round_.members.values(), Slot(1, 1), RING, 5, seed=3)
    second.report(3, ONES)
    second.confirm(3, replace(closing, slot=Slot(1, 1)))
    with pytest.raises(ReportError, match="round 1 was finished in attempt 1"):
        second.confirm(3, closing)


def bare(round_: Round, holder: int) -> Request:
    """Return a request with signatures of all."""
    server = signed(round_.server)
    whole = b"".join(one.signature for one in server.consents)
    return replace(server.request(holder), signers=server.reported, signatures=whole)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda found: {"signers": found.signers[:3], "signatures": found.signatures[:192]}, "3 signatures where at"),
        (lambda _: {"signers": (), "signatures": b""}, "0 signatures where at"),
        (lambda found: {"signers": found.signers[:4]}, "320 bytes of signatures of 4 members"),
        (lambda found: {"signers": found.signers[:1] * 5}, "ascending"),
        (lambda _: {"signers": (3, 10, 17, 24, 38)}, "whose report is not among"),
        (lambda found: {"signatures": found.signatures[64:] + found.signatures[:64]}, "of member 3 is not of the"),
        (lambda found: {"signatures": found.signatures[:-1] + b"\0"}, "of member 31 is not of the"),
        (lambda found: {"reported": found.reported[:4], "signers": found.signers[:4]}, "320 bytes"),
        (
            lambda found: {
                "reported": found.reported[:4],
                "signers": found.signers[:4],
                "signatures": found.signatures[:256],
            },
            "of member 3 is not of the reports that came",
        ),
    ],
)
def test_no_share_without_t_signatures_of_this_set(change, words) -> None:
    round_ = masked()
    request = bare(round_, 10)
    before = round_.members[10]
    with pytest.raises(ReportError, match=words):
        round_.ask(10, replace(request, **change(request)))
    assert round_.members[10] is before
    assert not round_.ask(10, request).unreadable


def test_signatures_of_another_slot_or_epoch_or_purpose_are_none() -> None:
    round_ = masked()
    request = bare(round_, 10)
    members = epoch(5, 4, epoch=5)[1]
    other = Round.begin(members, SLOT, RING, 5)
    for number in other.roster.members:
        other.report(number, ONES)
    other.server = other.server.close()
    for foreign in (bare(masked(slot=Slot(2, 0)), 10), bare(other, 10)):
        with pytest.raises(ReportError, match="the signature of member 3 is not"):
            round_.ask(10, replace(request, signatures=foreign.signatures))
    transcript = transcript_of(round_.server._binding(), round_.server.reported)
    plain = b"".join(signer(number).sign(transcript) for number in round_.server.reported)
    with pytest.raises(ReportError, match="the signature of member 3 is not"):
        round_.ask(10, replace(request, signatures=plain))
    assert signer(3).sign(CONSENT + transcript) == request.signatures[:64]


def test_one_who_came_late_answers_for_those_who_signed() -> None:
    round_ = Round.begin(epoch(5, 4)[1], SLOT, RING, 5)
    for number in round_.roster.members[:4]:
        round_.report(number, ONES)
    round_.mask(31, ONES)
    assert round_.unmask([3, 10, 17, 31]).slopes.tolist() == [4] * 4
    with pytest.raises(ReportError, match="was signed or answered for other reports"):
        round_.confirm(31, Closing(SLOT, round_.roster.digest, round_.roster.members))


def test_signatures_that_the_server_refuses() -> None:
    round_ = Round.begin(epoch(5, 4)[1], SLOT, RING, 5)
    for number in round_.roster.members[:4]:
        round_.report(number, ONES)
    for early in (round_.server.closing, lambda: round_.server.consent(None)):
        with pytest.raises(ReportError, match="still taken"):
            early()
    round_.server = round_.server.close()
    with pytest.raises(ReportError, match="0 signatures where 4 are needed"):
        round_.server.request(3)
    consent = round_.confirm(3)
    for change, words in (
        ({"slot": Slot(1, 1)}, "does not belong"),
        ({"number": 31}, "does not belong"),
        ({"number": 10}, "the signature of member 10 is not"),
        ({"signature": bytes(64)}, "the signature of member 3 is not"),
    ):
        with pytest.raises(ReportError, match=words):
            round_.server.consent(replace(consent, **change))
    round_.server = round_.server.consent(consent)
    with pytest.raises(ReportError, match="a second signature of member 3"):
        round_.server.consent(consent)
    assert not round_.server.agreed
