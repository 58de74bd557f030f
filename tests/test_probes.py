import numpy as np
import pytest

from baffle.directions import Gaussian, Orthogonal, Rademacher, Sparse
from baffle.estimators import CentralDifference, CentredDifference, ForwardDifference
from baffle.kernels import PlainKernels
from baffle.keys import Key
from baffle.messages import BlockPlan
from baffle.probes import Probes

KEY = Key.root(8)
LAWS = [Gaussian(), Rademacher(), Orthogonal(3), Sparse(64)]


def probes_of(law=LAWS[1], precision=np.float64, scale=0.01, signs=(1,), budget=4, theta=None):
    theta = np.linspace(-1, 1, 12).astype(precision) if theta is None else theta
    theta.flags.writeable = False
    return Probes(theta, BlockPlan(3, 10, budget, 1.0, law), KEY, scale, signs, PlainKernels())


@pytest.mark.parametrize("signs", [(1,), (1, -1)])
@pytest.mark.parametrize("precision", [np.float32, np.float64])
@pytest.mark.parametrize("law", LAWS, ids=repr)
def test_points_come_direction_by_direction_and_sign_by_sign(law, precision, signs):
    probes = probes_of(law, precision, signs=signs)
    points = [point.copy() for point in probes]
    assert len(probes) == len(points) == 4 * len(signs)
    step = precision(0.01 / law.deviation)
    for number, point in enumerate(points):
        direction, side = divmod(number, len(signs))
        expected = probes.parameters.copy()
        moves = precision(signs[side]) * step * law.entries(KEY, direction, 0, 7).astype(precision)
        expected[3:10] += moves
        assert point.dtype == precision
        assert np.array_equal(point, expected)


def test_outside_the_block_nothing_moves():
    probes = probes_of()
    for point in probes:
        assert np.array_equal(point[:3], probes.parameters[:3])
        assert np.array_equal(point[10:], probes.parameters[10:])
        assert (point[3:10] != probes.parameters[3:10]).all()


def test_points_share_one_buffer_and_leave_the_parameters_alone():
    probes = probes_of()
    first, second = [id(point) for point in probes], [id(point) for point in probes]
    assert len(set(first)) == len(set(second)) == 1
    assert np.array_equal(probes.parameters, np.linspace(-1, 1, 12))


def test_a_second_pass_gives_the_same_points():
    probes = probes_of(signs=(1, -1))
    assert [point.tobytes() for point in probes] == [point.tobytes() for point in probes]


@pytest.mark.parametrize("signs", [(1,), (1, -1)])
@pytest.mark.parametrize("law", LAWS, ids=repr)
@pytest.mark.parametrize(("first", "stop"), [(0, 6), (0, 1), (2, 5), (5, 6), (3, 3)])
def test_a_part_has_the_points_of_its_directions(law, signs, first, stop):
    whole = probes_of(law, signs=signs, budget=6)
    part = whole.part(first, stop)
    assert (whole.directions, part.directions) == (range(6), range(first, stop))
    assert len(part) == (stop - first) * len(signs)
    points = [point.copy() for point in whole][first * len(signs) : stop * len(signs)]
    assert [point.tobytes() for point in part] == [point.tobytes() for point in points]
    assert (part.step, part.effective_scale) == (whole.step, whole.effective_scale)


def test_parts_make_the_whole():
    whole = probes_of(budget=5)
    points = [point.copy() for a, b in ((0, 2), (2, 3), (3, 5)) for point in whole.part(a, b)]
    assert np.array_equal(points, [point.copy() for point in whole])
    assert whole.part(1, 4).part(2, 3).directions == range(2, 3)  # counted in the block's own directions


def test_the_two_sides_mirror_each_other():
    theta = np.zeros(12)
    plus, minus, *_ = (point.copy() for point in probes_of(Gaussian(), signs=(1, -1), theta=theta))
    assert np.array_equal(plus, -minus)
    assert np.abs(plus).max() > 0


@pytest.mark.parametrize("law", LAWS, ids=repr)
def test_the_scale_is_that_of_the_rounded_step(law):
    single, double = probes_of(law, np.float32, scale=1e-3), probes_of(law, np.float64, scale=1e-3)
    assert single.step == np.float32(1e-3 / law.deviation)
    assert single.effective_scale == pytest.approx(1e-3, rel=2**-24)
    assert double.effective_scale == pytest.approx(1e-3, rel=2**-51)
    assert single.effective_scale != 1e-3


@pytest.mark.parametrize("law", LAWS, ids=repr)
def test_points_lie_a_scale_away_in_root_mean_square(law):
    law = Orthogonal(12) if isinstance(law, Orthogonal) else law  # there are 4,000 weights
    theta = np.zeros(4003)
    block = BlockPlan(3, 4003, 25, 1.0, law)
    points = np.array([point[3:].copy() for point in Probes(theta, block, KEY, 0.02, (1,), PlainKernels())])
    assert abs(points.mean()) <= 4 * 0.02 / np.sqrt(100_000)
    assert abs((points**2).mean() / 0.02**2 - 1) <= 4 * np.sqrt(2 / 100_000)


@pytest.mark.parametrize("law", LAWS, ids=repr)
@pytest.mark.parametrize("estimator", [ForwardDifference(0.5), CentralDifference(0.5)], ids=repr)
def test_slopes_of_a_linear_loss_are_exact_in_units_of_the_law(law, estimator):
    gradient = np.arange(12.0)
    probes = probes_of(law, np.float64, estimator.scale, estimator.signs)
    losses = np.array([point @ gradient for point in probes]).reshape(4, len(estimator.signs), 1)
    base = np.array([probes.parameters @ gradient])
    slopes = estimator(losses, base, probes.effective_scale)[:, 0]
    z = np.array([law.entries(KEY, k, 0, 7) for k in range(4)]) / law.deviation
    assert slopes == pytest.approx(z @ gradient[3:10], abs=1e-12)


def test_centred_slopes_of_a_linear_loss_are_the_others_but_for_the_mean():
    gradient, estimator = np.arange(12.0), CentredDifference(0.5)
    probes = probes_of(Rademacher(), np.float64, 0.5)
    losses = np.array([point @ gradient for point in probes])[:, None, None]
    along = np.array([Rademacher().entries(KEY, k, 0, 7) for k in range(4)]) @ gradient[3:10]
    slopes = estimator(losses, np.zeros(1), probes.effective_scale)[:, 0]
    assert slopes == pytest.approx(4 / 3 * (along - along.mean()), abs=1e-12)
