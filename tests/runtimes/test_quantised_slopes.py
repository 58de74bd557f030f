"""What leaves a client: slopes as integers of 8 bits, by a sweep and by the module called whole for every probe."""

from __future__ import annotations

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from baffle.client import measure  # noqa: E402
from baffle.directions import Gaussian, Orthogonal, Rademacher  # noqa: E402
from baffle.estimators import CentredDifference, ForwardDifference  # noqa: E402
from baffle.kernels import fastest  # noqa: E402
from baffle.mechanisms import clip  # noqa: E402
from baffle.messages import BlockPlan  # noqa: E402
from baffle.models.lenet import lenet  # noqa: E402
from baffle.runtimes.torch import TorchRuntime  # noqa: E402
from runtimes.networks import batches_of  # noqa: E402

BUDGETS = (100, 100, 2000)
"""Directions of LeNet's three layers: what an allocation by cost makes of them."""


class Plain:
    """A runtime that is asked for nothing but losses of points."""

    def __init__(self, runtime) -> None:
        self.losses, self.precision = runtime.losses, runtime.precision


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    return lenet(1, 10)


def reports(make_plan, model, precision, estimator, law):
    """Return the integers of two clients by a sweep and by the module called whole, [C, K] each."""
    runtime = TorchRuntime(model, device="cpu", precision=precision)
    spans = [(block.start, block.stop) for block in runtime.layout.blocks("layers")]
    batches = batches_of((1, 6, 6), (4, 2))
    theta, laws = (
        runtime.layout.flatten(runtime.given),
        [law] * 3 if law else [Gaussian(), Orthogonal(16), Rademacher()],
    )

    def plan(bounds):
        parts = zip(spans, BUDGETS, bounds, laws, strict=True)
        blocks = tuple(BlockPlan(*span, budget, bound, law) for span, budget, bound, law in parts)
        return make_plan(groups=1, estimator=estimator, blocks=blocks)

    found = [measure(plan([1.0] * 3), 0, 0, theta, batches, one, fastest()) for one in (runtime, Plain(runtime))]
    places = plan([1.0] * 3).places
    chosen = plan([4.0 * np.sqrt((found[1][:, places == block] ** 2).mean()) for block in range(3)])  # as a server does
    uniforms = np.random.default_rng(5).random(found[0].shape)
    return [chosen.quantiser(clip(slopes, chosen.bounds), chosen.bounds, uniforms) for slopes in found]


@pytest.mark.parametrize("estimator", [CentredDifference(1e-2), ForwardDifference(1e-3)], ids=repr)
def test_in_float32_999_of_1000_slopes_are_the_same_integers(estimator, model, make_plan) -> None:
    swept, plain = reports(make_plan, model, "float32", estimator, None)
    assert swept.shape == (2, sum(BUDGETS))
    assert (swept == plain).mean() >= 0.999
    assert np.abs(swept - plain).max() <= 1
    assert len(np.unique(swept)) > 100  # of 255 that 8 bits have


def test_in_float64_all_slopes_are_the_same_integers(model, make_plan) -> None:
    swept, plain = reports(make_plan, model, "float64", CentredDifference(1e-2), Rademacher())
    np.testing.assert_array_equal(swept, plain)
