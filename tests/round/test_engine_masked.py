"""Secure sums in one process: the sums of reports in the open, and nothing where too few have reported."""

from __future__ import annotations

from contextlib import closing
from dataclasses import replace

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from baffle import run as runs
from baffle import server
from baffle.client import contributions
from baffle.engines import masked as engine
from baffle.engines.masked import Masked
from baffle.engines.trusted import Trusted
from baffle.errors import DivergenceError, SettingsError
from baffle.mechanisms import MISSING, GaussianPrivacy
from baffle.messages import Round, decode, encode
from baffle.run import Reader
from federation import KERNELS, METHOD, Network, Watched, simulation

SIX = (12, 9, 12, 7, 12, 3)
STEPS = msgspec.structs.replace(METHOD, forwards=80, local_steps=2)


def records(folder) -> list[Round]:
    return [decode(data, Round) for data in list(Reader(folder / "ledger"))[1:]]


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"participation": 0.5},
        {"weight": "equal"},
        {"method": STEPS},
        {"method": msgspec.structs.replace(METHOD, bits=2)},
        {"unavailable": 0.2, "quorum": 0.7},
        {"minimum": 6, "unavailable": 0.1, "quorum": 1.0},
    ],
    ids=["all", "half", "equal", "local steps", "two bits", "unavailable", "all or none"],
)
def test_the_model_is_that_of_reports_in_the_open(changes, tmp_path) -> None:
    found = {
        secure: simulation(sizes=SIX, secure=secure, **changes).run(5, out=tmp_path / secure)
        for secure in ("none", "ideal", "masks")
    }
    assert len({result.digest for result in found.values()}) == 1
    told = {secure: records(tmp_path / secure) for secure in found}
    for one, other, third in zip(*told.values(), strict=True):
        assert one.plan == msgspec.structs.replace(other.plan, quorum=one.plan.quorum)
        assert other.plan == third.plan
        assert one.aggregate == other.aggregate == third.aggregate
        assert other.answered == third.answered
        assert one.aggregate is None or one.answered == other.answered
    runs.verify(tmp_path / "masks")
    _, state = runs.replay(tmp_path / "masks", KERNELS)
    assert server.digest(state.parameters) == found["masks"].digest


class Spied:
    """What the members of a simulation send, and whether anybody told a share."""

    def __init__(self) -> None:
        self.sent: list[object] = []

    def __call__(self, message):
        self.sent.append(message)
        return decode(encode(message), type(message))

    def of(self, kind: str) -> list[object]:
        return [one for one in self.sent if type(one).__name__ == kind]


@pytest.fixture
def spied(monkeypatch) -> Spied:
    found = Spied()
    monkeypatch.setattr(engine, "_carried", found)
    return found


@settings(max_examples=20)
@given(
    sizes=st.lists(st.integers(1, 20), min_size=2, max_size=12),
    equal=st.booleans(),
    unavailable=st.sampled_from([0.0, 0.1, 0.3, 0.6]),
    participation=st.sampled_from([0.5, 1.0]),
    minimum=st.integers(2, 4),
    bits=st.sampled_from([2, 8, 16]),
    seed=st.integers(0, 1000),
)
def test_whoever_is_there_the_sum_is_theirs_or_nobodys(
    sizes, equal, unavailable, participation, minimum, bits, seed
) -> None:
    made = simulation(
        msgspec.structs.replace(METHOD, bits=bits, forwards=12, batch=1),
        sizes=sizes,
        weight="equal" if equal else "samples",
        unavailable=unavailable,
        participation=participation,
        minimum=minimum,
        secure="masks",
        seed=seed,
    )
    asked = max(1, round(participation * len(sizes)))
    if minimum > asked:
        with pytest.raises(SettingsError, match="minimum"):
            made.header()
        return
    header, spy = made.header(), Spied()
    common = (made.clients(), made.runtime, KERNELS, unavailable, made.key.fold("unavailable"))
    state, masked, trusted = header.start({}), Masked(*common), Trusted(*common)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(engine, "_carried", spy)
        for _ in range(3):
            spy.sent.clear()
            plan = server.plan(made.algorithm, header.federation, state)
            found, expected = (one.gather(plan, state.parameters) for one in (masked, trusted))
            check(found, expected, spy, plan)
            state = server.advance(made.algorithm, state, plan, found, KERNELS).state


def check(found, expected, spy: Spied, plan) -> None:
    assert sorted(found.uploads) == sorted(expected.uploads)
    assert found.weight == expected.weight
    reported = [one.number for one in spy.of("Masked")]
    if not found.uploads:
        assert len(reported) < plan.quorum
        assert (
            spy.of("Closing") == spy.of("Consent") == spy.of("Request") == spy.of("Answer") == []
        )  # nobody is asked for a share, nobody tells one
        assert found.integers.size == 0
        return
    assert len(reported) >= plan.quorum
    assert np.array_equal(found.integers, expected.integers)
    for number, told in found.uploads.items():
        own = [
            one for kind in ("Pledge", "Masked", "Consent", "Answer") for one in spy.of(kind) if one.number == number
        ]
        assert len(own) == 4
        assert told == sum(len(encode(one)) for one in own)


def test_a_round_of_too_few_is_tried_again_and_nothing_is_told(spied, tmp_path) -> None:
    made = simulation(sizes=(12,) * 4, secure="masks", unavailable=0.4, quorum=0.1)
    made.run(6, out=tmp_path)
    found = records(tmp_path)
    failed = [record for record in found if record.aggregate is None]
    assert failed
    for record in found:
        slot = (record.plan.round, record.plan.attempt)
        answers = [one for one in spied.of("Answer") if (one.slot.round, one.slot.attempt) == slot]
        there = [one.number for one in spied.of("Masked") if (one.slot.round, one.slot.attempt) == slot]
        assert record.plan.quorum == 3  # two thirds, whatever smaller share is asked
        assert (record.aggregate is None) == (len(there) < 3) == (answers == [])
        assert record.answered == (() if record.aggregate is None else tuple(there))
    assert len({record.plan.key for record in found}) == len(found)


def test_a_round_that_never_has_enough_ends_in_words() -> None:
    with pytest.raises(DivergenceError, match="never had 3 reports of 3 clients: no answer"):
        simulation(secure="masks", unavailable=0.9, quorum=1.0).run(2)


def test_a_probe_that_fails_counts_as_nothing_in_a_sum() -> None:
    """In the open the others stand in for it; in a sum that nobody sees a part of, it is 0."""

    def spoil(losses: np.ndarray) -> np.ndarray:
        losses[0, 1] = np.nan  # client 1's, in each of the two blocks
        return losses

    made = simulation(secure="masks", runtime=Watched(Network(), spoil))
    header = made.header()
    state = header.start({})
    plan = server.plan(METHOD, header.federation, state)
    parts = contributions(plan, state.parameters, made.clients(), made.runtime, KERNELS)
    assert [int((one.integers == MISSING).sum()) for one in parts] == [0, 2, 0]
    with closing(made.gathering()) as masked:
        found = masked.gather(plan, state.parameters)
    by_hand = sum(one.samples * np.where(one.integers == MISSING, 0, one.integers) for one in parts)
    assert np.array_equal(found.integers, by_hand)
    assert np.array_equal(replace(made, secure="ideal").gathering().gather(plan, state.parameters).integers, by_hand)


@pytest.mark.parametrize("secure", ["masks", "ideal"])
def test_directions_of_ones_own_are_refused_before_the_run_begins(secure, tmp_path) -> None:
    made = simulation(msgspec.structs.replace(METHOD, groups=3), secure=secure)
    with pytest.raises(SettingsError, match="groups = 3: must be 1 where sums are secure"):
        made.run(1, out=tmp_path)
    assert not (tmp_path / "ledger").exists()


class KilledError(Exception):
    pass


@pytest.mark.parametrize("before", [1, 4])
def test_a_run_that_was_killed_goes_on_in_a_new_epoch_to_the_same_model(before, tmp_path) -> None:
    made = simulation(sizes=SIX, secure="masks", unavailable=0.1)
    whole = made.run(7, out=tmp_path / "whole")

    def kill(where) -> None:
        if where.round == before:
            raise KilledError

    with pytest.raises(KilledError):
        made.run(7, out=tmp_path / "cut", progress=kill)
    again = made.run(7, out=tmp_path / "cut", resume=True)
    assert again.digest == whole.digest
    assert again.ledger_digest == whole.ledger_digest


def test_other_sums_than_the_run_was_begun_with_are_refused(tmp_path) -> None:
    made = simulation(secure="masks")
    made.run(2, out=tmp_path)
    with pytest.raises(SettingsError, match="was begun with other settings"):
        replace(made, secure="none").run(3, out=tmp_path, resume=True)
    with pytest.raises(SettingsError, match="was begun with other settings"):
        replace(made, minimum=3).run(3, out=tmp_path, resume=True)


@pytest.mark.parametrize("quantile", [0.0, 0.5])
@pytest.mark.parametrize("shares", [0, 4])
def test_private_sums_are_within_what_noise_may_add(shares, quantile) -> None:
    """θ moves along sums that are the open ones but for noise: 12 deviations for each client, 14 of the server."""
    privacy = GaussianPrivacy(multiplier=1.0, size=0.5, quantile=quantile, shares=shares)
    method = msgspec.structs.replace(METHOD, privacy=privacy)
    made = simulation(method, sizes=(12,) * 5, weight="equal", secure="masks")
    header = made.header()
    state = header.start({})
    plan = server.plan(method, header.federation, state)
    quiet = msgspec.structs.replace(plan, privacy=msgspec.structs.replace(plan.privacy, shares=0))
    with closing(made.gathering()) as masked:
        found = masked.gather(plan, state.parameters)
    with closing(made.gathering()) as another:
        again = another.gather(plan, state.parameters)
    parts = contributions(quiet, state.parameters, made.clients(), made.runtime, KERNELS)
    away = found.integers - sum(one.integers for one in parts)
    assert found.integers.size == plan.words
    assert np.abs(away).max() <= plan.privacy.most(5) * (shares > 0)
    assert (again.integers != found.integers).any() == (shares > 0)  # what the server adds is not yet in it
    outcome = server.advance(method, state, plan, found, KERNELS)
    assert outcome.state.round == 1
    assert len(outcome.record.aggregate.inside) == (1 if quantile else 0)
