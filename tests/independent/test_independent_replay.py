"""The documents suffice: what is written from them alone gives every golden run's weights, averaged ones included."""

from __future__ import annotations

import ast
import json
import shutil
import struct
import subprocess
import sys
import zlib
from pathlib import Path

import msgspec
import numpy as np
import pytest

from baffle.directions import Gaussian, Orthogonal, Rademacher, Sparse
from baffle.kernels import PlainKernels
from baffle.keys import Key
from baffle.ledger import Reader
from baffle.messages import Aggregate, BlockPlan
from baffle.parameters import Constant, Given, Layout, Tensor, Uniform, digest, mask_of
from baffle.reconstruction import reconstruct
from baffle.snapshots import INITIAL, snapshots, write_tensors
from federation import simulation
from independent import replay

HERE = Path(__file__).parent
RUNS = sorted(path.parent for path in (HERE.parent / "golden").glob("*/*/ledger"))
BOOKS = {
    "cryptography",
    "hashlib",
    "json",
    "math",
    "struct",
    "sys",
    "zlib",
    "array",
    "functools",
    "pathlib",
    "statistics",
}


def summary(folder: Path) -> dict[str, object]:
    return json.loads((folder / "summary.json").read_text())


def part(folder: Path, header: dict, prefix: str) -> str:
    """Return the digest of one part of a run's last snapshot."""
    named = {name.removeprefix(prefix): values for name, values in replay.tensors(folder).items()}
    return replay.digest(replay.flat(header["federation"]["layout"], named))


def test_it_has_nothing_of_what_it_checks() -> None:
    source = (HERE / "replay.py").read_text()
    nodes = list(ast.walk(ast.parse(source)))
    imported = {name.name for node in nodes if isinstance(node, ast.Import) for name in node.names}
    imported |= {str(node.module) for node in nodes if isinstance(node, ast.ImportFrom)}
    assert {name.partition(".")[0] for name in imported} == BOOKS
    assert len(source.splitlines()) <= 300


@pytest.mark.parametrize("folder", RUNS, ids=lambda path: f"{path.parent.name}-{path.name}")
def test_it_gives_the_golden_runs_weights(folder) -> None:
    rounds, theta, average, ledger, header = replay.replay(folder)
    told = summary(folder)
    assert (rounds, replay.digest(theta), ledger) == (told["rounds"], told["digest"], told["ledger_digest"])
    kept = snapshots(folder / "snapshots")[0]
    assert part(kept, header, "parameters.") == replay.digest(theta)
    assert part(kept, header, "average.") == replay.digest(average)


def test_the_script_prints_the_last_digests() -> None:
    folder = RUNS[0]
    asked = subprocess.run(
        [sys.executable, "-I", HERE / "replay.py", folder], capture_output=True, text=True, check=True
    )
    told = summary(folder)
    assert asked.stdout.startswith(f"{folder}: {told['rounds']} rounds, θ {told['digest']}, averaged weights ")
    assert asked.stdout.endswith(f", ledger {told['ledger_digest']}\n")


def written(folder: Path, payloads: list[bytes], magic: bytes = b"BAFFLE\x01\n") -> Path:
    """Write a ledger whose chain is right."""
    made, before = magic, bytes(32)
    for payload in payloads:
        length = struct.pack("<I", len(payload))
        seal = replay.blake(before + length + payload, b"baffle-ledger")
        made += length + struct.pack("<I", zlib.crc32(before + length)) + payload + seal
        before = seal
    folder.mkdir(exist_ok=True)
    (folder / "ledger").write_bytes(made)
    return folder


def golden(name: str) -> tuple[Path, list[bytes]]:
    folder = next(run for run in RUNS if run.name == name)
    return folder, list(Reader(folder / "ledger"))


@pytest.mark.parametrize("where", [3, 8, 30, 300, -500, -1])
def test_a_changed_byte_is_found(tmp_path, where) -> None:
    folder = shutil.copytree(golden("rqm")[0], tmp_path / "run")
    data = bytearray((folder / "ledger").read_bytes())
    data[where] ^= 1
    (folder / "ledger").write_bytes(data)
    with pytest.raises(ValueError, match=r"no ledger|record [0-9]+: (length|digest)"):
        replay.replay(folder)


def test_other_sums_are_found_under_a_chain_that_was_made_anew(tmp_path) -> None:
    _, payloads = golden("rqm")
    record = msgspec.msgpack.decode(payloads[2])
    record[4][2] = bytes([record[4][2][0] ^ 1]) + record[4][2][1:]
    payloads[2] = msgspec.msgpack.encode(record)
    with pytest.raises(ValueError, match="record 2: θ has digest"):
        replay.replay(written(tmp_path / "run", payloads))


def test_a_round_left_out_is_found(tmp_path) -> None:
    _, payloads = golden("rqm")
    with pytest.raises(ValueError, match="record 1: round 1, attempt 0 where 0, 0 follow"):
        replay.replay(written(tmp_path / "run", [payloads[0], *payloads[2:]]))


def test_a_ledger_of_version_2_says_what_is_asked_and_what_the_average_is(tmp_path) -> None:
    folder, payloads = golden("rqm")
    told, seen = [payloads[0]], []
    for number, payload in enumerate(payloads[1:], 1):
        average = replay.digest(replay.replay(written(tmp_path / "part", payloads[: number + 1]))[2])
        seen.append(average)
        told.append(msgspec.msgpack.encode(["intent", number - 1, 0, [0, 1], bytes(32)]))
        told.append(msgspec.msgpack.encode(["round", *msgspec.msgpack.decode(payload), average]))
    rounds, theta, average, _, _ = replay.replay(written(tmp_path / "run", told, b"BAFFLE\x02\n"))
    assert (rounds, replay.digest(theta)) == (summary(folder)["rounds"], summary(folder)["digest"])
    assert replay.digest(average) == seen[-1]
    told[2] = told[2].replace(seen[0].encode(), seen[1].encode())
    with pytest.raises(ValueError, match="record 2: "):
        replay.replay(written(tmp_path / "run", told, b"BAFFLE\x02\n"))


def test_pruned_and_given_tensors_begin_alike(tmp_path) -> None:
    rng = np.random.default_rng(0)
    weights = rng.normal(size=(5, 9)).astype(np.float32) * (rng.random((5, 9)) < 0.4)
    live = mask_of(weights)
    layout = Layout(
        (
            Tensor("drawn", (5, 9), Uniform(0.3), live),
            Tensor("given", (5, 9), Given(), live),
            Tensor("one", (7,), Constant(1.1)),
            Tensor("last", (3,), Uniform(1.0)),
        )
    )
    ours = layout.initial(Key(bytes(range(32))).fold("initial"), {"given": weights})
    write_tensors(tmp_path / "snapshots" / INITIAL, {"given": weights}, {})
    told = msgspec.msgpack.decode(msgspec.msgpack.encode(layout))
    header = {"federation": {"key": bytes(range(32)), "layout": told}}
    assert replay.first_weights(header, tmp_path) == ours.tolist()


@pytest.mark.parametrize("bits", [8, 64])
def test_wide_sums_of_every_law_are_the_librarys(make_plan, bits) -> None:
    laws = [Sparse(1), Sparse(128), Gaussian(), Rademacher(), Orthogonal(6), Orthogonal(7)]
    blocks = tuple(BlockPlan(70 * i, 70 * i + 60 + i % 2, 5, 2.5, law) for i, law in enumerate(laws))
    plan = make_plan(blocks=blocks, groups=3, steps=2, cohort=(0, 1, 2))
    sums = np.random.default_rng(1).integers(-(2**43), 2**43, plan.shape)
    aggregate = Aggregate.of(7, sums, bits)
    ours = reconstruct(plan, aggregate.integers(plan), aggregate.weight, 420, PlainKernels())
    packed = [msgspec.msgpack.decode(msgspec.msgpack.encode(one)) for one in (plan, aggregate)]
    assert replay.gradient(*packed, 420) == ours.tolist()


@pytest.mark.parametrize(
    "changes",
    [{"unavailable": 0.3, "quorum": 1.0}, {"secure": "ideal"}, {"secure": "ideal", "unavailable": 0.3}],
    ids=["open", "guarded", "guarded with attempts that fail"],
)
def test_a_ledger_of_version_2_is_replayed_with_its_averages(changes, tmp_path) -> None:
    """Intents among its rounds are passed over; the digests of the averaged weights are compared."""
    made = simulation(**changes)
    result = made.run(4, out=tmp_path)
    rounds, theta, average, head, _ = replay.replay(tmp_path)
    assert (tmp_path / "ledger").read_bytes()[6] == 2
    assert (rounds, replay.digest(theta), head) == (4, result.digest, result.ledger_digest)
    assert replay.digest(average) == digest(result.parameters)
