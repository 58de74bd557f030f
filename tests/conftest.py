"""What all tests share: one hypothesis profile, the golden values of docs/noise.md, a small plan, exported models."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
from hypothesis import settings

from baffle.directions import Gaussian, Rademacher
from baffle.estimators import CentredDifference
from baffle.keys import Key
from baffle.messages import BlockPlan, Plan

settings.register_profile("baffle", deadline=None, derandomize=True)
settings.load_profile("baffle")

NOISE = Path(__file__).parents[1] / "docs" / "noise.md"

Rows = list[tuple[str, ...]]


@pytest.fixture(scope="session")
def golden() -> Callable[[str], Rows]:
    """Returns a function: heading in docs/noise.md -> the rows of the table below it, without backticks."""
    text = NOISE.read_text(encoding="utf-8")

    def rows(heading: str) -> Rows:
        section = re.split(r"^#+ ", text.split(f"\n### {heading}\n", 1)[1], maxsplit=1, flags=re.MULTILINE)[0]
        lines = [line for line in section.splitlines() if line.startswith("|")]
        return [tuple(cell.strip().strip("`") for cell in line.strip("|").split("|")) for line in lines[2:]]

    return rows


@pytest.fixture(scope="session")
def key_at() -> Callable[[str], Key]:
    """Returns a function: a path as docs/noise.md writes it -> its key."""

    def key(path: str) -> Key:
        root, *names = path.split("/")
        return Key.root(int(root.removeprefix("root(").removesuffix(")"))).fold(*map(json.loads, names))

    return key


@pytest.fixture(scope="session")
def make_plan() -> Callable[..., Plan]:
    """Returns a function that makes a plan; by default of two blocks, both laws, three clients and two groups."""

    def make(**changes: object) -> Plan:
        fields: dict[str, object] = {
            "protocol": 1,
            "round": 3,
            "attempt": 1,
            "key": bytes(range(32)),
            "cohort": (0, 2, 5),
            "quorum": 2,
            "groups": 2,
            "steps": 1,
            "rate": 0.1,
            "batch": 32,
            "most_samples": 100,
            "bits": 8,
            "estimator": CentredDifference(scale=0.01),
            "blocks": (BlockPlan(0, 5, 3, 16.0, Rademacher()), BlockPlan(5, 12, 4, 2.0, Gaussian(), 0.25)),
        }
        return Plan(**(fields | changes))  # type: ignore[arg-type]

    return make


class Exported(NamedTuple):
    """A PyTorch model and what was exported of it."""

    module: Any
    folder: Path
    shape: tuple[int, ...]
    """Of a sample."""
    source: Any


@pytest.fixture(scope="session")
def exported(tmp_path_factory) -> Callable[[str], Exported]:
    """Returns a function: lenet, mlp or wrn -> that model, small, exported once for all tests."""
    torch = pytest.importorskip("torch")
    for package in ("onnx", "onnxruntime", "onnxscript"):
        pytest.importorskip(package)
    from baffle.export import Choice, export, prepared
    from baffle.export.from_torch import from_torch
    from baffle.models.lenet import lenet
    from baffle.models.mlp import mlp
    from baffle.models.wide_resnet import wide_resnet

    made = {
        "lenet": (lambda: lenet(1, 10), (1, 12, 12)),
        "mlp": (lambda: mlp(16, 10, (12,)), (1, 4, 4)),
        "wrn": (lambda: wide_resnet(3, 10), (3, 8, 8)),
    }

    @cache
    def of(name: str) -> Exported:
        make, shape = made[name]
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            module = make()
        source = from_torch(module, np.zeros(shape, np.float32))
        trainable, expected = prepared(source, Choice())
        folder = tmp_path_factory.mktemp(name) / "model"
        export(trainable, folder, expected=expected)
        return Exported(module, folder, shape, source)

    return of
