"""ONNX models as people have them: which ones are taken, in what form, and what is said of the others."""

from __future__ import annotations

import numpy as np
import pytest

onnx = pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")

from onnx import TensorProto, helper, numpy_helper  # noqa: E402

from baffle.errors import ModelError  # noqa: E402
from baffle.export import Choice, export, from_onnx, prepared  # noqa: E402
from baffle.export.model import features, normal, output_of, read, reads, reduced  # noqa: E402
from export.graphs import (  # noqa: E402
    CLASSES,
    FEATURES,
    FLOAT,
    HIDDEN,
    INT64,
    draw,
    initialisers,
    mlp,
    model,
    node,
    run,
    save,
    x,
)

WIDE = {"w": draw(FEATURES, CLASSES), "b": draw(CLASSES)}


def refused(made, *words: str) -> None:
    with pytest.raises(ModelError) as told:
        normal(made)
    for word in words:
        assert word in str(told.value)


# Files.


@pytest.mark.parametrize(
    "data",
    [b"", b"\0", b"PK\x03\x04 a PyTorch checkpoint", b"{}", "ä".encode() * 100, bytes(range(256)) * 8],
    ids=["empty", "zero", "zip", "json", "text", "bytes"],
)
def test_a_file_that_is_no_onnx_is_named(data, tmp_path) -> None:
    path = tmp_path / "model.onnx"
    path.write_bytes(data)
    with pytest.raises(ModelError, match=r"model\.onnx is no ONNX model: "):
        read(path)


@pytest.mark.parametrize("share", [0.1, 0.5, 0.9, 0.999])
def test_a_truncated_file_is_named(share, tmp_path) -> None:
    path = save(mlp(), tmp_path / "model.onnx")
    whole = path.read_bytes()
    path.write_bytes(whole[: int(share * len(whole))])
    with pytest.raises(ModelError, match=r"model\.onnx"):
        from_onnx(path)


@pytest.mark.parametrize("name", ["config.json", "model.onnxtxt", "model.textproto", "model.pbtxt"])
def test_a_text_that_is_no_model_is_named_whatever_its_suffix(name, tmp_path) -> None:
    """Readers of other formats raise kinds of their own."""
    path = tmp_path / name
    path.write_text('{"hidden_size": 384,\n')
    with pytest.raises(ModelError, match=f"{name} is no ONNX model"):
        read(path)


def test_a_missing_file_and_a_folder_are_named(tmp_path) -> None:
    with pytest.raises(ModelError, match=r"nowhere\.onnx can't be read: No such file"):
        read(tmp_path / "nowhere.onnx")
    with pytest.raises(ModelError, match="can't be read: Is a directory"):
        read(tmp_path)


def test_missing_weights_beside_a_file_are_told(tmp_path) -> None:
    path = tmp_path / "model.onnx"
    onnx.save(mlp(hidden=400), path, save_as_external_data=True, location="weights.bin", size_threshold=0)
    assert read(path).graph.node
    (tmp_path / "weights.bin").unlink()
    with pytest.raises(ModelError, match=r"model\.onnx"):
        read(path)


def test_a_model_without_operations_is_told_so(tmp_path) -> None:
    path = save(model([]), tmp_path / "model.onnx")
    with pytest.raises(ModelError, match="is no ONNX model: it has no operations"):
        read(path)


def test_a_model_without_outputs_is_told_so(tmp_path) -> None:
    made = mlp()
    del made.graph.output[:]
    with pytest.raises(ModelError, match="output"):
        from_onnx(save(made, tmp_path / "model.onnx"))


def test_an_operation_that_onnx_runtime_lacks_is_told_with_the_file(tmp_path) -> None:
    made = model([node("Levitate", ["x"], ["y"], domain="mine")], domains=["mine"])
    with pytest.raises(ModelError, match=r"model\.onnx: ONNX Runtime can't load it: .*Levitate"):
        from_onnx(save(made, tmp_path / "model.onnx"))


# What forward passes can't train.


@pytest.mark.parametrize("opset", [7, 12])
def test_an_old_opset_is_refused_with_advice(opset, tmp_path) -> None:
    refused(mlp(opset=opset), f"opset {opset}", "13 or newer is needed", "onnx.version_converter")
    with pytest.raises(ModelError, match=r"model\.onnx: it uses opset"):
        read(save(mlp(opset=opset), tmp_path / "model.onnx"))
    normal(mlp(opset=13))


@pytest.mark.parametrize(
    ("shape", "words"),
    [([1, FEATURES], "a first axis of 1"), ([32, FEATURES], "a first axis of 32"), ([], "no axes")],
)
def test_a_fixed_batch_axis_is_refused_with_advice(shape, words) -> None:
    made = normal(mlp(inputs=(("x", shape),)))
    with pytest.raises(ModelError, match=f"input x has {words}: .* dynamic batch axis"):
        features(made)


def test_an_input_of_unknown_rank_is_refused() -> None:
    with pytest.raises(ModelError, match="input x is no tensor of a known number of axes"):
        features(normal(mlp(inputs=(("x", None),))))


def test_a_model_without_input_is_refused() -> None:
    nodes = [node("Add", ["w", "w"], ["y"])]
    made = normal(model(nodes, {"w": draw(2, 3)}, inputs=(), outputs=(("y", [2, 3]),)))
    with pytest.raises(ModelError, match="it takes no input"):
        features(made)


def test_samples_are_described_without_their_batch_axis() -> None:
    nodes = [node("Cast", ["mask"], ["m"], to=FLOAT), node("Mul", ["x", "m"], ["y"])]
    made = model(nodes, None, (("x", [None, "length", 4]), ("mask", ["batch", "length", 1], INT64)), (("y", None),))
    first, second = features(normal(made))
    assert (first.name, first.dtype, first.shape) == ("x", "float32", (-1, 4))
    assert (second.name, second.dtype, second.shape) == ("mask", "int64", (-1, 1))


def dropout(mode):
    """Return a model whose Dropout has its mode as a constant, a Constant operation, an input, or not at all."""
    constants = dict(WIDE) | {"ratio": np.float32(0.5)}
    head, inputs = [], [("x", ["batch", FEATURES])]
    if mode == "input":
        inputs.append(("mode", [], TensorProto.BOOL))
    elif isinstance(mode, np.bool_):
        head.append(node("Constant", [], ["mode"], value=numpy_helper.from_array(np.array(mode))))
    elif mode is not None:
        constants["mode"] = np.array(mode)
    tail = ["mode"] if mode is not None else []
    nodes = [*head, node("Dropout", ["x", "ratio", *tail], ["d"], name="drop"), node("Gemm", ["d", "w", "b"], ["y"])]
    return model(nodes, constants, inputs)


@pytest.mark.parametrize("mode", [True, np.True_, "input"], ids=["constant", "operation", "input"])
def test_dropout_in_training_mode_is_refused_with_advice(mode) -> None:
    refused(dropout(mode), "Dropout (drop) is in training mode", "export the model for inference")


@pytest.mark.parametrize("mode", [None, False, np.False_], ids=["none", "constant", "operation"])
def test_dropout_that_does_nothing_is_taken(mode) -> None:
    made = normal(dropout(mode))
    np.testing.assert_allclose(run(made, x())[0], x()["x"] @ WIDE["w"] + WIDE["b"], rtol=1e-5, atol=1e-6)


def test_batch_normalisation_in_training_mode_is_refused_with_advice() -> None:
    constants = {name: np.ones(FEATURES, np.float32) for name in ("scale", "mean", "var")}
    constants["shift"] = np.zeros(FEATURES, np.float32)
    names = ["x", "scale", "shift", "mean", "var"]
    after = node("Gemm", ["n", "w", "b"], ["y"])
    nodes = [node("BatchNormalization", names, ["n", "m", "v"], training_mode=1, name="norm"), after]
    told = "BatchNormalization (norm) is in training mode", "samples depend on each other", "group normalisation"
    refused(model(nodes, constants | WIDE), *told)
    normal(model([node("BatchNormalization", names, ["n"]), after], constants | WIDE))


@pytest.mark.parametrize(
    ("op", "inputs", "attributes"),
    [
        ("RandomNormal", [], {"shape": [4]}),
        ("RandomUniform", [], {"shape": [4]}),
        ("RandomNormalLike", ["x"], {}),
        ("RandomUniformLike", ["x"], {}),
        ("Bernoulli", ["x"], {}),
        ("Multinomial", ["x"], {"sample_size": 4}),
    ],
)
def test_an_operation_that_draws_is_refused_by_its_name(op, inputs, attributes) -> None:
    nodes = [node(op, inputs, ["r"], **attributes), node("Gemm", ["x", "w", "b"], ["y"])]
    refused(model(nodes, WIDE), f"{op} (r) draws at random: remove it")


def test_an_operation_that_draws_is_found_in_functions_and_branches() -> None:
    drawn = helper.make_function(
        "mine", "Noisy", ["a"], ["c"], [node("RandomNormalLike", ["a"], ["c"])], [helper.make_opsetid("", 18)]
    )
    nodes = [node("Noisy", ["x"], ["n"], domain="mine"), node("Gemm", ["n", "w", "b"], ["y"])]
    refused(model(nodes, WIDE, functions=[drawn], domains=["mine"]), "RandomNormalLike")
    refused(branching([node("RandomNormalLike", ["h"], ["one"])]), "RandomNormalLike (one) draws at random")


# One form.


def test_constants_are_lifted() -> None:
    values = {
        "floats": node("Constant", [], ["floats"], value_floats=[1.5, -2.0, 0.25]),
        "float": node("Constant", [], ["float"], value_float=0.5),
        "ints": node("Constant", [], ["ints"], value_ints=[0, -1]),
        "int": node("Constant", [], ["int"], value_int=3),
        "tensor": node("Constant", [], ["tensor"], value=numpy_helper.from_array(draw(FEATURES, CLASSES), "other")),
    }
    nodes = [
        *values.values(),
        node("MatMul", ["x", "tensor"], ["p"]),
        node("Add", ["p", "floats"], ["q"]),
        node("Mul", ["q", "float"], ["s"]),
        node("Reshape", ["s", "ints"], ["y"]),
        node("Cast", ["int"], ["unused"], to=FLOAT),
    ]
    made = model(nodes)
    found = normal(made)
    assert "Constant" not in {one.op_type for one in found.graph.node}
    lifted = initialisers(found)
    assert {name: (value.dtype, value.shape) for name, value in lifted.items()} == {
        "floats": (np.float32, (3,)),
        "float": (np.float32, ()),
        "ints": (np.int64, (2,)),
        "int": (np.int64, ()),
        "tensor": (np.float32, (FEATURES, CLASSES)),
    }
    assert lifted["floats"].tolist() == [1.5, -2.0, 0.25]
    assert lifted["int"] == 3
    np.testing.assert_array_equal(run(found, x())[0], run(made, x())[0])
    assert len(made.graph.initializer) == 0  # the owner's is left alone


@pytest.mark.parametrize(
    "attributes",
    [
        {"value_strings": ["a", "b"]},
        {"value_string": "a"},
        {
            "sparse_value": helper.make_sparse_tensor(
                numpy_helper.from_array(np.float32([2.0]), "v"), numpy_helper.from_array(np.int64([1])), [3]
            )
        },
    ],
    ids=["strings", "string", "sparse"],
)
def test_constants_of_other_kinds_do_no_harm(attributes) -> None:
    """They may be lifted or stay; what they are beside must go on to work."""
    nodes = [node("Constant", [], ["odd"], **attributes), node("Gemm", ["x", "w", "b"], ["y"])]
    made = model(nodes, WIDE)
    np.testing.assert_array_equal(run(normal(made), x())[0], run(made, x())[0])


def test_initialisers_are_no_inputs() -> None:
    """As older exporters write them."""
    made = mlp(inputs=(("x", ["batch", FEATURES]), ("first.weight", [HIDDEN, FEATURES]), ("first.bias", [HIDDEN])))
    assert [one.name for one in normal(made).graph.input] == ["x"]
    assert len(made.graph.input) == 3


def test_local_functions_are_inlined() -> None:
    body = [node("MatMul", ["a", "m"], ["p"]), node("Tanh", ["p"], ["c"])]
    layer = helper.make_function("mine", "Layer", ["a", "m"], ["c"], body, [helper.make_opsetid("", 18)])
    nodes = [
        node("Layer", ["x", "one"], ["h"], domain="mine"),
        node("Layer", ["h", "two"], ["y"], domain="mine"),
    ]
    constants = {"one": draw(FEATURES, HIDDEN), "two": draw(HIDDEN, CLASSES)}
    made = model(nodes, constants, functions=[layer], domains=["mine"])
    found = normal(made)
    assert [one.op_type for one in found.graph.node] == ["MatMul", "Tanh"] * 2
    assert not found.functions
    np.testing.assert_array_equal(run(found, x())[0], run(made, x())[0])


def branching(more=()):
    """Return a model that goes one of two ways, and whose ways reach for values and weights from without."""
    one = helper.make_graph(
        [*more, node("Mul", ["h", "scale"], ["out_a"])],
        "one",
        [],
        [helper.make_tensor_value_info("out_a", FLOAT, None)],
    )
    two = helper.make_graph(
        [node("Add", ["h", "inner"], ["sum"]), node("Mul", ["sum", "shift"], ["out_b"])],
        "two",
        [],
        [helper.make_tensor_value_info("out_b", FLOAT, None)],
        [numpy_helper.from_array(draw(HIDDEN, seed=5), "inner")],
    )
    nodes = [
        node("MatMul", ["x", "w"], ["h"], name="product"),
        node("ReduceSum", ["x"], ["total"], keepdims=0),
        node("Greater", ["total", "zero"], ["way"]),
        node("If", ["way"], ["g"], then_branch=one, else_branch=two),
        node("MatMul", ["g", "head"], ["y"]),
    ]
    constants = {
        "w": draw(FEATURES, HIDDEN),
        "zero": np.float32(0),
        "scale": draw(HIDDEN),
        "shift": draw(HIDDEN, seed=2),
        "head": draw(HIDDEN, CLASSES),
    }
    return model(nodes, constants)


def test_branches_read_what_they_reach_for() -> None:
    made = normal(branching())
    (choice,) = [one for one in made.graph.node if one.op_type == "If"]
    assert reads(choice) == {"way", "h", "scale", "shift"}
    part = reduced(made, [], ["g"])
    assert {one.op_type for one in part.graph.node} == {"MatMul", "ReduceSum", "Greater", "If"}
    assert set(initialisers(part)) == {"w", "zero", "scale", "shift"}


@pytest.mark.parametrize("sign", [1, -1])
def test_weights_in_a_branch_are_trained(sign, tmp_path) -> None:
    """Cut where the branches are: both displaced, at samples of either way."""
    source = from_onnx(save(branching(), tmp_path / "model.onnx"))
    trainable, expected = prepared(source, Choice(train=("scale", "shift", "head")))
    bundle = export(trainable, tmp_path / "out", expected=expected, blocks=("sc*", "sh*", "he*"))
    assert [tensor.name for tensor in trainable.tensors] == ["scale", "shift", "head"]
    assert {cut.displaced for cut in bundle.manifest.cuts} == {("scale",), ("shift",), ("head",)}
    given = {"x": sign * np.abs(x()["x"])}
    moved = {name: value + np.float32(0.3) for name, value in trainable.given.items()}
    constants = initialisers(branching())
    h = given["x"] @ constants["w"]
    g = h * moved["scale"] if sign > 0 else (h + draw(HIDDEN, seed=5)) * moved["shift"]
    np.testing.assert_allclose(run(trainable.model, given | moved)[0], g @ moved["head"], rtol=1e-4, atol=1e-5)


def test_the_output_is_the_first_or_the_one_named() -> None:
    made = mlp(outputs=(("y", ["batch", CLASSES]), ("h", ["batch", HIDDEN])))
    assert output_of(made, None) == "y"
    assert output_of(made, "h") == "h"
    with pytest.raises(ModelError, match="it has no output z; there are y, h"):
        output_of(made, "z")


def test_reduced_keeps_what_the_outputs_need_and_starts_where_it_is_told() -> None:
    made = normal(mlp())
    part = reduced(made, ["a"], ["y"])
    assert [one.op_type for one in part.graph.node] == ["MatMul", "Add"]
    assert set(initialisers(part)) == {"second.weight", "second.bias"}
    assert [one.name for one in part.graph.input] == []  # whoever cuts says which values come from before
    assert [one.op_type for one in reduced(made, [], ["a"]).graph.node] == ["Gemm", "Relu"]
