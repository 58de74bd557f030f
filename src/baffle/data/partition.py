"""Sharing a data set out among clients."""

from __future__ import annotations

import heapq

import numpy as np
from numpy.typing import ArrayLike, NDArray

from baffle.errors import SettingsError
from baffle.keys import Key

Indices = tuple[NDArray[np.int64], ...]
"""For each client the numbers of its samples, ascending; no sample is left out and none is given twice."""

REDRAWS = 100
"""How often Dirichlet shares are drawn again where a client would get no sample."""

PATIENCE = 2_000_000
"""How many shares are drawn in all before that ends: with many clients no draw serves them all."""


def iid(targets: ArrayLike, clients: int, key: Key) -> Indices:
    """Return a uniformly random partition of the samples into parts whose sizes differ by at most one.

    Args:
        targets: labels [N]; only their number counts.
        clients: C, 1 ≤ C ≤ N.
        key: names the random stream.

    Raises:
        SettingsError: there are fewer samples than clients, or no client.
    """
    samples = len(np.asarray(targets))
    _check_clients(clients, samples)
    return _groups(key.generator().permutation(samples) % clients, clients)


def dirichlet(targets: ArrayLike, clients: int, alpha: float, key: Key) -> Indices:
    """Return a partition in which each class is shared out in random proportions p ~ Dirichlet(alpha, ..., alpha).

    Client c gets the share p_c of the class's samples, chosen at random: a small alpha gives each client few classes,
    a large one gives every client the same mixture. Every client has at least one sample: the shares are drawn again,
    up to 100 times (less often when there are very many clients), and then the largest clients give single random
    samples to the empty ones. Source: Hsu, Qi & Brown, "Measuring the effects of non-identical data distribution for
    federated visual classification", 2019.

    Args:
        targets: labels [N], whole numbers.
        clients: C, 1 ≤ C ≤ N.
        alpha: the concentration, 1e-6 to 1e6.
        key: names the random stream.

    Raises:
        SettingsError: alpha is out of range, there are fewer samples than clients, or no client.
    """
    targets = np.asarray(targets)
    _check_clients(clients, len(targets))
    if not 1e-6 <= alpha <= 1e6:
        raise SettingsError("alpha", alpha, "must be between 1e-6 and 1e6")
    generator = key.generator()
    order = generator.permutation(len(targets))
    order = order[np.argsort(targets[order], kind="stable")]  # by class, at random inside a class
    counts = _counts(np.unique(targets, return_counts=True)[1], clients, alpha, generator)
    owners = np.empty(len(targets), np.int64)
    owners[order] = np.repeat(np.tile(np.arange(clients), len(counts)), counts.ravel())
    _fill(owners, clients, generator)
    return _groups(owners, clients)


def shards(targets: ArrayLike, clients: int, shards_per_client: int, key: Key) -> Indices:
    """Return a partition of label-sorted shards: a client has few classes, and as many samples as any other.

    The samples are sorted by label, cut into clients · shards_per_client runs whose sizes differ by at most one, and
    each client gets that many runs at random. Source: McMahan et al., "Communication-efficient learning of deep
    networks from decentralized data", AISTATS 2017.

    Args:
        targets: labels [N].
        clients: C, 1 ≤ C ≤ N.
        shards_per_client: S, ≥ 1, C · S ≤ N.
        key: names the random stream.

    Raises:
        SettingsError: there are fewer samples than clients or shards, no client or no shard.
    """
    targets = np.asarray(targets)
    samples, total = len(targets), clients * shards_per_client
    _check_clients(clients, samples)
    if shards_per_client < 1 or total > samples:
        rule = f"must be at least 1, and {clients} clients can have at most {samples // clients} of {samples} samples"
        raise SettingsError("shards_per_client", shards_per_client, rule)
    generator = key.generator()
    order = generator.permutation(samples)
    order = order[np.argsort(targets[order], kind="stable")]
    client_of_shard = generator.permutation(total) % clients
    owners = np.empty(samples, np.int64)
    owners[order] = client_of_shard[np.arange(samples) * total // samples]
    return _groups(owners, clients)


def by_owner(owners: ArrayLike) -> Indices:
    """Return the partition that the data themselves name: one client for each number in `owners` [N], ascending.

    Raises:
        SettingsError: there is no sample.
    """
    present, positions = np.unique(np.asarray(owners), return_inverse=True)
    _check_clients(len(present), len(positions))
    return _groups(positions, len(present))


def _check_clients(clients: int, samples: int) -> None:
    if not 1 <= clients <= samples:
        raise SettingsError("clients", clients, f"must be at least 1 and at most the number of samples, {samples}")


def _groups(owners: NDArray[np.int64], clients: int) -> Indices:
    order = np.argsort(owners, kind="stable").astype(np.int64, copy=False)
    return tuple(np.split(order, np.cumsum(np.bincount(owners, minlength=clients))[:-1]))


def _counts(
    class_sizes: NDArray[np.int64], clients: int, alpha: float, generator: np.random.Generator
) -> NDArray[np.int64]:
    """Return how many samples of each class each client gets, [classes, C]."""
    draws = 1 + min(REDRAWS, PATIENCE // (clients * len(class_sizes)))
    counts = np.zeros((len(class_sizes), clients), np.int64)
    for _ in range(draws):
        shares = generator.dirichlet(np.full(clients, alpha), len(class_sizes))
        ends = np.floor(np.cumsum(shares, axis=1) * class_sizes[:, np.newaxis] + 0.5).astype(np.int64)
        ends = np.minimum(ends, class_sizes[:, np.newaxis])
        ends[:, -1] = class_sizes
        counts = np.diff(ends, axis=1, prepend=0)
        if counts.sum(axis=0).all():
            break
    return counts


def _fill(owners: NDArray[np.int64], clients: int, generator: np.random.Generator) -> None:
    """Give each client without a sample a random one of a client that then has the most, in place."""
    sizes = np.bincount(owners, minlength=clients)
    empty = np.flatnonzero(sizes == 0)
    if not len(empty):
        return
    order = generator.permutation(len(owners))
    members = [order[group] for group in _groups(owners[order], clients)]
    largest = [(-int(size), client) for client, size in enumerate(sizes)]
    heapq.heapify(largest)
    for client in empty:
        size, donor = largest[0]
        heapq.heapreplace(largest, (size + 1, donor))
        owners[members[donor][-size - 1]] = client
