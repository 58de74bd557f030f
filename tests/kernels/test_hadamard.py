import numpy as np
import pytest

from baffle.directions import Orthogonal
from baffle.kernels import hadamard, loops
from baffle.keys import Key

TRANSFORMS = [hadamard.transform, loops.transform]
KEY = Key.root(22)


def sylvester(order):
    made = np.ones((1, 1), np.int64)
    for _ in range(order):
        made = np.block([[made, made], [made, -made]])
    return made


@pytest.mark.parametrize("order", range(9))
@pytest.mark.parametrize("transform", TRANSFORMS)
def test_the_transform_is_the_product_with_sylvesters_matrix(transform, order):
    values = np.random.default_rng(order).integers(-(2**40), 2**40, 1 << order)
    assert np.array_equal(transform(values.copy()), sylvester(order) @ values)


@pytest.mark.parametrize("transform", TRANSFORMS)
def test_the_transform_twice_is_n_times_the_values(transform):
    values = np.random.default_rng(1).integers(-(2**30), 2**30, 1 << 15)
    assert np.array_equal(transform(transform(values.copy())), values << 15)


@pytest.mark.parametrize("transform", TRANSFORMS)
@pytest.mark.parametrize(("order", "size", "directions"), [(0, 1, 1), (5, 32, 32), (7, 100, 3), (9, 257, 300)])
def test_transformed_sums_are_those_of_directions_one_by_one(transform, order, size, directions):
    law, rng = Orthogonal(order), np.random.default_rng(2)
    weights, total = rng.integers(-(2**50), 2**50, directions), rng.integers(-99, 99, size)
    expected = total + sum(w * law.entries(KEY, k, 0, size).astype(np.int64) for k, w in enumerate(weights))
    hadamard.accumulate(total, weights, law, KEY, transform)
    assert np.array_equal(total, expected)


def test_it_pays_where_its_steps_are_fewer_than_the_entries():
    law = Orthogonal(10)
    assert hadamard.pays(law, 31, 1000, 3.0)
    assert not hadamard.pays(law, 30, 1000, 3.0)
