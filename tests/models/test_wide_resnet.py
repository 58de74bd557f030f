import pytest
import torch
from torch import nn
from torch.nn import functional

from baffle.models.layers import no_norm
from baffle.models.wide_resnet import Block, wide_resnet


def count(model):
    return sum(parameter.numel() for parameter in model.parameters())


@pytest.mark.parametrize(
    ("channels", "classes", "weights"),
    [(1, 10, 302_506), (3, 10, 302_794), (3, 100, 314_404)],
)
def test_it_has_the_papers_number_of_weights(channels, classes, weights):
    assert count(wide_resnet(channels, classes)) == weights
    assert count(wide_resnet(channels, classes, nn.ReLU, no_norm)) == weights


@pytest.mark.parametrize("side", [2, 8, 28, 32])
def test_it_takes_images_of_any_size(side):
    assert wide_resnet(3, 10)(torch.zeros(2, 3, side, side)).shape == (2, 10)


def test_samples_do_not_touch_each_other():
    model = wide_resnet(1, 10)
    images = torch.linspace(-1, 1, 2 * 64).reshape(2, 1, 8, 8)
    torch.testing.assert_close(model(images)[:1], model(images[:1]), atol=1e-5, rtol=1e-4)


def test_a_block_is_its_formula():
    block = Block(2, 4, 2, nn.Hardswish, no_norm)
    shortcut, first, second = block.parameters()
    inputs = torch.linspace(-2, 2, 2 * 6 * 6).reshape(1, 2, 6, 6)
    activated = functional.hardswish(inputs)
    residual = functional.conv2d(activated, first, stride=2, padding=1)
    residual = functional.conv2d(functional.hardswish(residual), second, padding=1)
    torch.testing.assert_close(block(inputs), residual + functional.conv2d(activated, shortcut, stride=2))
