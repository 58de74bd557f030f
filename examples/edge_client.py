"""A whole client on a small device: answers one plan from files, with ONNX Runtime and NumPy alone.

    python examples/edge_client.py FOLDER [PASS]

FOLDER holds an exported model (`baffle export`), and besides it plan, weights.npy, samples.npy and targets.npy; the
report goes to FOLDER/report. PASS is how many samples are evaluated at a time [4]: less needs less memory. Prints
the largest memory that the process had, in bytes, where the system tells.
"""

import secrets
import sys
from pathlib import Path

import numpy as np

from baffle.client import Client, answer
from baffle.kernels import PlainKernels
from baffle.keys import Key
from baffle.messages import Plan, decode, encode
from baffle.runtimes import Batch
from baffle.runtimes.onnx import OnnxRuntime


def main(folder: Path, chunk: int) -> None:
    samples = np.load(folder / "samples.npy", mmap_mode="r")  # only what is drawn is read
    targets = np.load(folder / "targets.npy", mmap_mode="r")

    def draw(generator: np.random.Generator, count: int) -> Batch:
        chosen = generator.choice(len(targets), min(count, len(targets)), replace=False)
        return samples[chosen], targets[chosen]

    plan = decode((folder / "plan").read_bytes(), Plan)
    client = Client(plan.cohort[0], len(targets), Key(secrets.token_bytes(32)), draw)
    runtime = OnnxRuntime(folder, chunk=chunk, settled=False)  # a few megabytes less
    report = answer(plan, np.load(folder / "weights.npy"), client, runtime, PlainKernels())
    (folder / "report").write_bytes(encode(report))
    print(peak())


def peak() -> int:
    about = Path("/proc/self/status")
    lines = about.read_text().splitlines() if about.exists() else []
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM")), 0)


if __name__ == "__main__":
    if len(sys.argv) not in (2, 3):
        sys.exit(__doc__)
    main(Path(sys.argv[1]), int(sys.argv[2]) if len(sys.argv) == 3 else 4)
