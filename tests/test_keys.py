import dataclasses

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from baffle.errors import SettingsError
from baffle.keys import Key

ROOT = Key.root(0)
NAMES = st.one_of(st.integers(0, 2**64 - 1), st.text(max_size=12))
PATHS = st.lists(NAMES, max_size=4)

GOLDEN = {
    "root(0)": (
        "f07ece578610d19ad3afb1758054ca5367b61cb4ab6f6c740203de9605975a44",
        "e463c1d69829bc55fa70bb8b410790d2",
    ),
    "root(18446744073709551615)": (
        "a2fe22ff96d55fbac87b7edc1328d14280d01691ac8c9d13c780959e32553395",
        "c03becaf0ad61edbcf3ac1ee543b2a93",
    ),
    'root(0)/"σ"': (
        "bfe76c88d8d55ef6dc25507dc69c316beba8aa090a48e3a36612c09c0dcee84d",
        "dda07f26eb67c93e5c2a54f6d8b641ec",
    ),
    'root(0)/"run"/"round"/41/1/"directions"/2/3/1': (
        "13e765070a528bce06bf858028664352b789b4d06b47082842e9fb5441bb3611",
        "1612844c2b16aca5c5ddab92762edb6b",
    ),
}


@pytest.mark.parametrize("path", GOLDEN)
def test_golden_keys_stay(path, key_at):
    key = key_at(path)
    assert (key.secret.hex(), key.aes().hex()) == GOLDEN[path]


def test_the_documented_keys_are_the_golden_ones(golden, key_at):
    documented = {path: values for path, *values in golden("Keys")}
    assert GOLDEN.keys() <= documented.keys()
    for path, (secret, aes) in documented.items():
        assert (key_at(path).secret.hex(), key_at(path).aes().hex()) == (secret, aes)


@given(PATHS, PATHS)
def test_folding_along_a_path_is_folding_name_by_name(first, second):
    assert ROOT.fold(*first, *second) == ROOT.fold(*first).fold(*second)


@given(PATHS, PATHS)
def test_different_paths_have_different_keys(first, second):
    assume(first != second)
    assert ROOT.fold(*first) != ROOT.fold(*second)
    assert ROOT.fold(*first).aes() != ROOT.fold(*second).aes()


def test_a_number_is_not_its_digits_and_a_text_is_not_its_letters():
    keys = [ROOT.fold(7), ROOT.fold("7"), ROOT.fold("ab"), ROOT.fold("a", "b"), ROOT.fold("b", "a"), ROOT.fold("")]
    assert len({key.secret for key in [ROOT, *keys]}) == 7


@given(st.integers(0, 2**64 - 1), st.integers(0, 2**64 - 1))
def test_different_seeds_have_different_roots(first, second):
    assert (Key.root(first) == Key.root(second)) == (first == second)


@pytest.mark.parametrize("seed", [-1, 2**64])
def test_a_seed_out_of_range_is_refused_in_words(seed):
    with pytest.raises(SettingsError) as caught:
        Key.root(seed)
    assert (caught.value.field, caught.value.value) == ("seed", seed)
    assert "between 0 and 2**64 - 1" in caught.value.rule


@pytest.mark.parametrize("length", [0, 16, 31, 33])
def test_a_secret_of_another_length_is_refused_and_not_shown(length):
    with pytest.raises(SettingsError, match=f"key = '{length} bytes': must be 32 bytes"):
        Key(b"\x5a" * length)


def test_a_key_does_not_show_its_secret():
    assert repr(ROOT) == "Key()"


def test_a_key_cannot_be_changed():
    with pytest.raises(dataclasses.FrozenInstanceError):
        ROOT.secret = bytes(32)


def test_a_generator_begins_anew_at_every_call():
    first, again = ROOT.generator().integers(0, 2**63, 8), ROOT.generator().integers(0, 2**63, 8)
    assert np.array_equal(first, again)
    assert not np.intersect1d(first, ROOT.fold("x").generator().integers(0, 2**63, 8)).size
