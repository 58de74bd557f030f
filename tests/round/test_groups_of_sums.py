"""Cohorts summed in groups, and liars in a simulation: what one member can spoil or move is its group's sum."""

from __future__ import annotations

import secrets
from contextlib import closing
from dataclasses import replace

import msgspec
import numpy as np
import pytest

from baffle import run as runs
from baffle import server
from baffle.client import contributions
from baffle.engines.suspicion import NAMED, SPOILT
from baffle.errors import DivergenceError, SettingsError, StoppedError
from baffle.mechanisms import GaussianPrivacy, RandomisedPrivacy
from baffle.messages import Round
from baffle.secure import Member
from federation import KERNELS, METHOD, rounds_in, simulation

NINE = (12,) * 9


def records(folder) -> list[Round]:
    return rounds_in(folder)


def lying(patch: pytest.MonkeyPatch, *liars: int, shift: int | None = None) -> None:
    """Let clients send random words, or add `shift` to their first slope, which no honest one could."""
    truly = Member.mask

    def mask(self, slot, cohort, ring, *rest):
        member, masked = truly(self, slot, cohort, ring, *rest)
        if self.number not in liars:
            return member, masked
        count = rest[0].size + 1
        words = ring.unpack(masked.words, count).copy()
        if shift is None:
            words = np.frombuffer(secrets.token_bytes(8 * count), np.uint64).astype(ring.word)
        else:
            words[0] += np.array(shift).astype(ring.word)
        words = (words.astype(np.uint64) & np.uint64((1 << ring.bits) - 1)).astype(ring.word)
        return member, msgspec.structs.replace(masked, words=ring.pack(words))

    patch.setattr(Member, "mask", mask)


@pytest.mark.parametrize(
    "changes",
    [{}, {"participation": 0.7}, {"weight": "equal"}, {"unavailable": 0.2, "quorum": 0.4}, {"sum_size": 4}],
    ids=["all", "some", "equal", "unavailable", "two groups"],
)
def test_the_model_is_that_of_one_sum(changes, tmp_path) -> None:
    made = simulation(sizes=(12, 9, 12, 7, 12, 3, 12, 5, 8), secure="masks", **({"sum_size": 3} | changes))
    groups = made.run(5, out=tmp_path)
    told = records(tmp_path)
    assert runs.header_of(tmp_path).federation.sum_size == made.sum_size
    if not made.unavailable:
        assert groups.digest == replace(made, sum_size=0).run(5).digest
    for record in told:  # whoever is in a sum, its weight is theirs
        weights = [made.weights()[number] for number in record.answered]
        assert record.aggregate is None or record.aggregate.weight == sum(weights)
    _, state = runs.replay(tmp_path, KERNELS)
    assert server.digest(state.parameters) == groups.digest


def test_a_group_of_too_few_is_left_out_and_the_others_count() -> None:
    made = simulation(sizes=NINE, secure="masks", sum_size=3, quorum=0.3, unavailable=0.4)
    header = made.header()
    state = header.start({})
    plan = server.plan(made.algorithm, header.federation, state)
    with closing(made.gathering()) as masked:
        found = masked.gather(plan, state.parameters)
        groups = masked._suspicion.groups(plan, plan.cohort)
    assert 0 < len(found.uploads) < 9
    for group in groups:
        assert len(set(group) & set(found.uploads)) in (0, 2, 3)
    clients = [made.clients()[number] for number in sorted(found.uploads)]
    parts = contributions(plan, state.parameters, clients, made.runtime, KERNELS)
    assert np.array_equal(found.integers, sum(one.samples * one.integers for one in parts))


def test_a_liar_in_a_simulation_is_named_and_left_out(tmp_path, monkeypatch) -> None:
    lying(monkeypatch, 4)
    made = simulation(sizes=NINE, secure="masks")
    made.run(4, out=tmp_path)
    told = records(tmp_path)
    named = [place for place, record in enumerate(told) for _, why in record.left_out if why == NAMED]
    assert len(named) == 1
    assert sum(record.aggregate is None for record in told) == 4  # tests/secure/test_group_testing.py
    assert all(4 not in record.plan.cohort for record in told[named[0] + 1 :])
    assert told[0].left_out == tuple((number, SPOILT) for number in range(9))


@pytest.mark.parametrize("liars", [(4,), (1, 5), (0, 3, 8)])
def test_groups_go_on_and_their_liars_are_named_in_a_few_rounds(liars, tmp_path, monkeypatch) -> None:
    lying(monkeypatch, *liars)
    made = simulation(sizes=(12,) * 16, secure="masks", sum_size=4, quorum=0.25)
    made.run(10, out=tmp_path)
    told = records(tmp_path)
    named = {n: place for place, record in enumerate(told) for n, why in record.left_out if why == NAMED}
    assert set(named) == set(liars)
    assert max(named.values()) <= 8
    assert told[-1].answered == tuple(number for number in range(16) if number not in liars)
    if len(liars) < 4:  # some group is without one, so that no attempt is lost
        assert all(record.aggregate is not None for record in told)


@pytest.mark.parametrize(("size", "counts"), [(0, True), (3, False)])
def test_a_member_moves_a_sum_by_its_groups_range_and_no_further(size, counts, monkeypatch) -> None:
    """Beyond 2·m·L, of which a group of three has 762 and a cohort of nine 2,286, a report is always found out."""
    lying(monkeypatch, 4, shift=800)
    made = simulation(sizes=NINE, secure="masks", weight="equal", sum_size=size)
    header = made.header()
    state = header.start({})
    plan = server.plan(made.algorithm, header.federation, state)
    with closing(made.gathering()) as masked:
        found = masked.gather(plan, state.parameters)
    assert (4 in found.uploads) == counts
    assert len(found.uploads) == (9 if counts else 6)
    clients = [made.clients()[number] for number in sorted(found.uploads)]
    honest = sum(one.integers for one in contributions(plan, state.parameters, clients, made.runtime, KERNELS))
    assert (found.integers - honest).tolist() == [800 * counts] + [0] * (plan.words - 1)


def test_a_private_simulation_stops_after_two_spoilt_sums(tmp_path, monkeypatch) -> None:
    lying(monkeypatch, 1)
    privacy = GaussianPrivacy(multiplier=1.0, size=0.5, shares=4)
    made = simulation(msgspec.structs.replace(METHOD, privacy=privacy), (12,) * 5, weight="equal", secure="masks")
    with pytest.raises(StoppedError, match="the secure sums of 2 attempts in a row break the rules: one of clients"):
        made.run(3, out=tmp_path)
    assert [record.aggregate for record in records(tmp_path)] == [None, None]


def test_liars_that_can_not_be_told_apart_stop_the_run_and_all_who_may_be_are_told(tmp_path, monkeypatch) -> None:
    lying(monkeypatch, 1)
    with pytest.raises(StoppedError, match=r"one of clients 0, 1, 2 sends .* a sum of fewer than 3 is never opened"):
        simulation(secure="masks", quorum=1.0).run(3, out=tmp_path)
    assert len(records(tmp_path)) == 3


def test_more_liars_than_can_be_left_out_stop_the_run(monkeypatch) -> None:
    lying(monkeypatch, 1, 3)
    with pytest.raises(StoppedError, match=r"more than 1 of clients 0, 1, 2, 3, 4 send what no report can be"):
        simulation(sizes=(12,) * 5, secure="masks").run(3)


def test_groups_without_any_that_is_sound_end_in_words(monkeypatch) -> None:
    lying(monkeypatch, *range(8))
    with pytest.raises((DivergenceError, StoppedError), match="break"):
        simulation(sizes=NINE, secure="masks", sum_size=3).run(2)


@pytest.mark.parametrize(
    ("changes", "rule"),
    [
        ({"sum_size": 2}, "sum_size = 2: must be between 3 and 9"),
        ({"sum_size": 10}, "sum_size = 10: must be between 3 and 9"),
        ({"sum_size": 4, "minimum": 5}, "sum_size = 4: must be between 5 and 9"),
        ({"sum_size": 3, "secure": "none"}, "sum_size = 3: must be 0 where sums are not secure"),
    ],
)
def test_groups_that_can_not_be_are_refused(changes, rule) -> None:
    with pytest.raises(SettingsError, match=rule):
        simulation(sizes=NINE, **({"secure": "masks"} | changes)).header()


@pytest.mark.parametrize(
    "privacy",
    [
        GaussianPrivacy(multiplier=1.0, size=0.5, shares=3),
        RandomisedPrivacy(keep=0.1, extension=10.0, slopes=100, summed=3),
    ],
)
def test_noise_in_shares_needs_one_sum_of_all(privacy) -> None:
    method = msgspec.structs.replace(METHOD, privacy=privacy, bits=5)
    made = simulation(method, NINE, weight="equal", secure="masks", sum_size=3)
    header = made.header()
    with pytest.raises(SettingsError, match="sum_size = 3: must be 0 with mechanism = 'shares' or 'rqm'"):
        server.plan(method, header.federation, header.start({}))
