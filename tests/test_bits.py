from hypothesis import given
from hypothesis import strategies as st

from baffle import bits
from baffle.keys import Key

KEY = Key.root(3)
STREAM = 16 << 64
"""Bytes of a stream."""

# NIST SP 800-38A, F.5.1 CTR-AES128.Encrypt
NIST_KEY = bytes.fromhex("2b7e151628aed2a6abf7158809cf4f3c")
NIST_COUNTER = 0xF0F1F2F3F4F5F6F7F8F9FAFBFCFDFEFF
NIST_PLAIN = bytes.fromhex(
    "6bc1bee22e409f96e93d7e117393172aae2d8a571e03ac9c9eb76fac45af8e51"
    "30c81c46a35ce411e5fbc1191a0a52eff69f2445df4f9b17ad2b417be66c3710"
)
NIST_CIPHER = bytes.fromhex(
    "874d6191b620e3261bef6864990db6ce9806f66b7970fdff8617187bb9fffdff"
    "5ae4df3edbd5d35e5b4f09020db03eab1e031dda2fbe03d1792170a0f3009cee"
)

A = 'root(0)/"run"/"round"/0/0/"directions"/0/0/0'
B = 'root(0)/"run"/"round"/41/1/"directions"/2/3/1'
GOLDEN = {
    (A, 0, 0): "8b516bd73af360429f1afc96b24c3534",
    (A, 0, 16): "710bc2f962df65c3ee41b72bbff97760",
    (A, 0, 5): "f360429f1afc96b24c3534710bc2f962",
    (A, 1, 0): "db68aeb80f5f27d32c791a711e6dec23",
    (A, 2**64 - 1, 0): "eb214ff5d346346ccd3901843ff0f1e4",
    (B, 0, 0): "46bd2f2725a6e69cf2c2e10a39fbb746",
    (B, 5, 1000003): "077e48131db1c1c0e21507a41cc699a7",
}


def test_the_published_vectors_of_counter_mode():
    stream = bits.keystream(NIST_KEY, NIST_COUNTER, len(NIST_PLAIN))
    assert bytes(a ^ b for a, b in zip(NIST_PLAIN, stream, strict=True)) == NIST_CIPHER


def test_the_counter_is_of_128_bits_and_wraps():
    over = bits.keystream(NIST_KEY, 2**128 - 1, 32)
    assert over[16:] == bits.keystream(NIST_KEY, 0, 16)
    carried = bits.keystream(NIST_KEY, 2**64 - 1, 32)
    assert carried[16:] == bits.keystream(NIST_KEY, 2**64, 16)


def test_golden_words_stay_and_are_the_documented_ones(golden, key_at):
    documented = {(path, int(stream), int(start)): words for path, stream, start, words in golden("Streams")}
    assert documented == GOLDEN
    for (path, stream, start), expected in GOLDEN.items():
        assert bits.words(key_at(path), stream, start, start + 16).hex() == expected


@given(st.integers(0, 2**64 - 1), st.integers(0, 200), st.integers(0, 200))
def test_a_slice_is_that_part_of_the_whole(stream, start, length):
    whole = bits.words(KEY, stream, 0, start + length)
    assert bits.words(KEY, stream, start, start + length) == whole[start:]


@given(st.integers(0, STREAM - 400), st.integers(0, 200), st.integers(0, 200))
def test_neighbouring_slices_join_anywhere(start, first, second):
    middle, stop = start + first, start + first + second
    joined = bits.words(KEY, 9, start, middle) + bits.words(KEY, 9, middle, stop)
    assert joined == bits.words(KEY, 9, start, stop)


def test_a_stream_ends_where_the_next_begins():
    border = bits.keystream(KEY.aes(), 2**64 - 1, 32)
    assert bits.words(KEY, 0, STREAM - 16, STREAM) == border[:16]
    assert bits.words(KEY, 1, 0, 16) == border[16:]


def test_no_block_comes_twice_in_or_across_streams_and_keys():
    words = [bits.words(key, stream, 0, 1024) for key in (KEY, KEY.fold(0)) for stream in range(32)]
    blocks = [part[i : i + 16] for part in words for i in range(0, 1024, 16)]
    assert len(set(blocks)) == len(blocks) == 2 * 32 * 64


@given(st.integers(0, 2**64 - 6), st.integers(0, 5), st.integers(0, 100), st.integers(0, 100))
def test_several_streams_at_once_are_the_streams_one_by_one(first, count, start, length):
    found = bits.words_many(KEY, first, count, start, start + length)
    assert found.shape == (count, length)
    assert [row.tobytes() for row in found] == [bits.words(KEY, first + i, start, start + length) for i in range(count)]
