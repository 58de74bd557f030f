"""Whether the golden runs replay to their digests with other versions of Python, NumPy and numba.

    python benchmarks/versions.py [PYTHON ...]

Each PYTHON is an interpreter (its command or path); this one, where none is named. For each, for each NumPy, with numba
and without, it makes a virtual environment, installs what a replay needs and replays every run in tests/golden with
NumPy's loops, and with the compiled ones where numba is. What can't be installed together is left out. Writes
benchmarks/results/versions.json and prints a table.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "benchmarks" / "results" / "versions.json"
NUMPYS = ("numpy==1.26.0", "numpy==1.26.4", "numpy==2.0.2", "numpy")
NEEDED = ("cryptography", "msgspec", "safetensors", "rich", "tomli-w")
REPLAY = """
import json, platform, sys
from importlib import metadata
from pathlib import Path
from baffle import run as runs
from baffle.errors import LedgerError
from baffle.kernels import PlainKernels, fastest
from baffle.parameters import digest
from baffle.snapshots import read_snapshot, snapshots

kernels = {type(kind).__name__: kind for kind in (PlainKernels(), fastest())}
equal = dict.fromkeys(kernels, 0)
folders = sorted(path.parent for path in Path(sys.argv[1]).glob("*/*/ledger"))
for folder in folders:
    told = json.loads((folder / "summary.json").read_text())["digest"]
    for name, kind in kernels.items():
        try:
            header, state = runs.replay(folder, kind)
        except LedgerError:
            continue
        kept, _ = read_snapshot(snapshots(folder / "snapshots")[0], header.federation.layout)
        equal[name] += (digest(state.parameters), digest(state.average)) == (told, digest(kept.average))
numba = metadata.version("numba") if "CompiledKernels" in kernels else None
print(json.dumps({"python": platform.python_version(), "numpy": metadata.version("numpy"), "numba": numba,
                  "runs": len(folders), "equal": equal}))
"""


def measure(python: str, packages: tuple[str, ...]) -> dict[str, Any] | None:
    """Return what a replay with these packages gives; nothing where they can't be installed together."""
    with tempfile.TemporaryDirectory() as folder:
        made = Path(folder) / "venv"
        subprocess.run([python, "-m", "venv", made], check=True)
        # Wheels alone: an old version is not built anew for a Python that it never knew.
        install = [made / "bin" / "python", "-m", "pip", "install", "--quiet", "--only-binary", ":all:"]
        if subprocess.run([*install, *NEEDED, *packages], capture_output=True).returncode:
            return None
        where = {**os.environ, "PYTHONPATH": str(ROOT / "src"), "NUMBA_CACHE_DIR": folder}
        replay = [made / "bin" / "python", "-c", REPLAY, ROOT / "tests" / "golden"]
        return json.loads(subprocess.run(replay, env=where, capture_output=True, text=True, check=True).stdout)


def table(rows: list[dict[str, Any]]) -> str:
    lines = ["| Python | NumPy | numba | NumPy's loops | compiled loops |", "|---|---|---|---|---|"]
    for row in rows:
        told = [f"{row['equal'][name]} of {row['runs']}" if name in row["equal"] else "" for name in KINDS]
        lines.append(f"| {row['python']} | {row['numpy']} | {row['numba'] or 'none'} | {told[0]} | {told[1]} |")
    return "\n".join(lines)


KINDS = ("PlainKernels", "CompiledKernels")


def main() -> None:
    rows: list[dict[str, Any]] = []
    for python in sys.argv[1:] or [sys.executable]:
        for numpy in NUMPYS:
            for extra in ((), ("numba",)):
                found = measure(python, (numpy, *extra))
                if found is not None and found not in rows:
                    rows.append(found)
                    print(table([found]).splitlines()[-1], file=sys.stderr, flush=True)
    RESULTS.write_text(json.dumps(rows, indent=1) + "\n")
    print(table(rows))


if __name__ == "__main__":
    main()
