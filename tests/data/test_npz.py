import io
import tracemalloc
import zipfile

import numpy as np
import pytest

from baffle.data import load_npz
from baffle.errors import DataError
from baffle.keys import Key

KEY = Key.root(0)
X = np.arange(20, dtype=np.float32).reshape(10, 2)
Y = np.arange(10) % 3


@pytest.fixture
def save(tmp_path):
    def write(**arrays):
        np.savez(tmp_path / "own.npz", **arrays)
        return tmp_path / "own.npz"

    return write


def test_a_fifth_is_held_out_where_there_is_no_test_part(save):
    split = load_npz(save(x=X, y=Y), KEY)
    assert (len(split.train), len(split.test)) == (8, 2)
    assert split.train.classes == 3
    together = np.concatenate([split.train.inputs, split.test.inputs])
    np.testing.assert_array_equal(np.sort(together, axis=0), X)


def test_a_test_part_is_taken_as_it_is(save):
    split = load_npz(save(x=X, y=Y, x_test=X[:4] + 1, y_test=np.array([0, 1, 2, 4])), KEY)
    np.testing.assert_array_equal(split.train.inputs, X)
    np.testing.assert_array_equal(split.test.inputs, X[:4] + 1)
    assert split.train.classes == split.test.classes == 5


def test_bytes_become_zero_to_one_and_floats_stay(save):
    images = np.array([[0, 255]] * 5, np.uint8)
    split = load_npz(save(x=images, y=Y[:5]), KEY)
    assert split.train.inputs.dtype == np.uint8
    np.testing.assert_allclose(split.train.take(np.array([0]))[0], [[0, 1]])


def test_texts_are_numbered_over_both_parts(save):
    split = load_npz(save(x=X[:2], y=np.array(["cat", "dog"]), x_test=X[:1], y_test=np.array(["bee"])), KEY)
    assert split.train.targets.tolist() == [1, 2]
    assert split.test.targets.tolist() == [0]
    assert split.test.classes == 3
    assert split.train.class_names == split.test.class_names == ("bee", "cat", "dog")


def test_clients_follow_their_samples(save):
    names = np.array(["home", "work"] * 5)
    split = load_npz(save(x=X, y=Y, client=names), KEY)
    assert split.train.owners is not None
    assert split.train.owner_names == ("home", "work")
    for row, owner in zip(split.train.inputs, split.train.owners, strict=True):
        assert names[int(row[0]) // 2] == split.train.owner_names[owner]


def test_classes_that_the_file_lacks_can_be_announced(save):
    assert load_npz(save(x=X, y=Y, classes=10), KEY).train.classes == 10


@pytest.mark.parametrize(
    ("arrays", "names"),
    [
        ({"y": Y}, ()),
        ({"y": Y.astype(str)}, ("0", "1", "2")),
        ({"y": Y.astype(str), "classes": 3}, ("0", "1", "2")),
        ({"y": Y.astype(str), "classes": 4}, ()),  # nobody knows the fourth one's name
    ],
)
def test_classes_have_names_where_the_labels_are_texts_that_name_them_all(save, arrays, names):
    split = load_npz(save(x=X, **arrays), KEY)
    assert split.train.class_names == split.test.class_names == names


@pytest.mark.parametrize(
    ("arrays", "words"),
    [
        ({"x": X}, "no array y; it holds x of x, y, x_test"),
        ({}, "no array x and y; it holds none"),
        ({"x": X, "y": Y, "x_test": X}, "x_test and y_test must come together"),
        ({"x": X, "y": Y[:9]}, r"labels of shape \[9\]: must be \[10\]"),
        ({"x": X, "y": Y, "x_test": X[:, :1], "y_test": Y}, r"training samples have shape \[2\]"),
        ({"x": np.where(X == 7, np.nan, X), "y": Y}, "inputs: sample 3 holds a NaN"),
        ({"x": X, "y": Y - 1}, "label -1 of sample 0"),
        ({"x": X, "y": Y / 2}, "label 0.5 of sample 1"),
        ({"x": X, "y": np.where(Y == 1, np.nan, Y)}, "label nan of sample 1"),
        ({"x": X, "y": np.array([[name] for name in "aabbccddee"])}, r"labels of shape \[10, 1\]"),
        ({"x": X, "y": Y, "classes": 2}, "label 2 of sample 2: must be a whole number from 0 to 1"),
        ({"x": X, "y": Y.astype(str), "classes": 2}, "label 2 of sample 2: must be a whole number from 0 to 1"),
        ({"x": X, "y": Y, "classes": 2.5}, "classes of type float64"),
        ({"x": X, "y": Y, "client": Y / 2}, "client of type float64 and shape"),
        ({"x": X, "y": Y, "client": Y[:3]}, r"owners \(clients\) of type int64 and shape \[3\]"),
        ({"x": np.array([{}] * 10), "y": Y}, r"can't be read as \.npz: Object arrays"),
        ({"x": X[:0], "y": Y[:0]}, "at least one sample"),
        ({"x": X[:1], "y": Y[:1]}, "at least 2 are needed"),
    ],
)
def test_a_fault_is_named_with_the_file(save, arrays, words):
    with pytest.raises(DataError, match=rf"own\.npz: .*{words}"):
        load_npz(save(**arrays), KEY)


@pytest.mark.parametrize("content", [b"", b"no zip file at all", b"PK\x03\x04torn"])
def test_a_file_that_is_no_npz_is_named(tmp_path, content):
    (tmp_path / "own.npz").write_bytes(content)
    with pytest.raises(DataError, match=r"own\.npz: can't be read as \.npz"):
        load_npz(tmp_path / "own.npz", KEY)


def test_a_lone_array_is_no_npz(tmp_path):
    with (tmp_path / "own.npz").open("wb") as file:
        np.save(file, X)
    with pytest.raises(DataError, match=r"own\.npz: can't be read as \.npz"):
        load_npz(tmp_path / "own.npz", KEY)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(DataError, match=r"own\.npz: can't be read as \.npz: .*No such file"):
        load_npz(tmp_path / "own.npz", KEY)


def member(shape, dtype="<f4"):
    """Return the first bytes of an array that says it has this shape."""
    stream = io.BytesIO()
    np.lib.format.write_array_header_1_0(stream, {"descr": dtype, "fortran_order": False, "shape": shape})
    return stream.getvalue()


@pytest.mark.parametrize("shape", [(1 << 40,), (1 << 62, 1 << 62), (10**6, 10**6), (3,)])
def test_an_array_that_says_it_is_larger_than_it_is_is_not_begun(tmp_path, shape):
    path = tmp_path / "own.npz"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("x.npy", member(shape) + bytes(8))
        archive.writestr("y.npy", member((1,)) + bytes(4))
    with pytest.raises(DataError, match=r"own\.npz: x says that it has \d+ bytes, and there are 8"):
        load_npz(path, KEY)


@pytest.mark.parametrize("compressed", [True, False])
def test_an_archive_that_would_fill_memory_is_not_unpacked(tmp_path, compressed, monkeypatch):
    monkeypatch.setattr("baffle.data.npz._MOST_SMALL", 1 << 20)
    path = tmp_path / "own.npz"
    write = np.savez_compressed if compressed else np.savez
    write(path, x=np.zeros((10, 1_000_000), np.float32), y=Y, other=np.zeros(10))
    if not compressed:
        assert len(load_npz(path, KEY).train) == 8
        return
    tracemalloc.start()
    with pytest.raises(
        DataError, match=r"x, y would take 40000\d{3} bytes, and the file has \d+: at most 100 times as"
    ):
        load_npz(path, KEY)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 1 << 20


def test_a_file_that_only_looks_like_an_archive_is_refused(tmp_path):
    path = tmp_path / "own.npz"
    path.write_bytes(member((1 << 50,)))
    with pytest.raises(DataError, match=r"can't be read as \.npz"):
        load_npz(path, KEY)
