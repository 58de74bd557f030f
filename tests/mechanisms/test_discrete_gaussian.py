import math
import os
import re
from collections import Counter
from fractions import Fraction
from random import Random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from baffle.errors import SettingsError
from baffle.mechanisms import Quantiser
from baffle.mechanisms.discrete_gaussian import DiscreteGaussian, _below, into_ring, moved, out_of_ring

VARIANCES = st.fractions(Fraction(1, 4), 1000, max_denominator=50)


def chi_square(draws, noise, reach):
    """χ² of draws in [−reach, reach], the rest as one more class."""
    inside = noise.probabilities(reach)
    counts = np.array([(draws == x).sum() for x in range(-reach, reach + 1)])
    counts, expected = (np.append(part, whole - part.sum()) for part, whole in ((counts, draws.size), (inside, 1.0)))
    expected = expected * draws.size
    return ((counts - expected) ** 2 / expected).sum()


def sum_of(noise, shares, reach):
    """The exact law of a sum of shares on [−shares·reach, shares·reach], but for tails beyond `reach`."""
    one = noise.probabilities(reach)
    total = np.ones(1)
    for _ in range(shares):
        total = np.convolve(total, one)
    return total


def shifted_divergence(law, order, distance):
    """D_α between a law on a range of integers and itself moved by `distance`, over where neither underflows."""
    first, second = law[distance:], law[: law.size - distance]
    seen = (first > 1e-280) & (second > 1e-280)
    terms = order * np.log(first[seen]) + (1 - order) * np.log(second[seen])
    return np.logaddexp.reduce(terms) / (order - 1)


# Draws.


@pytest.mark.parametrize("variance", [Fraction(1, 4), Fraction(5, 2), Fraction(400)])
def test_draws_have_the_law_and_no_near_one(variance):
    """200,000 of them: χ² beyond 6 deviations of its mean happens fewer than once in 10⁵ runs."""
    noise = DiscreteGaussian(variance)
    reach = max(1, math.ceil(2.5 * math.sqrt(variance)))
    draws = noise(200_000, Random(3).randbytes)
    limit = 2 * reach + 1 + 6 * math.sqrt(2 * (2 * reach + 1))
    assert chi_square(draws, noise, reach) < limit
    assert chi_square(draws, DiscreteGaussian(variance * Fraction(104, 100)), reach) > limit
    assert chi_square(draws + 1, noise, reach) > limit


def test_shape_kind_and_repetition():
    noise = DiscreteGaussian(Fraction(9))
    first, again = (noise((3, 5), Random(4).randbytes) for _ in range(2))
    assert first.shape == (3, 5)
    assert first.dtype == np.int64
    assert np.array_equal(first, again)
    assert not np.array_equal(first, noise((3, 5), Random(5).randbytes))


def test_the_operating_systems_randomness_will_do():
    """Which bytes they are is not decided here; that no two draws are the same is."""
    first, second = (DiscreteGaussian(Fraction(10**6))(2000, os.urandom) for _ in range(2))
    assert first.shape == second.shape == (2000,)
    assert (first != second).sum() > 1900  # two of 2000 would be the same by chance, each once in 3500
    assert max(np.abs(first).max(), np.abs(second).max()) < 12_000  # 12 deviations


def test_a_variance_whose_squares_no_float_holds_exactly():
    """σ² = 2⁹⁹/3: every step is in whole numbers."""
    variance = Fraction(1 << 99, 3)
    draws = DiscreteGaussian(variance)(2000, Random(0).randbytes)
    assert abs(draws.std() / math.sqrt(variance) - 1) < 6 / math.sqrt(4000)
    assert abs((draws % 2).mean() - 0.5) < 6 / 2 / math.sqrt(2000)


def test_whole_numbers_below_a_limit_are_equally_likely():
    """With every first byte once: three values are possible, and a byte that would be a fourth is thrown back."""
    counts = Counter()
    for byte in range(256):
        source = iter([bytes([byte]), b"\x00"])
        thrown_back = byte >> 6 == 3
        counts["thrown back" if thrown_back else _below(3, lambda _, source=source: next(source))] += 1
    assert counts == {0: 64, 1: 64, 2: 64, "thrown back": 64}


# The law.


@given(VARIANCES, st.integers(1, 40))
def test_probabilities_are_those_of_the_formula(variance, reach):
    found = DiscreteGaussian(variance).probabilities(reach)
    steps = np.arange(-reach, reach + 1)
    assert found == pytest.approx(found[reach] * np.exp(-(steps**2) / (2 * float(variance))), rel=1e-12)
    assert found.sum() <= 1 + 1e-12


@given(VARIANCES)
def test_the_law_adds_up_and_its_variance_is_no_larger_than_its_parameter(variance):
    reach = math.ceil(45 * math.sqrt(variance))
    found = DiscreteGaussian(variance).probabilities(reach)
    assert abs(found.sum() - 1) < 1e-12
    assert found @ np.arange(-reach, reach + 1) ** 2 <= float(variance) * (1 + 1e-12)


# What a sum of shares is worth.


@pytest.mark.parametrize("variance", [Fraction(1, 4), Fraction(1, 2), Fraction(1), Fraction(4)])
@pytest.mark.parametrize("shares", [1, 2, 3, 10])
@pytest.mark.parametrize(("order", "distance"), [(1.5, 1), (2.0, 1), (4.0, 2), (8.0, 3)])
def test_the_bound_holds_for_the_exact_sum(variance, shares, order, distance):
    noise = DiscreteGaussian(variance)
    law = sum_of(noise, shares, math.ceil(36 * math.sqrt(variance)))
    exact = shifted_divergence(law, order, distance)
    bound = noise.divergence(order, distance, 1, shares)
    assert exact <= bound * (1 + 1e-9)
    if variance >= 4:
        assert bound <= exact * (1 + 1e-6) + 1e-12  # and is no looser than the Gaussian's own


@pytest.mark.parametrize("variance", [Fraction(1, 4), Fraction(1, 2), Fraction(1)])
@pytest.mark.parametrize("shares", [2, 3, 8])
def test_a_sum_is_as_far_from_gaussian_as_told(variance, shares):
    noise = DiscreteGaussian(variance)
    reach = math.ceil(30 * math.sqrt(variance))
    whole = DiscreteGaussian(shares * variance).probabilities(shares * reach)
    middle, width = shares * reach, math.ceil(5 * math.sqrt(shares * variance))
    ratio = np.log(sum_of(noise, shares, reach)[middle - width : middle + width + 1])
    ratio -= np.log(whole[middle - width : middle + width + 1])
    assert np.abs(ratio).max() <= noise.inflation(shares) + 1e-12


@given(VARIANCES, st.floats(1.1, 100), st.floats(0.1, 100), st.integers(1, 500), st.integers(2, 200))
def test_who_fails_counts_as_not_there(variance, order, distance, slopes, clients):
    noise = DiscreteGaussian(variance)
    failing = clients // 2
    assert noise.divergence(order, distance, slopes, clients, failing) == noise.divergence(
        order, distance, slopes, clients - failing
    )
    assert noise.divergence(order, distance, slopes, clients, clients) == math.inf


@given(st.floats(1.1, 100), st.floats(0.1, 100), st.integers(1, 500), st.integers(1, 1000))
def test_shares_of_two_quanta_are_as_good_as_a_gaussian(order, distance, slopes, shares):
    found = DiscreteGaussian(Fraction(4)).divergence(order, distance, slopes, shares)
    assert found == pytest.approx(order * distance**2 / (2 * shares * 4), rel=1e-9, abs=1e-9)
    assert DiscreteGaussian(Fraction(4)).inflation(10_000) < 1e-15


# Rounding and the ring.


@settings(max_examples=50)
@given(st.integers(1, 40), st.integers(2, 8), st.integers(0, 99))
def test_rounded_slopes_move_a_sum_no_farther_than_told(count, bits, seed):
    generator = np.random.default_rng(seed)
    slopes = generator.standard_normal((2, count))
    slopes /= np.linalg.norm(slopes, axis=1, keepdims=True)
    levels = Quantiser(bits).levels
    first, second = Quantiser(bits)(slopes, np.ones(count), generator.random((2, count)))
    assert np.linalg.norm(first - second) <= moved(levels, count)
    assert np.linalg.norm(first) <= moved(levels, count, replaced=False)


@given(st.lists(st.integers(-(2**19), 2**19 - 1), min_size=1, max_size=9), st.integers(20, 62))
def test_sums_in_a_ring_come_out_as_they_are_while_they_fit(values, bits):
    integers = np.array(values)
    assert np.array_equal(out_of_ring(into_ring(integers, bits), bits), integers)
    halves = into_ring(integers, bits) + into_ring(-integers, bits)
    assert (out_of_ring(halves, bits) == 0).all()


def test_a_sum_beyond_the_ring_wraps():
    assert out_of_ring(into_ring(np.array([127, 128, -128, -129]), 8), 8).tolist() == [127, -128, -128, 127]


def test_how_often_sums_wrap():
    """30 deviations of room: never; none: certain; and measured where it happens."""
    noise = DiscreteGaussian(Fraction(4))
    assert 0 <= noise.wrapping(7, 100, 10, 12) < 1e-300
    assert noise.wrapping(127, 100, 10, 8) == 1.0
    bound = noise.wrapping(7, 1, 1, 5)  # 15 − 7 = 8, four deviations
    reach = 40
    exceeding = noise.probabilities(reach)[: reach - 8].sum()
    assert exceeding < bound < 1e-3


@pytest.mark.parametrize("variance", [Fraction(1, 5), 0, -1, 1 << 101, math.nan, math.inf])
def test_a_variance_out_of_range_is_refused(variance):
    with pytest.raises(
        SettingsError, match=rf"^variance = {re.escape(repr(variance))}: must be between 1/4 and 2\^100$"
    ):
        DiscreteGaussian(variance)


def test_arguments_out_of_range_are_refused():
    noise = DiscreteGaussian(Fraction(1))
    with pytest.raises(SettingsError, match=r"^failing = 3: must be between 0 and 2$"):
        noise.divergence(2.0, 1.0, 1, 2, 3)
    with pytest.raises(SettingsError, match=r"^clients = 0: must be 1 or more$"):
        noise.divergence(2.0, 1.0, 1, 0)
    with pytest.raises(SettingsError, match=r"^slopes = 0: must be 1 or more$"):
        moved(1.0, 0)
    with pytest.raises(SettingsError, match=r"^bits = 63: must be between 2 and 62$"):
        into_ring(np.ones(1, np.int64), 63)
