import pytest
import torch
from torch import nn

from baffle.models.layers import ACTIVATIONS, NORMS, group_norm


@pytest.mark.parametrize(("channels", "groups"), [(16, 2), (32, 2), (64, 4), (128, 8)])
def test_group_norm_has_a_sixteenth_of_the_channels_as_groups_but_at_least_two(channels, groups):
    norm = group_norm(channels)
    assert isinstance(norm, nn.GroupNorm)
    assert norm.num_groups == groups


@pytest.mark.parametrize("name", NORMS)
def test_norms_have_no_weights(name):
    assert list(NORMS[name](32).parameters()) == []


def test_group_norm_makes_each_group_of_a_sample_zero_mean_and_unit_variance():
    images = torch.arange(2 * 16 * 9, dtype=torch.float32).reshape(2, 16, 3, 3) ** 2
    groups = group_norm(16)(images).reshape(2, 2, -1)
    torch.testing.assert_close(groups.mean(-1), torch.zeros(2, 2), atol=1e-5, rtol=0)
    torch.testing.assert_close(groups.var(-1, unbiased=False), torch.ones(2, 2), atol=1e-4, rtol=0)


@pytest.mark.parametrize(
    ("name", "at_minus_one", "at_one"),
    [
        ("hardswish", -1 / 3, 2 / 3),  # x min(max(x + 3, 0), 6) / 6
        ("relu", 0.0, 1.0),
        ("selu", 1.0507010 * 1.6732632 * (2.7182818**-1 - 1), 1.0507010),
        ("gelu", -0.1586553, 0.8413447),  # x times the normal distribution function
    ],
)
def test_activations_by_hand(name, at_minus_one, at_one):
    torch.testing.assert_close(ACTIVATIONS[name]()(torch.tensor([-1.0, 1.0])), torch.tensor([at_minus_one, at_one]))
