import pytest
import torch
from torch import nn
from torch.nn import functional

from baffle.models.layers import group_norm
from baffle.models.lenet import lenet


def count(model):
    return sum(parameter.numel() for parameter in model.parameters())


@pytest.mark.parametrize(("channels", "classes", "weights"), [(1, 10, 26_730), (3, 10, 27_530)])
def test_it_has_the_papers_number_of_weights(channels, classes, weights):
    assert count(lenet(channels, classes)) == weights
    assert count(lenet(channels, classes, nn.ReLU, group_norm)) == weights


@pytest.mark.parametrize("side", [2, 8, 28, 32])
def test_it_takes_images_of_any_size(side):
    assert lenet(1, 10)(torch.zeros(3, 1, side, side)).shape == (3, 10)


def test_it_is_what_the_paper_says_step_by_step():
    model = lenet(1, 10)
    kernel1, bias1, kernel2, bias2, weight, bias = model.parameters()
    images = torch.linspace(-1, 1, 2 * 8 * 8).reshape(2, 1, 8, 8)
    hidden = functional.max_pool2d(functional.hardswish(functional.conv2d(images, kernel1, bias1, padding=2)), 2)
    hidden = functional.hardswish(functional.conv2d(hidden, kernel2, bias2, padding=2))
    expected = hidden.mean((2, 3)) @ weight.T + bias
    torch.testing.assert_close(model(images), expected)
