"""The server looks at an enrolment when it comes: one that is not its client's spoils no epoch."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
from msgspec.structs import replace

from baffle.engines.network.convener import Epoch, Gathering, Stage
from baffle.engines.network.covert import Told
from baffle.errors import ReportError
from baffle.secure import Candidate
from secured import CA, drawn, enrolled, terms

AGREED = terms(3)
MEMBERS = (3, 10, 17)


@pytest.fixture
def gathering() -> Gathering:
    """A sum whose epoch is being set up."""
    plan = SimpleNamespace(round=0, attempt=0)
    return Gathering(plan, Epoch(AGREED, MEMBERS), CA.certificate, MEMBERS, bytes(32))


def enrolment(of: int, **changes):
    return replace(enrolled(Candidate.draw(of, AGREED, drawn(of))), **changes)


def test_an_enrolment_of_the_clients_own_is_kept(gathering) -> None:
    gathering.take(10, Told(enrolment=enrolment(10)))
    assert set(gathering.epoch.enrolments) == {10}
    assert gathering.missing() == [3, 17]
    assert gathering.stage == Stage.ENROL


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"signature": bytes(64)}, "the signature is not client 10's of this message"),
        ({"public": bytes(31) + b"\x09"}, "the signature is not client 10's of this message"),
        ({"certificate": b"none"}, "what came as a certificate"),
        ({"certificate": enrolment(3).certificate}, "client 3 enrols as member 10"),
        ({"number": 17}, "client 10 speaks for another in secure sums"),
    ],
    ids=["signature", "key", "certificate", "another's certificate", "another's number"],
)
def test_what_is_not_its_clients_is_refused_and_not_kept(changes, words, gathering) -> None:
    with pytest.raises(ReportError, match=words):
        gathering.take(10, Told(enrolment=enrolment(10, **changes)))
    assert gathering.epoch.enrolments == {}
    assert gathering.missing() == [3, 10, 17]


@pytest.fixture(autouse=True)
def clock(monkeypatch) -> None:
    """The time at which the tests' certificates are valid."""
    from baffle.engines.network import convener
    from secured import NOW

    class Then:
        @staticmethod
        def now(_):
            return NOW

    monkeypatch.setattr(convener, "datetime", Then)
