"""From settings to ONNX and back: `baffle export` of a PyTorch model, and `--runtime onnx`."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import tomli_w

onnx = pytest.importorskip("onnx")
pytest.importorskip("torch")
pytest.importorskip("onnxruntime")
pytest.importorskip("onnxscript")
pytest.importorskip("sklearn")

from baffle.kernels import PlainKernels  # noqa: E402
from export.graphs import initialisers  # noqa: E402


def summary(folder="run") -> dict:
    return json.loads((Path(folder) / "summary.json").read_text())


def trained_weights(folder="run") -> dict[str, np.ndarray]:
    from baffle import run as runs

    header, state = runs.replay(Path(folder), PlainKernels())
    return dict(header.federation.layout.unflatten(state.average))


@pytest.fixture
def settings() -> str:
    return tomli_w.dumps({"hidden": [4], "rounds": 2, "seed": 5})


def test_settings_are_exported_and_train_as_they_would_with_pytorch(settings, train, command) -> None:
    """The same first weights from the run's key, and nearly the same slopes."""
    Path("mine.toml").write_text(settings)
    told = command("export", "mine.toml", "--out", "out")
    assert (told.status, told.error) == (0, "")
    assert train("mine.toml", out="torch").status == 0
    assert train("mine.toml", "--model", "out", out="exported").status == 0
    found = {name: trained_weights(name) for name in ("torch", "exported")}
    for tensor, value in found["torch"].items():
        np.testing.assert_allclose(found["exported"][tensor], value, atol=5e-3)
    assert summary("torch")["accuracy"] == pytest.approx(summary("exported")["accuracy"], abs=0.02)
    # What a run with PyTorch came to is exported, too.
    assert command("export", "torch", "--plain", "torch.onnx").status == 0
    plain = initialisers(onnx.load("torch.onnx"))
    for tensor, value in found["torch"].items():
        np.testing.assert_array_equal(plain[tensor], value)


def test_a_run_with_onnx_runtime_is_that_of_the_exported_model_and_is_resumed(settings, train, command) -> None:
    Path("mine.toml").write_text(settings)
    assert train("mine.toml", "--runtime", "onnx", "--rounds", 1).status == 0
    assert command("train", "--resume", "run", "--rounds", 2, "--no-report").status == 0
    assert command("export", "mine.toml", "--out", "out").status == 0
    assert train("mine.toml", "--model", "out", out="exported").status == 0
    assert Path("run/ledger").read_bytes() == Path("exported/ledger").read_bytes()


def test_onnx_runtime_keeps_to_float32(train) -> None:
    told = train("--runtime", "onnx", "--precision", "float64")
    assert told.status == 2
    assert told.error == "baffle: error: precision = 'float64': must be float32 with ONNX Runtime\n"
    told = train("--runtime", "tensorflow")
    assert told.error == "baffle: error: runtime = 'tensorflow': must be one of torch, onnx\n"
    assert not Path("run").exists()
