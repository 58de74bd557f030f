"""A private round: what clients report, what noise the server adds, and what it refuses."""

from __future__ import annotations

import math
from dataclasses import replace
from random import Random

import msgspec
import numpy as np
import pytest

from baffle import server
from baffle.client import answer, answers, contributions
from baffle.errors import ReportError, SettingsError
from baffle.mechanisms import MISSING, GaussianPrivacy
from baffle.mechanisms.private import Noised
from baffle.messages import Plan, Report, encode, report_size
from federation import KERNELS, METHOD, Network, Watched, play, simulation

L = 127
STEPS = msgspec.structs.replace(METHOD, forwards=80, local_steps=2)


def private(method=METHOD, **changes: object):
    settings = {"multiplier": 1.0, "size": 0.5}
    return msgspec.structs.replace(method, privacy=GaussianPrivacy(**(settings | changes)))


def planned(method, **settings: object) -> tuple[object, server.State, Plan]:
    made = simulation(method, sizes=(12,) * 6, weight="equal")
    federation = msgspec.structs.replace(made.header().federation, **settings)
    state = made.header().start({})
    return made, state, server.plan(method, federation, state)


@pytest.mark.parametrize("method", [METHOD, STEPS], ids=["one step", "two steps"])
@pytest.mark.parametrize("quantile", [0.0, 0.5])
def test_a_clients_part_by_hand(method, quantile) -> None:
    """Integers of a norm that the noise is made for, and one that tells whether the norms were within the bound."""
    made, state, plan = planned(private(method, quantile=quantile, size=1e-3))
    found = contributions(plan, state.parameters, made.clients(), made.runtime, KERNELS)
    moved = math.sqrt(plan.privacy.variance)  # z is 1
    for one in found:
        assert one.integers.size == plan.words == plan.steps * plan.directions + (quantile > 0)
        assert (one.integers != MISSING).all()
        assert math.hypot(*one.integers.tolist()) <= moved
        if quantile:
            assert one.integers[-1] == -L  # a thousandth is less than slopes have
    _, _, wide = planned(private(method, quantile=quantile, size=1e3))
    found = contributions(wide, state.parameters, made.clients(), made.runtime, KERNELS)
    assert not quantile or {int(one.integers[-1]) for one in found} == {L}


def test_slopes_keep_their_direction_when_they_are_scaled() -> None:
    """In the mean over rounding: with many bits, what is left of it is small."""
    method = msgspec.structs.replace(private(size=1e-2), bits=24)
    made, state, plan = planned(method)
    open_plan = msgspec.structs.replace(plan, privacy=None, blocks=open_blocks(plan))
    hidden = contributions(plan, state.parameters, made.clients(), made.runtime, KERNELS)
    known = contributions(open_plan, state.parameters, made.clients(), made.runtime, KERNELS)
    for one, other in zip(hidden, known, strict=True):
        cosine = one.integers @ other.integers / np.linalg.norm(one.integers) / np.linalg.norm(other.integers)
        assert cosine == pytest.approx(1.0, abs=1e-5)
        size = np.linalg.norm(one.integers / ((1 << 23) - 1) * plan.bounds)
        assert size == pytest.approx(1e-2 * math.sqrt(plan.directions), rel=1e-5)


def open_blocks(plan: Plan):
    return tuple(msgspec.structs.replace(block, bound=100.0) for block in plan.blocks)


def test_a_probe_that_fails_counts_as_nothing_and_not_as_missing() -> None:
    def spoil(losses: np.ndarray) -> np.ndarray:
        losses[0] = np.nan
        return losses

    made, state, plan = planned(private())
    runtime = Watched(Network(), spoil)
    found = answers(plan, state.parameters, made.clients(), runtime, KERNELS)
    for report in found:
        integers = report.integers(plan)
        assert (integers != MISSING).all()
        assert abs(int(integers[0, 0])) <= 1  # 0, rounded
        assert len(report.slopes) == report_size(plan)


def test_a_report_that_lacks_a_slope_is_refused() -> None:
    _, _, plan = planned(private(quantile=0.5))
    codes = np.zeros(plan.words, np.int64)
    assert Report.of(plan, 0, 1, codes).inside(plan) == 0
    codes[1] = MISSING
    with pytest.raises(ReportError, match="a slope is missing, which no noise covers"):
        Report.of(plan, 0, 1, codes).integers(plan)


def test_the_count_is_not_among_the_slopes() -> None:
    _, _, plan = planned(private(quantile=0.5))
    codes = np.arange(plan.words) % 100 - 50
    codes[-1] = -L
    report = Report.of(plan, 0, 1, codes)
    assert report.integers(plan).ravel().tolist() == codes[:-1].tolist()
    assert report.inside(plan) == -L
    _, _, plan = planned(METHOD)
    assert Report.of(plan, 0, 1, np.ones(plan.words, np.int64)).inside(plan) == 0


@pytest.mark.parametrize("quantile", [0.0, 0.5])
def test_the_servers_noise_is_added_to_the_sums_once(quantile) -> None:
    """The record's sums, from the reports and the same random bytes; rounded to what a report has."""
    method = private(quantile=quantile)
    made, state, plan = planned(method)
    reports = [answer(plan, state.parameters, one, made.runtime, KERNELS) for one in made.clients()]
    seen = server.advance(method, state, plan, [encode(one) for one in reports], KERNELS, Random(4).randbytes).record
    noise = plan.privacy.noise(plan.words, Random(4).randbytes)
    assert noise.std() > 10
    slopes = sum(one.integers(plan) for one in reports).ravel() + noise[: plan.directions]
    unit = 1 << seen.aggregate.shift
    assert np.abs(seen.aggregate.integers(plan).ravel() - slopes).max() <= unit / 2 + (unit > 1)
    told = (sum(one.inside(plan) for one in reports) + int(noise[-1]),) if quantile else ()
    assert seen.aggregate.inside == told


def test_the_noise_of_the_default_is_the_operating_systems() -> None:
    method = private()
    made, state, plan = planned(method)
    reports = [encode(answer(plan, state.parameters, one, made.runtime, KERNELS)) for one in made.clients()]
    first, second = (server.advance(method, state, plan, reports, KERNELS).record for _ in range(2))
    assert first.plan == second.plan
    assert first.aggregate != second.aggregate


def test_the_bound_of_the_next_round_by_hand() -> None:
    """All are within, and next to no noise: C · e^(−0.2 · ½), e^−0.1 = 0.904837; none are: C · e^0.1 = C · 1.105171."""
    for size, sign, factor in ((1e3, 1, 0.904837), (1e-3, -1, 1.105171)):
        method = private(quantile=0.5, size=size, multiplier=1e-6)
        made, state, plan = planned(method)
        state = replace(state, size=size)
        reports = [encode(answer(plan, state.parameters, one, made.runtime, KERNELS)) for one in made.clients()]
        quiet = server.advance(method, state, plan, reports, KERNELS, Random(1).randbytes)
        (inside,) = quiet.record.aggregate.inside
        assert abs(inside - sign * 6 * L) <= 8  # but for noise: six clients say yes, or no, as large as a slope can be
        assert quiet.state.size == pytest.approx(size * factor, rel=1.2e-3)
        again = server.plan(method, made.header().federation, quiet.state)
        assert again.privacy.size == quiet.state.size


@pytest.mark.parametrize(
    ("shares", "secure", "quorum"),
    [(0, False, 2), (0, True, 4), (4, True, 4)],
    ids=["the server's noise", "secure sums", "shares"],
)
def test_with_few_clients_there_a_round_counts_only_where_protection_does_not_need_more(shares, secure, quorum) -> None:
    """Two of six are there, where the quorum is half of them, or two thirds of a secure sum's."""
    method = private(shares=shares)
    made = simulation(method, sizes=(12,) * 6, weight="equal")
    federation = msgspec.structs.replace(made.header().federation, secure=secure)
    plan = server.plan(method, federation, made.header().start({}), [1, 4])
    assert (plan.cohort, plan.quorum) == ((1, 4), quorum)


def test_shares_are_not_given_in_the_open() -> None:
    method = private(shares=4)
    made, state, plan = planned(method, secure=True)
    assert plan.privacy.shares == 4
    with pytest.raises(ReportError, match="shares its noise among the clients"):
        answers(plan, state.parameters, made.clients(), made.runtime, KERNELS)
    found = contributions(plan, state.parameters, made.clients(), made.runtime, KERNELS)
    again = contributions(plan, state.parameters, made.clients(), made.runtime, KERNELS)
    assert all((one.integers != other.integers).any() for one, other in zip(found, again, strict=True))
    assert max(np.abs(one.integers).max() for one in found) <= L + plan.privacy.reach


@pytest.mark.parametrize(
    ("words", "method", "settings"),
    [
        ("groups = 2: must be 1 where sums are secure", msgspec.structs.replace(METHOD, groups=2), {"secure": True}),
        (
            "weight = 'samples': must be 'equal' in a private run: a heavy client would show",
            private(),
            {"most_samples": 2},
        ),
        ("shares = 2: must be at most 3, of secure sums", private(shares=2), {}),
        ("shares = 5: must be at most 4, of secure sums", private(shares=5), {"secure": True}),
    ],
    ids=["groups", "weight", "shares in the open", "more shares than reports"],
)
def test_a_round_that_would_not_be_what_is_promised_is_not_planned(words, method, settings) -> None:
    with pytest.raises(SettingsError) as caught:
        planned(method, **settings)
    assert str(caught.value) == words


def test_noise_counts_where_sums_could_overflow() -> None:
    """Of a weight that fills 999 thousandths of what there is, noise of 2⁵³ leaves nothing."""
    _, _, plan = planned(METHOD)
    peak = max(block.budget * block.law.peak for block in plan.blocks)
    weight = int(0.999 * 2**63 / (peak * len(plan.cohort) * 2**31))
    full = msgspec.structs.replace(plan, bits=32, most_samples=weight)
    full.refuse_overflow()
    msgspec.structs.replace(full, privacy=Noised(1.0, 4.0, 0, False)).refuse_overflow()
    for shares in (0, 1):
        with pytest.raises(SettingsError, match=r"sums could reach 2\^"):
            msgspec.structs.replace(full, privacy=Noised(1.0, 9e29, shares, False)).refuse_overflow()


@pytest.mark.parametrize(
    ("clients", "participation", "quorum", "minimum", "secure", "least"),
    [
        (12, 1.0, 0.5, 2, False, 6),
        (12, 1.0, 0.5, 2, True, 8),
        (12, 1.0, 0.9, 2, True, 11),
        (12, 1.0, 0.5, 10, True, 10),
        (12, 0.5, 0.5, 2, True, 4),
        (2, 1.0, 0.1, 2, True, 2),
        (5, 1.0, 0.2, 2, False, 1),
    ],
)
def test_the_fewest_reports_by_hand(clients, participation, quorum, minimum, secure, least) -> None:
    federation = simulation(sizes=(12,) * clients).header().federation
    found = msgspec.structs.replace(
        federation, participation=participation, quorum=quorum, minimum=minimum, secure=secure
    )
    assert found.least == least


def test_a_sum_of_fewer_than_the_minimum_is_refused_before_it_begins() -> None:
    with pytest.raises(SettingsError, match="minimum = 4: must be at most 3, the clients asked in a round"):
        simulation(secure="ideal", minimum=4).run(1)
    with pytest.raises(SettingsError, match="minimum = 2: must be at most 1"):
        simulation(secure="masks", participation=0.3).run(1)
    assert simulation(minimum=4).run(1).rounds == 1  # nothing is opened where nothing is closed


def test_few_clients_do_not_make_a_sum_of_fewer_enough() -> None:
    """Where fewer are there than are asked, the quorum stays; in the open it shrinks."""
    federation = simulation(sizes=(12,) * 6).header().federation
    state = simulation().header().start({})
    shrunk = msgspec.structs.replace(federation, quorum=1.0)
    assert server.plan(METHOD, shrunk, state, [0, 1, 2]).quorum == 3
    secure = msgspec.structs.replace(shrunk, secure=True)
    assert server.plan(METHOD, secure, state, [0, 1, 2]).quorum == 6
    shared, method = msgspec.structs.replace(secure, most_samples=1), private(shares=6)
    assert server.plan(method, shared, method.start(state.parameters), [0, 1, 2]).quorum == 6


def test_a_round_of_nobody_changes_nothing_but_the_attempt() -> None:
    played = play(simulation())
    outcome = server.advance(METHOD, played.state, played.plan, server.nobody(((1, "lies"),)), KERNELS)
    assert outcome.state == replace(played.state, attempt=1)
    assert outcome.record.aggregate is outcome.record.digest is None
    assert outcome.record.left_out == ((0, "no answer"), (1, "lies"), (2, "no answer"))
