"""Runs that earlier releases wrote: they verify, replay to the same digests, and go on, for ever (tests/golden)."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from baffle import run as runs
from baffle.kernels import Kernels, PlainKernels, fastest
from baffle.ledger import Reader
from baffle.parameters import digest
from baffle.snapshots import read_snapshot, snapshots

GOLDEN = Path(__file__).parent / "golden"
RUNS = sorted(path.parent for path in GOLDEN.glob("*/*/ledger"))
KINDS = {
    "v1": {
        *("default", "paper", "groups", "local-steps", "gaussian", "shares"),
        *("rqm", "grid", "masks", "linear", "mixed", "onnx"),
    }
}

run_of_each_kind = pytest.mark.parametrize("folder", RUNS, ids=lambda path: f"{path.parent.name}-{path.name}")


def summary(folder: Path) -> dict[str, Any]:
    return json.loads((folder / "summary.json").read_text())


def test_no_golden_run_is_missing() -> None:
    assert {version: {path.name for path in RUNS if path.parent.name == version} for version in KINDS} == KINDS


@run_of_each_kind
def test_it_verifies(folder) -> None:
    _, rounds = runs.verify(folder)
    assert rounds == summary(folder)["rounds"]
    reader = Reader(folder / "ledger")
    assert sum(1 for _ in reader) == reader.records > rounds
    assert reader.head.hex() == summary(folder)["ledger_digest"]


@pytest.mark.parametrize("kernels", [PlainKernels(), fastest()], ids=lambda kernels: type(kernels).__name__)
@run_of_each_kind
def test_it_is_replayed_to_the_same_weights(folder, kernels: Kernels) -> None:
    header, state = runs.replay(folder, kernels)
    assert (state.round, digest(state.parameters)) == (summary(folder)["rounds"], summary(folder)["digest"])
    kept, _ = read_snapshot(snapshots(folder / "snapshots")[0], header.federation.layout)
    assert kept.round == state.round
    assert digest(state.average) == digest(kept.average)
    assert (state.squares, state.size, state.attempt) == (kept.squares, kept.size, kept.attempt)
    assert {name: array.tobytes() for name, array in state.memory.items()} == {
        name: array.tobytes() for name, array in kept.memory.items()
    }


@run_of_each_kind
def test_its_last_snapshot_is_what_a_resumed_run_begins_from(folder, tmp_path) -> None:
    copied = shutil.copytree(folder, tmp_path / "run")
    for old in snapshots(copied / "snapshots")[1:]:
        old.unlink()
    seen: list[int] = []
    resumed = runs.resume(copied, PlainKernels(), lambda record: seen.append(record.plan.round))
    assert resumed is not None
    run, state = resumed
    run.ledger.close()
    assert seen[-1] + 1 == state.round == summary(folder)["rounds"]
    assert digest(state.parameters) == summary(folder)["digest"]
