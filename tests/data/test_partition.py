import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from baffle.data import by_owner, dirichlet, iid, shards
from baffle.errors import SettingsError
from baffle.keys import Key

KEY = Key.root(0)
MANY = np.repeat(np.arange(10), 6000)


def is_partition(parts, samples):
    together = np.concatenate(parts)
    return (
        isinstance(parts, tuple)
        and all(part.dtype == np.int64 and len(part) and (np.diff(part) > 0).all() for part in parts)
        and np.array_equal(np.sort(together), np.arange(samples))
    )


@st.composite
def federations(draw):
    targets = np.array(draw(st.lists(st.integers(0, 5), min_size=1, max_size=60)))
    return targets, draw(st.integers(1, len(targets))), Key.root(draw(st.integers(0, 50)))


@given(federations())
@settings(deadline=None)
def test_iid_parts_are_a_partition_of_even_sizes(federation):
    targets, clients, key = federation
    parts = iid(targets, clients, key)
    assert is_partition(parts, len(targets))
    assert len(parts) == clients
    assert np.ptp([len(part) for part in parts]) <= 1


@given(federations(), st.sampled_from([1e-6, 0.01, 0.3, 1.0, 100.0, 1e6]))
@settings(deadline=None)
def test_dirichlet_parts_are_a_partition_without_an_empty_client(federation, alpha):
    targets, clients, key = federation
    parts = dirichlet(targets, clients, alpha, key)
    assert is_partition(parts, len(targets))
    assert len(parts) == clients


@given(federations(), st.integers(1, 5))
@settings(deadline=None)
def test_shards_are_a_partition(federation, each):
    targets, clients, key = federation
    each = min(each, len(targets) // clients)
    parts = shards(targets, clients, each, key)
    assert is_partition(parts, len(targets))
    assert len(parts) == clients
    smallest = len(targets) // (clients * each)
    assert all(smallest * each <= len(part) <= (smallest + 1) * each for part in parts)


@given(st.lists(st.integers(0, 9), min_size=1, max_size=60))
@settings(deadline=None)
def test_owners_are_a_partition(owners):
    parts = by_owner(np.array(owners))
    assert is_partition(parts, len(owners))
    assert [set(np.array(owners)[part]) for part in parts] == [{owner} for owner in sorted(set(owners))]


def test_owners_by_hand():
    parts = by_owner(np.array([7, 2, 7, 2, 2]))
    assert [part.tolist() for part in parts] == [[1, 3, 4], [0, 2]]


@pytest.mark.parametrize(
    "share",
    [
        lambda key: iid(MANY, 10, key),
        lambda key: dirichlet(MANY, 10, 0.5, key),
        lambda key: shards(MANY, 10, 2, key),
    ],
)
def test_the_key_decides(share):
    first, again, other = (np.concatenate(share(Key.root(seed))) for seed in (3, 3, 4))
    np.testing.assert_array_equal(first, again)
    assert not np.array_equal(first, other)


def test_two_shards_of_a_class_each_give_at_most_two_classes():
    parts = shards(MANY, 100, 2, KEY)  # 200 shards of 300: none crosses a class
    assert all(len(part) == 600 for part in parts)
    classes = [len(np.unique(MANY[part])) for part in parts]
    assert set(classes) <= {1, 2}
    assert np.mean(classes) == pytest.approx(1 + 180 / 199, abs=0.1)  # chance that the second is of another class


def largest_class_share(alpha):
    parts = dirichlet(MANY, 20, alpha, KEY)
    return np.mean([np.bincount(MANY[part], minlength=10).max() / len(part) for part in parts])


def test_a_small_alpha_gives_few_classes_and_a_large_one_the_mixture():
    assert largest_class_share(0.05) > 0.5
    assert largest_class_share(1e6) < 0.11


def test_dirichlet_shares_have_the_dirichlet_variance():
    clients, alpha = 1000, 2.0
    parts = dirichlet(np.zeros(600_000, int), clients, alpha, KEY)
    shares = np.array([len(part) for part in parts]) / 600_000
    mean = 1 / clients
    variance = mean * (1 - mean) / (clients * alpha + 1)  # of one coordinate of a symmetric Dirichlet
    assert shares.var() == pytest.approx(variance, rel=0.15)


def test_an_empty_client_gets_a_sample_of_the_largest_one():
    parts = dirichlet(np.zeros(50, int), 40, 1e-6, KEY)  # one client draws nearly everything
    assert sorted(len(part) for part in parts)[-1] == 11


@pytest.mark.parametrize("clients", [0, -1, 5])
@pytest.mark.parametrize(
    "share",
    [
        lambda targets, clients: iid(targets, clients, KEY),
        lambda targets, clients: dirichlet(targets, clients, 1.0, KEY),
        lambda targets, clients: shards(targets, clients, 1, KEY),
    ],
)
def test_too_few_or_too_many_clients_are_refused(share, clients):
    with pytest.raises(SettingsError, match=f"clients = {clients}: must be at least 1 and at most .* samples, 4"):
        share(np.arange(4), clients)


@pytest.mark.parametrize("alpha", [0.0, -1.0, float("nan"), float("inf")])
def test_an_alpha_out_of_range_is_refused(alpha):
    with pytest.raises(SettingsError, match=f"alpha = {alpha}: must be between 1e-6 and 1e6"):
        dirichlet(np.arange(4), 2, alpha, KEY)


@pytest.mark.parametrize("each", [0, 3])
def test_shards_out_of_range_are_refused(each):
    with pytest.raises(SettingsError, match=f"shards_per_client = {each}: .* at most 2 of 4 samples"):
        shards(np.arange(4), 2, each, KEY)


def test_no_owner_is_refused():
    with pytest.raises(SettingsError, match=r"^clients = 0: must be at least 1 and at most the number of samples, 0$"):
        by_owner(np.zeros(0, int))


@pytest.mark.parametrize(
    "share",
    [
        lambda: iid(MANY, 10_000, KEY),
        lambda: dirichlet(MANY, 10_000, 0.1, KEY),
        lambda: shards(MANY, 10_000, 2, KEY),
        lambda: by_owner(np.arange(60_000) % 10_000),
    ],
)
def test_ten_thousand_clients_take_seconds_at_most(share):
    start = time.process_time()
    assert is_partition(share(), 60_000)
    assert time.process_time() - start < 5  # a twentieth of that on an idle machine
