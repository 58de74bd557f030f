"""What docs/ledger.md says of a step, done with Python's numbers, against the library's with NumPy's: the same bits."""

from __future__ import annotations

from dataclasses import replace

import msgspec
import numpy as np
import pytest

from baffle import Baffle
from baffle.optimizers import Adam, ExponentialAverage, Sgd
from independent import replay

OPTIMIZERS = [
    Sgd(rate=0.05),
    Sgd(rate=0.3, momentum=0.9),
    Sgd(rate=0.05, momentum=0.5, weight_decay=0.1),
    Adam(rate=0.02),
    Adam(rate=0.02, beta1=0.9, beta2=0.999, eps=1e-6, weight_decay=0.1),
    Adam(rate=0.02, beta1=0.0, beta2=0.0),
]
SIZES = [1.0, 1e-20, 1e-37, 1e-44, 1e15]


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("optimizer", OPTIMIZERS, ids=repr)
def test_thirty_rounds_of_steps_are_the_librarys(optimizer, size) -> None:
    method = Baffle(optimizer=optimizer, anneal=20, clip=0.7 * size, average=ExponentialAverage(0.7))
    told = msgspec.msgpack.decode(msgspec.msgpack.encode(method))
    rng = np.random.default_rng(4)
    state = method.start(rng.normal(size=30).astype(np.float32))
    theta = average = state.parameters.tolist()
    memory: dict = {}
    for number in range(30):
        estimate = (size * rng.normal(size=30)).astype(np.float32)
        state = method.update(replace(state, round=number), estimate)
        theta, average = replay.stepped(told, theta, average, estimate.tolist(), memory, number)
        assert (theta, average) == (state.parameters.tolist(), state.average.tolist())
