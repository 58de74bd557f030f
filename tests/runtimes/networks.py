"""Small networks that do what users' modules do, and probes of them."""

from __future__ import annotations

import copy
import logging
from dataclasses import dataclass, field
from itertools import pairwise

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from torch import nn  # noqa: E402
from torch.func import functional_call  # noqa: E402
from torch.nn import functional  # noqa: E402
from torch.nn.utils.parametrizations import weight_norm  # noqa: E402

from baffle.directions import Gaussian, Rademacher  # noqa: E402
from baffle.kernels import PlainKernels  # noqa: E402
from baffle.keys import Key  # noqa: E402
from baffle.messages import BlockPlan  # noqa: E402
from baffle.models.lenet import lenet  # noqa: E402
from baffle.models.mlp import mlp  # noqa: E402
from baffle.models.wide_resnet import wide_resnet  # noqa: E402
from baffle.probes import Probes  # noqa: E402

CLASSES = 3


class Module(nn.Module):
    """Layers by name, and a forward pass: (module, inputs) -> outputs."""

    def __init__(self, forward, **layers) -> None:
        super().__init__()
        self.run = forward
        for name, layer in layers.items():
            setattr(self, name, layer)

    def forward(self, x):
        return self.run(self, x)


class Optional(nn.Module):
    """Arguments beyond the one that is given."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(5, CLASSES)

    def forward(self, x, mask=None, scale: float = 2.0, *, twice: bool = True, dims=(1,), **rest):
        h = self.layer(x) * scale
        if mask is not None:
            h = h * mask
        if rest:
            h = h - h.sum(dims)
        return h * 2 if twice else h


class Several(nn.Module):
    """Takes any number of inputs."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(5, CLASSES)

    def forward(self, *given):
        return self.layer(given[0])


def linear(outputs: int = 4):
    return nn.Linear(5, outputs)


def head(inputs: int = 4):
    return nn.Linear(inputs, CLASSES)


def added_in_place(m, x):
    h = m.first(x)
    h += torch.tanh(m.second(h))
    return m.head(h)


def changed_after_use(m, x):
    """The value before the change is used, too."""
    h = m.first(x)
    before = m.second(h)
    h.mul_(2.0)
    h[:, 0] = 1.0
    return m.head(torch.tanh(h) + before)


def scaled_in_place(m, x):
    """What lies before the scale is overwritten."""
    h = m.first(x)
    return m.head(torch.tanh(h.mul_(m.scale)))


def tied_in_place(m, x):
    h = m.one(x)
    h[:, 0] = 1.0
    return m.head(m.two(torch.tanh(h)))


def images_in_place(m, x):
    h = m.first(x)
    h += m.relu(m.norm(m.second(h)))
    m.relu(h)
    return m.head(h.mean((2, 3)))


def reused(m, x):
    """One weight at two depths, by its name and transposed; one bias twice."""
    h = torch.tanh(m.first(x) @ m.mix)
    h = torch.tanh(h @ m.mix.t() + m.first.bias)
    return m.head(h)


def one_after_another(m, x):
    return m.head(m.two(torch.tanh(m.one(x))))


def tied(forward=one_after_another):
    """Two names, one tensor."""
    one, two = nn.Linear(5, 5), nn.Linear(5, 5)
    two.weight = one.weight
    return Module(forward, one=one, two=two, head=head(5))


def frozen():
    model = nn.Sequential(linear(), nn.Tanh(), nn.Linear(4, 4), nn.Tanh(), head())
    model[2].requires_grad_(False)
    return model


def batch_norm():
    norm = nn.BatchNorm1d(4).eval()
    norm.running_mean += 0.5
    norm.running_var *= 2.0
    return nn.Sequential(linear(), norm, nn.Hardswish(), head())


def with_constants(m, x):
    h = m.layer(x - m.mean) * m.factor
    return m.head(h + torch.ones(4, dtype=x.dtype).cumsum(0))


def constants():
    """A buffer, a tensor that is none, and one made on the way."""
    model = Module(with_constants, layer=linear(), head=head(), factor=torch.tensor(1.5))
    model.register_buffer("mean", torch.linspace(-1, 1, 5))
    return model


def attention(m, x):
    h = functional.scaled_dot_product_attention(m.query(x), m.key(x), m.key(x))
    return m.head(h.mean(1))


def pooled(layer, size: int):
    return nn.Sequential(nn.Conv2d(2, 4, 3, padding=1), nn.Hardswish(), layer, nn.Flatten(), nn.Linear(size, CLASSES))


def hooked(layer):
    """A layer's hook scales what it gives."""
    layer.scale = nn.Parameter(torch.ones(layer.out_features))
    layer.register_forward_hook(lambda module, _, outputs: outputs * module.scale)
    return layer


def statement(forward):
    """The parameter `does_nothing` has no effect where it begins, and has one elsewhere."""

    def run(m, x):
        h = m.layer(x)
        forward(h, m.does_nothing, x)
        return h

    return Module(run, layer=nn.Linear(5, CLASSES), does_nothing=nn.Parameter(torch.ones(CLASSES)))


def only_if_tensor():
    def run(m, x):
        h = m.layer(x)
        return h * m.does_nothing if isinstance(x, torch.Tensor) else h

    return Module(run, layer=nn.Linear(5, CLASSES), does_nothing=nn.Parameter(torch.ones(CLASSES)))


TRACED = {
    "mlp": (lambda: mlp(5, CLASSES, (6, 4)), (5,)),
    "linear": (lambda: nn.Linear(5, CLASSES), (5,)),
    "lenet": (lambda: lenet(1, CLASSES), (1, 8, 8)),
    "wide resnet": (lambda: wide_resnet(3, CLASSES), (3, 3, 5)),
    "nested": (
        lambda: nn.Sequential(nn.Sequential(linear(), nn.Sequential(nn.Tanh(), nn.Linear(4, 4))), nn.GELU(), head()),
        (5,),
    ),
    "tied": (tied, (5,)),
    "reused": (lambda: Module(reused, first=linear(), mix=nn.Parameter(torch.randn(4, 4)), head=head()), (5,)),
    "unused": (lambda: Module(lambda m, x: m.head(m.first(x)), first=linear(), spare=linear(), head=head()), (5,)),
    "read, not used": (
        lambda: Module(lambda m, x: (m.spare.weight, m.first(x))[1], first=linear(CLASSES), spare=linear()),
        (5,),
    ),
    "scalars": (
        lambda: Module(
            lambda m, x: m.scale * m.first(x) + m.shift,
            scale=nn.Parameter(torch.tensor(1.5)),
            first=linear(CLASSES),
            shift=nn.Parameter(torch.tensor(-0.5)),
        ),
        (5,),
    ),
    "no numbers": (
        lambda: Module(
            lambda m, x: m.first(x) + m.none.sum(),
            before=nn.Parameter(torch.ones(1)),
            none=nn.Parameter(torch.ones(0)),
            first=linear(CLASSES),
        ),
        (5,),
    ),
    "tokens": (lambda: nn.Sequential(nn.Embedding(7, 4), nn.Flatten(), nn.Linear(12, CLASSES)), "tokens"),
    "bags": (lambda: Module(lambda m, x: m.head(m.words(x).mean(1)), words=nn.Embedding(7, 4), head=head()), "tokens"),
    "frozen": (frozen, (5,)),
    "constants": (constants, (5,)),
    "optional": (Optional, (5,)),
    "attention": (lambda: Module(attention, query=nn.Linear(4, 4), key=nn.Linear(4, 4), head=head()), (6, 4)),
    "split": (
        lambda: Module(
            lambda m, x: m.head(torch.cat([part.tanh() for part in m.first(x).chunk(2, 1)], 1)),
            first=linear(),
            head=head(),
        ),
        (5,),
    ),
    "sizes": (lambda: Module(lambda m, x: m.head(x.view(x.shape[0], -1)), head=nn.Linear(12, CLASSES)), (3, 4)),
    "reshaped": (
        lambda: Module(
            lambda m, x: m.head(m.first(x).reshape(-1, 4).tanh().reshape(x.size(0), 8)), first=linear(8), head=head(8)
        ),
        (5,),
    ),
    "sequence": (
        lambda: nn.Sequential(nn.Conv1d(2, 4, 3, stride=2), nn.ReLU(), nn.MaxPool1d(2), nn.Flatten(), head(8)),
        (2, 9),
    ),
    "volume": (
        lambda: nn.Sequential(nn.Conv3d(1, 2, 3, padding=1), nn.ReLU(), nn.MaxPool3d(2), nn.Flatten(), head(16)),
        (1, 4, 4, 4),
    ),
    "grouped": (
        lambda: nn.Sequential(
            nn.Conv2d(2, 4, 3, groups=2), nn.Tanh(), nn.ConvTranspose2d(4, 2, 2), nn.Flatten(), head(50)
        ),
        (2, 6, 6),
    ),
    "pool": (lambda: pooled(nn.MaxPool2d(2), 36), (2, 6, 7)),
    "wide pool": (lambda: pooled(nn.MaxPool2d((3, 2)), 24), (2, 6, 7)),
    "overlapping pool": (lambda: pooled(nn.MaxPool2d(3, stride=2), 24), (2, 6, 7)),
    "padded pool": (lambda: pooled(nn.MaxPool2d(2, padding=1), 64), (2, 6, 7)),
    "ceiling pool": (lambda: pooled(nn.MaxPool2d(2, ceil_mode=True), 48), (2, 6, 7)),
    "dilated pool": (lambda: pooled(nn.MaxPool2d(2, dilation=2, stride=2), 24), (2, 6, 7)),
    "weight norm": (lambda: nn.Sequential(weight_norm(linear()), nn.Tanh(), head()), (5,)),
    "hook": (lambda: nn.Sequential(hooked(linear()), head()), (5,)),
}
"""Modules that torch.fx follows: (make, shape of a sample)."""

EXPORTED = {
    "batch norm": (batch_norm, (5,)),
    "in place": (lambda: Module(added_in_place, first=linear(), second=nn.Linear(4, 4), head=head()), (5,)),
    "changed after use": (lambda: Module(changed_after_use, first=linear(), second=nn.Linear(4, 4), head=head()), (5,)),
    "scaled in place": (
        lambda: Module(scaled_in_place, first=linear(), scale=nn.Parameter(torch.full((4,), 1.5)), head=head()),
        (5,),
    ),
    "tied in place": (lambda: tied(tied_in_place), (5,)),
    "images in place": (
        lambda: Module(
            images_in_place,
            first=nn.Conv2d(2, 4, 3, padding=1),
            second=nn.Conv2d(4, 4, 3, padding=1),
            norm=nn.BatchNorm2d(4).eval(),
            relu=nn.ReLU(inplace=True),
            head=head(),
        ),
        (2, 6, 6),
    ),
    "relu in place": (lambda: nn.Sequential(linear(), nn.ReLU(inplace=True), head()), (5,)),
    "branch": (lambda: Module(lambda m, x: m.head(x if x.shape[1] > 4 else -x), head=head(5)), (5,)),
    "transformer": (
        lambda: Module(
            lambda m, x: m.head(m.layer(m.first(x)).mean(1)),
            first=nn.Linear(4, 8),
            layer=nn.TransformerEncoderLayer(8, 2, 16, dropout=0.0, batch_first=True),
            head=head(8),
        ),
        (5, 4),
    ),
    "recurrent": (
        lambda: Module(lambda m, x: m.head(m.layer(x)[0][:, -1]), layer=nn.GRU(4, 4, batch_first=True), head=head()),
        (5, 4),
    ),
    "multiplied by nothing yet": (lambda: statement(lambda h, p, _: h.mul_(p)), (5,)),
    "written elsewhere": (lambda: statement(lambda h, p, _: torch.mul(h, p, out=h)), (5,)),
    "only if tensor": (only_if_tensor, (5,)),
    "root hook": (lambda: hooked(nn.Linear(5, CLASSES)), (5,)),
}
"""Modules that torch.export captures alone."""

REFUSED = {
    "length": (lambda: Module(lambda m, x: m.head(x.view(len(x), -1)), head=nn.Linear(12, CLASSES)), (3, 4)),
    "data": (lambda: Module(lambda m, x: m.head(x) if float(x.sum()) > 0 else -m.head(x), head=head(5)), (5,)),
    "one batch size": (lambda: Module(lambda m, x: m.head(x.view(9, 5)), head=head(5)), (5,)),
    "view of nothing yet": (lambda: statement(lambda h, p, x: h.view(-1).mul_(p.repeat(len(x)))), (5,)),
    "several": (Several, (5,)),
    "numpy": (
        lambda: Module(lambda m, x: m.head(x) + float(x.detach().numpy().sum()) ** 2 * m.head.bias, head=head(5)),
        (5,),
    ),
}
"""Modules that are called whole."""


def samples(shape, count: int, seed: int):
    rng = np.random.default_rng(seed)
    inputs = rng.integers(0, 7, (count, 3)) if shape == "tokens" else rng.normal(size=(count, *shape))
    return inputs if shape == "tokens" else inputs.astype(np.float32), rng.integers(0, CLASSES, count)


def batches_of(shape, sizes, seed: int = 0):
    return [samples(shape, size, seed + number) for number, size in enumerate(sizes)]


@dataclass(frozen=True, slots=True)
class Spy(PlainKernels):
    """Tells how many probes of what length are made at a time."""

    seen: list[tuple[int, ...]] = field(default_factory=list)

    def displace_many(self, out, *rest) -> None:
        self.seen.append(out.shape)
        PlainKernels.displace_many(self, out, *rest)


def probes_of(runtime, spans, budget=3, signs=(1, -1), scale=0.05, kernels=None, theta=None, law=None):
    """Return probes of blocks at `spans` around the model's own values, laws taken in turn."""
    theta = runtime.layout.flatten(runtime.given).astype(runtime.precision) if theta is None else theta
    laws = [law] if law else [Rademacher(), Gaussian()]
    return [
        Probes(
            theta,
            BlockPlan(start, stop, budget, 1.0, laws[number % len(laws)]),
            Key.root(7).fold(number),
            scale,
            signs,
            kernels or PlainKernels(),
        )
        for number, (start, stop) in enumerate(spans)
    ]


def spans_of(layout, rule: str):
    """Return blocks: of layers, of the whole, of single tensors, or of edges that no tensor has."""
    if rule == "tensors":
        return [(own.start, own.stop) for own in layout.slices().values() if own.start < own.stop]
    if rule == "ragged":
        edges = sorted({0, 1, layout.size // 3, layout.size * 2 // 3 + 1, layout.size - 1})
        return [span for span in pairwise(edges) if span[0] < span[1]]
    return [(block.start, block.stop) for block in layout.blocks(rule)]


def naive(model, runtime, point, data) -> float:
    """Return the loss of one call of the user's own module, with its parameters replaced, in float64."""
    model = copy.deepcopy(model).double().eval()
    tensors = {name: torch.from_numpy(t.astype(np.float64)) for name, t in runtime.layout.unflatten(point).items()}
    inputs, targets = (torch.from_numpy(part) for part in data)
    inputs = inputs.double() if inputs.is_floating_point() else inputs
    with torch.no_grad():
        return float(functional.cross_entropy(functional_call(model, tensors, (inputs,)), targets))


def told(caplog) -> list[str]:
    """Return what the library has warned of."""
    return [
        record.getMessage()
        for record in caplog.records
        if record.name == "baffle" and record.levelno >= logging.WARNING
    ]
