import hashlib
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from baffle.errors import ModelError
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
