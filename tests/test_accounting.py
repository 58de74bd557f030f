import math
import sys
from fractions import Fraction

import numpy as np
import pytest

dp_accounting = pytest.importorskip("dp_accounting")

from hypothesis import given, settings  # noqa: E402
from hypothesis import strategies as st  # noqa: E402

from baffle.accounting import (  # noqa: E402
    MOST_ROUNDS,
    Curve,
    Drawn,
    Gaussian,
    Poisson,
    Several,
    Spending,
    affordable_rounds,
    epsilon,
    least_noise,
)
from baffle.errors import MissingExtraError, SettingsError  # noqa: E402
from baffle.mechanisms.clip_norm import AdaptiveBound  # noqa: E402
from baffle.mechanisms.discrete_gaussian import DiscreteGaussian, moved  # noqa: E402
from baffle.mechanisms.rqm import RandomisedQuantiser  # noqa: E402

ADDED = dp_accounting.NeighboringRelation.ADD_OR_REMOVE_ONE
REPLACED = dp_accounting.NeighboringRelation.REPLACE_ONE


def theirs(event, rounds, delta, relation=ADDED):
    accountant = dp_accounting.rdp.RdpAccountant(neighboring_relation=relation)
    return accountant.compose(dp_accounting.SelfComposedDpEvent(event, rounds)).get_epsilon(delta)


def curve_of_gaussian(multiplier):
    """Of one client's data replaced: twice the sensitivity."""
    return lambda orders: np.asarray(orders) * 4 / (2 * multiplier**2)


# Against dp_accounting and the literature.


@pytest.mark.parametrize(("multiplier", "rounds", "delta"), [(1.0, 1, 1e-5), (4.0, 100, 1e-6), (30.0, 1000, 1e-5)])
def test_a_gaussian_costs_what_dp_accounting_says(multiplier, rounds, delta):
    once = dp_accounting.GaussianDpEvent
    assert epsilon(Gaussian(multiplier, replaced=False), rounds, delta) == pytest.approx(
        theirs(once(multiplier), rounds, delta), rel=1e-9
    )
    assert epsilon(Gaussian(multiplier), rounds, delta) == pytest.approx(
        theirs(once(multiplier / 2), rounds, delta), rel=1e-9
    )


@pytest.mark.parametrize(("multiplier", "rounds"), [(0.8, 100), (1.1, 1000), (4.0, 10_000)])
def test_a_sampled_gaussian_costs_what_dp_accounting_says(multiplier, rounds):
    event = dp_accounting.PoissonSampledDpEvent(0.01, dp_accounting.GaussianDpEvent(multiplier))
    found = epsilon(Gaussian(multiplier, Poisson(0.01), replaced=False), rounds, 1e-5)
    assert found == pytest.approx(theirs(event, rounds, 1e-5), rel=1e-9)
    event = dp_accounting.SampledWithoutReplacementDpEvent(1000, 10, dp_accounting.GaussianDpEvent(multiplier / 2))
    found = epsilon(Gaussian(multiplier, Drawn(10, 1000)), rounds, 1e-5)
    assert found == pytest.approx(theirs(event, rounds, 1e-5, REPLACED), rel=1e-9)


def test_a_published_value():
    """Abadi et al. 2016, section 3.2: q = 0.01, σ = 4, δ = 10⁻⁵ and 10,000 steps cost ε = 1.26, as converted then.

    Today's conversion finds the same run cheaper.
    """
    mechanism, orders = Gaussian(4.0, Poisson(0.01), replaced=False), [float(order) for order in range(2, 33)]
    then = min(10_000 * mechanism.divergences(orders) + math.log(1e5) / (np.array(orders) - 1))
    assert then == pytest.approx(1.26, abs=0.005)
    assert 1.0 < epsilon(mechanism, 10_000, 1e-5) < 1.05


@pytest.mark.parametrize(("multiplier", "rounds"), [(10.0, 1), (50.0, 100), (200.0, 1000)])
def test_the_exact_cost_of_a_gaussian_is_a_little_less(multiplier, rounds):
    """T Gaussians of multiplier z are one of z/√T, whose ε is known exactly (Balle & Wang 2018)."""
    exact = dp_accounting.get_epsilon_gaussian(multiplier / math.sqrt(rounds), 1e-5)
    found = epsilon(Gaussian(multiplier, replaced=False), rounds, 1e-5)
    assert exact <= found <= 1.15 * exact


# Curves and secret cohorts.


def test_a_curve_is_taken_at_its_word():
    for rounds in (1, 100):
        assert epsilon(Curve(curve_of_gaussian(5.0)), rounds, 1e-5) == pytest.approx(
            epsilon(Gaussian(5.0), rounds, 1e-5), rel=1e-9
        )


@pytest.mark.parametrize("multiplier", [2.0, 4.0, 10.0])
@pytest.mark.parametrize("cohort", [1, 10, 100])
def test_a_secret_draw_amplifies_any_curve_less_than_a_gaussian(multiplier, cohort):
    drawn, rounds = Drawn(cohort, 1000), 200
    general = epsilon(Curve(curve_of_gaussian(multiplier), drawn), rounds, 1e-5)
    special = epsilon(Gaussian(multiplier, drawn), rounds, 1e-5)
    assert special * (1 - 1e-9) <= general <= 2 * special
    assert general < epsilon(Gaussian(multiplier), rounds, 1e-5)


def test_a_draw_of_everybody_hides_nobody():
    assert epsilon(Curve(curve_of_gaussian(4.0), Drawn(7, 7)), 10, 1e-5) == epsilon(
        Curve(curve_of_gaussian(4.0)), 10, 1e-5
    )


def test_an_amplified_divergence_by_hand():
    """α = 2, γ = 0.1, D_2 = 1: ln(1 + 0.01 · min(4(e − 1), 2e))."""
    found = Curve(lambda orders: np.ones(len(orders)), Drawn(1, 10)).divergences([2.0, 2.5])
    assert found[0] == pytest.approx(math.log(1 + 0.01 * 2 * math.e), rel=1e-12)
    assert found[1] == 1.0
    nothing = Curve(lambda orders: np.zeros(len(orders)), Drawn(1, 10)).divergences([2.0])
    assert nothing[0] == 0.0
    unbounded = Curve(lambda orders: np.full(len(orders), math.inf), Drawn(1, 10))
    assert epsilon(unbounded, 1, 1e-5) == math.inf


# The mechanisms.


def test_slopes_and_bits_together_cost_what_was_asked():
    adaptive = AdaptiveBound(deviation=5.0)
    together = Several((Gaussian(adaptive.slopes_multiplier(4.0)), Gaussian(2 * adaptive.deviation)))
    assert epsilon(together, 50, 1e-5) == pytest.approx(epsilon(Gaussian(4.0), 50, 1e-5), rel=1e-9)


def test_shares_of_a_discrete_gaussian_cost_what_one_gaussian_does():
    """20 clients of which 5 fail, K = 100 slopes of norm ≤ 50 quanta: one Gaussian over 15 shares."""
    noise, distance = DiscreteGaussian(Fraction(10_000)), moved(50.0, 100)
    mechanism = Curve(lambda orders: np.array([noise.divergence(order, distance, 100, 20, 5) for order in orders]))
    multiplier = 100 * math.sqrt(15) / (distance / 2)
    assert epsilon(mechanism, 100, 1e-5) == pytest.approx(epsilon(Gaussian(multiplier), 100, 1e-5), rel=1e-9)


def test_randomised_quantisation_costs_less_in_a_sum_and_never_more_than_its_worst_ratio():
    quantiser, slopes = RandomisedQuantiser(16, 0.1, 20.0), 10
    local = epsilon(Curve(lambda orders: slopes * quantiser.local(orders)), 10, 1e-5)
    summed = epsilon(Curve(lambda orders: slopes * quantiser.summed(orders, 20)), 10, 1e-5)
    certain = 10 * slopes * quantiser.local([1e6])[0]
    assert 0 < summed < local < certain


# The other way round.


@pytest.mark.parametrize(("budget", "rounds"), [(0.5, 10), (8.0, 1000)])
@pytest.mark.parametrize(
    "make", [Gaussian, lambda z: Gaussian(z, Poisson(0.05), replaced=False), lambda z: Curve(curve_of_gaussian(z))]
)
def test_the_least_noise_just_meets_the_target(make, budget, rounds):
    found = least_noise(make, budget, 1e-5, rounds)
    assert epsilon(make(found), rounds, 1e-5) <= budget
    assert epsilon(make(found * (1 - 2e-6)), rounds, 1e-5) > budget


def test_the_least_noise_is_the_least_that_is_considered_where_that_will_do():
    assert least_noise(Gaussian, 1e9, 1e-5, 1, low=3.0) == 3.0


@settings(max_examples=20, deadline=None)
@given(st.floats(1.0, 1000.0), st.floats(0.1, 50.0))
def test_one_more_round_than_affordable_is_too_many(multiplier, budget):
    mechanism = Gaussian(multiplier)
    if epsilon(mechanism, 1, 1e-5) > budget:
        with pytest.raises(SettingsError, match=r"^epsilon = .*does not pay for a single round, which costs"):
            affordable_rounds(mechanism, budget, 1e-5)
        return
    rounds = affordable_rounds(mechanism, budget, 1e-5)
    assert epsilon(mechanism, rounds, 1e-5) <= budget < epsilon(mechanism, rounds + 1, 1e-5)


@settings(max_examples=20, deadline=None)
@given(st.floats(0.5, 100), st.integers(1, 10_000), st.floats(1e-9, 1e-2))
def test_more_rounds_cost_more_and_more_noise_less(multiplier, rounds, delta):
    cost = epsilon(Gaussian(multiplier), rounds, delta)
    assert epsilon(Gaussian(multiplier), rounds + 1, delta) >= cost
    assert epsilon(Gaussian(multiplier * 1.1), rounds, delta) <= cost
    assert epsilon(Gaussian(multiplier), rounds, delta / 2) >= cost


def test_what_tells_nothing_can_go_on_for_ever():
    assert affordable_rounds(Curve(lambda orders: np.zeros(len(orders))), 1.0, 1e-5) == MOST_ROUNDS


@pytest.mark.parametrize("divergence", [699.0, 701.0, 800.0, 1e6])
def test_a_curve_beyond_the_range_of_exponentials_is_amplified_all_the_same(divergence):
    """At order 2: ln(1 + γ² · 2 e^D), which is D + ln 2γ² for a D so large; γ is 1/10."""
    drawn = Curve(lambda orders: np.full(len(orders), divergence), Drawn(1, 10))
    assert drawn.divergences([2.0])[0] == pytest.approx(divergence + math.log(0.02), rel=1e-12)


def test_what_hides_nothing_costs_everything():
    nothing = Curve(lambda orders: np.full(len(orders), math.inf))
    assert epsilon(nothing, 1, 1e-5) == math.inf
    with pytest.raises(SettingsError, match=r"a single round, which costs inf at δ = 1e-05$"):
        affordable_rounds(nothing, 1.0, 1e-5)


def test_a_target_out_of_reach_is_refused_in_words():
    expected = r"^epsilon = 0.1: can't be reached in 1000 rounds: noise 10 still costs [\d.]+ at δ = 1e-05$"
    with pytest.raises(SettingsError, match=expected):
        least_noise(Gaussian, 0.1, 1e-5, 1000, high=10.0)


POSITIVE = "must be a finite number > 0"


@pytest.mark.parametrize(
    ("field", "value", "rule", "call"),
    [
        ("multiplier", 0.0, POSITIVE, lambda: Gaussian(0.0)),
        ("multiplier", math.nan, POSITIVE, lambda: Gaussian(math.nan)),
        (
            "replaced",
            True,
            "must be false with Poisson sampling: a client is there or not",
            lambda: Gaussian(1.0, Poisson(0.1)),
        ),
        (
            "replaced",
            False,
            "must be true with cohorts of a fixed size",
            lambda: Gaussian(1.0, Drawn(1, 2), replaced=False),
        ),
        ("probability", 0.0, "must be above 0 and at most 1", lambda: Poisson(0.0)),
        ("probability", 1.5, "must be above 0 and at most 1", lambda: Poisson(1.5)),
        ("cohort", 3, "must be between 1 and 2", lambda: Drawn(3, 2)),
        ("cohort", 0, "must be between 1 and 2", lambda: Drawn(0, 2)),
        ("rounds", 0, "must be 1 or more", lambda: epsilon(Gaussian(1.0), 0, 1e-5)),
        ("delta", 0.0, "must be above 0 and below 1", lambda: epsilon(Gaussian(1.0), 1, 0.0)),
        ("delta", 1.0, "must be above 0 and below 1", lambda: epsilon(Gaussian(1.0), 1, 1.0)),
        ("delta", 1.0, "must be above 0 and below 1", lambda: Spending(Gaussian(1.0), 1.0)),
        ("delta", 1.0, "must be above 0 and below 1", lambda: affordable_rounds(Gaussian(1.0), 1.0, 1.0)),
        ("epsilon", 0.0, POSITIVE, lambda: affordable_rounds(Gaussian(1.0), 0.0, 1e-5)),
        ("epsilon", math.nan, POSITIVE, lambda: affordable_rounds(Gaussian(1.0), math.nan, 1e-5)),
        ("epsilon", math.inf, POSITIVE, lambda: affordable_rounds(Gaussian(1.0), math.inf, 1e-5)),
        ("epsilon", -1.0, POSITIVE, lambda: least_noise(Gaussian, -1.0, 1e-5, 1)),
        ("epsilon", math.nan, POSITIVE, lambda: least_noise(Gaussian, math.nan, 1e-5, 1)),
        ("low", 0.0, POSITIVE, lambda: least_noise(Gaussian, 1.0, 1e-5, 1, low=0.0)),
        ("high", 1.0, "must be above low = 2", lambda: least_noise(Gaussian, 1.0, 1e-5, 1, low=2.0, high=1.0)),
        ("high", math.inf, POSITIVE, lambda: least_noise(Gaussian, 1.0, 1e-5, 1, high=math.inf)),
        ("precision", 0.0, POSITIVE, lambda: least_noise(Gaussian, 1.0, 1e-5, 1, precision=0.0)),
    ],
)
def test_what_makes_no_sense_is_refused(field, value, rule, call):
    with pytest.raises(SettingsError, match=f"^{field} = {value!r}: {rule}$"):
        call()


def test_parts_with_a_cohort_of_their_own_are_refused():
    with pytest.raises(SettingsError, match=r"^parts = .*: must have no sampling of their own: they share a cohort$"):
        Several((Gaussian(1.0), Gaussian(1.0, Drawn(1, 2))))


def test_without_dp_accounting_the_extra_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "dp_accounting", None)
    with pytest.raises(MissingExtraError, match=r"pip install 'baffle\[private\]'"):
        epsilon(Gaussian(1.0), 1, 1e-5)


def test_the_least_noise_that_is_looked_for_is_a_hundredth() -> None:
    """Where that keeps the budget, it is what is returned."""
    assert least_noise(lambda noise: Gaussian(noise), 1e6, 1e-5, 1) == 1e-2
