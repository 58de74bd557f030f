import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from baffle import bits
from baffle.directions import Law, Orthogonal, Rademacher
from baffle.errors import SettingsError
from baffle.keys import Key

KEY = Key.root(13)

A = 'root(0)/"run"/"round"/0/0/"directions"/0/0/0'
B = 'root(0)/"run"/"round"/41/1/"directions"/2/3/1'
GOLDEN = {
    (A, 4, 0, 0): [1, 1, -1, 1, 1, 1, 1, -1, -1, 1, 1, 1],
    (A, 4, 15, 4): [1, -1, -1, -1, 1, 1, 1, -1, 1, 1, -1, -1],
    (A, 15, 0, 0): [-1, 1, -1, -1, 1, -1, -1, -1, 1, 1, 1, -1],
    (B, 15, 32767, 12345): [-1, 1, -1, 1, 1, -1, -1, 1, -1, -1, -1, 1],
}


def matrix(law, key=KEY, directions=None, size=None):
    count = law.most if directions is None else directions
    return np.stack([law.entries(key, k, 0, size or law.most) for k in range(count)]).astype(np.int64)


def test_golden_directions_stay_and_are_the_documented_ones(golden, key_at):
    rows = [row for row in golden("Directions") if row[1].startswith("orthogonal")]
    found = {(path, int(law[11:-1]), int(k), int(start)): [*map(int, z.split())] for path, law, k, start, z in rows}
    assert found == GOLDEN
    for (path, order, direction, start), expected in GOLDEN.items():
        assert Orthogonal(order).entries(key_at(path), direction, start, start + 12).tolist() == expected


@pytest.mark.parametrize("order", range(10))
def test_directions_are_signs_and_orthogonal(order):
    law = Orthogonal(order)
    z = matrix(law)
    assert np.array_equal(z @ z.T, law.most * np.eye(law.most))
    assert set(z.ravel()) <= {-1, 1}
    assert (law.deviation, law.peak, law.most) == (1.0, 1, 2**order)


@pytest.mark.parametrize("size", [1, 3, 64, 100, 128])
def test_as_many_directions_as_there_are_give_the_exact_gradient(size):
    law, g = Orthogonal(7), np.random.default_rng(size).integers(-(2**20), 2**20, size)
    z = matrix(law, size=size)
    assert np.array_equal(z.T @ (z @ g), law.most * g)


def test_directions_have_zero_mean_and_identity_covariance():
    law, keys = Orthogonal(3), 2000
    z = np.stack([matrix(law, KEY.fold(i), 2) for i in range(keys)]).astype(float)
    assert np.abs(z.mean(0)).max() <= 4.5 / np.sqrt(keys)
    second = np.einsum("nki,nkj->kij", z, z) / keys
    assert np.abs(second - np.eye(8)).max() <= 4.5 / np.sqrt(keys)


@pytest.mark.parametrize(
    ("order", "size", "directions"), [(6, 64, 1), (6, 64, 48), (6, 40, 8), (6, 33, 60), (4, 5, 12)]
)
def test_the_error_is_the_stated_one(order, size, directions):
    law, keys = Orthogonal(order), 300
    g = np.random.default_rng(3).normal(size=size)
    errors = np.empty(keys)
    for i in range(keys):
        z = matrix(law, KEY.fold(i), directions, size)
        errors[i] = ((z.T @ (z @ g) / directions - g) ** 2).sum() / (g**2).sum()
    n, k, most = size, directions, law.most
    stated = (n - 1) / k * (most - k) / (most - 1)
    assert abs(errors.mean() - stated) <= 4 * errors.std() / np.sqrt(keys) + 1e-12


def test_without_padding_the_error_is_less_than_that_of_independent_signs():
    g = np.random.default_rng(4).normal(size=64)
    for law, share in ((Orthogonal(6), 0.25), (Rademacher(), 1.0)):
        z = [matrix(law, KEY.fold(i), 48, 64) for i in range(200)]
        error = np.mean([((m.T @ (m @ g) / 48 - g) ** 2).sum() for m in z]) / (g**2).sum()
        assert error == pytest.approx(63 / 48 * share, rel=0.1)


@given(st.integers(0, 9), st.data())
def test_a_slice_is_made_alone(order, data):
    law = Orthogonal(order)
    direction = data.draw(st.integers(0, law.most - 1))
    start = data.draw(st.integers(0, law.most))
    stop = data.draw(st.integers(start, law.most))
    whole, part = law.entries(KEY, direction, 0, law.most), law.entries(KEY, direction, start, stop)
    assert part.dtype == np.int8
    assert np.array_equal(part, whole[start:stop])
    packed = law.packed(KEY, direction, start, stop)
    assert (packed.dtype, packed.size) == (np.uint8, -(-stop // 8) - start // 8)
    assert np.array_equal(
        2 * np.unpackbits(packed, bitorder="little").view(np.int8)[start % 8 :][: part.size] - 1, part
    )


@pytest.mark.parametrize("order", [0, 1, 5, 12])
def test_rows_are_sorted_by_words_of_the_second_stream(order):
    law = Orthogonal(order)
    rows = law.rows(KEY, 0, law.most)
    words = np.frombuffer(bits.words(KEY, 1, 0, 4 * law.most), "<u4")
    assert sorted(rows.tolist()) == list(range(law.most))
    assert (np.diff(words[rows].astype(np.int64)) >= 0).all()
    with pytest.raises(ValueError, match="read-only"):
        rows[0] = 0


def test_equal_words_stand_in_the_order_of_their_numbers(monkeypatch):
    words = np.array([7, 3, 7, 3, 2**32 - 1, 0, 7, 3], "<u4").tobytes()
    monkeypatch.setattr(bits, "words", lambda *_: words)
    assert Orthogonal(3).rows(Key.root(999), 0, 8).tolist() == [5, 1, 3, 7, 0, 2, 6, 4]


@pytest.mark.parametrize("order", [-1, 25, 0.5 + 24])
def test_an_order_out_of_range_is_refused(order):
    with pytest.raises(SettingsError, match=r"order = .*between 0 and 24"):
        Orthogonal(order)


def test_directions_and_weights_that_are_not_there_are_refused():
    law = Orthogonal(4)
    with pytest.raises(SettingsError, match="direction = 16: must be below 16"):
        law.entries(KEY, 16, 0, 4)
    with pytest.raises(SettingsError, match="order = 4: is for at most 16 weights and these are 17"):
        law.entries(KEY, 0, 0, 17)


def test_it_crosses_the_wire_with_its_order():
    data = msgspec.msgpack.encode(Orthogonal(15))
    assert msgspec.msgpack.decode(data) == {"law": "orthogonal", "order": 15}
    assert msgspec.msgpack.decode(data, type=Law) == Orthogonal(15)
