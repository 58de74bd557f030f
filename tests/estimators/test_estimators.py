"""One contract over every estimator; what only one of them promises follows below."""

from itertools import product

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from baffle.errors import SettingsError
from baffle.estimators import CentralDifference, CentredDifference, ForwardDifference

ESTIMATORS = [CentralDifference, CentredDifference, ForwardDifference]

THETA = np.array([0.3, -0.7, 1.1])
SLOPE = np.array([2.0, -1.0, 0.5])
HESSIAN = np.array([[3.0, 1.0, -0.5], [1.0, 2.0, 0.25], [-0.5, 0.25, -1.0]])


def linear(theta):
    return SLOPE @ theta + 5.0


def quadratic(theta):
    return theta @ HESSIAN @ theta / 2 + SLOPE @ theta


def cubic(theta):
    return float((theta**3).sum()) + 2 * theta[0] * theta[1] * theta[2]


def cubic_gradient(theta):
    return 3 * theta**2 + 2 * np.array([theta[1] * theta[2], theta[0] * theta[2], theta[0] * theta[1]])


def slopes_of(estimator, function, z, scale):
    """Return the slopes [K] of `function` at THETA along the rows of z [K, n]."""
    points = [[function(THETA + sign * scale * row) for sign in estimator.signs] for row in z]
    base = function(THETA) if estimator.base else np.nan
    return estimator(np.array(points)[..., None], np.array([base]), scale)[:, 0]


def expected_estimate(estimator, function, scale, budget=2):
    """Return E ĝ = E (1/K) Σ sₖ zₖ over all K-tuples of sign vectors, each counted once."""
    signs = np.array(list(product([-1.0, 1.0], repeat=THETA.size)))
    total = np.zeros(THETA.size)
    tuples = list(product(range(len(signs)), repeat=budget))
    for chosen in tuples:
        z = signs[list(chosen)]
        total += slopes_of(estimator, function, z, scale) @ z / budget
    return total / len(tuples)


def random_directions(count, seed=0):
    return np.random.default_rng(seed).choice([-1.0, 1.0], (count, THETA.size))


@pytest.mark.parametrize("kind", ESTIMATORS)
@pytest.mark.parametrize("scale", [1e-3, 0.5])
def test_the_estimate_of_a_linear_functions_slope_is_exact_on_average(kind, scale):
    assert expected_estimate(kind(scale), linear, scale) == pytest.approx(SLOPE, abs=1e-9)


@pytest.mark.parametrize("kind", ESTIMATORS)
@pytest.mark.parametrize("scale", [1e-2, 0.5, 3.0])
def test_the_estimate_on_a_quadratic_is_its_gradient_on_average_at_any_scale(kind, scale):
    gradient = HESSIAN @ THETA + SLOPE
    assert expected_estimate(kind(scale), quadratic, scale) == pytest.approx(gradient, abs=1e-9)


@pytest.mark.parametrize("kind", ESTIMATORS)
def test_the_estimates_bias_is_of_second_order_in_the_scale(kind):
    bias = [expected_estimate(kind(s), cubic, s) - cubic_gradient(THETA) for s in (0.01, 0.02)]
    assert np.abs(bias[0]).max() > 1e-5
    assert bias[1] / bias[0] == pytest.approx(np.full(3, 4.0), rel=1e-4)


@pytest.mark.parametrize("kind", ESTIMATORS)
def test_slopes_of_several_clients_do_not_meet(kind):
    generator = np.random.default_rng(1)
    estimator = kind(0.1)
    losses, base = generator.normal(size=(6, len(estimator.signs), 3)), generator.normal(size=3)
    together = estimator(losses, base, 0.1)
    alone = [estimator(losses[..., c : c + 1], base[c : c + 1], 0.1)[:, 0] for c in range(3)]
    assert together.shape == (6, 3)
    assert np.array_equal(together, np.stack(alone, axis=1))


@pytest.mark.parametrize("kind", ESTIMATORS)
@given(constant=st.floats(-100, 100))
def test_a_constant_added_to_the_loss_changes_nothing(kind, constant):
    z, estimator = random_directions(5), kind(0.5)
    lifted = slopes_of(estimator, lambda theta: linear(theta) + constant, z, 0.5)
    assert lifted == pytest.approx(slopes_of(estimator, linear, z, 0.5), abs=1e-11)


@pytest.mark.parametrize("kind", ESTIMATORS)
@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_a_loss_that_is_not_finite_spoils_its_own_slope_only(kind, bad):
    estimator, generator = kind(0.1), np.random.default_rng(2)
    losses, base = generator.normal(size=(5, len(estimator.signs), 2)), np.zeros(2)
    whole = estimator(losses, base, 0.1)
    losses[3, -1, 0] = bad
    slopes = estimator(losses, base, 0.1)
    kept = [0, 1, 2, 4]
    assert not np.isfinite(slopes[3, 0])
    assert np.array_equal(slopes[:, 1], whole[:, 1])
    assert slopes[kept, 0] == pytest.approx(estimator(losses[kept], base, 0.1)[:, 0], rel=1e-12)


@pytest.mark.parametrize("kind", ESTIMATORS)
@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_no_finite_loss_gives_no_finite_slope(kind, bad):
    losses = np.full((4, len(kind.signs), 1), bad)
    with np.errstate(invalid="ignore"):
        slopes = kind(0.1)(losses, np.array([bad]), 0.1)
    assert slopes.shape == (4, 1)
    assert not np.isfinite(slopes).any()


@pytest.mark.parametrize("kind", ESTIMATORS)
@pytest.mark.parametrize("scale", [0.0, -1e-3, np.nan, np.inf])
def test_a_scale_out_of_range_is_refused(kind, scale):
    with pytest.raises(SettingsError) as caught:
        kind(scale=scale)
    assert (caught.value.field, caught.value.rule) == ("scale", "must be a finite number > 0")
    assert caught.value.value is scale


@pytest.mark.parametrize(
    ("kind", "forwards"), [(ForwardDifference, 11), (CentralDifference, 20), (CentredDifference, 10)]
)
def test_ten_directions_cost_the_stated_forwards(kind, forwards):
    assert 10 * len(kind.signs) + kind.base == forwards


@pytest.mark.parametrize("kind", [ForwardDifference, CentralDifference])
def test_a_difference_gives_each_slope_of_a_linear_function_exactly(kind):
    z = random_directions(10)
    assert slopes_of(kind(0.25), linear, z, 0.25) == pytest.approx(z @ SLOPE, abs=1e-13)


def test_forward_by_hand():
    losses = np.array([[[3.0, 7.0]], [[2.0, 5.0]]])
    assert ForwardDifference()(losses, np.array([1.0, 4.0]), 0.5).tolist() == [[4.0, 6.0], [2.0, 2.0]]


def test_forward_errs_by_half_the_curvature_times_the_scale():
    z, scale = random_directions(10), 0.2
    error = slopes_of(ForwardDifference(scale), quadratic, z, scale) - z @ (HESSIAN @ THETA + SLOPE)
    assert error == pytest.approx(scale / 2 * np.einsum("ki,ij,kj->k", z, HESSIAN, z), abs=1e-12)


def test_forward_without_a_finite_base_has_no_slopes():
    slopes = ForwardDifference()(np.ones((3, 1, 2)), np.array([np.nan, 1.0]), 0.5)
    assert np.isnan(slopes[:, 0]).all()
    assert slopes[:, 1].tolist() == [0.0, 0.0, 0.0]


def test_central_by_hand():
    losses = np.array([[[3.0], [1.0]], [[2.0], [5.0]]])
    assert CentralDifference()(losses, np.array([np.nan]), 0.5).tolist() == [[2.0], [-3.0]]


@pytest.mark.parametrize("scale", [0.1, 10.0])
def test_central_is_exact_on_a_quadratic_at_any_scale(scale):
    z = random_directions(10)
    slopes = slopes_of(CentralDifference(scale), quadratic, z, scale)
    assert slopes == pytest.approx(z @ (HESSIAN @ THETA + SLOPE), abs=1e-11)


def test_centred_by_hand():
    losses = np.array([1.0, 2.0, 6.0])[:, None, None]  # mean 3, factor 3/2
    assert CentredDifference()(losses, np.array([np.nan]), 0.5).ravel().tolist() == [-6.0, -3.0, 9.0]


def test_centred_leaves_missing_probes_out_of_mean_and_factor():
    losses = np.array([1.0, np.inf, 3.0, np.nan])[:, None, None]  # mean 2, factor 2
    slopes = CentredDifference()(losses, np.zeros(1), 0.5).ravel()
    assert slopes[[0, 2]].tolist() == [-4.0, 4.0]
    assert np.isnan(slopes[[1, 3]]).all()


@pytest.mark.parametrize("losses", [[2.0], [np.nan, 2.0, np.inf]])
def test_centred_has_no_slope_for_a_probe_that_is_alone(losses):
    assert np.isnan(CentredDifference()(np.array(losses)[:, None, None], np.zeros(1), 0.5)).all()


@pytest.mark.parametrize("scale", [0.1, 10.0])
def test_centred_removes_the_curvature_that_its_probes_share(scale):
    def bowl(theta):
        return 4.0 * theta @ theta + SLOPE @ theta

    z = random_directions(10)
    along = z @ (8.0 * THETA + SLOPE)
    slopes = slopes_of(CentredDifference(scale), bowl, z, scale)
    assert slopes == pytest.approx(10 / 9 * (along - along.mean()), abs=1e-10)
    uncentred = slopes_of(ForwardDifference(scale), bowl, z, scale) - along
    assert uncentred == pytest.approx(np.full(10, scale * 4.0 * 3), abs=1e-10)
