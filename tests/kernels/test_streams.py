import threading

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from baffle import bits
from baffle.kernels import streams
from baffle.keys import Key

KEY = Key.root(23)


@given(
    first=st.integers(0, 2**64 - 1),
    count=st.integers(1, 5),
    block=st.integers(0, 2**60),
    blocks=st.integers(1, 200),
    seed=st.integers(0, 1),
)
@settings(max_examples=60)
def test_words_of_several_streams_are_those_of_each(first, count, block, blocks, seed):
    first = min(first, 2**64 - count)
    made = streams.of(KEY.fold(seed))
    made.fill(first, count, block, blocks)
    for row, stream in enumerate(range(first, first + count)):
        words = bits.words(KEY.fold(seed), stream, 16 * block, 16 * (block + blocks))
        assert made.octets[16 * row * blocks : 16 * (row + 1) * blocks].tobytes() == words
        found = made.words[8 * row * blocks : 8 * (row + 1) * blocks]
        assert np.array_equal(found, np.frombuffer(words, np.uint16))


def test_each_thread_has_its_own():
    made, others = streams.of(KEY), []
    assert streams.of(Key.root(24)) is made
    thread = threading.Thread(target=lambda: others.append(streams.of(KEY)))
    thread.start()
    thread.join()
    assert others[0] is not made
    assert (made.key, others[0].key) == (Key.root(24), KEY)
