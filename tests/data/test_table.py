import numpy as np
import pytest

from baffle.data import load_csv
from baffle.errors import DataError
from baffle.keys import Key

KEY = Key.root(0)


@pytest.fixture
def write(tmp_path):
    def save(text):
        (tmp_path / "own.csv").write_bytes(text.encode() if isinstance(text, str) else text)
        return tmp_path / "own.csv"

    return save


def rows(split):
    """Each sample with its label and client, in the order of the first feature."""
    found = []
    for part in (split.train, split.test):
        owners = [None] * len(part) if part.owners is None else [part.owner_names[owner] for owner in part.owners]
        found += zip(part.inputs.tolist(), part.targets.tolist(), owners, strict=True)
    return sorted(found)


def test_features_labels_and_clients_by_hand(write):
    split = load_csv(write("width,label,client,height\n1,cat,b,0.5\n2,dog,a,-1e3\n3,cat,b,7\n"), KEY)
    assert rows(split) == [([1.0, 0.5], 0, "b"), ([2.0, -1000.0], 1, "a"), ([3.0, 7.0], 0, "b")]
    assert (len(split.train), len(split.test)) == (2, 1)
    assert split.train.inputs.dtype == np.float32
    assert split.train.classes == 2
    assert split.train.class_names == split.test.class_names == ("cat", "dog")


def test_a_table_need_not_have_clients(write):
    assert rows(load_csv(write("a,label\n1,0\n2,1\n"), KEY)) == [([1.0], 0, None), ([2.0], 1, None)]


def test_whole_number_labels_are_numbered_by_size(write):
    split = load_csv(write("a,label\n1,10\n2,9\n3,2\n"), KEY)
    assert [row[1] for row in rows(split)] == [2, 1, 0]
    assert split.train.class_names == ("2", "9", "10")


def test_columns_of_other_names(write):
    path = write("a,species,site\n1,x,s\n2,y,t\n")
    split = load_csv(path, KEY, label_column="species", client_column="site")
    assert rows(split) == [([1.0], 0, "s"), ([2.0], 1, "t")]


def test_a_byte_order_mark_blank_lines_quotes_and_spaces_do_no_harm(write):
    text = '\ufeff"a", label \r\n"1", "x"\r\n\r\n 2 ,x \r\n'
    assert rows(load_csv(write(text), KEY)) == [([1.0], 0, None), ([2.0], 0, None)]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("a,b\n1,2\n", "no column label; it has a, b"),
        ("", "no column label; it has none"),
        ("label\nx\n", "no column is left for the features"),
        ("a,label,a\n1,x,2\n", "columns a, label, a: each name must stand once"),
        ("a,label\n1,x\n2,y\nthree,y\n", "line 4, column 'a': 'three' is not a number"),
        ("a,label\n1,x\n,y\n", "line 3, column 'a': '' is not a number"),
        ("a,label\n1,x\nnan,y\n", "line 3, column 'a': 'nan' is not finite"),
        ("a,label\n-inf,x\n1,y\n", "line 2, column 'a': '-inf' is not finite"),
        ("a,label\n1,x\n1e39,y\n", "sample 1 holds a NaN or an infinity"),
        ("a,label\n1,x\n1,2,3\n", "line 3: 3 cells where the header has 2"),
        ("a,label\n1, \n", "line 2, column 'label': is empty"),
        ("a,label,client\n1,x,\n", "line 2, column 'client': is empty"),
        ("a,label\n", "at least one sample"),
        ("a,label\n1,x\n", "at least 2 are needed"),
        ('a,label\n1,"x\n', "can't be read as .csv: unexpected end of data"),
        (b"a,label\n1,\xff\n", "can't be read as .csv: 'utf-8' codec"),
    ],
)
def test_a_fault_is_named_with_its_place(write, text, words):
    with pytest.raises(DataError, match=rf"own\.csv: .*{words}"):
        load_csv(write(text), KEY)


def test_a_client_column_asked_for_by_name_must_be_there(write):
    with pytest.raises(DataError, match="no column site; it has a, label"):
        load_csv(write("a,label\n1,x\n"), KEY, client_column="site")


def test_a_label_column_is_needed_whatever_its_name(write):
    with pytest.raises(DataError, match="no column client; it has a, label"):
        load_csv(write("a,label\n1,x\n"), KEY, label_column="client")


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(DataError, match=r"own\.csv: can't be read as \.csv: .*No such file"):
        load_csv(tmp_path / "own.csv", KEY)
