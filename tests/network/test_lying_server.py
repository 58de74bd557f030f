"""A server that lies about sizes: its client refuses in words, before it has made anything of them."""

from __future__ import annotations

import json
import tracemalloc
from collections.abc import Callable
from contextlib import contextmanager
from pathlib import Path

import msgspec
import numpy as np
import pytest

from baffle.engines.network.channel import Channel
from baffle.engines.network.dialogue import (
    MOST,
    PART,
    Begin,
    Call,
    Fetch,
    Gone,
    Hello,
    Kind,
    Offer,
    Part,
    Refused,
    Signed,
    Turn,
    Welcome,
    check_of,
    heard,
    opened,
)
from baffle.engines.network.home import Home
from baffle.engines.network.member import Equipment, Member
from baffle.engines.network.shelf import digest_of, largest
from baffle.engines.network.standing import Standing
from baffle.engines.network.steps import OutOfStepError, asked, bitmap, plan_of
from baffle.errors import BaffleError, LedgerError, ReportError
from baffle.header import Header
from baffle.messages import decode, encode
from baffle.parameters import Layout
from baffle.server import MOST_CLIENTS, State
from baffle.snapshots import _BLANK, _seal, read_snapshot, write_snapshot
from federation import simulation

MADE = simulation()
HEADER = MADE.header()
STATE = HEADER.start(MADE.runtime.given)
MIB = 1 << 20


@contextmanager
def at_most(size: int):
    """Fail where more bytes are in use at once than `size`, beside those that were before."""
    tracemalloc.start()
    try:
        yield
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < size, f"{peak / MIB:.1f} MiB"


def federation(**changes: object) -> Header:
    return msgspec.structs.replace(HEADER, federation=msgspec.structs.replace(HEADER.federation, **changes))


def follow(folder: Path, replies: Callable[[object], object]) -> None:
    """Be a client whose server says what a function of its words says."""

    def ask(data: bytes, _: float) -> bytes:
        return encode(replies(opened(decode(data, Signed))))

    client = MADE.clients()[0]
    equipment = Equipment(MADE.runtime, 12, client.draw, client.private)
    with Home(folder) as home:
        Member(
            channel=Channel(ask=ask, number=0, patience=0.01),
            standing=Standing(home=home, kernels=MADE.kernels),
            equip=lambda _: equipment,
        ).run()


class Server:
    """Says hello, gives the run, and offers what it is told to; counts parts that are asked for."""

    def __init__(self, offer: Offer, part: Callable[[int], bytes] = lambda _: b"") -> None:
        self.offer, self.part, self.fetched = offer, part, 0

    def __call__(self, words: object) -> object:
        match words:
            case Hello():
                return Welcome({"name": "test"}, Kind((4,), 3), 0.0)
            case Turn(run=b""):
                return Begin(encode(HEADER), False)
            case Fetch():
                self.fetched += 1
                data = self.part(words.offset)
                return Part(data) if data else Gone()
            case _:
                return self.offer


def snapshot(folder: Path, state: State = STATE, layout: Layout = HEADER.federation.layout) -> bytes:
    return write_snapshot(folder, layout, state, b"").read_bytes()


# Clients, and plans for them.


@pytest.mark.parametrize("clients", [MOST_CLIENTS + 1, 10**7, 10**9, 1 << 62])
def test_a_header_of_too_many_clients_is_refused(clients) -> None:
    told = msgspec.msgpack.decode(encode(HEADER))
    told["federation"]["clients"] = clients
    with at_most(MIB), pytest.raises(ReportError, match=r"clients = \d+: must be between 1 and 1048576"):
        decode(msgspec.msgpack.encode(told), Header)


@pytest.mark.parametrize("part", ["all", "half"])
def test_a_plan_of_as_many_clients_as_there_can_be_takes_less_than_64_mebibytes(part) -> None:
    header = federation(clients=MOST_CLIENTS, most_samples=1)
    cohort = b"" if part == "all" else bitmap(range(0, MOST_CLIENTS, 2), MOST_CLIENTS)
    with at_most(64 * MIB):
        plan = plan_of(header, STATE, 0, cohort)
    assert len(plan.cohort) == (MOST_CLIENTS if part == "all" else MOST_CLIENTS // 2)


def test_a_report_larger_than_a_message_is_not_begun() -> None:
    algorithm = msgspec.structs.replace(HEADER.algorithm, forwards=1 << 23, batch=1, bits=16)
    header = msgspec.structs.replace(HEADER, algorithm=algorithm)
    plan = plan_of(header, STATE, 0, b"")
    call = Call((), 0, 0, b"", check_of(encode(plan)))
    with (
        at_most(MIB),
        pytest.raises(OutOfStepError, match=f"bytes of slopes are asked, and a message has at most {MOST}"),
    ):
        asked(header, STATE, call)


def test_shapes_and_masks_of_a_header_take_little_more_than_their_bytes() -> None:
    told = msgspec.msgpack.decode(encode(HEADER))
    tensor = told["federation"]["layout"]["tensors"][0]
    told["federation"]["layout"]["tensors"] = [tensor | {"shape": [2] * 100_000, "live": b""}]
    with at_most(4 * MIB), pytest.raises(ReportError, match="length <= 64"):
        decode(msgspec.msgpack.encode(told), Header)
    told["federation"]["layout"]["tensors"] = [tensor | {"shape": [1 << 62] * 64, "live": b""}]
    with at_most(MIB):
        assert decode(msgspec.msgpack.encode(told), Header).federation.layout.size == 1 << (62 * 64)
    mask = b"\xff" * (MIB - 4096)
    told["federation"]["layout"]["tensors"] = [tensor | {"shape": [8 * len(mask)], "live": mask}]
    with at_most(8 * MIB):
        assert decode(msgspec.msgpack.encode(told), Header).federation.layout.size == 8 * len(mask)


# Snapshots.


@pytest.mark.parametrize("average", [0.0, 0.99])
def test_the_largest_snapshot_has_room_for_every_snapshot_of_a_run(tmp_path, average) -> None:
    for made in (simulation(), simulation(sizes=(3,) * 3)):
        header = made.header()
        state = header.start(made.runtime.given)
        squares = (1.2345678e-300,) * len(header.federation.layout.blocks(header.algorithm.blocks))
        state = State(state.parameters, state.average, state.memory, 1 << 40, 1 << 40, squares, average)
        size = len(write_snapshot(tmp_path, header.federation.layout, state, bytes(32)).read_bytes())
        assert size <= largest(header) < size + 100_000


def test_a_snapshot_larger_than_can_be_is_not_fetched(tmp_path) -> None:
    server = Server(Offer(3, 1 << 40, bytes(32)), lambda _: bytes(PART))
    with at_most(8 * MIB), pytest.raises(BaffleError, match=f"a snapshot of {1 << 40} bytes is offered.* at most"):
        follow(tmp_path, server)
    assert server.fetched == 0


def test_more_than_was_offered_is_not_taken(tmp_path) -> None:
    server = Server(Offer(3, 100, bytes(32)), lambda _: bytes(PART))
    with pytest.raises(BaffleError, match="what comes is no part of the snapshot that is offered"):
        follow(tmp_path, server)
    assert server.fetched == 4


def test_a_part_is_bounded_by_itself() -> None:
    with pytest.raises(ReportError, match=f"length <= {PART}"):
        heard(encode(Part(bytes(PART + 1))))


def refused(folder: Path, data: bytes, words: str) -> None:
    """Check that a client refuses a snapshot, in these words, and keeps nothing of it."""
    server = Server(Offer(3, len(data), digest_of(data)), lambda at: data[at : at + PART])
    with pytest.raises(BaffleError, match=words):
        follow(folder / "client", server)
    assert server.fetched == 4
    assert not list((folder / "client").glob("*/0*.safetensors"))


@pytest.mark.parametrize(
    "changes",
    [
        {"memory": {}},
        {"memory": {"first": np.zeros(3, np.float32)}},
        {"memory": {name: array.astype(np.float16) for name, array in STATE.memory.items()}},
        {"squares": (1.0,) * 1000},
    ],
    ids=["no memory", "short memory", "other numbers", "squares"],
)
def test_a_state_of_another_method_is_refused(tmp_path, changes) -> None:
    fields = {name: getattr(STATE, name) for name in State.__dataclass_fields__} | {"round": 3} | changes
    refused(tmp_path, snapshot(tmp_path, State(**fields)), "a snapshot's state is not one of this run's method")


@pytest.mark.parametrize(
    "about",
    [
        {"squares": "[" * 20_000},
        {"squares": "[1, 2]"},
        {"squares": '["0x1p99999"]'},
        {"squares": "null"},
        {"round": "x"},
        {},
    ],
    ids=["nested", "numbers", "overflow", "null", "round", "nothing"],
)
def test_whatever_is_told_of_a_sealed_snapshot_is_refused_in_words(tmp_path, about) -> None:
    data = snapshot(tmp_path, STATE)
    size = int.from_bytes(data[:8], "little")
    header = json.loads(data[8 : 8 + size])
    header["__metadata__"] = (header["__metadata__"] if about else {}) | about | {"seal": "0" * 64}
    made = json.dumps(header, separators=(",", ":")).encode()
    made += b" " * (-len(made) % 8)
    blank = len(made).to_bytes(8, "little") + made + data[8 + size :]
    at = blank.index(b'"seal":"' + _BLANK) + 8
    sealed = blank[:at] + _seal(blank) + blank[at + 64 :]
    path = tmp_path / "00000007.safetensors"
    path.write_bytes(sealed)
    with pytest.raises(LedgerError, match="is no snapshot"):
        read_snapshot(path, HEADER.federation.layout)


def test_a_snapshot_of_another_model_is_no_snapshot_of_this(tmp_path) -> None:
    other = simulation(sizes=(3,) * 3).header().federation.layout
    tensors = tuple(msgspec.structs.replace(tensor, name=f"x{tensor.name}") for tensor in other.tensors)
    data = snapshot(tmp_path, STATE, Layout(tensors))
    refused(tmp_path, data, "is no snapshot: parameter")


# Words.


@pytest.mark.parametrize(
    "value",
    [[[]] * 500_000, [{}] * 500_000, {"a": 1}, [1.5] * 4, ["x" * 5000], "x" * 5000, list(range(5000))],
    ids=["lists", "maps", "map", "numbers", "long text in a list", "long text", "long list"],
)
def test_settings_are_plain_values_of_little_size(value) -> None:
    told = msgspec.msgpack.encode(["welcome", {"hidden": value}, {"shape": [4], "classes": 3}, 0.0])
    with at_most(4 * MIB), pytest.raises(ReportError, match="no server's reply"):
        heard(told)


def test_nested_settings_are_refused_and_plain_ones_come_through() -> None:
    nested = b"\x91" * 100_000
    told = msgspec.msgpack.encode(["welcome", {"hidden": msgspec.Raw(nested)}, {"shape": [4], "classes": 3}, 0.0])
    with pytest.raises(ReportError, match="no server's reply"):
        heard(told)
    plain = {"a": 1, "b": 0.5, "c": "x", "d": True, "e": None, "f": [1, 2], "g": ["*.weight"], "h": 1 << 62}
    found = heard(encode(Welcome(plain, Kind((4,), 3), 0.0)))
    assert isinstance(found, Welcome)
    assert msgspec.json.encode(found.settings) == msgspec.json.encode(plain)


@pytest.mark.parametrize(
    ("kind", "words"),
    [
        ({"shape": [1 << 40], "classes": 3}, r"\$\[2\]\.shape"),
        ({"shape": [2] * 17, "classes": 3}, r"\$\[2\]\.shape"),
        ({"shape": [4], "classes": 1 << 40}, r"\$\[2\]\.classes"),
        ({"shape": [4], "classes": 0}, r"\$\[2\]\.classes"),
        ({"shape": [4], "classes": 3, "class_names": ["x" * 2000]}, r"\$\[2\]\.class_names"),
        ({"shape": [4], "classes": 3, "class_names": ["x"] * 70_000}, r"\$\[2\]\.class_names"),
    ],
)
def test_what_samples_are_like_is_bounded(kind, words) -> None:
    with at_most(4 * MIB), pytest.raises(ReportError, match=words):
        heard(msgspec.msgpack.encode(["welcome", {}, kind, 0.0]))


def test_a_reason_is_no_longer_than_a_page() -> None:
    with pytest.raises(ReportError, match="length <= 4096"):
        heard(encode(Refused("x" * 5000, False)))
