"""A module as a graph: what is captured, what a block has to run again, what that costs, and what is kept."""

from __future__ import annotations

import gc
import itertools
import weakref

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from torch import nn  # noqa: E402
from torch.nn import functional  # noqa: E402

from baffle.errors import ModelError  # noqa: E402
from baffle.models.lenet import lenet  # noqa: E402
from baffle.models.mlp import mlp  # noqa: E402
from baffle.models.wide_resnet import wide_resnet  # noqa: E402
from baffle.runtimes import graph as graphs  # noqa: E402
from baffle.runtimes.graph import Graph, Trunk  # noqa: E402
from baffle.runtimes.torch import TorchRuntime  # noqa: E402
from runtimes.networks import (  # noqa: E402
    CLASSES,
    EXPORTED,
    REFUSED,
    TRACED,
    Module,
    batches_of,
    head,
    linear,
    probes_of,
    spans_of,
)


def graph_of(model, shape, count: int = 3) -> Graph:
    return Graph(model.eval().requires_grad_(False), torch.from_numpy(batches_of(shape, (count,))[0][0]))


def named(model) -> dict[str, torch.Tensor]:
    return {name: tensor.detach() for name, tensor in model.named_parameters()}


def outputs(graph, parameters, inputs, names):
    """Run what depends on `names` on what lies before it."""
    split = graph.split(names)
    tensors = [parameters[name] for name in (*split.displaced, *split.kept)]
    return split.run(*tensors, *Trunk(graph, parameters, inputs)(split.cut))


def relu_mlp():
    return nn.Sequential(linear(6), nn.ReLU(), nn.Linear(6, 4), nn.ReLU(), head())


# Splits.


@pytest.mark.parametrize(
    "kind", ["mlp", "lenet", "wide resnet", "tied", "reused", "unused", "scalars", "frozen", "split"]
)
def test_what_is_run_again_gives_the_modules_outputs_for_any_parameters(kind) -> None:
    make, shape = TRACED[kind]
    model = make()
    graph, parameters = graph_of(model, shape), named(model)
    inputs = torch.from_numpy(batches_of(shape, (5,))[0][0])
    subsets = [[name] for name in parameters] + [list(parameters), [], [*parameters][::2]]
    for names in subsets:
        torch.testing.assert_close(outputs(graph, parameters, inputs, names), model(inputs), rtol=1e-6, atol=1e-6)


def test_a_split_names_what_is_displaced_and_what_else_is_used() -> None:
    graph = graph_of(relu_mlp(), (5,))
    split = graph.split(["2.weight", "2.bias"])
    assert split.displaced == ("2.weight", "2.bias")
    assert split.kept == ("4.weight", "4.bias")
    assert len(split.cut) == 1
    last = graph.split(["4.bias"])
    assert (last.displaced, last.kept) == (("4.bias",), ("4.weight",))


def test_a_split_is_made_once() -> None:
    graph = graph_of(relu_mlp(), (5,))
    assert graph.split(["2.weight", "2.bias"]) is graph.split(("2.bias", "2.weight"))


def test_a_parameter_of_two_names_or_two_uses_is_given_once() -> None:
    make, shape = TRACED["tied"]
    split = graph_of(make(), shape).split(["one.weight"])
    assert split.displaced == ("one.weight",)
    assert sorted(split.kept) == ["head.bias", "head.weight", "one.bias", "two.bias"]
    make, shape = TRACED["reused"]
    assert graph_of(make(), shape).split(["mix"]).displaced == ("mix",)


def test_an_input_that_is_needed_late_is_a_value_of_the_cut() -> None:
    model = Module(lambda m, x: m.second(torch.tanh(m.first(x)) + x), first=nn.Linear(5, 5), second=nn.Linear(5, 2))
    graph = graph_of(model, (5,))
    assert graph.inputs in graph.split(["first.weight"]).cut
    assert graph.inputs not in graph.split(["second.weight"]).cut


@pytest.mark.parametrize("kind", REFUSED)
def test_what_is_no_graph_is_refused_with_a_reason_on_one_line(kind) -> None:
    make, shape = REFUSED[kind]
    with pytest.raises(ModelError) as caught:
        graph_of(make(), shape)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "give", [lambda h: (h, h), lambda h: [h], lambda h: {"logits": h}, lambda _: None, lambda _: 3.0]
)
def test_outputs_must_be_one_tensor(give) -> None:
    with pytest.raises(ModelError):
        graph_of(Module(lambda m, x: give(m.head(x)), head=head(5)), (5,))


def test_a_module_that_fails_is_refused() -> None:
    with pytest.raises(ModelError):
        graph_of(mlp(6, CLASSES), (5,))


def test_a_value_that_changes_in_place_is_never_read_from_a_graph() -> None:
    """The cut of a block holds what was there when it was read, however often the block is run."""
    make, shape = EXPORTED["changed after use"]
    model = make()
    graph, parameters = graph_of(model, shape), named(model)
    inputs = torch.from_numpy(batches_of(shape, (5,))[0][0])
    before, expected = inputs.clone(), model(inputs)
    for name in parameters:
        split = graph.split([name])
        cut = Trunk(graph, parameters, inputs)(split.cut)
        tensors = [parameters[name] for name in (*split.displaced, *split.kept)]
        for _ in range(3):
            torch.testing.assert_close(split.run(*tensors, *cut), expected)
    assert torch.equal(inputs, before)


# Layout of images.


@pytest.mark.parametrize(("model", "last"), [(lenet(1, 3), False), (lenet(3, 3), False), (wide_resnet(1, 3), True)])
def test_small_kernels_are_faster_channels_last(model, last) -> None:
    assert graph_of(model, (model[0].in_channels, 8, 8)).channels_last is last


def test_kernels_are_those_of_2d_convolutions_alone() -> None:
    model = nn.Sequential(
        nn.Conv2d(2, 4, 3), nn.Flatten(), nn.Unflatten(1, (4, 16)), nn.Conv1d(4, 2, 3), nn.Flatten(), head(28)
    )
    assert graph_of(model, (2, 6, 6)).kernels == {"0.weight"}
    assert graph_of(relu_mlp(), (5,)).kernels == frozenset()
    assert not graph_of(relu_mlp(), (5,)).channels_last


# Costs.


@pytest.fixture
def bare(monkeypatch):
    """Count nothing but products."""
    monkeypatch.setattr(graphs, "MOVED", 0)
    monkeypatch.setattr(graphs, "LOSS", 0)


def attended(m, x):
    return functional.scaled_dot_product_attention(m.query(x), m.key(x), m.value(x)).flatten(1)


def alike(m, x):
    h = m.query(x)
    return functional.scaled_dot_product_attention(h, h, h).flatten(1)


def squared(m, x):
    h = m.query(x)[:, :, :6]
    return (h @ h).flatten(1)


def layers(*names):
    return {name: nn.Linear(4, 8) for name in names}


WEIGHT = nn.Parameter(torch.ones(4, 7))
COUNTED = {
    "linear": (lambda: nn.Linear(5, 7), (5,)),
    "linear of sequences": (lambda: nn.Linear(4, 7), (6, 4)),
    "conv1d": (lambda: nn.Conv1d(3, 6, 3, groups=3, stride=2), (3, 9)),
    "conv2d": (lambda: nn.Conv2d(4, 6, (3, 5), padding=2, groups=2), (4, 8, 9)),
    "dilated": (lambda: nn.Conv2d(2, 3, 3, dilation=2), (2, 9, 9)),
    "conv3d": (lambda: nn.Conv3d(2, 3, 2), (2, 4, 5, 6)),
    "transposed": (lambda: nn.ConvTranspose2d(4, 6, 3, stride=2), (4, 5, 5)),
    "matmul": (lambda: Module(lambda m, x: torch.matmul(x, m.weight), weight=WEIGHT), (6, 4)),
    "operator": (lambda: Module(lambda m, x: x @ m.weight, weight=WEIGHT), (6, 4)),
    "method": (lambda: Module(lambda m, x: x.matmul(m.weight), weight=WEIGHT), (4,)),
    "bmm": (lambda: Module(lambda m, x: torch.bmm(x * m.weight[:, 0], x.transpose(1, 2)), weight=WEIGHT), (6, 4)),
    "addmm": (
        lambda: Module(lambda m, x: torch.addmm(m.bias, x, m.weight), weight=WEIGHT, bias=nn.Parameter(torch.ones(7))),
        (4,),
    ),
    "square": (lambda: Module(squared, **layers("query")), (6, 4)),
    "attention": (lambda: Module(attended, **layers("query", "key", "value")), (6, 4)),
    "attention to itself": (lambda: Module(alike, **layers("query")), (6, 4)),
    "mlp": (lambda: mlp(20, CLASSES, (8, 6)), (5, 4)),
    "lenet": (lambda: lenet(1, 10), (1, 28, 28)),
    "wide resnet": (lambda: wide_resnet(3, 10), (3, 8, 8)),
}


@pytest.mark.usefixtures("bare")
def test_products_are_counted_as_pytorch_counts_them() -> None:
    from torch.nn.attention import SDPBackend, sdpa_kernel
    from torch.utils.flop_counter import FlopCounterMode

    for kind, (make, shape) in COUNTED.items():
        model = make()
        graph = graph_of(model, shape)
        with FlopCounterMode(display=False) as counter, sdpa_kernel(SDPBackend.MATH):  # it can't see into others
            model(torch.from_numpy(batches_of(shape, (1,))[0][0]))
        assert sum(graph.operations.values()) == counter.get_total_flops(), kind


def test_costs_by_hand() -> None:
    """Two linear layers, 5 → 4 → 3: products, then 25 a number moved, then 1000 an output for the loss."""
    model = nn.Sequential(linear(4), nn.ReLU(), head(4))
    graph = graph_of(model, (5,))
    first, relu, second, loss = 40 + 25 * (5 + 4), 25 * (4 + 4), 24 + 25 * (4 + 3), 3000
    whole = first + relu + second + loss
    assert graph.cost(["0.weight"]) == graph.cost(["0.bias"]) == 1.0
    assert graph.cost(["2.weight"]) == (second + loss) / whole
    assert graph.cost([]) == loss / whole
    assert graph.split(["2.bias"]).operations == second + loss
    assert graph.split(["0.bias"]).numbers == 4 + 4 + 3


def test_a_view_moves_nothing() -> None:
    flat = graph_of(nn.Linear(12, 3), (12,))
    viewed = graph_of(nn.Sequential(nn.Unflatten(1, (3, 4)), nn.Flatten(), nn.Linear(12, 3)), (12,))
    assert sum(viewed.operations.values()) == sum(flat.operations.values())


def test_the_last_layer_of_lenet_costs_next_to_nothing() -> None:
    runtime = TorchRuntime(lenet(1, 10), device="cpu")
    blocks = runtime.layout.blocks("layers")
    first, second, last = runtime.costs(blocks, batches_of((1, 28, 28), (3,))[0])
    assert first == 1.0
    assert 0.5 < second < 1.0
    assert 0.0 < last < 0.01


@pytest.mark.parametrize("kind", [*TRACED, "in place", "batch norm", "transformer"])
def test_costs_are_shares_and_the_whole_costs_the_most(kind) -> None:
    make, shape = (TRACED | EXPORTED)[kind]
    runtime = TorchRuntime(make(), device="cpu")
    blocks = [*runtime.layout.blocks("layers"), *runtime.layout.blocks("whole")]
    *shares, whole = runtime.costs(blocks, batches_of(shape, (3,))[0])
    assert all(0.0 < share <= whole <= 1.0 for share in shares)


@pytest.mark.parametrize(
    "make", [lenet, wide_resnet, lambda channels, classes: mlp(channels * 64, classes, (9, 8, 7, 6))]
)
def test_along_a_chain_a_later_layer_costs_less(make) -> None:
    model = make(1, CLASSES)
    runtime = TorchRuntime(model, device="cpu")
    chain = [block for block in runtime.layout.blocks("layers") if "." not in block.name]
    costs = runtime.costs(chain, batches_of((1, 8, 8), (2,))[0])
    assert all(earlier > later for earlier, later in itertools.pairwise(costs))
    assert costs[0] == 1.0


@pytest.mark.parametrize("kind", ["lenet", "wide resnet", "tokens", "attention", "in place"])
def test_costs_do_not_depend_on_how_many_samples_show_the_shape(kind) -> None:
    make, shape = (TRACED | EXPORTED)[kind]
    model = make()
    costs = set()
    for count in (1, 2, 3, 7):
        runtime = TorchRuntime(model, device="cpu")
        costs.add(runtime.costs(runtime.layout.blocks("layers"), batches_of(shape, (count,))[0]))
    assert len(costs) == 1


def test_costs_depend_on_the_samples_shape_and_on_nothing_that_was_asked_before() -> None:
    model, blocks = lenet(1, 10), None
    asked = {}
    for size in (8, 28):
        runtime = TorchRuntime(model, device="cpu")
        blocks = runtime.layout.blocks("layers")
        asked[size] = runtime.costs(blocks, batches_of((1, size, size), (2,))[0])
    assert asked[8] != asked[28]
    runtime = TorchRuntime(model, device="cpu")
    for size in (28, 8, 28):
        runtime.sweep(probes_of(runtime, spans_of(runtime.layout, "layers")[-1:]), batches_of((1, 36 - size, 8), (2,)))
        assert runtime.costs(blocks, batches_of((1, size, size), (2,))[0]) == asked[size]


def test_costs_depend_on_no_parameter() -> None:
    models = [mlp(5, CLASSES), mlp(5, CLASSES)]
    with torch.no_grad():
        models[1][1].bias.fill_(torch.nan)
    costs = []
    for model in models:
        runtime = TorchRuntime(model, device="cpu")
        costs.append(runtime.costs(runtime.layout.blocks("layers"), batches_of((5,), (3,))[0]))
    assert costs[0] == costs[1]


# The trunk.


@pytest.fixture
def called(monkeypatch):
    """Return the list of nodes that are run one at a time."""
    seen, plain = [], graphs._call

    def watched(node, values):
        seen.append(node)
        return plain(node, values)

    monkeypatch.setattr(graphs, "_call", watched)
    return seen


@pytest.mark.parametrize("kind", ["mlp", "lenet", "wide resnet", "tied", "in place"])
def test_the_cuts_of_a_chain_cost_one_forward_pass_at_the_most(kind, called) -> None:
    make, shape = (TRACED | EXPORTED)[kind]
    model = make()
    graph, parameters = graph_of(model, shape), named(model)
    trunk = Trunk(graph, parameters, torch.from_numpy(batches_of(shape, (5,))[0][0]))
    layers = {}
    for name in parameters:
        layers.setdefault(name.rpartition(".")[0], []).append(name)
    if kind == "wide resnet":  # a block's two branches are no chain
        layers = {path: names for path, names in layers.items() if "." not in path}
    called.clear()
    for names in layers.values():
        trunk(graph.split(names).cut)
    assert len(called) == len(set(called))
    work = graph._work(graph.nodes)
    assert set(called) <= set(work)
    if kind == "mlp":  # all but the last layer itself
        assert called == work[:-1]


@pytest.mark.parametrize("kind", ["lenet", "wide resnet", "tied", "reused", "unused", "split", "images in place"])
def test_values_are_right_in_any_order_of_blocks(kind) -> None:
    make, shape = (TRACED | EXPORTED)[kind]
    model = make()
    graph, parameters = graph_of(model, shape), named(model)
    inputs = torch.from_numpy(batches_of(shape, (5,))[0][0])
    trunk, names = Trunk(graph, parameters, inputs), list(parameters)
    for order in (names, names[::-1], np.random.default_rng(0).permutation(names).tolist(), names[:1] * 2):
        for name in order:
            cut = graph.split([name]).cut
            for one, other in zip(trunk(cut), Trunk(graph, parameters, inputs)(cut), strict=True):
                assert torch.equal(one, other) if isinstance(one, torch.Tensor) else one == other


def test_only_the_values_that_were_asked_for_last_are_alive(monkeypatch) -> None:
    """At any time a chain's trunk holds a layer's input and output, and afterwards one value."""
    model = nn.Sequential(*(layer for _ in range(8) for layer in (nn.Linear(5, 5), nn.Tanh())))
    graph, parameters = graph_of(model, (5,)), named(model)
    alive: list[weakref.ref] = []
    most, plain = 0, graphs._call

    def watched(node, values):
        nonlocal most
        made = plain(node, values)
        alive.append(weakref.ref(made))
        most = max(most, sum(one() is not None for one in alive))
        return made

    monkeypatch.setattr(graphs, "_call", watched)
    trunk = Trunk(graph, parameters, torch.zeros(2, 5))
    trunk(graph.split(["14.weight"]).cut)
    gc.collect()
    assert len(alive) == 14
    assert most == 2
    assert [one() is not None for one in alive] == [False] * 13 + [True]
    trunk([])
    gc.collect()
    assert not any(one() is not None for one in alive)


def test_a_sweep_leaves_no_activations_behind(monkeypatch) -> None:
    model = nn.Sequential(*(layer for _ in range(4) for layer in (nn.Linear(5, 5), nn.Tanh())))
    runtime = TorchRuntime(model, device="cpu")
    blocks, batches = probes_of(runtime, spans_of(runtime.layout, "layers")), batches_of((5,), (4, 2))
    runtime.sweep(blocks, batches)
    alive, plain = [], graphs._call

    def watched(node, values):
        made = plain(node, values)
        alive.append(weakref.ref(made))
        return made

    monkeypatch.setattr(graphs, "_call", watched)
    runtime.sweep(blocks, batches)
    gc.collect()
    assert alive
    assert not any(one() is not None for one in alive)


# Maxima over windows.


def images(kind: str, shape) -> torch.Tensor:
    generator = torch.Generator().manual_seed(3)
    found = torch.randn(shape, generator=generator)
    chosen = torch.rand(shape, generator=generator) < 0.4
    values = {"nan": torch.nan, "infinite": -torch.inf, "equal": 0.5, "huge": 3e38, "tiny": 1e-45}
    found = torch.where(chosen, values.get(kind, found), found)
    return found.contiguous(memory_format=torch.channels_last) if kind == "channels last" and found.ndim == 4 else found


SHAPES = [
    (2, 3, 8, 8),
    (1, 1, 7, 9),
    (2, 2, 5, 4),
    (3, 8, 8),
    (2, 16, 32, 32),
    (2, 3, 9, 33),
    (2, 3, 2, 2),
    (0, 3, 8, 8),
]


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("kind", ["normal", "nan", "infinite", "equal", "huge", "tiny", "channels last"])
def test_maxima_are_pytorchs_to_the_bit(kind, shape) -> None:
    found = images(kind, shape)
    for window in (1, 2, 3, (2, 3), (3, 2), (1, 2), (2,), 4):
        for settings in ({}, {"stride": 1}, {"stride": window}, {"padding": 0, "dilation": (1, 1)}):
            _assert_pooled(found, window, settings)
        for settings in ({"padding": 1}, {"dilation": 2}, {"ceil_mode": True}, {"stride": (2, 1)}):
            _assert_pooled(found, window, settings)


def _failure(pool, found, window, settings) -> str:
    try:
        pool(found, window, **settings)
    except RuntimeError as error:
        return str(error)
    return ""


def _assert_pooled(found, window, settings) -> None:
    failure = _failure(functional.max_pool2d, found, window, settings)
    assert _failure(graphs._max_pool, found, window, settings) == failure
    if failure:
        return
    expected = functional.max_pool2d(found, window, **settings)
    pooled = graphs._max_pool(found, window, **settings)
    assert pooled.shape == expected.shape
    assert pooled.dtype == expected.dtype
    bits = [one.contiguous().view(torch.int32) for one in (pooled, expected)]
    assert torch.equal(*bits), (window, settings)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float16, torch.bfloat16, torch.int64, torch.uint8])
def test_maxima_of_other_types(dtype) -> None:
    found = (10 * images("normal", (2, 3, 8, 9)).abs()).to(dtype)
    if dtype == torch.uint8:
        found = found.contiguous()
    assert torch.equal(graphs._max_pool(found, 2), functional.max_pool2d(found, 2))


def test_indices_are_pytorchs() -> None:
    found = images("equal", (2, 3, 8, 8))
    for one, other in zip(
        graphs._max_pool(found, 2, return_indices=True),
        functional.max_pool2d(found, 2, return_indices=True),
        strict=True,
    ):
        assert torch.equal(one, other)


def test_of_zeros_of_both_signs_the_maximum_is_zero() -> None:
    """Its sign may be either: which of them PyTorch takes depends on how many numbers it compares at once."""
    generator = torch.Generator().manual_seed(3)
    zeros = torch.where(torch.rand((2, 3, 32, 32), generator=generator) < 0.5, 0.0, -0.0)
    assert torch.equal(graphs._max_pool(zeros, 2), functional.max_pool2d(zeros, 2))


@pytest.mark.parametrize("settings", [{}, {"stride": 1}, {"ceil_mode": True}])
def test_maxima_of_many_probes_at_a_time(settings) -> None:
    found = images("nan", (4, 2, 3, 9, 8))
    pooled = torch.vmap(lambda one: graphs._max_pool(one, 2, **settings))(found)
    expected = torch.stack([functional.max_pool2d(one, 2, **settings) for one in found])
    assert torch.equal(pooled.view(torch.int32), expected.view(torch.int32))


def test_the_layers_of_a_module_are_found_by_all_their_names() -> None:
    """As a module, as a function, and as the exporter writes it."""
    functions = (functional.max_pool2d, torch.max_pool2d)
    models = [
        Module(
            lambda m, x, f=f: m.head(f(m.first(x), 2).flatten(1)), first=nn.Conv2d(2, 4, 3, padding=1), head=head(36)
        )
        for f in functions
    ]
    models.append(nn.Sequential(nn.Conv2d(2, 4, 3, padding=1), nn.MaxPool2d(2), nn.Flatten(), head(36)))
    models.append(
        nn.Sequential(nn.Conv2d(2, 4, 3, padding=1), nn.ReLU(inplace=True), nn.MaxPool2d(2), nn.Flatten(), head(36))
    )
    for model in models:
        graph = graph_of(model, (2, 6, 7))
        assert [graphs._faster(node) for node in graph._work(graph.nodes)].count(graphs._max_pool) == 1
