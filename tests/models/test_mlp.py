import torch
from torch import nn
from torch.nn import functional

from baffle.models.mlp import mlp


def test_one_hidden_layer_step_by_step():
    model = mlp(6, 3, (4,))
    weight1, bias1, weight2, bias2 = model.parameters()
    samples = torch.linspace(-1, 1, 12).reshape(2, 1, 2, 3)
    hidden = functional.hardswish(samples.reshape(2, 6) @ weight1.T + bias1)
    torch.testing.assert_close(model(samples), hidden @ weight2.T + bias2)


def test_the_widths_are_those_asked_for():
    shapes = [tuple(parameter.shape) for parameter in mlp(8, 3, (5, 4), nn.ReLU).parameters()]
    assert shapes == [(5, 8), (5,), (4, 5), (4,), (3, 4), (3,)]


def test_no_hidden_layer_is_a_linear_classifier():
    assert [tuple(parameter.shape) for parameter in mlp(8, 3, ()).parameters()] == [(3, 8), (3,)]
