import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from baffle import bits
from baffle.directions import Law, Sparse
from baffle.errors import SettingsError
from baffle.keys import Key

KEY = Key.root(14)
ODDS = (1, 2, 16, 40, 127, 128)

A = 'root(0)/"run"/"round"/0/0/"directions"/0/0/0'
B = 'root(0)/"run"/"round"/41/1/"directions"/2/3/1'
GOLDEN = {
    (A, 16, 0, 0): [0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, -1, 0, 1, 0, 0, 0, 0],
    (A, 128, 1, 0): [1, -1, 1, 1, -1, -1, -1, 1, -1, -1, -1, -1, -1, -1, 1, -1, -1, 1, -1, 1, 1, 1, -1, 1],
    (B, 16, 0, 0): [0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, -1, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0],
    (B, 40, 99, 12345): [0, 1, -1, -1, 0, 0, 0, 0, 0, 0, 0, 0, -1, 0, 0, 1, 1, -1, 0, 0, 0, 1, 0, 1],
}


def naive(key, odds, direction, start, stop):
    """Return entries as docs say them, a byte a weight, one by one."""
    entries = []
    for byte in bits.words(key, direction, start, stop):
        if byte < odds:
            entries.append(-1)
        elif byte >= 256 - odds:
            entries.append(1)
        else:
            entries.append(0)
    return entries


def test_golden_directions_stay(key_at):
    for (path, odds, direction, start), expected in GOLDEN.items():
        assert Sparse(odds).entries(key_at(path), direction, start, start + 24).tolist() == expected
        assert naive(key_at(path), odds, direction, start, start + 24) == expected


@given(st.sampled_from(ODDS), st.integers(0, 2**64 - 1), st.integers(0, 300), st.integers(0, 300))
def test_entries_are_the_naive_ones_and_a_slice_is_made_alone(odds, direction, start, length):
    law = Sparse(odds)
    part = law.entries(KEY, direction, start, start + length)
    assert part.dtype == np.int8
    assert part.tolist() == naive(KEY, odds, direction, start, start + length)
    assert np.array_equal(part, law.entries(KEY, direction, 0, start + length)[start:])


@pytest.mark.parametrize("odds", ODDS)
def test_signs_and_zeros_have_their_shares(odds):
    n = 1_000_000
    z, law = Sparse(odds).entries(KEY, 0, 0, n), Sparse(odds)
    for entry, chance in ((-1, odds / 256), (1, odds / 256), (0, 1 - odds / 128)):
        assert abs((z == entry).mean() - chance) <= 4 * np.sqrt(chance * (1 - chance) / n) + 1e-12
    assert law.deviation == pytest.approx(np.sqrt(odds / 128), rel=1e-15)
    assert (law.peak, law.most) == (1, None)
    scaled = z / law.deviation
    fourth = 128 / odds
    assert abs(scaled.mean()) <= 4 / np.sqrt(n)
    assert abs((scaled**2).mean() - 1) <= 4 * np.sqrt(max(fourth - 1, 0) / n) + 1e-12


def test_128_has_no_zeros_and_is_decided_by_the_highest_bit():
    z = Sparse(128).entries(KEY, 3, 0, 10_000)
    assert set(np.unique(z)) == {-1, 1}
    assert np.array_equal(z > 0, np.frombuffer(bits.words(KEY, 3, 0, 10_000), np.uint8) >> 7 == 1)


@pytest.mark.parametrize("lag", [1, 2, 8, 16, 128])
def test_entries_of_one_direction_are_uncorrelated(lag):
    z = Sparse(16).entries(KEY, 1, 0, 1_000_000) / Sparse(16).deviation
    products = z[lag:] * z[:-lag]
    assert abs(products.mean()) <= 4 / np.sqrt(products.size)


def test_directions_are_uncorrelated():
    z = np.stack([Sparse(16).entries(KEY, k, 0, 100_000) for k in range(8)]) / Sparse(16).deviation
    correlations = (z @ z.T / 100_000)[np.triu_indices(8, 1)]
    assert np.abs(correlations).max() <= 4 / np.sqrt(100_000)


@pytest.mark.parametrize(("odds", "size", "directions"), [(16, 64, 1), (2, 40, 8), (64, 100, 30), (128, 33, 12)])
def test_the_error_is_the_stated_one(odds, size, directions):
    law, keys = Sparse(odds), 400
    g = np.random.default_rng(3).normal(size=size)
    errors = np.empty(keys)
    for i in range(keys):
        z = np.stack([law.entries(KEY.fold(i), k, 0, size) for k in range(directions)]) / law.deviation
        errors[i] = ((z.T @ (z @ g) / directions - g) ** 2).sum() / (g**2).sum()
    stated = (size - 2 + 128 / odds) / directions
    assert abs(errors.mean() - stated) <= 4 * errors.std() / np.sqrt(keys)


@pytest.mark.parametrize("odds", [0, -1, 129, 1000])
def test_odds_out_of_range_are_refused(odds):
    with pytest.raises(SettingsError, match=r"odds = .*between 1 and 128"):
        Sparse(odds)


@pytest.mark.parametrize("odds", [0, 129])
def test_a_message_with_such_odds_is_refused(odds):
    data = msgspec.msgpack.encode({"law": "sparse", "odds": odds})
    with pytest.raises((SettingsError, msgspec.ValidationError), match="between 1 and 128"):
        msgspec.msgpack.decode(data, type=Law)


def test_it_crosses_the_wire_with_its_odds():
    data = msgspec.msgpack.encode(Sparse(40))
    assert msgspec.msgpack.decode(data) == {"law": "sparse", "odds": 40}
    assert msgspec.msgpack.decode(data, type=Law) == Sparse(40)
    assert msgspec.msgpack.decode(msgspec.msgpack.encode({"law": "sparse"}), type=Law) == Sparse(16)
