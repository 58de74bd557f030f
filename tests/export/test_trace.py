"""Operations counted: by hand, and as PyTorch's runtime counts them."""

from __future__ import annotations

import numpy as np
import pytest

pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")

from baffle.bundle import Feature
from baffle.errors import ModelError
from baffle.export import trace
from baffle.export.model import normal
from baffle.runtimes.work import LOSS, MOVED
from export.graphs import CLASSES, FEATURES, HIDDEN, draw, initialisers, mlp, model, node, x


def counted(made, given=None, fixed=None) -> dict[str, int]:
    made, given = normal(made), given or x(trace.SAMPLES)
    values = initialisers(made) | given | trace.traced(made, given)
    return trace.operations(made, values, set(initialisers(made)) if fixed is None else fixed)


def test_two_layers_by_hand() -> None:
    """Two operations a product of two numbers; what is read and written, weights aside, is moved."""
    assert counted(mlp()) == {
        "h": 2 * FEATURES * HIDDEN + MOVED * (FEATURES + HIDDEN),
        "a": MOVED * (HIDDEN + HIDDEN),
        "p": 2 * HIDDEN * CLASSES + MOVED * (HIDDEN + CLASSES),
        "y": MOVED * (CLASSES + CLASSES),
    }


@pytest.mark.parametrize(("group", "bias"), [(1, False), (1, True), (2, True)])
def test_a_convolution_by_hand(group, bias) -> None:
    """4 to 6 channels, kernels of 3 x 2, on images of 8 x 7: 6 x 6 places."""
    names = ["x", "k", "b"] if bias else ["x", "k"]
    made = model(
        [node("Conv", names, ["y"], group=group)],
        {"k": draw(6, 4 // group, 3, 2), "b": draw(6)},
        (("x", ["batch", 4, 8, 7]),),
        (("y", None),),
    )
    products = 2 * (6 * 6 * 6) * (4 // group) * 3 * 2
    assert counted(made, {"x": draw(2, 4, 8, 7)}) == {"y": products + MOVED * (4 * 8 * 7 + 6 * 6 * 6)}


def test_products_of_activations_and_views_by_hand() -> None:
    nodes = [
        node("Transpose", ["x"], ["t"], perm=[0, 2, 1]),
        node("MatMul", ["x", "t"], ["s"]),
        node("Reshape", ["s", "flat"], ["f"]),
        node("Identity", ["f"], ["y"]),
    ]
    made = model(nodes, {"flat": np.array([0, -1])}, (("x", ["batch", 5, 3]),), (("y", None),))
    assert counted(made, {"x": draw(2, 5, 3)}) == {
        "t": MOVED * 30,
        "s": 2 * 25 * 3 + MOVED * (15 + 15 + 25),
        "f": 0,
        "y": 0,
    }


def test_a_transposed_gemm_of_samples_last_by_hand() -> None:
    nodes = [node("Transpose", ["x"], ["t"]), node("Gemm", ["t", "w"], ["y"], transA=1)]
    found = counted(model(nodes, {"w": draw(FEATURES, CLASSES)}))
    assert found["y"] == 2 * FEATURES * CLASSES + MOVED * (FEATURES + CLASSES)


def test_integer_products_count_as_others_do() -> None:
    nodes = [
        node("DynamicQuantizeLinear", ["x"], ["q", "s", "z"]),
        node("MatMulInteger", ["q", "w", "z"], ["i"]),
        node("Cast", ["i"], ["y"], to=1),
    ]
    found = counted(model(nodes, {"w": np.ones((FEATURES, CLASSES), np.int8)}))
    assert found["i"] >= 2 * FEATURES * CLASSES
    assert found["i"] <= 2 * FEATURES * CLASSES + MOVED * (FEATURES + CLASSES + 1)


def test_the_loss_counts_for_each_output() -> None:
    assert trace.loss(np.zeros((trace.SAMPLES, 10))) == 10 * LOSS
    assert trace.loss(np.zeros(trace.SAMPLES)) == LOSS


def test_made_up_samples_have_their_shapes_and_types() -> None:
    made = trace.samples(
        [Feature("a", "float32", (3, -1)), Feature("b", "int64", ()), Feature("c", "bool", (-1,))], 2, 5
    )
    assert {name: (value.dtype, value.shape) for name, value in made.items()} == {
        "a": (np.float32, (2, 3, 5)),
        "b": (np.int64, (2,)),
        "c": (np.bool_, (2, 5)),
    }
    assert set(made["b"].tolist()) <= {0, 1}
    again = trace.samples([Feature("a", "float32", (3, -1))], 2, 5)
    np.testing.assert_array_equal(made["a"], again["a"])


def test_samples_that_a_model_can_not_take_are_told_with_their_shapes() -> None:
    nodes = [node("Reshape", ["x", "shape"], ["r"]), node("MatMul", ["r", "w"], ["y"])]
    constants = {"shape": np.array([-1, 7]), "w": draw(7, CLASSES)}
    with pytest.raises(ModelError, match=r"ONNX Runtime fails on samples of shape x \[2, 5\]"):
        trace.traced(model(nodes, constants, (("x", ["batch", None]),)), {"x": draw(2, 5)})


@pytest.mark.parametrize("kind", ["lenet", "mlp"])
def test_operations_are_those_of_pytorchs_runtime(kind, exported) -> None:
    from baffle.runtimes.onnx import OnnxRuntime
    from baffle.runtimes.torch import TorchRuntime

    made = exported(kind)
    ours, theirs = OnnxRuntime(made.folder), TorchRuntime(made.module, device="cpu")
    blocks = ours.layout.blocks("layers")
    assert ours.layout == theirs.layout
    batch = np.zeros((3, *made.shape), np.float32), np.zeros(3, np.int64)
    np.testing.assert_allclose(ours.costs(blocks, batch), theirs.costs(blocks, batch), rtol=1e-9)
