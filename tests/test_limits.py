"""Limits that other machines, other versions or people count on, as numbers: with one, behaviour changes."""

from __future__ import annotations

import pytest

from baffle import accounting, serving
from baffle.engines.network import hub, roster, standing
from baffle.secure import member as secure_member


@pytest.mark.parametrize(
    ("value", "limit"),
    [
        (accounting.MOST_ROUNDS, 1 << 40),
        (serving.MOST_SAMPLES, 1 << 31),
        (secure_member.MOST_HELD, 64),
        (secure_member.AHEAD, 8),
        (hub.GRACE, 1.0),
        (hub.SETTLE, 5.0),
        (standing.Standing.__dataclass_fields__["save_seconds"].default, 60.0),
    ],
)
def test_a_limit_is_what_it_was(value, limit) -> None:
    assert value == limit
    assert type(value) is type(limit)


def test_the_latency_told_is_of_the_latest_32_reports(monkeypatch) -> None:
    entry = roster.Entry(0, called=0.0)
    for seconds in [1000.0] * 40 + [1.0] * 15 + [2.0] + [3.0] * 16:
        monkeypatch.setattr(roster.time, "monotonic", lambda seconds=seconds: seconds)
        entry.counts((0, 1), 5)
    assert len(entry.latencies) == 32
    assert sorted(entry.latencies)[15:17] == [2.0, 3.0]
    assert entry.row(None, 0.0)["latency"] == 2.5
    assert entry.answered == 72
