"""Tensors of which the flat vector has some weights only: the others are zero and stay so."""

from __future__ import annotations

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from baffle.errors import ModelError
from baffle.keys import Key
from baffle.parameters import Constant, Given, Layout, Tensor, Uniform, mask_of

KEY = Key.root(31)
MASKS = arrays.arrays(np.bool_, arrays.array_shapes(min_dims=0, max_dims=4, min_side=1, max_side=6))


def pruned(mask: np.ndarray, initial=Given(), name: str = "w") -> Tensor:  # noqa: B008
    return Tensor(name, mask.shape, initial, mask_of(mask.astype(np.float32)))


def test_a_mask_by_hand() -> None:
    tensor = Tensor("w", (2, 5), live=mask_of(np.array([[1, 0, 2, 0, -3], [0, 0, 0, 0.5, 0]])))
    assert tensor.live == bytes([0b00010101, 0b00000001])
    assert tensor.size == 4
    assert tensor.places().tolist() == [0, 2, 4, 8]
    assert tensor.dense(np.array([1, 2, 3, 4])).tolist() == [[1, 0, 2, 0, 3], [0, 0, 0, 4, 0]]
    assert mask_of(np.ones((3, 3))) == b""
    assert mask_of(np.zeros(3)) == b"\0"
    assert mask_of(np.array([np.nan, 0.0])) == b"\1"


@given(MASKS)
def test_weights_go_into_the_tensor_and_come_back(mask) -> None:
    tensor = pruned(mask)
    assert tensor.size == mask.sum()
    assert np.array_equal(tensor.places(), np.flatnonzero(mask))
    weights = np.arange(1, tensor.size + 1, dtype=np.float32)
    dense = tensor.dense(weights)
    assert (dense.shape, dense.dtype) == (mask.shape, weights.dtype)
    assert np.array_equal(dense != 0, mask)
    assert np.array_equal(dense.ravel()[tensor.places()], weights)


@given(st.lists(MASKS, min_size=1, max_size=4), st.integers(0, 99))
def test_a_layout_holds_live_weights_alone(masks, seed) -> None:
    if not sum(mask.sum() for mask in masks):
        return
    layout = Layout(tuple(pruned(mask, name=f"{number}.w") for number, mask in enumerate(masks)))
    assert layout.size == sum(mask.sum() for mask in masks)
    vector = np.random.default_rng(seed).normal(size=layout.size).astype(np.float32)
    tensors = layout.unflatten(vector)
    for mask, tensor in zip(masks, tensors.values(), strict=True):
        assert np.array_equal(tensor != 0, mask)
    assert np.array_equal(layout.flatten(tensors), vector)
    blocks = layout.blocks("layers")
    assert sum(block.size for block in blocks) == layout.size
    assert all(block.size for block in blocks)  # a layer without weights is no block
    for block in blocks:
        assert set(layout.within(block.start, block.stop)) == {f"{block.name}.w"}
    assert msgspec.msgpack.decode(msgspec.msgpack.encode(layout), type=Layout) == layout
    assert msgspec.json.decode(msgspec.json.encode(layout), type=Layout) == layout


def test_a_weight_where_none_is_in_use_is_refused() -> None:
    layout = Layout((pruned(np.array([True, False, True])),))
    assert layout.flatten({"w": np.array([1.0, 0.0, 0.0])}).tolist() == [1, 0]
    with pytest.raises(ModelError, match="parameter w: weights that are pruned must be zero"):
        layout.flatten({"w": np.array([1.0, 0.5, 2.0])})
    with pytest.raises(ModelError, match=r"parameter w: expected shape \(3,\), found \(2,\)"):
        layout.flatten({"w": np.array([1.0, 2.0])})


def test_a_layout_of_nothing_but_zeros_is_refused() -> None:
    with pytest.raises(ModelError, match="no trainable parameters"):
        Layout((pruned(np.zeros((2, 3), bool)),))


@pytest.mark.parametrize("live", [b"\1", b"\1\0\0", b"\xff\xff", b"\0\x80"], ids=["short", "long", "bits", "high"])
def test_a_mask_of_another_size_is_refused(live) -> None:
    with pytest.raises(ModelError, match=rf"parameter w: {len(live)} bytes are no mask of shape \(3, 3\)"):
        Tensor("w", (3, 3), live=live)
    Tensor("w", (3, 3), live=b"\xff\x01")


def test_first_weights_are_those_of_the_whole_tensor_where_they_are_live() -> None:
    """So that a mask moves no draw: a pruned run begins as the dense one does, less what is pruned."""
    mask = np.random.default_rng(0).random((5, 7)) < 0.4
    starts = (Uniform(0.5), Constant(2.0), Given())
    values = {"2": np.where(mask, 3.0, 0.0)}
    whole = Layout(tuple(Tensor(str(i), mask.shape, start) for i, start in enumerate(starts)))
    part = Layout(tuple(pruned(mask, start, str(i)) for i, start in enumerate(starts)))
    dense, found = (layout.unflatten(layout.initial(KEY, values)) for layout in (whole, part))
    for name in dense:
        np.testing.assert_array_equal(found[name], np.where(mask, dense[name], 0))


def test_a_layout_of_an_older_ledger_is_read_as_one_without_masks() -> None:
    layout = Layout((Tensor("w", (2, 3), Uniform(0.5)), Tensor("b", (3,), Constant(0.0))))
    old = {
        "tensors": [
            {"name": "w", "shape": [2, 3], "initial": {"initial": "uniform", "bound": 0.5}},
            {"name": "b", "shape": [3], "initial": {"initial": "constant", "value": 0.0}},
        ]
    }
    assert msgspec.msgpack.decode(msgspec.msgpack.encode(old), type=Layout) == layout
