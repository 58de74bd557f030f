import hashlib
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from baffle.errors import ModelError, SettingsError
from baffle.keys import Key
from baffle.parameters import Block, Constant, Given, Layout, Tensor, Uniform, digest

KEY = Key.root(4)
NET = Layout(
    (
        Tensor("body.0.weight", (2, 3)),
        Tensor("body.0.bias", (2,)),
        Tensor("body.2.weight", (1, 2)),
        Tensor("temperature", ()),
        Tensor("head.weight", (4,)),
        Tensor("head.bias", (1,)),
    )
)
REST = [("temperature", 10, 11), ("head", 11, 16)]
SHAPES = st.lists(st.lists(st.integers(0, 4), max_size=3).map(tuple), min_size=1, max_size=6)


def layout_of(shapes):
    return Layout(tuple(Tensor(f"layer{i // 2}.t{i}", shape) for i, shape in enumerate(shapes)))


def test_tensors_lie_one_after_another():
    assert NET.size == 16
    assert NET.slices() == {
        "body.0.weight": slice(0, 6),
        "body.0.bias": slice(6, 8),
        "body.2.weight": slice(8, 10),
        "temperature": slice(10, 11),
        "head.weight": slice(11, 15),
        "head.bias": slice(15, 16),
    }


def test_named_tensors_are_views_in_row_major_order():
    vector = np.arange(16, dtype=np.float32)
    tensors = NET.unflatten(vector)
    assert tensors["body.0.weight"].tolist() == [[0, 1, 2], [3, 4, 5]]
    assert tensors["temperature"].shape == ()
    tensors["head.bias"][0] = -1
    assert vector[15] == -1


@given(SHAPES.filter(lambda shapes: any(math.prod(shape) for shape in shapes)))
def test_flatten_undoes_unflatten(shapes):
    layout = layout_of(shapes)
    vector = np.arange(layout.size, dtype=np.float32)
    assert np.array_equal(layout.flatten(layout.unflatten(vector)), vector)
    assert list(layout.unflatten(vector)) == [tensor.name for tensor in layout.tensors]


def test_flatten_rounds_to_float32_and_ignores_what_it_does_not_know():
    layout = Layout((Tensor("a", (2,)),))
    vector = layout.flatten({"a": np.array([0.1, 1 + 2**-30]), "b": np.zeros(3)})
    assert vector.dtype == np.float32
    assert vector.tolist() == [np.float32(0.1), 1.0]


@pytest.mark.parametrize(
    ("tensors", "found"), [({}, "nothing"), ({"a": np.zeros((3, 2))}, r"\(3, 2\)"), ({"a": np.zeros(6)}, r"\(6,\)")]
)
def test_a_tensor_that_does_not_fit_is_named(tensors, found):
    layout = Layout((Tensor("a", (2, 3)),))
    with pytest.raises(ModelError, match=rf"parameter a: expected shape \(2, 3\), found {found}"):
        layout.flatten(tensors)


@pytest.mark.parametrize("tensors", [(), (Tensor("a", (0, 3)),)])
def test_a_model_without_weights_is_refused(tensors):
    with pytest.raises(ModelError, match="no trainable parameters"):
        Layout(tensors)


def test_the_whole_is_one_block():
    assert NET.blocks("whole") == (Block("all", 0, 16),)


def test_a_layer_is_what_shares_all_of_a_name_but_its_last_part():
    assert NET.blocks("layers") == (
        Block("body.0", 0, 8),
        Block("body.2", 8, 10),
        Block("temperature", 10, 11),
        Block("head", 11, 16),
    )


@pytest.mark.parametrize(
    ("patterns", "blocks"),
    [
        (("body.*",), [("body.*", 0, 10), ("temperature", 10, 11), ("head", 11, 16)]),
        (("*",), [("*", 0, 16)]),
        (("head.*", "body.0.*"), [("body.0.*", 0, 8), ("body.2", 8, 10), ("temperature", 10, 11), ("head.*", 11, 16)]),
        # The first to match decides, and a run ends where another pattern's tensors begin.
        (
            ("*.bias", "body.*"),
            [
                ("body.*", 0, 6),
                ("*.bias", 6, 8),
                ("body.*", 8, 10),
                ("temperature", 10, 11),
                ("head", 11, 15),
                ("*.bias", 15, 16),
            ],
        ),
        (("body.?.weight",), [("body.?.weight", 0, 6), ("body.0", 6, 8), ("body.?.weight", 8, 10), *REST]),
        (("body.[!0].*",), [("body.0", 0, 8), ("body.[!0].*", 8, 10), *REST]),
        (("temperature", "head.*"), [("body.0", 0, 8), ("body.2", 8, 10), ("temperature", 10, 11), ("head.*", 11, 16)]),
        (("[bt]*",), [("[bt]*", 0, 11), ("head", 11, 16)]),
    ],
    ids=str,
)
def test_patterns_put_tensors_together_and_the_rest_is_parted_by_layer(patterns, blocks):
    assert NET.blocks(patterns) == tuple(Block(*block) for block in blocks)


@pytest.mark.parametrize(
    ("patterns", "missed"),
    [(("tail.*",), "tail.*"), (("*", "BODY.*"), "BODY.*"), (("body",), "body"), (("body.*", "body.3.*"), "body.3.*")],
)
def test_a_pattern_that_matches_nothing_is_named_with_the_tensors_that_there_are(patterns, missed):
    with pytest.raises(SettingsError) as caught:
        NET.blocks(patterns)
    assert (caught.value.field, caught.value.value) == ("blocks", missed)
    assert caught.value.rule == f"must match a tensor; there are {', '.join(tensor.name for tensor in NET.tensors)}"


def test_of_many_tensors_the_first_are_named():
    many = Layout(tuple(Tensor(f"layer{number}", (1,)) for number in range(1000)))
    with pytest.raises(SettingsError) as caught:
        many.blocks(("head",))
    assert caught.value.rule.endswith("layer18, layer19")


@given(SHAPES.filter(lambda shapes: any(math.prod(shape) for shape in shapes)), st.data())
def test_blocks_of_patterns_cover_every_weight_once_and_none_is_empty(shapes, data):
    layout = layout_of(shapes)
    names = [tensor.name for tensor in layout.tensors]
    patterns = data.draw(st.lists(st.sampled_from([*names, "*", "layer0.*", "*.t?"]), max_size=3).map(tuple))
    blocks = layout.blocks(patterns)
    assert [position for block in blocks for position in range(block.start, block.stop)] == list(range(layout.size))
    assert all(block.size > 0 for block in blocks)


@pytest.mark.parametrize(
    ("start", "stop", "names"),
    [
        (0, 16, list(NET.slices())),
        (6, 8, ["body.0.bias"]),
        (5, 9, ["body.0.weight", "body.0.bias", "body.2.weight"]),
        (10, 11, ["temperature"]),
        (15, 16, ["head.bias"]),
        (8, 8, []),
    ],
)
def test_the_tensors_within_a_block_are_those_with_weights_there(start, stop, names):
    assert NET.within(start, stop) == {name: NET.slices()[name] for name in names}


def test_an_empty_tensor_is_within_no_block():
    layout = Layout((Tensor("a", (2,)), Tensor("none", (0, 3)), Tensor("b", (2,))))
    assert list(layout.within(0, 4)) == ["a", "b"]
    assert layout.blocks(("none", "b")) == (Block("a", 0, 2), Block("b", 2, 4))


@pytest.mark.parametrize("rule", ["whole", "layers"])
@given(shapes=SHAPES.filter(lambda shapes: any(math.prod(shape) for shape in shapes)))
def test_blocks_cover_every_weight_once_and_none_is_empty(rule, shapes):
    layout = layout_of(shapes)
    blocks = layout.blocks(rule)
    assert [position for block in blocks for position in range(block.start, block.stop)] == list(range(layout.size))
    assert all(block.size > 0 for block in blocks)


def test_uniform_weights_fill_their_range_and_no_more():
    vector = Layout((Tensor("a", (100, 1000), Uniform(0.5)),)).initial(KEY)
    assert vector.dtype == np.float32
    assert 0.4999 < vector.max() < 0.5
    assert -0.5 < vector.min() < -0.4999
    deviation = 0.5 / math.sqrt(3)
    assert abs(vector.mean(dtype=np.float64)) <= 4 * deviation / math.sqrt(vector.size)
    assert vector.std(dtype=np.float64) == pytest.approx(deviation, rel=0.01)


def test_a_tensors_first_weights_depend_on_its_place_alone():
    b = Tensor("b", (5,), Uniform(1.0))
    first = Layout((Tensor("a", (7,), Uniform(1.0)), b)).initial(KEY)
    other = Layout((Tensor("c", (2,), Constant(3.0)), b)).initial(KEY)
    assert np.array_equal(first[7:], other[2:])
    assert not np.array_equal(first[:5], first[7:])
    assert not np.array_equal(first, Layout((Tensor("a", (7,), Uniform(1.0)), b)).initial(KEY.fold(1)))


def test_constants_and_given_values_come_as_they_are():
    layout = Layout((Tensor("a", (2,), Constant(-0.25)), Tensor("b", (1, 2), Given())))
    values = {"a": np.array([9.0, 9.0]), "b": np.array([[1.0, 2.0]])}
    assert layout.initial(KEY, values).tolist() == [-0.25, -0.25, 1.0, 2.0]
    assert (layout.given, Layout(layout.tensors[:1]).given) == (True, False)


@pytest.mark.parametrize("values", [None, {}, {"b": np.zeros(2)}])
def test_given_values_that_are_not_given_are_missed(values):
    with pytest.raises(ModelError, match="parameter b: expected shape"):
        Layout((Tensor("b", (1, 2)),)).initial(KEY, values)


def test_a_digest_is_of_little_endian_float32():
    vector = np.array([1.0, -2.0], np.float32)
    expected = hashlib.blake2b(bytes.fromhex("0000803f000000c0"), digest_size=32).hexdigest()
    assert digest(vector) == digest(vector.astype(">f4")) == digest(np.repeat(vector, 2)[::2]) == expected


def test_a_digest_tells_zero_from_minus_zero():
    assert digest(np.array([0.0], np.float32)) != digest(np.array([-0.0], np.float32))
