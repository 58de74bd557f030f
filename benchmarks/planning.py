"""What `baffle plan` foresees, against the runs themselves.

    python benchmarks/planning.py [name ...]

Each experiment is planned with a measurement of about ten seconds, then run by `baffle train` in a process of its own.
Writes benchmarks/results/planning.json: what was foreseen and what came, with their ratio (1 is exact). Seconds
are wall time, so a machine that does other things in between spoils them: the load average before, between and after is
told, and processor seconds, which other programs hardly change.
"""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from machine import describe

RESULTS = Path(__file__).parent / "results" / "planning.json"
LENET = (*("--dataset", "mnist", "--image-size", "14", "--model", "lenet", "--rounds", "40", "--evaluate-every", "20"),)
FOLDER = ("--data-dir", os.environ["BAFFLE_MNIST"]) if "BAFFLE_MNIST" in os.environ else ()
"""Of MNIST's files, which are downloaded otherwise."""
EXPERIMENTS: dict[str, tuple[str, ...]] = {
    "digits, equal prices": ("--allocation", "equal", "--rounds", "200"),
    "digits, our defaults": ("--rounds", "200"),
    "digits, coming and going": (
        *("--partition", "dirichlet", "--clients", "20", "--participation", "0.5", "--unavailable", "0.2"),
        *("--hidden", "96,48", "--blocks", "whole", "--rounds", "120"),
    ),
    "mnist, the paper's settings": (*LENET, "--algorithm", "paper"),
    "mnist, our defaults": LENET,
}
WHOLE = {"forwards": "forward_equivalents", "upload": "upload_bytes", "download": "download_bytes"}
"""Figures of a plan, and what a summary calls them."""


def main(names: list[str]) -> None:
    told = json.loads(RESULTS.read_text()) if RESULTS.exists() else {"experiments": {}}
    for name in names or list(EXPERIMENTS):
        told["machine"] = describe()
        told["experiments"][name] = compared(EXPERIMENTS[name])
        RESULTS.write_text(json.dumps(told, indent=1) + "\n")
        rows = told["experiments"][name]["figures"]
        print(f"{name:28}", *(f"{row} {figure['ratio']:.4f}" for row, figure in rows.items()), flush=True)


def compared(settings: tuple[str, ...]) -> dict[str, Any]:
    """Return what was foreseen of one experiment and what came."""
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "run"
        common = (*settings, *(FOLDER if "mnist" in settings else ()), "--threads", "1", "--out", str(out))
        loads = [os.getloadavg()[0]]
        plan = json.loads(baffle("plan", *common, "--json"))
        loads.append(os.getloadavg()[0])
        before = processor()
        baffle("train", *common, "--no-report")
        spent = processor() - before
        loads.append(os.getloadavg()[0])
        summary = json.loads((out / "summary.json").read_text())
        ledger = (out / "ledger").stat().st_size
    came = {name: summary[called] for name, called in WHOLE.items()} | {"ledger": ledger}
    figures = {name: against(plan["run"][name], came[name]) for name in came}
    for name, called in (("seconds", "seconds"), ("peak_memory", "peak_memory_bytes")):
        figures[name] = against({"expected": plan["process"][name]}, summary[called])
    figures["processor_seconds"] = against({"expected": plan["process"]["processor_seconds"]}, spent)
    loads = [round(load, 1) for load in loads]
    tried = plan["process"]["tried"]
    return {"settings": " ".join(settings), "rounds_tried": tried, "load": loads, "figures": figures}


def against(told: dict[str, float], came: float) -> dict[str, float]:
    return told | {"came": came, "ratio": round(told["expected"] / came, 6)}


def processor() -> float:
    """Return the processor seconds of all processes that were waited for."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def baffle(*arguments: str) -> str:
    done = subprocess.run([sys.executable, "-m", "baffle", *arguments], capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(done.stderr)
    return done.stdout.strip().splitlines()[-1]


if __name__ == "__main__":
    main(sys.argv[1:])
