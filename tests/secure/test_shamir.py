"""Shares: any t tell the secret, by hand and by the slowest means there are; t − 1 are consistent with every secret."""

from __future__ import annotations

from fractions import Fraction
from itertools import combinations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from baffle.errors import SettingsError
from baffle.secure import shamir
from baffle.secure.shamir import PRIME, Combiner, draw, split
from secured import drawn

secrets = st.integers(0, PRIME - 1)
indices = st.lists(st.integers(1, 1000), min_size=1, max_size=12, unique=True)


def number(data: bytes) -> int:
    return int.from_bytes(data, "big")


def sixteen(value: int) -> bytes:
    return value.to_bytes(16, "big")


def given_out(*values: int):
    """Return a source of these numbers, 16 bytes each."""
    left = list(values)
    return lambda count: left.pop(0).to_bytes(count, "big")


def naive(points: list[tuple[int, int]], at: int = 0) -> int:
    """Return the value of the polynomial through these points, by Lagrange's formula in fractions, term by term."""
    total = Fraction(0)
    for i, (x, y) in enumerate(points):
        term = Fraction(y)
        for j, (other, _) in enumerate(points):
            if j != i:
                term *= Fraction(at - other, x - other)
        total += term
    return total.numerator * pow(total.denominator, -1, PRIME) % PRIME


def test_the_modulus_is_the_largest_prime_below_2_to_the_128() -> None:
    """By Miller and Rabin, to the first 20 primes as bases; every odd number above it fails the same."""

    def prime(n: int) -> bool:
        odd, twos = n - 1, 0
        while odd % 2 == 0:
            odd, twos = odd // 2, twos + 1
        for base in (2, 3, 5, 7, 11, 13, 17, 19, 23, 29, 31, 37, 41, 43, 47, 53, 59, 61, 67, 71):
            chain = [pow(base, odd << k, n) for k in range(twos)]
            if chain[0] != 1 and n - 1 not in chain:
                return False
        return True

    assert PRIME == 2**128 - 159
    assert [n for n in range(2**128 - 199, 2**128, 2) if prime(n)][-1] == PRIME


def test_shares_by_hand() -> None:
    # f(x) = 7 + 3x + 2x²: 12, 21, 34, 51; coefficients come from the highest power down.
    assert [number(share) for share in split(3, 4, sixteen(7), given_out(2, 3))] == [12, 21, 34, 51]
    # λ of 1, 2, 3 at 0: 3, −3, 1.
    assert Combiner.of([1, 2, 3]).weights == (3, PRIME - 3, 1)
    assert number(Combiner.of([1, 2, 3])([sixteen(y) for y in (12, 21, 34)])) == 7
    # f(x) = −1 + x, which wraps: 0, 1, 2.
    assert [number(share) for share in split(2, 3, sixteen(PRIME - 1), given_out(1))] == [0, 1, 2]


@given(secrets, st.data())
@settings(max_examples=60)
def test_any_t_shares_tell_the_secret_and_are_on_a_polynomial_of_degree_t_minus_1(secret, data) -> None:
    n = data.draw(st.integers(1, 7))
    t = data.draw(st.integers(1, n))
    shares = [number(share) for share in split(t, n, sixteen(secret), drawn(data.draw(st.integers(0, 99))))]
    for chosen in combinations(range(1, n + 1), t):
        points = [(i, shares[i - 1]) for i in chosen]
        assert number(Combiner.of(chosen)([sixteen(y) for _, y in points])) == naive(points) == secret
        assert [naive(points, at) for at in range(1, n + 1)] == shares


@given(indices, st.data())
@settings(max_examples=60)
def test_combining_is_lagranges_formula_whatever_the_shares(chosen, data) -> None:
    points = [(x, data.draw(secrets)) for x in chosen]
    assert number(Combiner.of(chosen)([sixteen(y) for _, y in points])) == naive(points)


@given(st.integers(2, 6), secrets, secrets, st.integers(0, 99))
@settings(max_examples=40)
def test_with_one_share_less_every_secret_is_possible_by_one_polynomial(t, secret, other, seed) -> None:
    """So t − 1 shares say nothing: as coefficients are uniform, each of these polynomials is as likely."""
    shares = split(t, t, sixteen(secret), drawn(seed))
    weights = Combiner.of(range(1, t + 1)).weights
    known = sum(weight * number(share) for weight, share in zip(weights[:-1], shares[:-1], strict=True))
    last = (other - known) * pow(weights[-1], -1, PRIME) % PRIME  # the one share that makes it the other secret
    assert number(Combiner.of(range(1, t + 1))([*shares[:-1], sixteen(last)])) == other


def test_shares_of_two_secrets_look_alike_below_t(monkeypatch) -> None:
    """In a field of 11 all polynomials can be counted: 2 shares of 3 have each pair of values as often, whatever s."""
    monkeypatch.setattr(shamir, "PRIME", 11)
    for secret in (0, 5):
        found = {}
        for first in range(11):
            for second in range(11):
                shares = split(3, 3, sixteen(secret), given_out(first, second))
                for pair in combinations(range(3), 2):
                    key = pair, shares[pair[0]], shares[pair[1]]
                    found[key] = found.get(key, 0) + 1
        assert len(found) == 3 * 121
        assert set(found.values()) == {1}


def test_what_is_drawn_is_below_the_modulus() -> None:
    assert number(draw(given_out(PRIME, 2**128 - 1, PRIME - 1))) == PRIME - 1
    assert [number(share) for share in split(2, 2, sixteen(1), given_out(PRIME + 4, 2))] == [3, 5]


@pytest.mark.parametrize(
    ("what", "words"),
    [
        (lambda: split(2, 3, b"short", drawn(1)), "must be 16 bytes"),
        (lambda: split(2, 3, sixteen(PRIME), drawn(1)), r"below 2\*\*128 - 159"),
        (lambda: split(4, 3, bytes(16), drawn(1)), "threshold"),
        (lambda: split(0, 3, bytes(16), drawn(1)), "threshold"),
    ],
)
def test_splits_that_are_refused(what, words) -> None:
    with pytest.raises(SettingsError, match=words):
        what()


@pytest.mark.parametrize("chosen", [[], [0, 1], [2, 2], [1, PRIME]])
def test_indices_that_are_refused(chosen) -> None:
    with pytest.raises(SettingsError, match="must be one or more, all different"):
        Combiner.of(chosen)


def test_shares_of_other_sizes_are_refused() -> None:
    for shares in ([bytes(16)], [bytes(16), bytes(15)]):
        with pytest.raises(SettingsError, match="must be 2 of 16 bytes"):
            Combiner.of([1, 2])(shares)
