"""A client's round where nothing but ONNX Runtime is installed beside the library."""

from __future__ import annotations

import importlib.metadata
import os
import subprocess
import sys
import tomllib
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")

import baffle
from baffle import Baffle, server
from baffle.client import Client, answer
from baffle.export import Choice, Source, export, prepared
from baffle.export.model import normal
from baffle.export.prepare import runs
from baffle.kernels import PlainKernels
from baffle.keys import Key
from baffle.messages import encode
from baffle.runtimes.onnx import OnnxRuntime
from export.graphs import CLASSES, FEATURES, on_a_grid, residual

SOURCE = Path(baffle.__file__).parent
REFUSED = (
    "torch",
    "onnx",
    "onnxscript",
    "numba",
    "sklearn",
    "scipy",
    "matplotlib",
    "ray",
    "pandas",
    "hypothesis",
)

ROUND = """
import sys
from importlib.machinery import PathFinder

class Without:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in sys.argv[1].split(","):
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
        return PathFinder.find_spec(name, path, target)

sys.meta_path[sys.meta_path.index(PathFinder)] = Without()

import numpy as np
from baffle.client import Client, answer
from baffle.kernels import PlainKernels
from baffle.keys import Key
from baffle.messages import Plan, decode, encode
from baffle.runtimes.onnx import OnnxRuntime

plan = decode(open("plan", "rb").read(), Plan)
theta = np.load("theta.npy")
data = np.load("data.npz")
client = Client(1, 20, Key(open("private", "rb").read()), lambda generator, size: (
    lambda chosen: (data["x"][chosen], data["y"][chosen]))(generator.choice(20, size, replace=False)))
report = answer(plan, theta, client, OnnxRuntime("model"), PlainKernels())
open("report", "wb").write(encode(report))
loaded = sorted({name.partition(".")[0] for name in sys.modules} & set(sys.argv[1].split(",")))
print("LOADED", loaded)
"""


def draw_of(data):
    def draw(generator, size):
        chosen = generator.choice(20, size, replace=False)
        return data["x"][chosen], data["y"][chosen]

    return draw


@pytest.mark.parametrize("kind", ["floats", "grid"])
def test_a_client_answers_a_plan_without_any_training_framework(kind, tmp_path) -> None:
    made = normal(residual() if kind == "floats" else on_a_grid())
    choice = Choice(train=("*",)) if kind == "floats" else Choice(grid=("*",))
    trainable, _ = prepared(Source(made, runs(made, "y")), choice)
    from baffle.export.model import session

    plain = session(made, plain=True)
    export(trainable, tmp_path / "model", expected=lambda given: plain.run(None, dict(given))[0])
    runtime, method = OnnxRuntime(tmp_path / "model"), Baffle(forwards=200) if kind == "floats" else Baffle.grid()
    rng = np.random.default_rng(0)
    data = {"x": rng.normal(size=(20, FEATURES)).astype(np.float32), "y": rng.integers(0, CLASSES, 20)}
    costs = runtime.costs(runtime.layout.blocks("layers"), (data["x"][:3], data["y"][:3]))
    world = server.Federation(key=Key.root(1).secret, layout=runtime.layout, clients=2, most_samples=20, costs=costs)
    state = method.start(runtime.layout.flatten(runtime.given))
    plan = server.plan(method, world, state)
    private = Key.root(2).fold("private")
    expected = encode(answer(plan, state.parameters, Client(1, 20, private, draw_of(data)), runtime, PlainKernels()))
    (tmp_path / "plan").write_bytes(encode(plan))
    (tmp_path / "private").write_bytes(private.secret)
    np.save(tmp_path / "theta.npy", state.parameters)
    np.savez(tmp_path / "data.npz", **data)
    told = subprocess.run(
        [sys.executable, "-c", ROUND, ",".join(REFUSED)],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(SOURCE.parent)},
        text=True,
        capture_output=True,
        timeout=60,
        check=False,
    )
    assert told.returncode == 0, told.stderr
    assert told.stdout == "LOADED []\n"
    assert (tmp_path / "report").read_bytes() == expected
    moved = server.advance(method, state, plan, [expected, (tmp_path / "report").read_bytes()], PlainKernels())
    assert (1, "a second report of the round") in moved.record.left_out


# What the extra brings.


def requirements() -> dict[str, list[str]]:
    """Return what the project needs, and each of its extras, as pyproject.toml says."""
    project = tomllib.loads((Path(__file__).parents[1] / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    return {"": project["dependencies"], **project["optional-dependencies"]}


def closure(wanted: list[str]) -> set[str]:
    """Return the names of all packages that come with `wanted`, markers and extras followed."""
    requirement = pytest.importorskip("packaging.requirements").Requirement
    name_of = pytest.importorskip("packaging.utils").canonicalize_name
    known = requirements()
    found, queue = set(), [requirement(one) for one in wanted]
    seen = set()
    while queue:
        one = queue.pop()
        name, extras = name_of(one.name), {"", *one.extras}
        for extra in extras:
            if (name, extra) in seen:
                continue
            seen.add((name, extra))
            if name == "baffle":
                queue += [requirement(more) for more in known[extra]]
                continue
            found.add(name)
            try:
                needed = importlib.metadata.requires(name) or []
            except importlib.metadata.PackageNotFoundError:
                continue  # not installed here, and so not what a marker of this machine asks for
            for more in map(requirement, needed):
                if more.marker is None or more.marker.evaluate({"extra": extra}):
                    queue.append(more)
    return found


def test_the_extra_of_a_client_brings_no_training_framework() -> None:
    assert "client" in requirements(), "pyproject.toml has no extra named client"
    found = closure(["baffle[client]"])
    assert "onnxruntime" in found
    assert {"numpy", "cryptography", "msgspec", "safetensors"} <= found
    assert not found & {"torch", "onnx", "onnxscript", "numba", "llvmlite", "scikit-learn", "matplotlib", "ray"}
    assert not {name for name in found if name.startswith(("nvidia", "tensorflow", "jax"))}


def test_extras_that_messages_name_are_there() -> None:
    """`MissingExtraError` tells people to install them."""
    known = requirements()
    for path in SOURCE.rglob("*.py"):
        text = path.read_text(encoding="utf-8")
        for extra in ("client", "onnx", "train", "ray"):
            if f'", "{extra}")' in text:
                assert extra in known, f"{path.name} names the extra {extra}"


def test_the_walk_finds_torch_where_it_is() -> None:
    assert "torch" in closure(["baffle[train]"])
