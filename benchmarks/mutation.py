"""Mutation testing: are the tests able to fail? Small faults in src/baffle, each met by the tests that reach its line.

    python benchmarks/mutation.py --count 200 --seed 1 --packages core network secure --out FILE
    python benchmarks/mutation.py --report FILE [--json SUMMARY]

The first command copies the working tree to a temporary folder and never changes the tree itself. It first runs the
test files there once, each in a fork, with the lines counted (ten minutes or more; kept in FILE's name + .map.json, and
done again for test files that changed, or for all where the source did). Then it puts one fault after the other into
the copy and runs, in a fork, the tests that reach the fault's line, the file that takes least time first, until one
fails. Where none does, the whole files that reach the module follow, and those of PROCESSES, as far as they take
`--thorough` seconds. A test with processes or threads of its own counts as failed only if it fails again alone; a run
that takes three times as long as it should, only if the test that was running takes too long alone as well.

Results are appended to FILE, one line of JSON a mutant; the same command goes on where it was ended. Faults are drawn
evenly from the packages, at most one a line; a package is one of PACKAGES or a file from src/baffle.
"""

from __future__ import annotations

import argparse
import importlib
import json
import os
import random
import shutil
import signal
import sys
import tempfile
import time
from collections import Counter, defaultdict
from collections.abc import Iterator
from contextlib import suppress
from itertools import chain, zip_longest
from pathlib import Path
from typing import Any

import machine
from mutants import Mutant, mutants
from reach import Reach, Tree

EQUIVALENTS = Path(__file__).parent / "equivalents.json"
PACKAGES = {
    "core": "server client messages ledger run reconstruction allocation budget packing accounting aggregators "
    "mechanisms estimators directions optimizers kernels/plain",
    "network": "engines/network",
    "secure": "secure",
}
"""Modules and folders of src/baffle. kernels/loops.py is not among them: each fault would have to be compiled."""
SHAKY = ("tests/network/", "tests/test_kill.py")
"""Tests with processes or threads of their own: one that fails has to fail again alone."""
WARM = (
    "pytest hypothesis numpy torch numba zenoh msgspec cryptography.x509 safetensors.numpy sklearn.datasets scipy.stats"
)
"""Imported once, before the forks; never anything of baffle."""


def main() -> None:
    """Run, or report."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=20, help="faults")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--packages", nargs="+", default=list(PACKAGES))
    parser.add_argument("--out", type=Path, default=Path("runs/mutation.jsonl"))
    parser.add_argument("--map", type=Path, help="which test reaches which line; beside --out if not given")
    parser.add_argument("--thorough", type=float, default=180.0, help="seconds of tests that a survivor meets besides")
    parser.add_argument("--tests", nargs="*", help="test files, instead of all that are related")
    parser.add_argument("--report", type=Path, metavar="FILE", help="tell what was found, and run nothing")
    parser.add_argument("--json", type=Path, help="with --report: write the counts and the survivors here")
    told = parser.parse_args()
    if told.report:
        report(told.report, told.json)
        return
    os.nice(max(0, 10 - os.nice(0)))
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that what it began is ended and its copy removed
    for name in WARM.split():
        with suppress(ImportError):
            importlib.import_module(name)
    told.out.parent.mkdir(parents=True, exist_ok=True)
    place = Path(tempfile.mkdtemp(prefix="mutation-"))
    try:
        tree = Tree.copied(place)
        reach = Reach.counted(tree, told.map or told.out.with_suffix(".map.json"), told.tests)
        work(tree, reach, list(chosen(tree, told.packages, told.seed, told.count)), told.out, told.thorough)
    finally:
        shutil.rmtree(place, ignore_errors=True)
    report(told.out, None)


def chosen(tree: Tree, packages: list[str], seed: int, count: int) -> Iterator[tuple[str, Mutant]]:
    """Yield faults, from each package in turn."""
    rows = []
    for package in packages:
        names = PACKAGES.get(package, package.removesuffix(".py")).split()
        files = [file for file in tree.sources() if any(file == f"{n}.py" or file.startswith(f"{n}/") for n in names)]
        by_line = defaultdict(list)
        for mutant in chain.from_iterable(mutants(file, tree.source(file)) for file in files):
            by_line[mutant.file, mutant.line].append(mutant)
        draw = random.Random(f"{seed} {package}")
        row = [(package, draw.choice(by_line[where])) for where in sorted(by_line)]
        draw.shuffle(row)
        rows.append(row)
    in_turn = (found for found in chain.from_iterable(zip_longest(*rows)) if found is not None)
    yield from (found for found, _ in zip(in_turn, range(count), strict=False))


def work(tree: Tree, reach: Reach, faults: list[tuple[str, Mutant]], out: Path, thorough: float) -> None:
    """Have the tests meet the faults that are not in the file yet."""
    done = {row["id"] for row in rows(out)}
    for number, (package, mutant) in enumerate(faults):
        source = tree.source(mutant.file)
        name = mutant.id(source)
        if name in done:
            continue
        began = time.monotonic()
        tree.write(mutant.file, mutant.put(source))
        try:
            status, by = meets(tree, reach, mutant, thorough)
        finally:
            tree.write(mutant.file, source)
        row = {"id": name, "package": package, "file": mutant.file, "line": mutant.line, "kind": mutant.kind}
        row |= {"status": status, "by": by, "seconds": round(time.monotonic() - began, 1), "diff": mutant.diff(source)}
        with out.open("a", encoding="utf-8") as file:
            file.write(json.dumps(row) + "\n")
        print(f"{number + 1}/{len(faults)} {status}: {mutant.file}:{mutant.line} {mutant.kind} ({by})", flush=True)


def meets(tree: Tree, reach: Reach, mutant: Mutant, thorough: float) -> tuple[str, str]:
    """Return what becomes of the fault that is in the tree: killed, timeout, unresolved or survived; and by what."""
    first = reach.tests_of(mutant)
    status, by = against(tree, reach, first)
    if status == "survived":
        more = [file for file in reach.files_of(mutant, thorough) if file not in first]
        status, by = against(tree, reach, more)
        told = f"{len(first)} tests and {len(more)} files pass" if first or more else "no test reaches it"
        by = by or told
    return status, by


def against(tree: Tree, reach: Reach, tests: list[str]) -> tuple[str, str]:
    """Run tests or whole files until one fails."""
    spare = 1
    while tests:
        found = tree.run(tests, 3 * sum(map(reach.seconds, tests)) + 20, ["-x"])
        if found.passed:
            return "survived", ""
        if not found.late and not found.test.startswith(SHAKY):
            return "killed", f"{found.test}: {found.words}"
        alone = tree.run([found.test or tests[0]], max(30, 10 * reach.seconds(found.test)), ["-x"])
        if not alone.passed:
            return ("timeout" if alone.late else "killed"), f"{found.test}: {found.words}"
        if found.late:
            if not (spare := spare - 1) >= 0:
                return "unresolved", f"{found.test}: slow"
        else:  # it failed once, and not alone: it is no witness
            file = found.test.split("::")[0]
            tests = [test for test in tests if test not in (found.test, file)]
    return "survived", ""


def rows(path: Path) -> list[dict[str, Any]]:
    """Return what a file of results says, the last of each fault."""
    lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
    return list({row["id"]: row for row in map(json.loads, lines)}.values())


def report(path: Path, summary: Path | None) -> None:
    """Print the counts by package and what survived; those known to change nothing are told apart, with the reason."""
    known = {tuple(row["diff"]): row["reason"] for row in json.loads(EQUIVALENTS.read_text(encoding="utf-8"))}
    table: dict[str, Counter[str]] = defaultdict(Counter)
    left = []
    for row in rows(path):
        if row["status"] in ("survived", "unresolved") and (reason := known.get(tuple(row["diff"]))):
            row |= {"status": "equivalent", "reason": reason}
        table[row["package"]][row["status"]] += 1
        table["all"][row["status"]] += 1
        if row["status"] not in ("killed", "timeout"):
            left.append(row)
    states = ("killed", "timeout", "survived", "unresolved", "equivalent")
    print(f"{'':10}" + "".join(f"{state:>12}" for state in states))
    for package in sorted(table, key=lambda name: (name == "all", name)):
        print(f"{package:10}" + "".join(f"{table[package][state]:12}" for state in states))
    for row in left:
        print(f"\n{row['status']} {row['file']}:{row['line']} {row['kind']}: {row.get('reason', row['by'])}")
        print("\n".join(row["diff"]))
    if summary is not None:
        told = {"machine": machine.describe(), "table": table, "left": left}
        summary.write_text(json.dumps(told, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
