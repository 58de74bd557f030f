import numpy as np
import pytest

from baffle.data import load_csv, load_npz, load_own
from baffle.errors import DataError
from baffle.keys import Key

KEY = Key.root(0)
PETS = ("bee", "cat", "dog")
X = np.arange(6, dtype=np.float32).reshape(3, 2)


@pytest.fixture
def save(tmp_path):
    def write(**arrays):
        np.savez(tmp_path / "own.npz", **{"x": X, **arrays})
        return tmp_path / "own.npz"

    return write


@pytest.fixture
def write(tmp_path):
    def save(text):
        (tmp_path / "own.csv").write_text(text)
        return tmp_path / "own.csv"

    return save


def own(path, classes=3, names=PETS, shape=(2,), **columns):
    return load_own(path, classes=classes, class_names=names, shape=shape, **columns)


def test_texts_in_arrays_are_numbered_as_in_the_federation(save):
    dataset = own(save(y=np.array(["dog", "cat", "dog"])))
    assert dataset.targets.tolist() == [2, 1, 2]
    assert (dataset.classes, dataset.class_names) == (3, PETS)
    np.testing.assert_array_equal(dataset.inputs, X)


@pytest.mark.parametrize("names", [(), PETS])
@pytest.mark.parametrize("dtype", [np.int64, np.uint8, np.float64])
def test_whole_numbers_in_arrays_are_class_numbers(save, names, dtype):
    assert own(save(y=np.array([2, 0, 2], dtype)), names=names).targets.tolist() == [2, 0, 2]


@pytest.mark.parametrize("names", [(), ("0", "1", "2")])
def test_texts_of_whole_numbers_without_names_are_class_numbers(save, names):
    assert own(save(y=np.array(["2", "0", "02"])), names=names).targets.tolist() == [2, 0, 2]


def test_nothing_is_held_out_and_neither_test_samples_nor_clients_are_read(save):
    ignored = {"x_test": X[:1, :1], "client": np.array([0.5])}
    dataset = own(save(y=np.array([0, 1, 2]), **ignored))
    assert len(dataset) == 3
    assert dataset.owners is None


def test_one_sample_is_enough(save):
    assert len(own(save(x=X[:1], y=np.array([1])))) == 1


def test_bytes_are_scaled_as_at_the_server(save):
    path = save(x=np.array([[0, 255]] * 5, np.uint8), y=np.array(["dog"] * 5))
    mine = own(path).take(np.array([0]))[0]
    np.testing.assert_array_equal(mine, [[0, 1]])
    np.testing.assert_array_equal(mine, load_npz(path, KEY).train.take(np.array([0]))[0])


def test_a_table_by_hand(write):
    dataset = own(write("a,label,client,b\n1,dog,me,0.5\n2,cat,me,7\n"))
    assert dataset.inputs.tolist() == [[1.0, 0.5], [2.0, 7.0]]
    assert dataset.inputs.dtype == np.float32
    assert dataset.targets.tolist() == [2, 1]
    assert dataset.class_names == PETS
    assert dataset.owners is None


def test_columns_of_other_names(write):
    path = write("a,kind,b,site\n1,bee,3,s\n")
    assert own(path, label_column="kind", client_column="site").inputs.tolist() == [[1.0, 3.0]]


def test_whole_numbers_in_a_table_are_looked_up_where_there_are_names(write):
    path = write("a,b,label\n1,1,10\n2,2,9\n3,3,09\n")
    assert own(path, names=("2", "9", "10")).targets.tolist() == [2, 1, 1]


def test_whole_numbers_in_a_table_are_class_numbers_where_there_are_no_names(write):
    assert own(write("a,b,label\n1,1,10\n2,2,9\n"), 11, ()).targets.tolist() == [10, 9]


def test_a_part_of_the_servers_table_keeps_its_numbers(write):
    server = load_csv(write("a,label\n1,ox\n2,ant\n3,cow\n4,ant\n"), KEY).train
    mine = own(write("a,label\n1,ox\n3,cow\n"), server.classes, server.class_names, server.shape)
    assert [server.class_names[number] for number in mine.targets] == ["ox", "cow"]
    assert mine.class_names == server.class_names


@pytest.mark.parametrize(
    ("arrays", "names", "words"),
    [
        (
            {"y": np.array(["dog", "cow", "ox"])},
            PETS,
            "label 'cow' of sample 1: must be one of the federation's classes, 3 in all: bee, cat, dog$",
        ),
        ({"y": np.array(["0", "dog", "1"])}, (), "label 'dog' of sample 1: .*, 3 in all: 0, 1, 2$"),
        ({"y": np.array(["0", "1", "3"])}, (), "label '3' of sample 2: .*, 3 in all: 0, 1, 2$"),
        ({"y": np.array(["0", "1", "2"])}, PETS, "label '0' of sample 0: .*: bee, cat, dog$"),
        (
            {"y": np.array([0, 3, 1])},
            PETS,
            "label 3 of sample 1: must be from 0 to 2, the number of one of the federation's classes, 3 in all: bee, ",
        ),
        ({"y": np.array([0, 1, -1])}, (), "label -1 of sample 2: must be from 0 to 2, .* federation's .*: 0, 1, 2$"),
        ({"y": np.array([0, 0.5, 1])}, PETS, "label 0.5 of sample 1: must be a whole number from 0 to 2"),
        ({"y": np.array([0, np.nan, 1])}, PETS, "label nan of sample 1: must be a whole number from 0 to 2"),
        ({"y": np.array(["dog", "cat"])}, PETS, r"labels of shape \[2\]: must be \[3\]"),
        ({"y": np.array([["dog"]] * 3)}, PETS, r"labels of shape \[3, 1\]"),
        ({"y": np.array([b"dog"] * 3)}, PETS, r"labels of type \|S3"),
        ({"y": np.arange(3), "x": X[:, :1]}, PETS, r"samples of shape \[1\]: the federation's have \[2\]"),
        ({"y": np.arange(3), "x": X[:, :, None]}, PETS, r"samples of shape \[2, 1\]: the federation's have \[2\]"),
        ({"y": np.arange(3), "classes": 4}, PETS, "classes = 4: the federation has 3"),
        ({"y": np.arange(3), "classes": 2.5}, PETS, "classes of type float64"),
        ({"y": np.arange(3), "x": np.full((3, 2), np.nan)}, PETS, "inputs: sample 0 holds a NaN"),
        ({}, PETS, "no array y; it holds x of x, y, classes"),
        ({"x": X[:0], "y": np.array([], np.str_)}, PETS, ".*at least one sample"),
    ],
)
def test_a_fault_in_arrays_is_named_with_the_file(save, arrays, names, words):
    with pytest.raises(DataError, match=rf"own\.npz: {words}"):
        own(save(**arrays), names=names)


@pytest.mark.parametrize(
    ("text", "names", "words"),
    [
        ("a,b,label\n1,1,dog\n2,2,cow\n", PETS, "label 'cow' of sample 1: must be one of .*: bee, cat, dog$"),
        ("a,b,label\n1,1,1\n", PETS, "label '1' of sample 0: must be one of .*: bee, cat, dog$"),
        ("a,b,label\n1,1,3\n", (), "label '3' of sample 0: must be one of .*: 0, 1, 2$"),
        ("a,label\n1,dog\n", PETS, r"samples of shape \[1\]: the federation's have \[2\]"),
        ("a,b,label\n1,x,dog\n", PETS, "line 2, column 'b': 'x' is not a number"),
        ("a,b\n1,2\n", PETS, "no column label; it has a, b"),
        ("a,b,label\n", PETS, "at least one sample"),
        ('a,b,label\n1,1,"x\n', PETS, r"can't be read as \.csv: unexpected end of data"),
    ],
)
def test_a_fault_in_a_table_is_named_with_the_file(write, text, names, words):
    with pytest.raises(DataError, match=rf"own\.csv: .*{words}"):
        own(write(text), names=names)


def test_only_the_first_of_many_classes_are_listed(save):
    with pytest.raises(DataError, match=r", 100 in all: 0, 1, 2, 3, 4, \.\.\.$"):
        own(save(y=np.array([0, 100, 1])), 100, ())


def test_a_client_column_asked_for_by_name_must_be_there(write):
    with pytest.raises(DataError, match="no column site; it has a, b, label"):
        own(write("a,b,label\n1,1,dog\n"), client_column="site")


@pytest.mark.parametrize("name", ["own.txt", "own", "digits", "npz"])
def test_a_file_of_another_kind_is_refused(tmp_path, name):
    with pytest.raises(DataError, match=rf"{name}: a client's samples .*: must be an \.npz or \.csv file"):
        own(tmp_path / name)


@pytest.mark.parametrize("name", ["none.npz", "none.CSV"])
def test_a_missing_file_is_named(tmp_path, name):
    with pytest.raises(DataError, match=rf"{name}: can't be read as .*No such file"):
        own(tmp_path / name)


@pytest.mark.parametrize(
    ("names", "words"),
    [
        (("cat", "dog"), "^2 names of classes, but 3 classes"),
        ((*PETS, "cow"), "^4 names of classes, but 3 classes"),
        (("cat", "dog", "cat"), "^name of classes 'cat': must stand for one class alone"),
    ],
)
def test_names_that_do_not_fit_the_classes_are_not_blamed_on_the_file(tmp_path, names, words):
    with pytest.raises(DataError, match=words):
        own(tmp_path / "none.npz", names=names)


def test_whole_numbers_are_looked_up_where_the_federations_names_are_whole_numbers(tmp_path) -> None:
    """A server's table with labels 1, 2, 3 calls its first class "1": a client's 1 is that, and not the second."""
    path = tmp_path / "own.npz"
    np.savez(path, x=np.zeros((3, 2), np.float32), y=np.array([1, 3, 1]))
    found = load_own(path, classes=3, class_names=("1", "2", "3"), shape=(2,))
    assert found.targets.tolist() == [0, 2, 0]
    np.savez(path, x=np.zeros((1, 2), np.float32), y=np.array([0]))
    with pytest.raises(DataError, match="label '0' of sample 0: must be one of the federation's classes"):
        load_own(path, classes=3, class_names=("1", "2", "3"), shape=(2,))
