"""A privacy budget: the least noise that keeps it, what is counted, and what happens when it is spent."""

from __future__ import annotations

import logging
import math

import msgspec
import pytest

pytest.importorskip("dp_accounting")

from baffle import accounting, server
from baffle.budget import Account, Budget, Target, private
from baffle.errors import SettingsError
from baffle.header import Header
from baffle.mechanisms import GaussianPrivacy, Quantiser, RandomisedPrivacy
from baffle.messages import Round, decode, encode
from baffle.server import Federation
from federation import METHOD, rounds_in, simulation

FOUR_BITS = msgspec.structs.replace(METHOD, bits=4)
EPSILON, DELTA = 8.0, 1e-5


def federation(clients: int = 6, **changes: object) -> Federation:
    found = simulation(sizes=(12,) * clients, weight="equal").header().federation
    return msgspec.structs.replace(found, **changes)


def target(mechanism: str = "gaussian", rounds: int = 10, **changes: object) -> Target:
    return Target(**({"mechanism": mechanism, "epsilon": EPSILON, "delta": DELTA, "rounds": rounds} | changes))


def records(folder) -> list[Round]:
    return rounds_in(folder)


@pytest.mark.parametrize(
    ("participation", "rounds", "attempts"),
    [
        (1.0, 100, 102),  # a fiftieth more
        (1.0, 1, 2),
        (0.5, 100, 66),  # 50 · 1.02 + 3 √(50 · ½)
        (1 / 3, 30, 18),  # 10 · 1.02 + 3 √(10 · ⅔) = 17.95
    ],
)
def test_attempts_by_hand(participation, rounds, attempts) -> None:
    _, budget = private(METHOD, federation(participation=participation), target(rounds=rounds))
    assert budget == Budget(EPSILON, DELTA, attempts)


@pytest.mark.parametrize(
    ("mechanism", "secure", "method"),
    [("gaussian", False, METHOD), ("gaussian", True, METHOD), ("shares", True, METHOD), ("rqm", False, FOUR_BITS)],
)
def test_the_least_noise_keeps_the_target_and_one_percent_less_would_not(mechanism, secure, method) -> None:
    found, budget = private(method, federation(secure=secure), target(mechanism))
    privacy, levels = found.privacy, Quantiser(method.bits).levels
    name = "extension" if mechanism == "rqm" else "multiplier"
    less = msgspec.structs.replace(privacy, **{name: 0.99 * getattr(privacy, name)})
    kept, missed = (accounting.epsilon(made.account(levels), budget.attempts, DELTA) for made in (privacy, less))
    assert kept <= EPSILON < missed
    assert kept > 0.95 * EPSILON
    assert msgspec.structs.replace(found, privacy=None) == method


def test_what_a_method_is_given() -> None:
    """Of six clients whose sums are secure, four reports close a round; one of them colludes."""
    secure = federation(secure=True)
    shared, _ = private(METHOD, secure, target("shares", colluding=1, size=0.5, quantile=0.25))
    assert isinstance(shared.privacy, GaussianPrivacy)
    assert (shared.privacy.shares, shared.privacy.size, shared.privacy.quantile) == (3, 0.5, 0.25)
    served, _ = private(METHOD, secure, target("gaussian", colluding=1))
    assert served.privacy.shares == 0
    assert served.privacy.multiplier == pytest.approx(shared.privacy.multiplier, rel=1e-5)
    rounded, _ = private(FOUR_BITS, secure, target("rqm", colluding=1))
    assert isinstance(rounded.privacy, RandomisedPrivacy)
    plan = server.plan(rounded, secure, rounded.start(simulation().header().start({}).parameters))
    assert (rounded.privacy.summed, rounded.privacy.slopes) == (3, plan.words)
    alone, _ = private(FOUR_BITS, federation(), target("rqm"))
    assert alone.privacy.summed == 0
    assert alone.privacy.extension > rounded.privacy.extension
    assert alone.privacy.keep == rounded.privacy.keep == 0.1


def test_randomised_quantisation_accounts_for_the_slopes_of_all_local_steps() -> None:
    """In the open, where it does not matter who colludes."""
    method = msgspec.structs.replace(FOUR_BITS, local_steps=2, forwards=80)
    found, _ = private(method, federation(), target("rqm", colluding=9))
    plan = server.plan(found, federation(), found.start(simulation().header().start({}).parameters))
    assert (plan.steps, found.privacy.slopes, found.privacy.summed) == (2, plan.words, 0)
    one, _ = private(FOUR_BITS, federation(), target("rqm"))
    assert found.privacy.slopes == 2 * one.privacy.slopes
    assert found.privacy.extension > one.privacy.extension


def test_one_that_does_not_collude_and_five_bits_will_do() -> None:
    shared, _ = private(METHOD, federation(secure=True), target("shares", colluding=3))
    assert shared.privacy.shares == 1
    five = msgspec.structs.replace(METHOD, bits=5)
    assert private(five, federation(), target("rqm"))[0].privacy.slopes > 0


@pytest.mark.parametrize(
    ("field", "words", "method", "secure", "changes"),
    [
        ("mechanism", "needs secure sums: a share alone hides little$", METHOD, False, {"mechanism": "shares"}),
        (
            "colluding",
            "must be below 4, the reports of a round that counts$",
            METHOD,
            True,
            {"mechanism": "shares", "colluding": 4},
        ),
        (
            "colluding",
            "must be below 4, the reports of a round that counts$",
            FOUR_BITS,
            True,
            {"mechanism": "rqm", "colluding": 9},
        ),
        ("bits", "must be at most 5 with rqm$", METHOD, False, {"mechanism": "rqm"}),
        (
            "allocation",
            "must be 'equal' with rqm, which accounts for each slope$",
            msgspec.structs.replace(FOUR_BITS, allocation="adaptive"),
            False,
            {"mechanism": "rqm"},
        ),
        (
            "epsilon",
            r"can't be reached in 1020000 rounds: noise 1e\+06 still costs",
            METHOD,
            False,
            {"epsilon": 1e-3, "delta": 1e-12, "rounds": 10**6},
        ),
    ],
    ids=["shares in the open", "all collude", "more than all", "too many levels", "allocation", "too little"],
)
def test_what_does_not_go_together_is_refused(field, words, method, secure, changes) -> None:
    with pytest.raises(SettingsError, match=words) as caught:
        private(method, federation(secure=secure), target(**changes))
    assert caught.value.field == field


@pytest.mark.parametrize(
    ("words", "changes"),
    [
        ("mechanism = 'laplace': must be one of gaussian, shares, rqm", {"mechanism": "laplace"}),
        ("epsilon = 0.0: must be a finite number > 0", {"epsilon": 0.0}),
        ("epsilon = nan: must be a finite number > 0", {"epsilon": math.nan}),
        ("epsilon = inf: must be a finite number > 0", {"epsilon": math.inf}),
        ("delta = 0.0: must be above 0 and below 1", {"delta": 0.0}),
        ("delta = 1.0: must be above 0 and below 1", {"delta": 1.0}),
        ("delta = nan: must be above 0 and below 1", {"delta": math.nan}),
        ("rounds = 0: must be 1 or more", {"rounds": 0}),
        ("size = 0.0: must be a finite number > 0", {"size": 0.0}),
        ("size = nan: must be a finite number > 0", {"size": math.nan}),
        ("colluding = -1: must be 0 or more", {"colluding": -1}),
        ("quantile = 1.0: must be at least 0 and below 1", {"quantile": 1.0}),
        ("quantile = nan: must be at least 0 and below 1", {"quantile": math.nan}),
        (
            "quantile = 0.5: must be 0 with rqm, which bounds each slope by itself",
            {"mechanism": "rqm", "quantile": 0.5},
        ),
    ],
    ids=str,
)
def test_promises_that_make_no_sense_are_refused(words, changes) -> None:
    with pytest.raises(SettingsError, match=f"^{words}$"):
        target(**changes)


def test_clients_that_weigh_more_are_refused() -> None:
    made = simulation(sizes=(12, 9, 12), privacy=target())
    with pytest.raises(SettingsError, match="weight = 'samples': must be 'equal' in a private run"):
        made.run(1)


def test_an_account_counts_attempts_of_the_client_asked_most() -> None:
    found, budget = private(METHOD, federation(), target(rounds=2))
    account = Account.of(found, 6, budget)
    assert account.allowed(None) is None
    assert account.allowed([0, 3]) == [0, 3]

    def cost(times: int) -> float:
        return accounting.epsilon(found.privacy.account(Quantiser(8).levels), times, DELTA)

    assert budget.attempts == 3
    account.count((0, 1))
    assert account.spent == cost(1)
    account.count((1, 2))
    assert account.asked.tolist() == [1, 2, 1, 0, 0, 0]
    assert account.spent == cost(2)  # client 1's
    account.count((0, 2))
    assert account.spent == cost(2)
    account.count((1, 5))
    assert account.allowed(None) == [0, 2, 3, 4, 5]
    assert account.allowed([1, 4]) == [4]
    assert account.spent == cost(3) <= EPSILON < cost(4)


def test_a_run_that_has_spent_all_ends_in_words(tmp_path, caplog) -> None:
    """Three rounds and a fiftieth are paid for: four attempts."""
    caplog.set_level(logging.WARNING, "baffle")
    made = simulation(weight="equal", privacy=target(rounds=3))
    result = made.run(10, out=tmp_path)
    assert result.rounds == 4
    assert "0 clients have privacy budget left: the run ends in round 4" in caplog.text
    spent = [record.epsilon for record in records(tmp_path)]
    mechanism = made.header().algorithm.privacy.account(Quantiser(8).levels)
    assert spent == [accounting.epsilon(mechanism, done, DELTA) for done in (1, 2, 3, 4)]
    assert result.epsilon == spent[-1] <= EPSILON
    assert result.delta == DELTA


def test_a_run_that_has_spent_all_spends_no_more_when_it_is_taken_up(tmp_path) -> None:
    made = simulation(weight="equal", privacy=target(rounds=3))
    first = made.run(10, out=tmp_path)
    again = made.run(10, out=tmp_path, resume=True)
    assert (again.rounds, again.epsilon, again.ledger_digest) == (4, first.epsilon, first.ledger_digest)


def test_who_has_spent_all_is_not_asked_again(tmp_path) -> None:
    """Cohorts of two of four: some clients are drawn more often, and rest in the end."""
    made = simulation(sizes=(12,) * 4, participation=0.5, weight="equal", privacy=target(rounds=4))
    attempts = made.header().budget.attempts
    result = made.run(60, out=tmp_path)
    asked = [0] * 4
    for record in records(tmp_path):
        for number in record.plan.cohort:
            asked[number] += 1
        mechanism = made.header().algorithm.privacy.account(Quantiser(8).levels)
        assert record.epsilon == accounting.epsilon(mechanism, max(asked), DELTA)
    assert max(asked) == attempts == 6
    assert sum(asked) >= 4 * 6 - 1  # as long as one is left, it is asked alone
    assert result.rounds < 60
    assert result.epsilon <= EPSILON


def test_an_attempt_that_fails_is_paid_for(tmp_path) -> None:
    made = simulation(unavailable=0.4, quorum=1.0, weight="equal", privacy=target(rounds=30))
    made.run(4, out=tmp_path)
    found = records(tmp_path)
    assert any(record.aggregate is None for record in found)
    spent = [record.epsilon for record in found]
    assert spent == sorted(set(spent))


@pytest.mark.parametrize(
    ("mechanism", "settings"),
    [("gaussian", {}), ("gaussian", {"secure": "ideal"}), ("shares", {"secure": "ideal"}), ("rqm", {})],
)
def test_noise_is_never_the_seeds(mechanism, settings, tmp_path) -> None:
    """Two runs with one seed ask the same of the same, and the noise on the answers is not the same."""
    method = FOUR_BITS if mechanism == "rqm" else METHOD
    made = simulation(method, weight="equal", privacy=target(mechanism), **settings)
    first, second = (records_of(made, tmp_path / name) for name in ("one", "two"))
    assert first.plan == second.plan
    assert first.aggregate != second.aggregate
    made = simulation(method, weight="equal", **settings)
    first, second = (records_of(made, tmp_path / name) for name in ("three", "four"))
    assert first == second


def records_of(made, folder) -> Round:
    made.run(1, out=folder)
    return records(folder)[0]


def test_the_header_says_what_is_promised() -> None:
    header = simulation(weight="equal", privacy=target(quantile=0.5)).header()
    assert header.budget == Budget(EPSILON, DELTA, 11)
    assert decode(encode(header), Header) == header
    assert simulation().header().budget is None
