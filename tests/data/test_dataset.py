import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from baffle.data import Dataset, Split, hold_out
from baffle.errors import DataError, SettingsError
from baffle.keys import Key

KEY = Key.root(0)


def floats(samples=3):
    return np.zeros((samples, 2), np.float32)


def test_bytes_are_held_as_they_came_and_scaled_only_when_taken():
    images = np.array([[0, 51], [102, 255]], np.uint8)
    dataset = Dataset(images, np.array([1, 0]), classes=2, scale=1 / 255)
    inputs, targets = dataset.take(np.array([1, 0, 1]))
    assert dataset.inputs is images
    assert inputs.dtype == np.float32
    assert targets.dtype == np.int64
    np.testing.assert_allclose(inputs, [[0.4, 1.0], [0.0, 0.2], [0.4, 1.0]], rtol=1e-6)
    np.testing.assert_array_equal(targets, [0, 1, 0])


def test_what_is_taken_is_a_copy():
    dataset = Dataset(floats(), np.array([0, 0, 0]), classes=1)
    dataset.take(np.array([0]))[0][:] = 7
    assert not dataset.inputs.any()


def test_length_and_shape():
    dataset = Dataset(np.zeros((5, 1, 4, 6), np.uint8), np.zeros(5, np.int64), classes=3)
    assert (len(dataset), dataset.shape) == (5, (1, 4, 6))


@pytest.mark.parametrize("dtype", [np.float64, np.int32, np.float16, bool])
def test_other_real_numbers_become_float32(dtype):
    dataset = Dataset(np.ones((1, 2), dtype), np.array([0]), classes=1)
    assert dataset.inputs.dtype == np.float32
    assert (dataset.inputs == 1).all()


def test_whole_labels_of_any_type_become_int64():
    dataset = Dataset(floats(), np.array([0.0, 1.0, 2.0]), classes=3, owners=np.array([0, 1, 1], np.uint8))
    assert dataset.targets.dtype == np.int64
    assert dataset.owners is not None
    assert dataset.owners.dtype == np.int64


@pytest.mark.parametrize(
    ("labels", "words"),
    [
        ([0, 3, 1], "label 3 of sample 1: must be a whole number from 0 to 2"),
        ([0, 1, -1], "label -1 of sample 2: must be a whole number from 0 to 2"),
        ([0.5, 1, 2], "label 0.5 of sample 0"),
        ([0, np.nan, 2], "label nan of sample 1"),
        ([0, 1], r"labels of shape \[2\]: must be \[3\]"),
        ([[0], [1], [2]], r"labels of shape \[3, 1\]"),
        (["a", "b", "c"], "labels of type <U1: must be whole numbers"),
    ],
)
def test_wrong_labels_are_named(labels, words):
    with pytest.raises(DataError, match=words):
        Dataset(floats(), np.array(labels), classes=3)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_the_first_sample_that_is_not_finite_is_named(bad):
    inputs = np.zeros((4, 2, 2), np.float32)
    inputs[2, 1, 0] = inputs[3, 0, 0] = bad
    with pytest.raises(DataError, match="sample 2 holds a NaN or an infinity"):
        Dataset(inputs, np.zeros(4, np.int64), classes=1)


def test_what_float32_cannot_hold_is_refused_and_not_made_infinite():
    with pytest.raises(DataError, match="sample 1 "):
        Dataset(np.array([[1.0], [1e300]]), np.array([0, 0]), classes=1)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"inputs": np.zeros((0, 2), np.float32), "targets": np.zeros(0, int)}, "at least one sample"),
        ({"inputs": np.float32(1)}, "at least one sample"),
        ({"inputs": np.array([["a"]])}, "inputs of type <U1: must be real numbers"),
        ({"classes": 0}, "classes = 0: must be at least 1"),
        ({"scale": 0.5}, "scale = 0.5: .* 1 where the inputs are not uint8"),
        ({"scale": np.nan}, "scale = nan: must be finite"),
        ({"owners": np.array([0, 1])}, r"owners \(clients\) of type int64 and shape \[2\]"),
        ({"owners": np.array([0.0, 1, 2])}, "of type float64"),
        ({"owners": np.array([0, -1, 0])}, "owners from -1 to 0"),
        ({"owners": np.array([0, 1, 2]), "owner_names": ("a", "b")}, "owners from 0 to 2"),
        ({"class_names": ("a", "b")}, "2 names of classes, but 1 classes: must be none, or one for each class"),
        ({"classes": 2, "class_names": ("a", "a")}, "name of classes 'a': must stand for one class alone"),
    ],
)
def test_other_faults_are_named(settings, words):
    fields = {"inputs": floats(), "targets": np.array([0, 0, 0]), "classes": 1, **settings}
    with pytest.raises(DataError, match=words):
        Dataset(**fields)


def test_the_two_parts_of_a_split_must_fit():
    one = Dataset(np.zeros((1, 2), np.uint8), np.array([0]), classes=2)
    other = Dataset(np.zeros((1, 3), np.uint8), np.array([0]), classes=2)
    with pytest.raises(DataError, match=r"shape \[2\] and 2 classes, test samples \[3\] and 2"):
        Split(one, other)


@given(samples=st.integers(2, 60), share=st.floats(0.001, 0.999), seed=st.integers(0, 100))
@settings(deadline=None)
def test_holding_out_loses_no_sample_and_keeps_each_with_its_label_and_owner(samples, share, seed):
    numbers = np.arange(samples)
    dataset = Dataset(numbers.astype(np.float32)[:, np.newaxis], numbers, classes=samples, owners=numbers)
    split = hold_out(dataset, share, Key.root(seed))
    assert len(split.test) == min(max(round(share * samples), 1), samples - 1)
    assert sorted([*split.train.targets, *split.test.targets]) == list(numbers)
    for part in (split.train, split.test):
        assert part.owners is not None
        np.testing.assert_array_equal(part.inputs[:, 0], part.targets)
        np.testing.assert_array_equal(part.owners, part.targets)
        assert (np.diff(part.targets) > 0).all()


def test_both_parts_keep_the_names_of_the_classes():
    split = hold_out(Dataset(floats(), np.array([0, 1, 0]), classes=2, class_names=("cat", "dog")), 0.5, KEY)
    assert split.train.class_names == split.test.class_names == ("cat", "dog")


def test_the_key_decides_what_is_held_out():
    dataset = Dataset(np.zeros((100, 1), np.uint8), np.arange(100), classes=100)
    first, again, other = (hold_out(dataset, 0.2, Key.root(seed)).test.targets for seed in (0, 0, 1))
    np.testing.assert_array_equal(first, again)
    assert (first != other).any()


@pytest.mark.parametrize("share", [0.0, 1.0, -0.1, float("nan")])
def test_a_share_out_of_range_is_refused(share):
    with pytest.raises(SettingsError, match=r"share = .*: must be above 0 and below 1"):
        hold_out(Dataset(floats(), np.zeros(3), classes=1), share, KEY)


def test_one_sample_cannot_be_split():
    with pytest.raises(DataError, match="at least 2"):
        hold_out(Dataset(floats(1), np.zeros(1), classes=1), 0.5, KEY)
