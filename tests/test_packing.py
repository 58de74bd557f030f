import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from baffle.errors import ReportError
from baffle.packing import pack, packed_size, unpack


@st.composite
def packable(draw):
    bits = draw(st.integers(2, 64))
    low, high = -(1 << (bits - 1)), (1 << (bits - 1)) - 1
    number = st.one_of(st.integers(low, high), st.sampled_from([low, -1, 0, high]))
    return np.array(draw(st.lists(number, max_size=40)), np.int64), bits


@pytest.mark.parametrize(
    ("values", "bits", "expected"),
    [
        ([1, -1], 2, "0d"),  # 10 11 0000, lowest bit first
        ([1, 2, -4], 3, "1101"),  # 100 010 00 | 1 0000000
        ([-2, 1, 0, -1], 2, "c6"),  # 01 10 00 11
        ([5], 4, "05"),
        ([], 7, ""),
        ([0x123, -1], 12, "23f1ff"),
    ],
)
def test_bytes_made_by_hand(values, bits, expected):
    assert pack(np.array(values, np.int64), bits).hex() == expected
    assert unpack(bytes.fromhex(expected), len(values), bits).tolist() == values


@pytest.mark.parametrize("bits", [8, 16, 32, 64])
def test_whole_bytes_are_little_endian_integers(bits):
    kind = np.dtype(f"<i{bits // 8}")
    values = np.array([np.iinfo(kind).min, -1, 0, 1, np.iinfo(kind).max - 1, np.iinfo(kind).max], np.int64)
    assert pack(values, bits) == values.astype(kind).tobytes()


@given(packable())
def test_unpack_undoes_pack(case):
    values, bits = case
    data = pack(values, bits)
    assert len(data) == packed_size(values.size, bits) == -(-values.size * bits // 8)
    assert np.array_equal(unpack(data, values.size, bits), values)


@given(packable())
def test_bytes_stand_for_one_list_of_integers_only(case):
    values, bits = case
    data = pack(values, bits)
    spare = 8 * len(data) - values.size * bits
    for bit in range(8 - spare, 8):
        with pytest.raises(ReportError, match="spare bits are not zero"):
            unpack(data[:-1] + bytes([data[-1] | 1 << bit]), values.size, bits)


@pytest.mark.parametrize("length", [0, 3, 5, 4000])
def test_another_length_is_refused_with_both_lengths(length):
    with pytest.raises(ReportError, match=f"^{length} bytes of slopes where 4 were due$"):
        unpack(bytes(length), 10, 3)


@pytest.mark.parametrize(("count", "bits", "size"), [(0, 5, 0), (1, 2, 1), (3, 3, 2), (100, 8, 100), (7, 63, 56)])
def test_sizes_by_hand(count, bits, size):
    assert packed_size(count, bits) == size
