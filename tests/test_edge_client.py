"""The example of a whole client answers a plan as the library does, but for its own randomness."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from baffle import Baffle
from baffle.keys import Key
from baffle.messages import Report, decode, encode
from baffle.runtimes.onnx import OnnxRuntime
from baffle.server import Federation, State, plan

SCRIPT = Path(__file__).parents[1] / "examples" / "edge_client.py"


@pytest.fixture
def folder(exported, tmp_path) -> Path:
    """What a client is given."""
    made = tmp_path / "given"
    shutil.copytree(exported("lenet").folder, made)
    runtime = OnnxRuntime(made)
    shape = runtime.bundle.manifest.features[0].shape
    rng = np.random.default_rng(0)
    point = runtime.layout.flatten(runtime.given)
    federation = Federation(key=Key.root(0).secret, layout=runtime.layout, clients=1, most_samples=40)
    asked = plan(Baffle(forwards=400, batch=8), federation, State(point, point, {}))
    (made / "plan").write_bytes(encode(asked))
    np.save(made / "weights.npy", point)
    np.save(made / "samples.npy", rng.normal(size=(40, *shape)).astype(np.float32))
    np.save(made / "targets.npy", rng.integers(0, 10, 40))
    return made


def run(*arguments: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, SCRIPT, *map(str, arguments)], capture_output=True, text=True, check=False)


def test_a_report_that_fits_the_plan_is_written(folder) -> None:
    from baffle.messages import Plan

    done = run(folder, 3)
    assert (done.returncode, done.stderr) == (0, "")
    asked = decode((folder / "plan").read_bytes(), Plan)
    report = decode((folder / "report").read_bytes(), Report)
    assert report.samples == 40
    assert np.count_nonzero(report.integers(asked)) > asked.directions / 2


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="memory is read from /proc")
def test_it_fits_an_enclave(folder) -> None:
    assert 40 * 2**20 < int(run(folder).stdout) <= 96 * 2**20


def test_it_says_how_to_call_it() -> None:
    done = run()
    assert done.returncode == 1
    assert "FOLDER" in done.stderr
