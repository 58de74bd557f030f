import numpy as np
import pytest
from hypothesis import given
from hypothesis import settings as options
from hypothesis import strategies as st

from baffle.data.labels import looked_up, numbered


@pytest.mark.parametrize(
    ("values", "numbers", "names"),
    [
        (["b", "a", "b"], [1, 0, 1], ("a", "b")),
        (["10", "9", "-1"], [2, 1, 0], ("-1", "9", "10")),  # whole numbers by size, not as text
        (["10", "9", "x"], [0, 1, 2], ("10", "9", "x")),  # one text makes them all texts
        ([30, 20], [1, 0], ("20", "30")),
        ([], [], ()),
    ],
)
def test_by_hand(values, numbers, names):
    found, found_names = numbered(values)
    assert found.dtype == np.int64
    assert (found.tolist(), found_names) == (numbers, names)


@given(st.lists(st.text(min_size=1)) | st.lists(st.integers(-(10**9), 10**9)))
@options(deadline=None)
def test_a_number_leads_back_to_its_name(values):
    numbers, names = numbered(values)
    same = [names[number] for number in numbers] == [str(value) for value in values]
    assert same or [int(names[number]) for number in numbers] == [int(value) for value in values]
    assert set(numbers.tolist()) == set(range(len(names)))


@pytest.mark.parametrize(
    ("values", "names", "places"),
    [
        (["dog", "cow", "cat"], ("cat", "dog"), [1, -1, 0]),
        (["10", "09", "+9", "9.0", "x"], ("9", "10"), [1, 0, 0, -1, -1]),  # as whole numbers
        (["09", "9"], ("9", "x"), [-1, 0]),  # as texts
        ([], ("a",), []),
        (["a"], (), [-1]),
    ],
)
def test_looking_up_by_hand(values, names, places):
    found = looked_up(values, names)
    assert found.dtype == np.int64
    assert found.tolist() == places


@given(st.lists(st.text(min_size=1)) | st.lists(st.integers(-99, 99).map("{:04d}".format)))
@options(deadline=None)
def test_looking_up_finds_what_was_numbered(values):
    numbers, names = numbered(values)
    np.testing.assert_array_equal(looked_up(values, names), numbers)
