"""Which tensors are trained: found by patterns, in the order of their use, refused in words."""

from __future__ import annotations

import numpy as np
import pytest

pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")

from baffle.errors import ModelError, SettingsError
from baffle.export import Choice, Source, from_onnx, prepared, trained
from baffle.export.model import normal
from baffle.parameters import Constant, Given, Layout
from export.graphs import (
    CLASSES,
    FEATURES,
    HIDDEN,
    draw,
    initialisers,
    mlp,
    model,
    node,
    on_a_grid,
    residual,
    run,
    save,
    x,
)

NAMES = ["first.weight", "first.bias", "second.weight", "second.bias"]


def names_of(made) -> list[str]:
    return [tensor.name for tensor in made.tensors]


@pytest.mark.parametrize(
    ("patterns", "names"),
    [
        (["*"], NAMES),
        (["second.*", "first.*"], NAMES),
        (["*.bias"], ["first.bias", "second.bias"]),
        (["second.bias", "second.bias", "*.bias"], ["first.bias", "second.bias"]),
        (["f?rst.[bw]*"], NAMES[:2]),
    ],
)
def test_patterns_choose_tensors_in_the_order_of_their_use(patterns, names) -> None:
    made = trained(normal(mlp()), patterns)
    assert names_of(made) == names
    assert list(made.given) == names
    assert [one.name for one in made.model.graph.input] == ["x", *names]
    assert not set(names) & initialisers(made.model).keys()
    assert [one.name for one in made.features] == ["x"]
    assert made.grid == ()
    assert all(tensor.initial == Given() and tensor.live == b"" for tensor in made.tensors)
    for name, value in made.given.items():
        np.testing.assert_array_equal(value, initialisers(mlp())[name])


def test_the_order_is_that_of_first_use_not_of_the_file() -> None:
    made = residual()
    turned = list(reversed(made.graph.initializer))
    del made.graph.initializer[:]
    made.graph.initializer.extend(turned)
    order = ["stem.weight", "shared.weight", "scale.weight", "head.weight", "head.bias"]
    assert names_of(trained(normal(made), ["*"])) == order


def test_the_model_gives_what_it_gave_and_follows_its_weights() -> None:
    made = trained(normal(residual()), ["*"])
    np.testing.assert_array_equal(run(made.model, x() | made.given)[0], run(residual(), x())[0])
    moved = made.given | {"head.bias": made.given["head.bias"] + np.float32(1)}
    np.testing.assert_allclose(run(made.model, x() | moved)[0], run(residual(), x())[0] + 1, rtol=1e-5)


def test_the_owners_model_is_left_alone() -> None:
    made = normal(mlp())
    before = made.SerializeToString(deterministic=True)
    trained(made, ["*"])
    prepared(Source(made, lambda given: given["x"]), Choice(lora=1))
    assert made.SerializeToString(deterministic=True) == before


# What is refused.


def test_a_pattern_that_matches_nothing_lists_what_there_is() -> None:
    with pytest.raises(ModelError, match=r"--train 'third\.\*' matches no tensor; float32 tensors are first\.weight, "):
        trained(normal(mlp()), ["first.*", "third.*"])
    with pytest.raises(ModelError, match=r"--grid '\*' matches no tensor; the model has none of type int8"):
        trained(normal(model([node("Relu", ["x"], ["y"])], outputs=(("y", None),))), [], ["*"])


def test_a_long_list_is_cut() -> None:
    constants = {f"w{i}": np.zeros(1, np.float32) for i in range(33)}
    nodes = [node("Sum", ["x", *constants], ["y"])]
    with pytest.raises(ModelError, match=r"w19 and 13 more$"):
        trained(normal(model(nodes, constants, outputs=(("y", None),))), ["nothing"])


def test_an_int8_tensor_is_not_for_train_and_a_float_not_for_grid() -> None:
    made = normal(on_a_grid())
    told = r"--train '.*' matches first.weight_quantized, which is int8: only float32 .*; int8 tensors .* --grid"
    for pattern in ("first.weight", "first.weight_quantized"):  # by its old name, too
        with pytest.raises(ModelError, match=told):
            trained(made, [pattern])
    with pytest.raises(ModelError, match=r"--grid 'first\.weight' .* float32: only int8 .*; those .* --train"):
        trained(normal(mlp()), [], ["first.weight"])


def test_a_tensor_of_another_type_is_told_by_its_type() -> None:
    nodes = [node("Reshape", ["x", "shape"], ["y"])]
    made = normal(model(nodes, {"shape": np.array([-1, 2])}, outputs=(("y", None),)))
    with pytest.raises(ModelError, match="--train 'sh\\*' matches shape, which is int64: only float32 tensors"):
        trained(made, ["sh*"])


def test_a_pattern_that_matches_several_types_takes_its_own() -> None:
    made = trained(normal(on_a_grid()), ["second.*"], ["*"])
    assert names_of(made) == ["first.weight_quantized", "second.weight_quantized", "second.scale", "second.bias"]
    assert made.grid == ("first.weight_quantized", "second.weight_quantized")


def test_a_tensor_that_nothing_uses_is_refused() -> None:
    nodes = [node("Gemm", ["x", "w", "b"], ["y"])]
    constants = {"w": draw(FEATURES, CLASSES), "b": draw(CLASSES), "spare": draw(3)}
    with pytest.raises(ModelError, match="spare is used by no operation, so it can't be trained"):
        trained(normal(model(nodes, constants)), ["*"])
    assert names_of(trained(normal(model(nodes, constants)), ["?"])) == ["w", "b"]


def test_a_tensor_of_no_numbers_is_not_trained() -> None:
    nodes = [node("Concat", ["x", "none"], ["c"], axis=1), node("Gemm", ["c", "w", "b"], ["y"])]
    constants = {"none": np.zeros((0, 0), np.float32), "w": draw(FEATURES, CLASSES), "b": draw(CLASSES)}
    assert names_of(trained(normal(model(nodes, constants)), ["*"])) == ["w", "b"]


@pytest.mark.parametrize("choice", [Choice(), Choice(int8=True), Choice(pruned=True)], ids=["none", "int8", "pruned"])
def test_nothing_to_train_is_told_with_what_to_say(choice, tmp_path) -> None:
    source = from_onnx(save(mlp(), tmp_path / "model.onnx"))
    with pytest.raises(ModelError, match=r"say which tensors to train: --train .* or --lora"):
        prepared(source, choice)


def test_a_rank_below_none_is_refused() -> None:
    with pytest.raises(SettingsError, match="lora = -1"):
        Choice(lora=-1)


# How they begin, and which weights stay zero.


def test_tensors_begin_as_they_are_or_as_is_said() -> None:
    made = trained(normal(mlp()), ["*"], initial={"first.bias": Constant(0.5)})
    assert [tensor.initial for tensor in made.tensors] == [Given(), Constant(0.5), Given(), Given()]


def test_zeros_stay_zero_where_that_is_asked() -> None:
    rng = np.random.default_rng(0)
    constants = initialisers(mlp())
    mask = rng.random((HIDDEN, FEATURES)) < 0.4
    constants["first.weight"] = constants["first.weight"] * mask
    constants["second.bias"] = constants["second.bias"] * 0
    made = mlp()
    del made.graph.initializer[:]
    made.graph.initializer.extend(model([], constants).graph.initializer)
    source = Source(normal(made), lambda given: given["x"], ("*",))
    pruned = prepared(source, Choice(pruned=True))[0]
    first, bias, second, none = pruned.tensors
    assert np.array_equal(first.places(), np.flatnonzero(mask))
    assert (bias.live, second.live) == (b"", b"")
    assert none.size == 0
    assert Layout(pruned.tensors).size == mask.sum() + HIDDEN + HIDDEN * CLASSES
    flat = Layout(pruned.tensors).flatten(pruned.given)
    assert np.count_nonzero(flat) == flat.size
    for name, tensor in Layout(pruned.tensors).unflatten(flat).items():
        np.testing.assert_array_equal(tensor, constants[name])
    assert all(tensor.live == b"" for tensor in trained(normal(made), ["*"]).tensors)


def test_the_source_says_what_is_trained_where_nobody_else_does() -> None:
    """A choice of one's own, adapters or a grid take its place."""
    source = Source(normal(on_a_grid()), lambda given: given["x"], ("*.bias",), ("second.*",))
    assert names_of(prepared(source, Choice())[0]) == ["second.weight_quantized", "second.bias"]
    assert names_of(prepared(source, Choice(train=("*.scale",)))[0]) == ["first.scale", "second.scale"]
    assert names_of(prepared(source, Choice(grid=("first.*",)))[0]) == ["first.weight_quantized"]
    adapters = names_of(prepared(source, Choice(lora=1, lora_on=("first*",)))[0])
    assert adapters == ["first.lora_a", "first.lora_b"]
