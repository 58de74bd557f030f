from __future__ import annotations

import numpy as np
import pytest

pytest.importorskip("torch")

import torch
from torch import nn

from baffle.baselines.cost import Live, costs_of
from baffle.baselines.price import download_bytes, forwards, upload_bytes
from baffle.runtimes.torch import TorchRuntime

KB = 4 * 1000
"""Bytes of a thousand numbers."""


def test_bytes_held_are_those_of_tensors_that_live() -> None:
    known = torch.zeros(1000)
    live = Live([known])
    with live:
        one = known + 1
        assert live.bytes == KB
        two = one.view(10, 100) * 2
        known.add_(1)
        assert (live.bytes, live.peak) == (2 * KB, 2 * KB)
        del one
        assert live.bytes == KB
        three = two[0]
        del two
        assert live.bytes == KB
        del three
        assert (live.bytes, live.peak) == (0, 2 * KB)


def layers(count: int) -> nn.Module:
    return nn.Sequential(
        nn.Linear(2, 1000, bias=False), *(nn.Tanh() for _ in range(count)), nn.Linear(1000, 2, bias=False)
    )


BATCH = (np.zeros((3, 2), np.float32), np.zeros(3, np.int64))


def costs(module: nn.Module, batch=BATCH, **settings):
    return costs_of(TorchRuntime(module, **settings), batch)


def test_activations_of_a_chain_are_kept_for_backpropagation_alone() -> None:
    """Layers of 3,000 numbers each; gradients of 2,000 at both ends."""
    found = costs(layers(16))
    inference, backward, checkpointed = (found[mode].peak for mode in ("inference", "backward", "checkpointed"))
    assert 2 * 3 * KB <= inference < 2.1 * 3 * KB
    assert 16 * 3 * KB <= backward < 20 * 3 * KB
    assert 4 * 3 * KB <= checkpointed < 12 * 3 * KB


def test_passes_are_made_in_the_pieces_of_the_run_and_in_its_precision() -> None:
    batch = (np.zeros((24, 2), np.float32), np.zeros(24, np.int64))
    whole, pieces, double = (
        costs(layers(16), batch, **settings) for settings in ({}, {"chunk": 3}, {"precision": "float64"})
    )
    for mode in ("inference", "backward"):
        assert whole[mode].peak > 4 * pieces[mode].peak
        assert double[mode].peak == pytest.approx(2 * whole[mode].peak, rel=0.02)


class Own(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.last = layers(8)[:9], nn.Linear(1000, 2)

    def forward(self, inputs):
        return self.last(self.first(inputs))


class Listed(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.all = nn.ModuleList([layers(16), layers(16)])
        self.end = nn.Identity()

    def forward(self, inputs):
        for layer in self.all:
            inputs = layer(inputs)
        return self.end(inputs)


def test_a_module_is_not_changed_and_its_children_are_checkpointed() -> None:
    module = Own()
    before = [parameter.detach().clone() for parameter in module.parameters()]
    found = costs(module)
    assert set(found) == {"inference", "backward", "checkpointed"}
    assert found["backward"].peak > found["inference"].peak
    assert all(cost.seconds > 0 for cost in found.values())
    assert all(torch.equal(*pair) for pair in zip(before, module.parameters(), strict=True))
    assert all(parameter.grad is None for parameter in module.parameters())
    assert "forward" not in vars(module.first)


def test_parts_in_a_list_are_checkpointed() -> None:
    found = costs(Listed())
    assert found["checkpointed"].peak < 0.7 * found["backward"].peak


def test_a_module_of_one_part_is_not_checkpointed() -> None:
    assert set(costs(nn.Linear(2, 3))) == {"inference", "backward"}


class Rounding(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.last = nn.Linear(2, 3), nn.Linear(3, 3)

    def forward(self, inputs):
        return self.last(self.first(inputs)).detach()


def test_what_has_no_derivative_can_only_run_forward() -> None:
    assert set(costs(Rounding())) == {"inference"}


def test_price_of_a_round() -> None:
    assert (upload_bytes(26_730), download_bytes(10)) == (106_920, 40)
    assert (forwards(32, checkpointed=False), forwards(32, checkpointed=True)) == (96, 128)
