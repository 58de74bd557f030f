"""Sums of integers at the edges of every small type, against Python's integers: NumPy before 2 wraps them quietly."""

import numpy as np
import pytest

from baffle.directions import Gaussian, Law, Orthogonal, Rademacher, Sparse
from baffle.kernels import Kernels, PlainKernels, fastest
from baffle.keys import Key

KEY = Key.root(25)
SIZE = 1000
EDGES = [1, 3, 127, 128, 32_767, 32_768, 2**31 - 1, 2**31, 2**40]
WEIGHTS = [sign * edge for edge in EDGES for sign in (1, -1)]
LAWS = [Gaussian(), Rademacher(), Orthogonal(10), Sparse(16), Sparse(128)]

with_all_kernels = pytest.mark.parametrize("kernels", [PlainKernels(), fastest()], ids=repr)
of_all_laws = pytest.mark.parametrize("law", LAWS, ids=repr)


def summed(law: Law, weights: list[int]) -> list[int]:
    """Return Σₖ weights[k] · zₖ in Python's integers."""
    rows = [law.entries(KEY, direction, 0, SIZE).tolist() for direction in range(len(weights))]
    return [sum(weight * z for weight, z in zip(weights, column, strict=True)) for column in zip(*rows, strict=True)]


def accumulated(kernels: Kernels, law: Law, weights: list[int]) -> list[int]:
    total = np.zeros(SIZE, np.int64)
    kernels.accumulate(total, np.array(weights, np.int64), law, KEY)
    return total.tolist()


@with_all_kernels
@of_all_laws
@pytest.mark.parametrize("weight", WEIGHTS)
def test_a_direction_times_a_weight_is_exact(kernels, law, weight):
    assert accumulated(kernels, law, [weight]) == summed(law, [weight])


@with_all_kernels
@of_all_laws
def test_sums_with_all_these_weights_are_exact(kernels, law):
    assert accumulated(kernels, law, WEIGHTS) == summed(law, WEIGHTS)


@with_all_kernels
def test_the_transform_with_these_weights_is_exact(kernels):
    law = Orthogonal(10)
    weights = (WEIGHTS * 57)[: law.most]  # enough directions that the transform is worth it
    assert accumulated(kernels, law, weights) == summed(law, weights)


@pytest.mark.parametrize("precision", [np.float32, np.float64])
@with_all_kernels
@of_all_laws
@pytest.mark.parametrize("step", [1.0, 3.0, 2.0**-140, 127.0, -128.0, 0.1, 1e30])
def test_a_displaced_copy_rounds_in_its_own_precision(kernels, law, step, precision):
    base, out = np.linspace(-1, 1, SIZE).astype(precision), np.empty(SIZE, precision)
    kernels.displace(out, base, step, law, KEY, 0)
    kind = precision
    for found, before, z in zip(out, base, law.entries(KEY, 0, 0, SIZE).tolist(), strict=True):
        assert found == kind(before + kind(kind(step) * kind(z)))
