"""A copy of the working tree whose tests run in forks, and which test reaches which line of it; for `mutation.py`."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections import defaultdict
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

from mutants import Mutant

ROOT = Path(__file__).parents[1]
UNRELATED = ("cli", "export", "report", "models", "data", "baselines", "planning", "runtimes")
"""Folders of tests that are about other things, and large."""
APART = (
    *("test_engine_ray.py", "test_surface.py", "test_without_torch.py", "test_edge_client.py", "test_questions.py"),
    "test_mutation.py",
    "test_cli_network.py",
)
"""Test files that are about the installation, pages or a cluster, or reach modules in other processes alone."""
PROCESSES = {
    "engines/network": ("tests/network/test_processes.py", "tests/network/test_killed.py"),
    "ledger": ("tests/test_kill.py",),
    "run": ("tests/test_kill.py",),
}
"""Test files whose processes reach these modules, which the count of lines does not see."""
QUICK = 90.0
"""Seconds of tests that a fault meets at first."""


@dataclass
class Found:
    """What a run of pytest came to."""

    passed: bool
    late: bool
    test: str
    """The one that failed, or was running."""
    words: str


@dataclass
class Tree:
    """A copy of the working tree."""

    root: Path

    @classmethod
    def copied(cls, place: Path) -> Tree:
        """Copy what git tracks, and what it would."""
        listed = subprocess.run(
            ["git", "ls-files", "-z", "-co", "--exclude-standard"], cwd=ROOT, capture_output=True, check=True
        )
        root = place / "tree"
        for name in filter(None, listed.stdout.decode().split("\0")):
            if (ROOT / name).is_file():
                (root / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy2(ROOT / name, root / name)
        # A compiled file is looked at by its source's hash: times are too coarse for faults that come and go.
        command = [sys.executable, "-m", "compileall", "-q", "--invalidation-mode", "checked-hash", str(root / "src")]
        subprocess.run(command, check=True)
        return cls(root)

    def sources(self) -> list[str]:
        base = self.root / "src" / "baffle"
        return sorted(str(path.relative_to(base)) for path in base.rglob("*.py"))

    def source(self, file: str) -> bytes:
        return (self.root / "src" / "baffle" / file).read_bytes()

    def write(self, file: str, source: bytes) -> None:
        (self.root / "src" / "baffle" / file).write_bytes(source)

    def run(self, tests: list[str], limit: float, arguments: Iterable[str] = (), plugin: Any = None) -> Found:
        """Run tests in a fork with a limit: seconds of its processor time, and of the clock as well if it is idle."""
        told = self.root.parent / "told"
        told.write_text("")
        child = os.fork()
        if child == 0:
            self._child(tests, arguments, plugin or Told(told))
        code, end = None, time.monotonic() + limit * max(1.0, 2 * os.getloadavg()[0] / (os.cpu_count() or 1))
        try:
            while code is None and time.monotonic() < end and _worked(child) < limit:
                ended, status = os.waitpid(child, os.WNOHANG)
                code = os.waitstatus_to_exitcode(status) if ended else time.sleep(0.05)
        finally:
            with suppress(ProcessLookupError):
                os.killpg(child, signal.SIGKILL)  # what it left behind as well
            if code is None:
                os.waitpid(child, 0)
        said = [json.loads(line) for line in told.read_text().splitlines()]
        failed = next((row for row in said if row["words"]), said[-1] if said and code is None else None)
        test, words = (failed["test"], failed["words"]) if failed else ("", f"pytest ended with {code}")
        return Found(code == 0, code is None, test, "too long" if code is None else words)

    def _child(self, tests: list[str], arguments: Iterable[str], plugin: Any) -> None:
        os.setsid()
        os.chdir(self.root)
        sys.path[:0] = [str(self.root / "src"), str(self.root)]  # as `python -m pytest` has it
        sys.argv = ["pytest"]
        sys.modules["__main__"] = ModuleType("__main__")  # which processes that tests start would run again
        signal.signal(signal.SIGINT, signal.default_int_handler)  # where this runs in the background, it is ignored
        os.environ |= {"PYTHONPATH": str(self.root / "src"), "PYTHONDONTWRITEBYTECODE": "1", "COLUMNS": "120"}
        nowhere = os.open(os.environ.get("MUTATION_LOG", os.devnull), os.O_RDWR | os.O_CREAT, 0o600)
        for stream in (0, 1, 2):
            os.dup2(nowhere, stream)
        code = 99
        try:
            import pytest

            fixed = ["-q", "-p", "no:cacheprovider", "-p", "no:xdist", "-p", "no:cov", "-p", "no:randomly"]
            fixed += ["-W", "ignore::pytest.PytestAssertRewriteWarning", f"--basetemp={self.root.parent / 't'}"]
            code = int(pytest.main([*fixed, *arguments, *tests], plugins=[plugin]))
        finally:
            os._exit(code)


class Told:
    """Says to a file which test runs, and which has failed how."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def _say(self, test: str, words: str = "") -> None:
        with self.path.open("a") as file:
            file.write(json.dumps({"test": _name(test), "words": words}) + "\n")

    def pytest_runtest_logstart(self, nodeid: str) -> None:
        self._say(nodeid)

    def pytest_runtest_logreport(self, report: Any) -> None:
        if report.failed:
            self._say(report.nodeid, last_line(report))

    def pytest_collectreport(self, report: Any) -> None:
        if report.failed:
            self._say(report.nodeid, "import: " + last_line(report))


def last_line(report: Any) -> str:
    crash = getattr(report.longrepr, "reprcrash", None)
    lines = (crash.message if crash else str(report.longrepr)).strip().splitlines()
    return (lines[0] if crash else lines[-1])[:160] if lines else "failed"


@dataclass
class Reach:
    """Which test reaches which line, and how long it takes with lines counted."""

    files: dict[str, dict[str, Any]]
    """By test file: seconds (by test), failed (tests), lines (by source file and line, the tests; "" is the import)."""

    @classmethod
    def counted(cls, tree: Tree, path: Path, only: list[str] | None) -> Reach:
        """Read the map and bring it up to date: what a change of a test file, or of a source it reaches, made old."""
        digests = {file: _digest(tree.source(file)) for file in tree.sources()}
        helpers = b"".join(path.read_bytes() for path in sorted(tree.root.glob("tests/**/*.py")) if _helps(path))
        files = json.loads(path.read_text()) if path.exists() else {}
        tests = sorted(only or related(tree))
        for test in tests:
            digest = _digest((tree.root / test).read_bytes() + helpers)
            kept = files.get(test, {"digest": ""})
            if kept["digest"] == digest and all(digests.get(file) == found for file, found in kept["sources"].items()):
                continue
            told = count(tree, test)
            called = [file for file, lines in told["lines"].items() if any(map(any, lines.values()))]
            files[test] = told | {"digest": digest, "sources": {file: digests[file] for file in called}}
            path.write_text(json.dumps(files))
            print(
                f"counted {test}: {sum(told['seconds'].values()):.1f} s, failed {told['failed'] or 'none'}", flush=True
            )
        return cls({test: files[test] for test in tests})

    def seconds(self, test: str) -> float:
        file, _, name = test.partition("::")
        took = self.files.get(file, {}).get("seconds", {})
        return sum(took.values()) if not name else took.get(test, 60.0)

    def tests_of(self, mutant: Mutant) -> list[str]:
        """Return the tests that reach a fault, file by file, the one that takes least first."""
        found = {file: self._reaching(file, mutant) for file in self.files}
        if not any(found.values()):
            found = {file: self._reaching(file, mutant, anywhere=True) for file in self.files}
        return self._within(QUICK, found.values())

    def files_of(self, mutant: Mutant, seconds: float) -> list[str]:
        """Return the whole files that reach a fault's module, those that reach the fault first."""
        near = [[file] for file in self.files if self._reaching(file, mutant)]
        far = [[file] for file in self.files if [file] not in near and self._reaching(file, mutant, anywhere=True)]
        inside = self._within(seconds, near)
        left = seconds - sum(map(self.seconds, inside))
        processes = [files for prefix, files in PROCESSES.items() if mutant.file.startswith(prefix)]
        more = [file for files in processes for file in files if file in self.files]
        return list(dict.fromkeys([*inside, *self._within(left, far), *more]))

    def _reaching(self, file: str, mutant: Mutant, *, anywhere: bool = False) -> list[str]:
        told = self.files[file]
        lines = told["lines"].get(mutant.file, {})
        first, last = mutant.lines
        if anywhere or not mutant.inside:
            tests = {test for found in lines.values() for test in found if test}
        else:
            tests = {test for line in range(first, last + 1) for test in lines.get(str(line), ())}
        if "" in tests or any(test not in told["seconds"] for test in tests):
            tests = set(told["seconds"])
        return [test for test in told["seconds"] if test in tests and test not in told["failed"]]

    def _within(self, seconds: float, groups: Iterable[list[str]]) -> list[str]:
        """Return tests group by group, the quickest group first, as many as there is time for; one group at least."""
        chosen, spent = [], 0.0
        for group in sorted(filter(None, groups), key=lambda group: sum(map(self.seconds, group))):
            for test in group:
                spent += self.seconds(test)
                if spent > seconds and chosen:
                    return chosen
                chosen.append(test)
        return chosen


def related(tree: Tree) -> list[str]:
    """Return the test files that may reach the packages."""
    found = [path.relative_to(tree.root) for path in (tree.root / "tests").rglob("test_*.py")]
    return sorted(str(path) for path in found if path.parts[1] not in UNRELATED and path.name not in APART)


def count(tree: Tree, test: str) -> dict[str, Any]:
    """Run a test file with its lines counted."""
    told = tree.root.parent / "counted"
    told.unlink(missing_ok=True)
    found = tree.run([test], 900, plugin=Counted(tree.root / "src", told))
    if not told.exists():
        print(f"{test} came to no end: {found.words}", flush=True)
        return {"seconds": {}, "failed": [], "lines": {}}
    return json.loads(told.read_text())


def _worked(process: int) -> float:
    """Return how many seconds of a processor a process has had, where the system tells."""
    try:
        fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return 0.0
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def _helps(path: Path) -> bool:
    return not path.name.startswith("test_")


def _digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def _name(test: str) -> str:
    """Return a test's name without its parameters, which may be made of what is mutated."""
    return test.split("[")[0]


def _first(function: Any) -> Any:
    import pytest

    return pytest.hookimpl(tryfirst=True)(function)


class Counted:
    """Counts lines by test."""

    def __init__(self, source: Path, path: Path) -> None:
        self.source, self.path = source, path
        self.seconds: dict[str, float] = defaultdict(float)
        self.failed: set[str] = set()
        self.skipped: set[str] = set()

    def pytest_configure(self) -> None:
        import coverage

        self.coverage = coverage.Coverage(data_file=None, source=[str(self.source)], config_file=False)
        self.coverage.start()

    @_first
    def pytest_runtest_setup(self, item: Any) -> None:
        self.coverage.switch_context("setup " + _name(item.nodeid))

    @_first
    def pytest_runtest_call(self, item: Any) -> None:
        self.coverage.switch_context(_name(item.nodeid))

    def pytest_runtest_logreport(self, report: Any) -> None:
        self.seconds[_name(report.nodeid)] += report.duration
        if report.failed:
            self.failed.add(_name(report.nodeid))

    def pytest_unconfigure(self) -> None:
        import warnings

        with warnings.catch_warnings(action="ignore"):
            self.coverage.stop()
            data = self.coverage.get_data()
        base = self.source / "baffle"
        lines = {
            str(Path(file).relative_to(base)): {
                line: self._tests(contexts) for line, contexts in data.contexts_by_lineno(file).items()
            }
            for file in data.measured_files()
        }
        told = {name: round(seconds, 3) for name, seconds in self.seconds.items()}
        self.path.write_text(json.dumps({"seconds": told, "failed": sorted(self.failed), "lines": lines}))

    @staticmethod
    def _tests(contexts: list[str]) -> list[str]:
        """Return the tests that reach a line; "" is all of the file: at its import, or in what they set up together."""
        ready = {name.removeprefix("setup ") for name in contexts if name.startswith("setup ")}
        called = {name for name in contexts if not name.startswith("setup ")}
        return sorted(called | ready | ({""} if len(ready) == 1 else set()))
