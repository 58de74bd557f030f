from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from baffle.directions import Rademacher
from baffle.engines.sharding import UNIT, Piece, Spread, balanced, losses_of, pieces
from baffle.kernels import fastest
from baffle.keys import Key
from baffle.messages import BlockPlan
from baffle.probes import Probes
from baffle.runtimes.sweep import TOGETHER
from baffle.runtimes.torch import TorchRuntime
from federation import KERNELS, Network


def blocks_of(runtime, budgets) -> list[Probes]:
    point = runtime.layout.initial(Key.root(3), runtime.given).astype(runtime.precision)
    layers = runtime.layout.blocks("layers")
    plans = [BlockPlan(b.start, b.stop, k, 1.0, Rademacher(), 0.5) for b, k in zip(layers, budgets, strict=True)]
    return [Probes(point, plan, Key.root(n), 1e-2, (1, -1), KERNELS) for n, plan in enumerate(plans)]


def images(*sizes: int) -> list[tuple[np.ndarray, np.ndarray]]:
    rng = np.random.default_rng(0)
    return [(rng.normal(size=(n, 1, 8, 8)).astype(np.float32), rng.integers(0, 3, n)) for n in sizes]


def spread(runtime, workers: int, seen: list[list[Piece]] | None = None) -> Spread:
    def ask(task, shares):
        if seen is not None:
            seen.extend(shares)
        return [losses_of(runtime, fastest(), task, share) for share in shares]

    return Spread(runtime, workers, ask)


@pytest.mark.parametrize("workers", [1, 2, 5])
def test_losses_in_float32_have_the_same_bits_as_those_of_one_sweep(workers: int) -> None:
    model = nn.Sequential(nn.Flatten(), nn.Linear(64, 9), nn.Tanh(), nn.Linear(9, 5), nn.Tanh(), nn.Linear(5, 3))
    runtime = TorchRuntime(model, device="cpu", chunk=20)
    blocks, batches = blocks_of(runtime, (300, 140, 3)), images(8, 8, 5, 30)
    whole = runtime.sweep(blocks, batches)
    seen: list[list[Piece]] = []
    parts = spread(runtime, workers, seen).sweep(blocks, batches)
    assert all(np.array_equal(a, b) for a, b in zip(whole, parts, strict=True))
    assert len(seen) == workers
    assert all(seen)
    assert {(p.start, p.stop) for share in seen for p in share} == {(0, 2), (2, 3), (3, 4)}


@pytest.mark.parametrize("workers", [1, 2, 3, 50])
def test_a_runtime_of_whole_vectors_is_spread_by_points(workers: int) -> None:
    runtime = Network()
    blocks = blocks_of(runtime, (7, 4))
    rng = np.random.default_rng(0)
    batches = [(rng.normal(size=(n, 4)), rng.integers(0, 3, n)) for n in (5, 2)]
    whole = [runtime.losses(probes, batches) for probes in blocks]
    parts = spread(runtime, workers).sweep(blocks, batches)
    assert all(np.array_equal(a, b) for a, b in zip(whole, parts, strict=True))
    assert spread(runtime, workers).costs(runtime.layout.blocks("layers"), batches[0]) == (1.0, 1.0)


@dataclass(frozen=True)
class Blockwise(Network):
    """Says that it evaluates three directions together."""

    def sweep(self, blocks, batches):
        return [self.losses(probes, batches) for probes in blocks]

    def costs(self, blocks, batch):
        return (0.5,) * len(blocks)

    def together(self, probes, batches):
        return 3


def test_ranges_of_directions_begin_where_a_runtime_begins_a_call() -> None:
    runtime = Blockwise()
    (*_, block) = blocks_of(runtime, (1, 1000))
    cut = pieces(runtime, [block], [(np.zeros((4, 4)), np.zeros(4, int))], 2)
    step = 63  # a multiple of 3, for at most sixteen pieces
    assert [piece.first for piece in cut] == [*range(0, 1000, step)]
    assert [piece.last for piece in cut] == [*range(step, 1000, step), 1000]
    assert sum(piece.work for piece in cut) == 1000 * 4 * 0.5


def test_a_runtime_that_does_not_tell_is_taken_at_its_worst() -> None:
    assert UNIT % TOGETHER == 0


@given(st.lists(st.floats(0, 1e6), max_size=40), st.integers(1, 9))
def test_shares_hold_every_item_once_and_are_even_up_to_an_item(works: list[float], workers: int) -> None:
    shares = balanced(works, workers)
    assert sorted(place for share in shares for place in share) == list(range(len(works)))
    assert all(share == sorted(share) for share in shares)
    loads = [sum(works[place] for place in share) for share in shares]
    assert max(loads) <= sum(works) / workers + max(works, default=0.0) + 1e-3


def test_the_heaviest_items_go_first() -> None:
    assert balanced([1, 5, 1, 3, 2], 2) == [[0, 1], [2, 3, 4]]
