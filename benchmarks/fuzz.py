"""Fuzzing by coverage: whatever comes in, in any order, is refused in words and makes nobody tell too much.

    python benchmarks/fuzz.py [TARGET ...] [--seconds N]

Targets are the functions of `tests/fuzzing.py`, each with a promise:

- `messages`, `replies`: bytes are a message or a ReportError; a plan that is admitted can be counted and refused.
- `enrolments`, `states`: a roster, a chain, a stored state is the right one, or refused; what is not, works.
- `members`: a server that sends four honest members what it likes (cohorts that differ, other partitions, deposits of
  other pledges, second attempts, pledges made anew, requests with bytes changed, between forgetting and restoring)
  never gets both kinds of share of one member's secrets in a slot from anybody or from enough of all together, nor
  answers in two attempts at a round, nor the sum of fewer than t members.
- `aggregation`: a server that gets pledges, reports and answers of any kind has no sum but of t members or more, and
  the right one where the reports are those that honest members made.
- `snapshots`: a snapshot that was changed and sealed again is a state of the layout, or is refused.

Needs atheris, a tool for developers that is no dependency (`pip install atheris`). Each target runs by itself for 60
seconds or as many as are given, at most 512 bytes an input; inputs that reach new code are kept in runs/fuzz and are
where the next run begins. Ends with 1 and the input's file where a promise was broken. Writes
benchmarks/results/fuzz.json.
"""

from __future__ import annotations

import argparse
import importlib
import json
import re
import subprocess
import sys
import time
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import machine

ROOT = Path(__file__).parents[1]
RESULTS = Path(__file__).parent / "results" / "fuzz.json"
KEPT = Path("runs/fuzz")
LONGEST = 512
TARGETS = ("messages", "replies", "enrolments", "states", "members", "aggregation", "snapshots")


def one(target: str, seconds: int) -> None:
    """Fuzz a target in this process, which ends with it."""
    import atheris

    sys.path.insert(0, str(ROOT / "tests"))
    with atheris.instrument_imports(include=["baffle"]):
        fuzzing = importlib.import_module("fuzzing")
    kept = KEPT / target
    kept.mkdir(parents=True, exist_ok=True)
    options = [
        f"-max_total_time={seconds}",
        f"-max_len={LONGEST}",
        "-print_final_stats=1",
        "-seed=1",
        "-timeout=20",
        "-len_control=0",
    ]
    atheris.Setup([sys.argv[0], *options, f"-artifact_prefix={KEPT}/{target}-", str(kept)], fuzzing.TARGETS[target])
    atheris.Fuzz()


def measured(target: str, seconds: int) -> dict[str, Any]:
    """Return what fuzzing a target for so long has come to."""
    began = time.monotonic()
    command = [sys.executable, __file__, target, "--seconds", str(seconds), "--inside"]
    ended = subprocess.run(command, capture_output=True, text=True, check=False)
    runs = re.search(r"number_of_executed_units: (\d+)", ended.stderr)
    seen = re.findall(r"cov: (\d+) ft: (\d+)", ended.stderr)
    if runs is None:
        raise SystemExit(ended.stderr[-2000:])
    return {
        "target": target,
        "seconds": round(time.monotonic() - began),
        "executions": int(runs[1]),
        "edges of the library reached": int(seen[-1][0]) if seen else 0,
        "inputs kept": sum(1 for _ in (KEPT / target).iterdir()),
        "broken": ended.stderr[-3000:] if ended.returncode else None,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("targets", choices=[*TARGETS, []], nargs="*", metavar="target", help=", ".join(TARGETS))
    parser.add_argument("--seconds", type=int, default=60, help="for each target")
    parser.add_argument("--inside", action="store_true", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if find_spec("atheris") is None:
        parser.exit(0, "skipped: atheris is not installed; install it with: pip install atheris\n")
    if given.inside:
        one(given.targets[0], given.seconds)
        return
    rows = []
    for target in given.targets or TARGETS:
        rows.append(row := measured(target, given.seconds))
        print(", ".join(f"{name} {value}" for name, value in row.items() if name != "broken"), flush=True)
        if row["broken"]:
            print(row["broken"])
    before = json.loads(RESULTS.read_text())["rows"] if RESULTS.exists() else []
    rows = [row for row in before if row["target"] not in {new["target"] for new in rows}] + rows
    rows.sort(key=lambda row: TARGETS.index(row["target"]))
    RESULTS.write_text(json.dumps({"machine": machine.describe(), "rows": rows}, indent=1) + "\n")
    if any(row["broken"] for row in rows):
        raise SystemExit(1)


if __name__ == "__main__":
    main()
