import sys

import numpy as np
import pytest

from baffle.data import load_digits
from baffle.errors import MissingExtraError
from baffle.keys import Key

KEY = Key.root(0)


def test_a_fifth_of_the_1797_digits_is_held_out():
    split = load_digits(KEY)
    assert (len(split.train), len(split.test)) == (1438, 359)
    assert split.train.shape == (1, 8, 8)
    assert split.train.classes == 10
    assert split.train.inputs.dtype == np.uint8


def test_grey_levels_become_zero_to_one():
    split = load_digits(KEY)
    inputs, _ = split.train.take(np.arange(len(split.train)))
    np.testing.assert_array_equal(np.unique(inputs), np.arange(17) / 16)


def test_they_can_be_resized():
    assert load_digits(KEY, image_size=16).test.shape == (1, 16, 16)


def test_without_scikit_learn_the_error_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "sklearn", None)
    monkeypatch.delitem(sys.modules, "sklearn.datasets", raising=False)
    with pytest.raises(MissingExtraError, match=r"sklearn is not installed.*baffle\[train\]"):
        load_digits(KEY)
