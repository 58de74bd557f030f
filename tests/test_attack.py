"""An attack that does what theory says where theory is exact, and finds real clients' data in real reports."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats

from baffle import server
from baffle.attack import (
    Advantage,
    Law,
    batch_slopes,
    best_threshold,
    clopper_pearson,
    log_ratio,
    most_advantage,
    sample_slopes,
)
from baffle.client import Client, answer, measure
from baffle.errors import SettingsError
from baffle.keys import Key
from baffle.mechanisms import clip
from federation import KERNELS, Network, simulation


def plan_of(made):
    header = made.header()
    state = header.start(made.runtime.given)
    return server.plan(made.algorithm, header.federation, state), state.parameters


def test_a_batch_has_the_mean_of_its_samples_slopes() -> None:
    made = simulation()
    plan, parameters = plan_of(made)
    inputs, targets = made.shares[0].data.take(np.arange(7))
    alone = sample_slopes(plan, parameters, (inputs, targets), Network(), KERNELS)
    (together,) = measure(plan, 0, 0, parameters, [(inputs, targets)], Network(), KERNELS)
    assert alone.shape == (7, plan.directions)
    np.testing.assert_allclose(alone.mean(axis=0), together, rtol=1e-9, atol=1e-9)


def test_batches_are_drawn_without_replacement() -> None:
    slopes = np.eye(6)
    found = batch_slopes(slopes, 4, 500, np.random.default_rng(0))
    assert set(np.unique(found)) == {0.0, 0.25}
    assert (np.count_nonzero(found, axis=1) == 4).all()
    np.testing.assert_allclose(found.mean(axis=0), 1 / 6, atol=0.02)
    assert (batch_slopes(slopes, 6, 3, np.random.default_rng(0)) == 1 / 6).all()
    with pytest.raises(SettingsError, match="size"):
        batch_slopes(slopes, 0, 3, np.random.default_rng(0))


def test_densities_are_those_of_a_gaussian() -> None:
    generator = np.random.default_rng(1)
    half = generator.standard_normal((3, 3))
    law = Law(np.array([1.0, -2.0, 0.5]), half @ half.T)
    seen = generator.standard_normal((20, 3))
    for one in (law, law.noised(0.7)):
        exact = stats.multivariate_normal(one.mean, one.covariance).logpdf(seen)
        np.testing.assert_allclose(one.log_density(seen), exact + 1.5 * math.log(2 * math.pi), rtol=1e-6)
    found = Law.of(generator.multivariate_normal(law.mean, law.covariance, 200_000))
    np.testing.assert_allclose(found.mean, law.mean, atol=0.02)
    np.testing.assert_allclose(found.covariance, law.covariance, atol=0.05)


def test_the_advantage_on_gaussians_is_what_theory_says() -> None:
    """Means d apart in units of the deviation: the best test has 2Φ(d/2) − 1."""
    generator = np.random.default_rng(2)
    laws = Law(np.zeros(4), np.eye(4)), Law(np.full(4, 0.5), np.eye(4))
    first, second = (log_ratio(law.mean + generator.standard_normal((20_000, 4)), laws[0], laws[1]) for law in laws)
    low, high = Advantage.of(first, second).interval(0.999)
    assert low < 2 * stats.norm.cdf(0.5) - 1 < high
    assert high - low < 0.06


def test_an_attack_on_randomised_response_proves_close_to_its_epsilon_and_never_more() -> None:
    """A bit is told rightly with probability e^ε/(1 + e^ε): ε-differentially private, and no smaller ε holds."""
    epsilon, trials = 1.5, 40_000
    right = np.random.default_rng(3).random((2, trials)) < 1 / (1 + math.exp(-epsilon))
    first, second = np.where(right[0], -1.0, 1.0), np.where(right[1], 1.0, -1.0)
    found = Advantage.of(first, second, best_threshold(first[:1000], second[:1000], 0.0))
    assert epsilon - 0.1 < found.proved(0.0) <= epsilon
    low, high = found.interval()
    assert low <= most_advantage(epsilon, 0.0) <= high
    assert found.proved(0.4) < found.proved(0.0)


@pytest.mark.parametrize(("hits", "trials", "low", "high"), [(0, 10, 0.0, 0.3085), (10, 10, 0.6915, 1.0)])
def test_exact_intervals_at_the_ends(hits, trials, low, high) -> None:
    assert clopper_pearson(hits, trials, 0.025) == pytest.approx((low, high), abs=1e-4)


@pytest.mark.parametrize(("hits", "trials"), [(3, 20), (499, 500), (250, 500)])
def test_exact_intervals_leave_just_the_error_on_either_side(hits, trials) -> None:
    low, high = clopper_pearson(hits, trials, 0.01)
    assert stats.binom.sf(hits - 1, trials, low) == pytest.approx(0.01)
    assert stats.binom.cdf(hits, trials, high) == pytest.approx(0.01)


def test_the_bound_on_any_attack() -> None:
    assert most_advantage(0.0, 0.0) == 0.0
    assert most_advantage(0.0, 0.25) == 0.25
    assert most_advantage(math.log(3), 0.0) == pytest.approx(0.5)
    assert most_advantage(math.log(3), 0.1) == pytest.approx(0.55)
    assert most_advantage(2000.0, 1.0) == 1.0


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ((3, 2, 0, 1), "hits = 3: must be between 0 and 2"),
        ((0, 0, 0, 1), "positives = 0: must be 1 or more"),
        ((0, 1, 2, 1), "alarms = 2: must be between 0 and 1"),
    ],
)
def test_counts_that_are_none_are_refused(wrong, words) -> None:
    with pytest.raises(SettingsError, match=f"^{words}$"):
        Advantage(*wrong)
    with pytest.raises(SettingsError, match=r"^error = 0.5: must be above 0 and below 1/2$"):
        clopper_pearson(1, 2, 0.5)


def test_real_reports_tell_whose_data_they_are_of() -> None:
    """A server that knows both candidates tells them apart from single integer reports of the library's client."""
    made = simulation()
    plan, parameters = plan_of(made)
    shares = made.shares[:2]
    laws, scores = [], []
    quanta = plan.quantiser.levels / plan.bounds
    for share in shares:
        slopes = clip(sample_slopes(plan, parameters, share.data.take(share.indices), Network(), KERNELS), plan.bounds)
        law = Law.of(batch_slopes(slopes, plan.batch, 2000, np.random.default_rng(4)) * quanta)
        laws.append(law.noised(1 / 6))  # what rounding adds, on average over the place between two integers
    for number, share in enumerate(shares):
        clients = [Client(0, 1, Key.root(1000 * number + trial), share.draw) for trial in range(60)]
        seen = [answer(plan, parameters, client, Network(), KERNELS).integers(plan)[0] for client in clients]
        scores.append(log_ratio(np.array(seen, float), *laws))
    assert Advantage.of(*scores).interval()[0] > 0.2
