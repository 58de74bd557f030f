"""Cuts: what a displaced tensor changes, as a graph of its own that gives what the whole model gives."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")

from baffle.export import trace, trained
from baffle.export.cut import dependences, parts, trunk
from baffle.export.model import normal, reduced
from export.graphs import (
    CLASSES,
    FEATURES,
    HIDDEN,
    draw,
    initialisers,
    mlp,
    model,
    node,
    residual,
    run,
    x,
)

STEM, SHARED, SCALE, HEAD, BIAS = (
    ["stem.weight"],
    ["shared.weight"],
    ["scale.weight"],
    ["head.weight"],
    ["head.bias"],
)


def cut(made, groups, given=None):
    """Return a model with all of its floats as inputs, their values, and the parts of the groups."""
    chosen = trained(normal(made), ["*"])
    whole = reduced(chosen.model, [], ["y"])
    taken = {one.name for one in whole.graph.input}
    held = {name: value for name, value in ((given or x(2)) | dict(chosen.given)).items() if name in taken}
    values = initialisers(whole) | held | trace.traced(whole, held)
    work = trace.operations(whole, values, set(initialisers(whole)) | chosen.given.keys())
    return whole, chosen.given, values, parts(whole, groups, values, work, "y")


def assert_whole(whole, given, values, part, seed: int = 0) -> None:
    """Claim that a part gives the whole model's outputs when its tensors are displaced, and others are not."""
    held = x(7) | dict(given)
    before = run(trunk(whole, part.values, values), held) if part.values else []
    moved = {name: given[name] + draw(*given[name].shape, seed=seed) for name in part.displaced}
    got = run(part.model, held | dict(zip(sorted(part.values), before, strict=True)) | moved)[0]
    np.testing.assert_allclose(got, run(whole, held | moved, ["y"])[0], rtol=1e-5, atol=1e-6)


def test_a_residual_network_by_hand() -> None:
    whole, given, values, found = cut(residual(), [STEM, SHARED, SCALE, HEAD, BIAS])
    assert [list(part.displaced) for part in found] == [SHARED, SCALE, HEAD, BIAS]  # nothing lies before the stem
    assert [part.values for part in found] == [("t",), ("r",), ("q",), ("z",)]
    operations = [[one.op_type for one in part.model.graph.node] for part in found]
    assert operations == [
        ["MatMul", "Tanh", "MatMul", "Add", "Mul", "MatMul", "Add"],
        ["Mul", "MatMul", "Add"],
        ["MatMul", "Add"],
        ["Add"],
    ]
    inputs = [[one.name for one in part.model.graph.input] for part in found]
    assert inputs[0] == ["shared.weight", "scale.weight", "head.weight", "head.bias", "t"]
    assert inputs[3] == ["head.bias", "z"]
    for part in found:
        assert_whole(whole, given, values, part)


def test_a_shared_tensor_is_followed_from_its_first_use() -> None:
    _, _, _, (part,) = cut(residual(), [SHARED])
    assert [one.op_type for one in part.model.graph.node].count("MatMul") == 3


def test_tensors_that_are_displaced_together_are_followed_from_the_first() -> None:
    whole, given, values, (part,) = cut(residual(), [[*BIAS, *SHARED]])
    assert part.values == ("t",)
    assert_whole(whole, given, values, part)


def test_a_block_before_which_nothing_lies_has_no_part() -> None:
    nodes = [node("MatMul", ["x", "first.weight"], ["y"])]
    _, _, _, found = cut(model(nodes, {"first.weight": draw(FEATURES, CLASSES)}), [["first.weight"]])
    assert found == []


def test_a_tensor_that_the_output_does_not_need_has_no_part() -> None:
    nodes = [
        node("MatMul", ["x", "one"], ["h"]),
        node("MatMul", ["h", "two"], ["y"]),
        node("MatMul", ["h", "aside"], ["other"]),
    ]
    constants = {"one": draw(FEATURES, HIDDEN), "two": draw(HIDDEN, CLASSES), "aside": draw(HIDDEN, 2)}
    _, _, _, found = cut(model(nodes, constants), [["aside"], ["two"]])
    assert [part.displaced for part in found] == [("two",)]


def test_the_same_group_twice_is_one_part_and_the_largest_comes_first() -> None:
    _, _, _, found = cut(residual(), [HEAD, SHARED, HEAD, list(reversed([*HEAD, *BIAS])), [*HEAD, *BIAS]])
    assert [set(part.displaced) for part in found] == [{*SHARED}, {*HEAD}, {*HEAD, *BIAS}]
    assert [part.operations for part in found] == sorted((part.operations for part in found), reverse=True)


def test_samples_may_be_needed_after_a_cut() -> None:
    nodes = [
        node("MatMul", ["x", "one"], ["h"]),
        node("Add", ["h", "x"], ["r"]),
        node("MatMul", ["r", "two"], ["p"]),
        node("MatMul", ["x", "three"], ["s"]),
        node("Add", ["p", "s"], ["y"]),
    ]
    constants = {"one": draw(FEATURES, FEATURES), "two": draw(FEATURES, CLASSES), "three": draw(FEATURES, CLASSES)}
    whole, given, values, found = cut(model(nodes, constants), [["two"], ["three"]])
    for part in found:
        assert_whole(whole, given, values, part)
    three = next(part for part in found if part.displaced == ("three",))
    assert [one.name for one in three.model.graph.input] == ["x", "three", "p"]


def test_values_that_lie_before_are_declared_with_their_types() -> None:
    nodes = [
        node("Shape", ["x"], ["shape"]),
        node("MatMul", ["x", "one"], ["h"]),
        node("Relu", ["h"], ["a"]),
        node("Greater", ["h", "a"], ["above"]),
        node("MatMul", ["a", "two"], ["p"]),
        node("Where", ["above", "zero", "p"], ["w"]),
        node("Reshape", ["w", "shape"], ["y"]),
    ]
    constants = {"one": draw(FEATURES, FEATURES), "two": draw(FEATURES, FEATURES), "zero": np.float32(0)}
    made = model(nodes, constants, outputs=(("y", ["batch", FEATURES]),))
    whole, given, values, (part,) = cut(made, [["two"]])
    kinds = {one.name: one.type.tensor_type.elem_type for one in part.model.graph.input}
    assert kinds == {"two": 1, "zero": 1, "a": 1, "above": 9, "shape": 7}
    assert_whole(whole, given, values, part)


def test_dependences_are_those_on_inputs() -> None:
    found = dependences(trained(normal(residual()), ["*"]).model)
    assert found["t"] == {"x", "stem.weight"}
    assert found["q"] == {"x", "stem.weight", "shared.weight", "scale.weight"}


def test_an_operation_with_a_first_output_left_out_is_cut_as_any_other() -> None:
    """Recurrent layers of whose outputs only the last state is used."""
    nodes = [
        node("Unsqueeze", ["x", "axis"], ["sequence"]),
        node("LSTM", ["sequence", "w", "r"], ["", "last"], hidden_size=HIDDEN),
        node("Squeeze", ["last", "axis"], ["state"]),
        node("MatMul", ["state", "head"], ["y"]),
    ]
    constants = {
        "w": draw(1, 4 * HIDDEN, FEATURES),
        "r": draw(1, 4 * HIDDEN, HIDDEN),
        "head": draw(HIDDEN, CLASSES),
        "axis": np.array([0]),
    }
    whole, given, values, found = cut(model(nodes, constants), [["w"], ["r"], ["head"]])
    assert ("head",) in [part.displaced for part in found]
    for part in found:
        assert_whole(whole, given, values, part)


def test_a_sequence_of_tensors_before_a_cut_does_no_harm() -> None:
    nodes = [
        node("MatMul", ["x", "one"], ["h"]),
        node("SplitToSequence", ["h", "two"], ["pieces"], axis=1),
        node("SequenceAt", ["pieces", "nought"], ["piece"]),
        node("MatMul", ["piece", "head"], ["p"]),
        node("ConcatFromSequence", ["pieces"], ["all"], axis=1),
        node("MatMul", ["all", "tail"], ["q"]),
        node("Add", ["p", "q"], ["y"]),
    ]
    constants = {
        "one": draw(FEATURES, HIDDEN),
        "two": np.int64(2),
        "nought": np.int64(0),
        "head": draw(2, CLASSES),
        "tail": draw(HIDDEN, CLASSES),
    }
    whole, given, values, found = cut(model(nodes, constants), [["head"], ["tail"], ["one"]])
    assert {part.displaced for part in found} == {("head",), ("tail",)}
    for part in found:
        assert_whole(whole, given, values, part)


@settings(max_examples=40)
@given(st.data())
def test_any_network_cut_at_any_tensors_gives_its_outputs(data) -> None:
    """Products, sums and curves in any order, tensors used as often as they come."""
    names = [f"w{i}" for i in range(5)]
    values, nodes = ["x"], []
    for number in range(data.draw(st.integers(1, 9), "operations")):
        made, one = f"v{number}", data.draw(st.sampled_from(values))
        kind = data.draw(st.sampled_from(["MatMul", "Mul", "Add", "Tanh"]))
        if kind == "Tanh":
            nodes.append(node(kind, [one], [made]))
        elif kind == "Add":
            nodes.append(node(kind, [one, data.draw(st.sampled_from(values))], [made]))
        else:
            name = data.draw(st.sampled_from(names))
            nodes.append(node(kind, [one, name if kind == "MatMul" else name + ".row"], [made]))
        values.append(made)
    nodes.append(node("Sum", data.draw(st.lists(st.sampled_from(values[1:]), min_size=1, max_size=3)), ["y"]))
    used = {name for one in nodes for name in one.input}
    constants = {name: draw(FEATURES, FEATURES, seed=i) for i, name in enumerate(names)}
    constants |= {f"{name}.row": draw(FEATURES, seed=i) for i, name in enumerate(names)}
    constants = {name: value for name, value in constants.items() if name in used}
    if not constants:
        return
    made = model(nodes, constants, outputs=(("y", ["batch", FEATURES]),))
    groups = data.draw(st.lists(st.lists(st.sampled_from(sorted(constants)), min_size=1, unique=True), max_size=4))
    whole, given, known, found = cut(made, groups)
    depends = dependences(whole)
    for group in groups:
        touched = [one for one in whole.graph.node if depends[one.output[0]] & set(group)]
        has_part = 0 < len(touched) < len(whole.graph.node)
        assert has_part == any(set(part.displaced) == set(group) for part in found)
    for part in found:
        assert {one.output[0] for one in part.model.graph.node} == {
            one.output[0] for one in whole.graph.node if depends[one.output[0]] & set(part.displaced)
        }
        assert_whole(whole, given, known, part, seed=3)


def test_a_trunk_computes_what_is_wanted_and_no_more() -> None:
    whole, given, values, _ = cut(mlp(), [])
    assert [one.op_type for one in trunk(whole, ["h"], values).graph.node] == ["Gemm"]
    made = trunk(whole, ["p", "h", "p"], values)
    assert [one.name for one in made.graph.output] == ["h", "p"]
    assert [one.name for one in made.graph.input] == ["x", "first.weight", "first.bias", "second.weight"]
    for name, value in zip(["h", "p"], run(made, x(2) | dict(given)), strict=True):
        np.testing.assert_array_equal(value, values[name])
