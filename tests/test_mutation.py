"""Which faults benchmarks/mutation.py puts into a source, and what it says of them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
SOURCE = b'''"""Says \xc3\xa9."""
from x import y  # a comment

MOST = 3


def f(a: int, b: float = 0.5) -> int:
    """Not 5."""
    if a < MOST and not b:
        raise ValueError("at most", 7)
    for _ in range(2):
        y.z = min(a, -b)
        y.say(f"{a + 1}", strict=True)
    return a + \\
        b
'''


@pytest.fixture
def tools(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    import mutants
    import mutation

    return mutants, mutation


def test_the_faults_of_a_small_source(tools) -> None:
    made = tools[0].mutants("f.py", SOURCE)
    found = [(one.line, one.kind, [line[1:].strip() for line in one.diff(SOURCE) if line[0] == "+"]) for one in made]
    assert found == [
        (4, "constant", ["MOST = 2"]),
        (4, "constant", ["MOST = 4"]),
        (7, "constant", ["def f(a: int, b: float = 1.0) -> int:"]),
        (9, "guard deleted", ["pass"]),
        (9, "comparison", ["if (a <= MOST) and not b:"]),
        (9, "comparison", ["if (a >= MOST) and not b:"]),
        (9, "and/or", ["if (a < MOST or not b):"]),
        (9, "sign", ["if a < MOST and (b):"]),
        (10, "leaving deleted", ["pass"]),
        (11, "constant", ["for _ in range(1):"]),
        (11, "constant", ["for _ in range(3):"]),
        (12, "assignment deleted", ["pass"]),
        (12, "call", ["y.z = (max(a, -b))"]),
        (12, "sign", ["y.z = min(a, (b))"]),
        (13, "call deleted", ["pass"]),
        (14, "return of None", ["return None"]),
        (14, "arithmetic", ["return (a - b)"]),
    ]


def test_a_fault_knows_its_lines_and_its_name(tools) -> None:
    made = tools[0].mutants("f.py", SOURCE)
    default = next(one for one in made if one.line == 7)
    guard = next(one for one in made if one.kind == "guard deleted")
    split = next(one for one in made if one.kind == "arithmetic")
    assert (default.inside, guard.inside) == (False, True)
    assert (guard.lines, split.lines) == ((9, 9), (14, 15))
    assert len({one.id(SOURCE) for one in made}) == len(made)
    assert guard.id(SOURCE) != guard.id(SOURCE + b"\n")


def test_faults_are_the_same_for_the_same_seed_and_one_a_line(tools) -> None:
    class Tree:
        def sources(self):
            return ["secure/a.py", "server.py", "serving.py"]

        def source(self, file):
            return SOURCE

    def drawn(seed: int, count: int) -> list[tuple[str, str, int, str]]:
        found = tools[1].chosen(Tree(), ["core", "secure"], seed, count)
        return [(package, one.file, one.line, one.text) for package, one in found]

    first = drawn(1, 100)
    assert first == drawn(1, 100)
    assert first[:5] == drawn(1, 5)
    assert first != drawn(2, 100)
    assert [package for package, *_ in first[:4]] == ["core", "secure", "core", "secure"]
    assert {file for _, file, *_ in first} == {"secure/a.py", "server.py"}
    assert len({(file, line) for _, file, line, _ in first}) == len(first) == 16


def test_what_survived_is_told_and_what_changes_nothing_with_its_reason(tools, tmp_path, monkeypatch, capsys) -> None:
    row = {"id": "1", "package": "core", "file": "f.py", "line": 4, "kind": "constant", "by": "2 tests", "diff": ["-a"]}
    rows = [
        row | {"status": "survived"},
        row | {"id": "2", "status": "survived", "diff": ["-b", "+c"]},
        row | {"id": "3", "status": "killed"},
        row | {"id": "4", "status": "timeout", "package": "secure"},
    ]
    path, known = tmp_path / "found.jsonl", tmp_path / "equivalents.json"
    path.write_text("".join(json.dumps(one) + "\n" for one in rows))
    known.write_text(json.dumps([{"diff": ["-b", "+c"], "reason": "the same to the bit"}]))
    monkeypatch.setattr(tools[1], "EQUIVALENTS", known)
    tools[1].report(path, tmp_path / "summary.json")
    told = capsys.readouterr().out
    assert "survived f.py:4 constant: 2 tests\n-a\n" in told
    assert "equivalent f.py:4 constant: the same to the bit\n-b\n+c\n" in told
    table = json.loads((tmp_path / "summary.json").read_text())["table"]
    assert table["core"] == {"survived": 1, "equivalent": 1, "killed": 1}
    assert table["all"] == {"survived": 1, "equivalent": 1, "killed": 1, "timeout": 1}


def test_every_reason_is_of_a_line_that_is_still_there() -> None:
    for row in json.loads((ROOT / "benchmarks" / "equivalents.json").read_text()):
        lines = {line.rstrip() for path in (ROOT / "src").rglob("*.py") for line in path.read_text().splitlines()}
        assert row["reason"]
        assert all(line[1:].rstrip() in lines for line in row["diff"] if line.startswith("-")), row
