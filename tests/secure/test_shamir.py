"""Shares: any t tell the secret, by the kept library's own arithmetic and as it does; t − 1 tell nothing."""

from __future__ import annotations

import pytest
from Crypto.Protocol.SecretSharing import Shamir
from hypothesis import given, settings
from hypothesis import strategies as st

from baffle.errors import MissingExtraError, SettingsError
from baffle.secure.shamir import Combiner, split

secrets = st.binary(min_size=16, max_size=16)


@given(secrets, st.data())
@settings(max_examples=60)
def test_any_t_shares_tell_the_secret(secret, data) -> None:
    n = data.draw(st.integers(1, 9))
    t = data.draw(st.integers(1, n))
    shares = split(t, n, secret)
    indices = data.draw(st.permutations(range(1, n + 1)))[:t]
    chosen = [shares[i - 1] for i in indices]
    assert Combiner.of(indices)(chosen) == Shamir.combine(list(zip(indices, chosen, strict=True))) == secret


@given(secrets, secrets)
@settings(max_examples=20)
def test_with_one_share_less_every_secret_is_possible(secret, other) -> None:
    # p(0) and p at t − 1 places fix a polynomial: so some last share makes any secret of these.
    shares = split(4, 4, secret)
    weights = Combiner.of([1, 2, 3, 4])
    unit = [Combiner.of([1, 2, 3, 4])([bytes(16)] * 3 + [bytes(15) + b"\1"])]
    last = Shamir.combine([(1, shares[0]), (2, shares[1]), (3, shares[2]), (4, bytes(16))])
    missing = int.from_bytes(other, "big") ^ int.from_bytes(last, "big")
    assert weights.weights[3] == int.from_bytes(unit[0], "big")
    # missing / λ_4, as y · p/(p + q) of two shares: (p + q, missing), (p, 0) with p = 1 and p + q = λ_4 + 1.
    needed = Shamir.combine([(1 ^ weights.weights[3], missing.to_bytes(16, "big")), (1, bytes(16))])
    assert weights([*shares[:3], needed]) == other


def test_known_shares() -> None:
    # p(x) = s + x · a with a = 1: the shares of 0 are 1 and 2; of s they are s + 1 and s + 2.
    secret = bytes(15) + b"\x40"
    assert Combiner.of([1, 2])([bytes(15) + b"\x41", bytes(15) + b"\x42"]) == secret


@pytest.mark.parametrize(
    "what", [lambda: split(2, 3, b"short"), lambda: split(4, 3, bytes(16)), lambda: split(0, 3, bytes(16))]
)
def test_splits_that_are_refused(what) -> None:
    with pytest.raises(SettingsError):
        what()


@pytest.mark.parametrize("indices", [[], [0, 1], [2, 2]])
def test_indices_that_are_refused(indices) -> None:
    with pytest.raises(SettingsError, match="indices"):
        Combiner.of(indices)


def test_shares_of_other_sizes_are_refused() -> None:
    for shares in ([bytes(16)], [bytes(16), bytes(15)]):
        with pytest.raises(SettingsError, match="shares"):
            Combiner.of([1, 2])(shares)


def test_without_the_package_its_extra_is_named(monkeypatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "Crypto.Protocol.SecretSharing", None)
    monkeypatch.setitem(__import__("sys").modules, "Crypto", None)
    with pytest.raises(MissingExtraError, match=r"baffle\[secure\]"):
        split(2, 3, bytes(16))
