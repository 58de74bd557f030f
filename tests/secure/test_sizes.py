"""What a member sends in a slot is known beforehand, to the byte."""

from __future__ import annotations

import pytest

from baffle.messages import encode
from baffle.secure import Ring, Slot
from baffle.secure.sizes import upload
from secured import Round, epoch, inputs


@pytest.mark.parametrize(("n", "slopes", "weight", "slot"), [(2, 1, 1, Slot(0, 0)), (5, 33, 1000, Slot(300, 70_000))])
def test_the_bytes_of_a_slot_are_those_of_its_messages(n, slopes, weight, slot) -> None:
    roster, members = epoch(n)
    ring = Ring(n, weight, 127)
    if slot.round:
        members = tuple(member.forget(slot.round) for member in members)
    values, weights = inputs(n, slopes, ring)
    round_ = Round.begin(members, slot, ring, slopes + 1)
    sent = dict.fromkeys(roster.members, 0)
    for place, number in enumerate(roster.members):
        masked = round_.mask(number, values[place], int(weights[place]))
        round_.server = round_.server.report(masked)
        sent[number] += len(encode(round_.pledges[number])) + len(encode(masked))
    round_.server = round_.server.close()
    for number in roster.members:
        consent = round_.confirm(number)
        round_.server = round_.server.consent(consent)
        sent[number] += len(encode(consent))
    for number in roster.members:
        answer = round_.ask(number)
        sent[number] += len(encode(answer))
    for number in roster.members:
        assert upload(slot, number, n, ring, slopes + 1) == round_.server.upload(number) == sent[number]
