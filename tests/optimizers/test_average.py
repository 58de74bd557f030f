import numpy as np
import pytest

from baffle.errors import SettingsError
from baffle.optimizers import ExponentialAverage


def one(value):
    return np.array([value], np.float32)


@pytest.mark.parametrize(
    ("step", "decay", "expected"),
    [
        (1, 0.995, 22 - 2 / 11 * 22),  # d = 2/11: θ̄ = 0, θ = 22 gives 18
        (2, 0.995, 22 - 3 / 12 * 22),
        (8, 0.5, 11.0),  # (1 + 8)/(10 + 8) is ½ too
        (1000, 0.5, 11.0),  # no more than the decay
        (1000, 0.75, 5.5),
    ],
)
def test_by_hand(step, decay, expected):
    assert ExponentialAverage(decay)(one(0.0), one(22.0), step)[0] == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("average", [100.0, np.inf, np.nan])
@pytest.mark.parametrize("weight", [3.0, -0.0])
def test_no_decay_is_no_average(average, weight):
    """To the bit, whatever the average was: no product with 0."""
    parameters = one(weight)
    assert ExponentialAverage(0.0)(one(average), parameters, 1).tobytes() == parameters.tobytes()


def test_a_walk_is_the_weighted_mean_of_its_points():
    values, average, exact = np.random.default_rng(0).normal(size=30), one(5.0), 5.0
    for step, value in enumerate(values, start=1):
        decay = min(0.9, (1 + step) / (10 + step))
        average, exact = ExponentialAverage(0.9)(average, one(value), step), decay * exact + (1 - decay) * value
    assert average.dtype == np.float32
    assert average[0] == pytest.approx(exact, abs=1e-6)


def test_the_start_is_forgotten_within_a_few_rounds():
    average = one(1.0)
    for step in range(1, 31):
        average = ExponentialAverage(0.995)(average, one(0.0), step)
    assert 0 < average[0] < 1e-5


def test_nothing_is_changed_in_place():
    average, parameters = one(1.0), one(2.0)
    average.flags.writeable = parameters.flags.writeable = False
    ExponentialAverage(0.9)(average, parameters, 3)
    assert (average[0], parameters[0]) == (1.0, 2.0)


@pytest.mark.parametrize("decay", [-0.1, 1.0, float("nan")])
def test_a_decay_out_of_range_is_refused(decay):
    with pytest.raises(SettingsError, match=r"^average = .*: must be at least 0 and below 1$"):
        ExponentialAverage(decay)
