import itertools
import math
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st

from baffle.errors import SettingsError
from baffle.mechanisms.rqm import RandomisedQuantiser

MANY = 1_000_000
SHARES = st.floats(-1, 1)
ANY = st.builds(RandomisedQuantiser, st.integers(2, 17), st.floats(0.02, 0.98), st.floats(0.05, 10))
SMALL = st.builds(RandomisedQuantiser, st.integers(2, 6), st.floats(0.05, 0.95), st.floats(0.1, 5))


def law(quantiser, share):
    return quantiser.probabilities(np.array(share))


def renyi(order, first, second):
    return math.log(sum(p**order * q ** (1 - order) for p, q in zip(first, second, strict=True))) / (order - 1)


def by_kept_sets(m, q, extension, share):
    """The mechanism as it is told, in fractions: over all sets of kept levels."""
    q, share, reach = Fraction(q), Fraction(share), 1 + Fraction(extension)
    level = [-reach + 2 * reach * i / (m - 1) for i in range(m)]
    found = [Fraction(0)] * m
    for kept in itertools.product((False, True), repeat=m - 2):
        weight = math.prod((q if one else 1 - q for one in kept), start=Fraction(1))
        left = [0, *(i for i, one in enumerate(kept, 1) if one), m - 1]
        b = next(i for i in left[1:] if level[i] >= share)
        a = left[left.index(b) - 1]
        up = (share - level[a]) / (level[b] - level[a])
        found[b] += weight * up
        found[a] += weight * (1 - up)
    return found


def chi_square(counts, probabilities):
    expected = counts.sum() * probabilities
    return ((counts - expected) ** 2 / expected).sum()


def drawn(quantiser, share, seed, many=MANY):
    slopes = np.full((many // 100, 100), share)
    generator = np.random.default_rng(seed)
    found = np.zeros(quantiser.levels, np.int64)
    for part in np.array_split(slopes, 20):
        found += np.bincount(quantiser.draw(part, np.ones(100), generator).ravel(), minlength=quantiser.levels)
    return found


# Probabilities.


def test_probabilities_by_hand():
    """Levels −2, 0 and 2; x = 1 lies between 0 and 2 if 0 is kept, else three quarters of the way from −2 to 2."""
    assert law(RandomisedQuantiser(3, 0.5, 1.0), 1.0).tolist() == [0.125, 0.25, 0.625]


@settings(max_examples=50, deadline=None)
@given(st.integers(2, 8), st.floats(0.05, 0.95), st.floats(0.1, 5), SHARES)
def test_probabilities_are_those_of_every_kept_set(m, q, extension, share):
    found = law(RandomisedQuantiser(m, q, extension), share)
    expected = by_kept_sets(m, q, extension, share)
    assert found == pytest.approx([float(value) for value in expected], rel=1e-12, abs=1e-15)


@given(ANY, SHARES)
def test_probabilities_add_up_and_the_mean_is_the_slope(quantiser, share):
    found = law(quantiser, share)
    decoded = quantiser.slopes(np.arange(quantiser.levels), np.ones(()))
    assert abs(found.sum() - 1) <= 1e-12
    assert abs(found @ decoded - share) <= 1e-12 * (1 + quantiser.extension)
    assert (found > 0).all()


@given(ANY, SHARES)
def test_a_slope_and_its_negative_have_mirrored_laws(quantiser, share):
    assert law(quantiser, -share) == pytest.approx(law(quantiser, share)[::-1], rel=1e-9, abs=1e-15)


@given(ANY, SHARES, st.floats(0, 1))
def test_between_corners_the_law_is_linear(quantiser, share, part):
    corners = quantiser.corners
    after = min(int(np.searchsorted(corners, share)), corners.size - 1)
    low, high = corners[max(after - 1, 0)], corners[after]
    mixed = part * law(quantiser, low) + (1 - part) * law(quantiser, high)
    assert law(quantiser, part * low + (1 - part) * high) == pytest.approx(mixed, rel=1e-9, abs=1e-13)


# Samples.


@pytest.mark.parametrize(
    ("quantiser", "share"),
    [
        (RandomisedQuantiser(16, 0.42, 1.0), 0.3),
        (RandomisedQuantiser(16, 0.42, 1.0), -1.0),
        (RandomisedQuantiser(5, 0.9, 0.2), 1.0),
        (RandomisedQuantiser(2, 0.5, 0.5), 0.1),
    ],
)
def test_a_million_samples_have_the_law_and_no_near_one(quantiser, share):
    """χ² of m − 1 degrees of freedom: beyond 6 deviations of its mean fewer than once in 10⁵ runs."""
    counts, free = drawn(quantiser, share, seed=1), quantiser.levels - 1
    limit = free + 6 * math.sqrt(2 * free)
    assert chi_square(counts, law(quantiser, share)) < limit
    m, q, extension = quantiser.levels, quantiser.keep, quantiser.extension
    wrong = [RandomisedQuantiser(m, q, extension * (1.02 if m > 2 else 1.1))]
    wrong += [RandomisedQuantiser(m, q + 0.01, extension)] if m > 2 else []
    for other in wrong:
        assert chi_square(counts, law(other, share)) > limit
    shifted = np.roll(law(quantiser, share), 1)
    assert chi_square(counts, shifted) > limit


@pytest.mark.parametrize("order", [2.0, 3.0])
def test_the_divergence_of_two_million_samples_is_the_exact_one(order):
    """The plug-in estimate's deviation is that of ln Σ pᵅ q¹⁻ᵅ to first order in the frequencies; five are allowed."""
    quantiser = RandomisedQuantiser(16, 0.42, 1.0)
    first, second = law(quantiser, 1.0), law(quantiser, -1.0)
    found = renyi(order, *(drawn(quantiser, share, seed) / MANY for share, seed in ((1.0, 2), (-1.0, 3))))
    moment = (first**order * second ** (1 - order)).sum()
    slopes = (order * (first / second) ** (order - 1), (1 - order) * (first / second) ** order)
    spread = sum((p * d**2).sum() - (p * d).sum() ** 2 for p, d in zip((first, second), slopes, strict=True))
    allowed = 5 * math.sqrt(spread / MANY) / moment / (order - 1)
    assert abs(found - quantiser.divergence(order)) < allowed
    assert allowed < 0.02 * found
    assert abs(found - RandomisedQuantiser(16, 0.45, 1.0).divergence(order)) > allowed


def test_indices_by_hand():
    """Levels −2, −1, 0, 1, 2. A slope of ½ · c between 0 and 1; what is not finite counts as 0, and 0 is a level."""
    quantiser = RandomisedQuantiser(5, 0.5, 1.0)
    kept, left_out = 0.0, 0.9
    uniforms = np.array(
        [
            [left_out, kept, kept, 0.4],  # 0 and 1 kept: up with ½
            [left_out, kept, kept, 0.6],
            [left_out, left_out, left_out, 0.62],  # −2 and 2: up with 2.5/4
            [left_out, left_out, left_out, 0.63],
            [kept, left_out, left_out, 0.49],  # −1 and 2: up with 1.5/3
            [left_out, kept, left_out, 0.0],  # not finite: 0 itself, which is kept
        ]
    )
    slopes = np.array([1.0, 1.0, 1.0, 1.0, 1.0, np.nan])
    assert quantiser(slopes, np.full(6, 2.0), uniforms).tolist() == [3, 2, 4, 0, 4, 2]


@given(ANY, st.floats(allow_nan=True, allow_infinity=True), st.floats(1e-6, 1e6), st.integers(0, 99))
@example(RandomisedQuantiser(4, 0.5, 1.0), 1.7e308, 1e-6, 0)
def test_any_slope_gives_an_index_in_range_and_the_same_one_as_at_its_bound(quantiser, slope, bound, seed):
    slopes, bounds = np.full((2, 3), slope), np.full(3, bound)
    indices = quantiser.draw(slopes, bounds, np.random.default_rng(seed))
    limited = np.clip(np.nan_to_num(slopes, nan=0.0, posinf=0.0, neginf=0.0), -bound, bound)
    assert indices.dtype == np.int64
    assert ((indices >= 0) & (indices < quantiser.levels)).all()
    assert np.array_equal(indices, quantiser.draw(limited, bounds, np.random.default_rng(seed)))


def test_sums_of_indices_decode_to_the_mean_of_the_clients():
    quantiser, generator = RandomisedQuantiser(16, 0.4, 0.5), np.random.default_rng(5)
    bounds, clients = np.array([1.0, 3.0]), 7
    slopes = generator.uniform(-1, 1, (clients, 2)) * bounds
    indices = np.stack([quantiser.draw(slopes[c], bounds, generator) for c in range(clients)])
    single = np.stack([quantiser.slopes(indices[c], bounds) for c in range(clients)])
    assert quantiser.slopes(indices.sum(axis=0), bounds, clients) == pytest.approx(single.mean(axis=0), rel=1e-12)


# Divergences.


@settings(max_examples=30, deadline=None)
@given(SMALL, st.lists(SHARES, max_size=3), st.floats(1.1, 20), SHARES, SHARES)
def test_the_divergence_of_a_sum_is_that_of_all_outcomes(quantiser, others, order, one, two):
    def of_sum(share):
        spreads = [law(quantiser, x) for x in (share, *others)]
        sums = np.zeros(len(spreads) * (quantiser.levels - 1) + 1)
        for outcome in itertools.product(range(quantiser.levels), repeat=len(spreads)):
            sums[sum(outcome)] += math.prod(spread[i] for spread, i in zip(spreads, outcome, strict=True))
        return sums

    found = quantiser.divergence(order, one, two, others)
    assert found == pytest.approx(max(renyi(order, of_sum(one), of_sum(two)), 0), rel=1e-9, abs=1e-12)


def test_no_tail_of_a_large_sum_is_lost():
    """41 clients in fractions: the least likely sum has a probability of 10⁻⁶⁰, and order 1,000 lives there."""
    quantiser, order = RandomisedQuantiser(4, 0.25, 0.5), 1000

    def exact(share):
        sums, one = [Fraction(1)], by_kept_sets(4, 0.25, 0.5, -1)
        for spread in [by_kept_sets(4, 0.25, 0.5, share)] + 40 * [one]:
            sums = [
                sum((sums[i - j] * spread[j] for j in range(4) if 0 <= i - j < len(sums)), Fraction(0))
                for i in range(len(sums) + 3)
            ]
        return sums

    first, second = exact(1), exact(-1)
    ratios = [p / q for p, q in zip(first, second, strict=True)]
    top = max(ratios)
    moment = math.fsum(
        float(q) * math.exp(order * (math.log(r) - math.log(top))) for q, r in zip(second, ratios, strict=True)
    )
    expected = (math.log(moment) + order * math.log(top)) / (order - 1)
    assert float(min(second)) < 1e-12
    assert quantiser.divergence(order, others=[-1.0] * 40) == pytest.approx(expected, rel=1e-9)


@given(ANY, SHARES, SHARES, st.floats(1.05, 64))
def test_no_pair_of_inputs_is_worse_than_the_local_bound(quantiser, one, two, order):
    assert quantiser.divergence(order, one, two) <= quantiser.local([order])[0] * (1 + 1e-9) + 1e-12


def test_the_worst_inputs_are_not_always_the_ends():
    quantiser = RandomisedQuantiser(8, 0.42, 5.0)
    assert quantiser.local([32.0])[0] > 1.03 * quantiser.divergence(32.0)
    assert quantiser.local([2.0])[0] == pytest.approx(quantiser.divergence(2.0), rel=1e-12)


@pytest.mark.parametrize(
    ("quantiser", "clients"),
    [
        (RandomisedQuantiser(4, 0.4, 1.0), 4),
        (RandomisedQuantiser(6, 0.2, 2.0), 3),
        (RandomisedQuantiser(5, 0.6, 0.7), 3),
    ],
)
@pytest.mark.parametrize("order", [1.5, 4.0, 32.0])
def test_no_inputs_of_others_beat_the_bound_of_a_sum(quantiser, clients, order):
    corners = quantiser.corners
    others = list(itertools.combinations_with_replacement(corners, clients - 1))
    found = {
        (one, two, rest): quantiser.divergence(order, one, two, rest)
        for one, two in itertools.permutations(corners, 2)
        for rest in others
    }
    assert max(found.values()) <= quantiser.summed([order], clients)[0]
    assert quantiser.summed([order], clients)[0] < quantiser.local([order])[0]
    ends = max(quantiser.divergence(order, others=[end] * (clients - 1)) for end in (-1.0, 1.0))
    assert max(found.values()) <= ends * 1.02  # what others at one end hide is close to the least that others hide


@settings(max_examples=25, deadline=None)
@given(ANY, st.integers(1, 30))
def test_a_larger_crowd_hides_better_and_a_higher_order_sees_more(quantiser, clients):
    orders = [1.1, 2.0, 8.0, 64.0]
    one, more = quantiser.summed(orders, clients), quantiser.summed(orders, 2 * clients)
    assert (more <= one * (1 + 1e-9) + 1e-12).all()
    assert (np.diff(one) >= -1e-9).all()
    assert (one <= quantiser.local(orders) * (1 + 1e-12)).all()


def test_a_high_order_is_the_largest_ratio():
    quantiser = RandomisedQuantiser(6, 0.3, 1.0)
    largest = math.log((law(quantiser, 1.0) / law(quantiser, -1.0)).max())
    assert quantiser.divergence(1e6) == pytest.approx(largest, rel=1e-4)
    assert quantiser.divergence(1e6) <= largest * (1 + 1e-9)


def test_with_all_levels_kept_or_none_beyond_the_bound_nothing_is_hidden():
    certain = [RandomisedQuantiser(16, q, 1.0).divergence(8.0) for q in (0.5, 0.9, 0.99, 0.999)]
    tight = [RandomisedQuantiser(16, 0.4, extension).divergence(64.0) for extension in (1.0, 1e-2, 1e-4, 1e-6)]
    wide = [RandomisedQuantiser(16, 0.4, extension).divergence(2.0) for extension in (1.0, 1e1, 1e2, 1e4)]
    assert all(later > earlier + 2 for earlier, later in itertools.pairwise(certain))
    assert all(later > earlier + 2 for earlier, later in itertools.pairwise(tight))
    assert all(later < earlier / 5 for earlier, later in itertools.pairwise(wide))


def test_the_same_input_twice_tells_nothing():
    assert RandomisedQuantiser(16, 0.42, 1.0).divergence(8.0, 0.3, 0.3, [0.1]) == pytest.approx(0, abs=1e-12)


KEEP = "must be above 0 and below 1: all levels or none protect nobody"


@pytest.mark.parametrize(
    ("words", "given"),
    [
        ("levels = 1: must be between 2 and 256", (1, 0.5, 1.0)),
        ("levels = 257: must be between 2 and 256", (257, 0.5, 1.0)),
        (f"keep = 0.0: {KEEP}", (4, 0.0, 1.0)),
        (f"keep = 1.0: {KEEP}", (4, 1.0, 1.0)),
        (f"keep = nan: {KEEP}", (4, math.nan, 1.0)),
        (f"keep = 0.0: {KEEP}", (2, 0.0, 1.0)),
        (f"keep = 1.0: {KEEP}", (2, 1.0, 1.0)),
        (f"keep = 5.0: {KEEP}", (2, 5.0, 1.0)),
        ("keep = 0.999: makes some of 256 indices too rare to be told from never", (256, 0.999, 1.0)),
        ("extension = 0.0: must be a finite number > 0", (4, 0.5, 0.0)),
        ("extension = inf: must be a finite number > 0", (4, 0.5, math.inf)),
        ("extension = nan: must be a finite number > 0", (4, 0.5, math.nan)),
    ],
)
def test_what_protects_nobody_is_refused(words, given):
    """With two levels `keep` decides nothing, so that no other rule would find it out of range."""
    with pytest.raises(SettingsError, match=f"^{words}$"):
        RandomisedQuantiser(*given)


def test_a_sum_of_nobody_is_refused():
    with pytest.raises(SettingsError, match=r"^clients = 0: must be 1 or more$"):
        RandomisedQuantiser(4, 0.5, 1.0).summed([2.0], 0)


@given(ANY)
def test_corners_are_the_ends_and_the_levels_between(quantiser):
    corners = quantiser.corners
    assume(corners.size > 2)
    assert (np.diff(corners) > 0).all()
    step = 2 * (1 + quantiser.extension) / (quantiser.levels - 1)
    assert np.diff(corners[1:-1]) == pytest.approx(step, rel=1e-9)
