"""The same bits by however many threads, in whatever ranges, and PyTorch's own threads left as they were."""

from __future__ import annotations

import threading

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from torch import nn  # noqa: E402

from baffle.directions import Gaussian, Orthogonal, Rademacher  # noqa: E402
from baffle.errors import ModelError  # noqa: E402
from baffle.kernels.compiled import CompiledKernels  # noqa: E402
from baffle.models.lenet import lenet  # noqa: E402
from baffle.models.mlp import mlp  # noqa: E402
from baffle.models.wide_resnet import wide_resnet  # noqa: E402
from baffle.runtimes.sweep import TOGETHER  # noqa: E402
from baffle.runtimes.torch import TorchRuntime, cross_entropy  # noqa: E402
from runtimes.networks import CLASSES, Module, Spy, batches_of, head, linear, probes_of, spans_of  # noqa: E402

MODELS = {
    "mlp": (lambda: nn.Sequential(nn.Linear(40, 32), nn.Hardswish(), nn.Linear(32, 10)), (40,)),
    "lenet": (lambda: lenet(1, 10), (1, 12, 12)),
    "wide resnet": (lambda: wide_resnet(3, 10), (3, 6, 6)),
}


def assert_same(one, other) -> None:
    for left, right in zip(one, other, strict=True):
        np.testing.assert_array_equal(left, right)


@pytest.mark.parametrize("kind", MODELS)
def test_any_number_of_threads_gives_the_same_bits(kind) -> None:
    make, shape = MODELS[kind]
    model, batches = make(), batches_of(shape, (7, 3, 13))
    found = []
    for threads in (1, 2, 3):
        runtime = TorchRuntime(model, device="cpu", threads=threads, chunk=11)
        blocks = probes_of(runtime, spans_of(runtime.layout, "layers"), budget=5)
        blocks += probes_of(runtime, spans_of(runtime.layout, "layers")[-1:], budget=200)
        found.append(runtime.sweep(blocks, batches))
    assert_same(found[0], found[1])
    assert_same(found[0], found[2])


@pytest.mark.parametrize("kind", MODELS)
def test_any_number_of_threads_evaluates_to_the_same_bits(kind) -> None:
    make, shape = MODELS[kind]
    model, batches = make(), batches_of(shape, (37, 5))
    found = []
    for threads in (1, 2, 3):
        runtime = TorchRuntime(model, device="cpu", threads=threads)
        point = runtime.layout.flatten(runtime.given)
        found.append((runtime.evaluate(point, batches), *runtime.losses([point], batches)[0]))
        found[-1] += tuple(runtime.losses([point], batches[1:2])[0])  # a pass so small that PyTorch cuts it elsewhere
    assert found[0] == found[1] == found[2]


@pytest.mark.parametrize("precision", ["float32", "float64"])
@pytest.mark.parametrize("law", [Gaussian(), Rademacher(), Orthogonal(11)], ids=repr)
@pytest.mark.parametrize("kind", ["mlp", "lenet"])
def test_a_range_of_directions_gives_the_same_bits_by_itself(kind, law, precision) -> None:
    make, shape = MODELS[kind]
    runtime = TorchRuntime(make(), device="cpu", precision=precision)
    batches, signs = batches_of(shape, (17, 3)), (1, -1)
    spans = spans_of(runtime.layout, "layers")
    for probes in probes_of(runtime, spans[-1:] if kind == "lenet" else spans, 300, signs, law=law):
        (whole,) = runtime.sweep([probes], batches)
        for first, stop in ((0, 128), (128, 256), (256, 300), (128, 300), (0, 77), (128, 129), (256, 257), (5, 5)):
            if first < stop:
                (part,) = runtime.sweep([probes.part(first, stop)], batches)
                np.testing.assert_array_equal(part, whole[2 * first : 2 * stop])


@pytest.mark.parametrize("sizes", [(17, 3), (64,), (70,), (129,)])
@pytest.mark.parametrize("kind", ["mlp", "lenet"])
def test_a_range_may_begin_where_the_runtime_says(kind, sizes) -> None:
    """It says a multiple of what is evaluated in any of its calls, a large batch's smaller last piece included."""
    make, shape = MODELS[kind]
    spy, runtime = Spy(), TorchRuntime(make(), device="cpu", chunk=64)
    batches = batches_of(shape, sizes)
    for probes in probes_of(runtime, spans_of(runtime.layout, "layers"), TOGETHER, (1,), kernels=spy):
        together = runtime.together(probes, batches)
        assert together in [1 << power for power in range(8)]
        stop = min(together + 3, 9) if together < 16 else TOGETHER
        spy.seen.clear()
        (whole,) = runtime.sweep([probes.part(0, stop)], batches)
        assert all(together % count == 0 or count < 4 or count == stop for count, _ in spy.seen)
        assert together >= max(count for count, _ in spy.seen)
        first = together if together < stop else 0
        (part,) = runtime.sweep([probes.part(first, stop)], batches)
        np.testing.assert_array_equal(part, whole[first:])


def test_a_module_that_is_no_graph_may_be_cut_anywhere() -> None:
    runtime = TorchRuntime(mlp(5, CLASSES), device="cpu", capture=False)
    (probes,) = probes_of(runtime, spans_of(runtime.layout, "layers")[:1], 6)
    batches = batches_of((5,), (4, 2))
    assert runtime.together(probes, batches) == 1
    np.testing.assert_array_equal(
        runtime.sweep([probes.part(1, 3)], batches)[0], runtime.sweep([probes], batches)[0][2:6]
    )


def test_a_sweep_repeats_to_the_bit() -> None:
    runtime = TorchRuntime(lenet(1, 10), device="cpu", threads=2)
    blocks, batches = probes_of(runtime, spans_of(runtime.layout, "layers"), 9), batches_of((1, 12, 12), (9, 2))
    first = runtime.sweep(blocks, batches)
    runtime.evaluate(np.zeros(runtime.layout.size, np.float32), batches)  # and not what was asked in between
    runtime.losses([np.ones(runtime.layout.size, np.float32)], batches)
    assert_same(first, runtime.sweep(blocks, batches))
    assert_same(first[::-1], runtime.sweep(blocks[::-1], batches))


def test_kernels_with_threads_of_their_own_give_the_same_bits() -> None:
    model, batches = nn.Sequential(nn.Linear(700, 400), nn.Tanh(), nn.Linear(400, 3)), batches_of((700,), (3, 2))
    found = []
    for threads, kernels in ((1, None), (3, CompiledKernels(threads=2)), (2, CompiledKernels(threads=3, room=1 << 14))):
        runtime = TorchRuntime(model, device="cpu", threads=threads)
        blocks = probes_of(runtime, spans_of(runtime.layout, "layers"), 8, kernels=kernels)
        found.append(runtime.sweep(blocks, batches))
    assert_same(found[0], found[1])
    assert_same(found[0], found[2])


# PyTorch's threads.


@pytest.fixture
def four():
    torch.set_num_threads(4)


def asked(runtime, batches):
    """Return every call that runs something, by name."""
    blocks = probes_of(runtime, spans_of(runtime.layout, "layers"), 3)
    point = blocks[0].parameters
    return {
        "sweep": lambda: runtime.sweep(blocks, batches),
        "costs": lambda: runtime.costs(runtime.layout.blocks("layers"), batches[0]),
        "together": lambda: runtime.together(blocks[0], batches),
        "losses": lambda: runtime.losses([point], batches),
        "evaluate": lambda: runtime.evaluate(point, batches),
    }


@pytest.mark.usefixtures("four")
@pytest.mark.parametrize("call", ["sweep", "costs", "together", "losses", "evaluate"])
@pytest.mark.parametrize("threads", [1, 3])
@pytest.mark.parametrize("capture", [True, False])
def test_the_number_of_threads_is_put_back_after_a_call(call, threads, capture) -> None:
    runtime = TorchRuntime(mlp(5, CLASSES), device="cpu", threads=threads, capture=capture)
    for _ in range(2):
        asked(runtime, batches_of((5,), (4, 2)))[call]()
        assert torch.get_num_threads() == 4


@pytest.mark.usefixtures("four")
@pytest.mark.parametrize("call", ["sweep", "losses", "evaluate"])
@pytest.mark.parametrize("threads", [1, 3])
@pytest.mark.parametrize("capture", [True, False])
def test_the_number_of_threads_is_put_back_after_an_exception(call, threads, capture) -> None:
    def refuse(*_):
        raise ValueError("not today")

    runtime = TorchRuntime(mlp(5, CLASSES), refuse, device="cpu", threads=threads, capture=capture)
    before = threading.active_count()
    with pytest.raises(ModelError, match=r"the loss fails on .*: ValueError: not today"):
        asked(runtime, batches_of((5,), (4, 2)))[call]()
    assert torch.get_num_threads() == 4
    assert threading.active_count() == before


@pytest.mark.usefixtures("four")
def test_the_number_of_threads_is_put_back_after_a_module_that_can_not_be_captured() -> None:
    runtime = TorchRuntime(Module(lambda m, x: m.head(x) * float(x.sum()), head=head(5)), device="cpu", threads=2)
    asked(runtime, batches_of((5,), (4, 2)))["sweep"]()
    assert torch.get_num_threads() == 4


@pytest.mark.usefixtures("four")
@pytest.mark.parametrize("threads", [1, 2, 3])
def test_calls_run_on_that_many_threads_of_one_processor_thread_each(threads) -> None:
    seen: dict[int, set[int]] = {}
    barrier = threading.Barrier(threads)

    def loss(outputs, targets):
        here = threading.get_ident()
        if here not in seen:
            barrier.wait(timeout=30)  # until as many run at once
        seen.setdefault(here, set()).add(torch.get_num_threads())
        return cross_entropy(outputs, targets)

    runtime = TorchRuntime(
        Module(lambda m, x: m.head(m.first(x)), first=linear(), head=head()), loss, threads=threads, device="cpu"
    )
    (probes, _) = probes_of(runtime, spans_of(runtime.layout, "layers"), 20 * TOGETHER)
    runtime.sweep([probes], batches_of((5,), (4, 2)))
    assert len(seen) == threads
    assert set().union(*seen.values()) == {1}


def test_no_thread_is_left_behind() -> None:
    runtime = TorchRuntime(mlp(5, CLASSES), device="cpu", threads=3)
    before = threading.active_count()
    for call in asked(runtime, batches_of((5,), (4, 2))).values():
        call()
    assert threading.active_count() == before
