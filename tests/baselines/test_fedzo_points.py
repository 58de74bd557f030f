"""FedZO's points are made in the precision in which losses are, with every NumPy."""

import numpy as np
import pytest

from baffle.baselines.fedzo import FedZo, sphere
from baffle.keys import Key


@pytest.mark.parametrize("precision", [np.float32, np.float64])
def test_points_are_made_in_the_runtimes_precision(precision) -> None:
    class Runtime:
        def __init__(self) -> None:
            self.precision, self.seen = np.dtype(precision), []

        def losses(self, points, batches):
            made = list(points)
            self.seen += made
            return np.ones((len(made), len(batches)))

    runtime, key, theta = Runtime(), Key.root(3), np.linspace(-1, 1, 50, dtype=np.float32)
    method = FedZo(directions=4, scale=0.1)
    method.estimate(theta, None, runtime, key)
    step = precision(0.1)
    for point, direction in zip(runtime.seen[1:], sphere(key, 4, 50), strict=True):
        expected = [
            precision(x + precision(step * precision(z)))
            for x, z in zip(theta.astype(precision), direction, strict=True)
        ]
        assert point.tolist() == expected
