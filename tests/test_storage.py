"""Files and folders: what the disk refuses is named, one process uses a folder, and no write goes around that."""

from __future__ import annotations

import ast
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

import baffle
from baffle import BaffleError, SettingsError
from baffle import run as runs
from baffle.errors import StorageError
from baffle.storage import FolderLock, append_line, write_atomically
from federation import KERNELS, memory_folder, simulation


def test_a_locked_folder_is_refused_to_others_until_it_is_let_go(tmp_path) -> None:
    first = FolderLock(tmp_path / "run")
    with pytest.raises(SettingsError, match=r"out = '.*run': is in use by another process"):
        FolderLock(tmp_path / "run")
    with pytest.raises(SettingsError, match=r"state = '.*run': is in use by another process"):
        FolderLock(tmp_path / "run", "state")
    first.close()
    first.close()
    with FolderLock(tmp_path / "run"), pytest.raises(SettingsError, match="is in use by another process"):
        FolderLock(tmp_path / "run")
    FolderLock(tmp_path / "run").close()


def test_a_folder_that_can_not_be_made_is_told_in_words(tmp_path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(SettingsError, match=r"out = '.*file/run': can't be written: Not a directory"):
        FolderLock(tmp_path / "file" / "run")


def test_what_the_disk_refuses_names_the_file(tmp_path) -> None:
    (tmp_path / "folder").mkdir()
    for write in (lambda path: write_atomically(path, b""), lambda path: append_line(path, "")):
        with pytest.raises(StorageError, match=r".*folder can't be written: Is a directory") as caught:
            write(tmp_path / "folder")
        assert caught.value.path == tmp_path / "folder"


def race(count: int, work) -> list[BaseException | None]:
    """Do `work` in so many threads at once, and return what each raised."""
    gate, found = threading.Barrier(count), [None] * count

    def one(place: int) -> None:
        gate.wait()
        try:
            work(place)
        except BaseException as error:
            found[place] = error

    threads = [threading.Thread(target=one, args=(place,)) for place in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return found


def test_of_two_starts_in_one_folder_one_runs_and_its_settings_stay() -> None:
    """Forty times; the loser is told so in words, and leaves nothing."""
    for _ in range(40):
        with memory_folder() as folder:
            errors = race(2, lambda place, out=folder: simulation(seed=place).run(1, out=out))
            (loser,) = [error for error in errors if error is not None]
            assert isinstance(loser, BaffleError), repr(loser)
            assert "is in use by another process" in str(loser) or "holds a run already" in str(loser)
            winner = errors.index(None)
            assert f"seed = {winner}\n" in (folder / "settings.toml").read_text()
            assert simulation(seed=winner).run(2, out=folder, resume=True).rounds == 2


def test_of_two_resumes_in_one_folder_one_goes_on() -> None:
    """Of a start that was killed before its header was on disk: no second ledger may be begun beside the first."""
    for _ in range(40):
        with memory_folder() as folder:
            simulation().run(1, out=folder)
            (folder / "ledger").write_bytes(b"BAFF")
            for path in (folder / "snapshots").glob("*"):
                path.unlink()
            errors = race(2, lambda _, out=folder: simulation().run(20, out=out, resume=True))
            told = [str(error) for error in errors if error is not None]
            assert len(told) <= 1
            assert all("is in use by another process" in one for one in told)
            _, state = runs.replay(folder, KERNELS)
            assert state.round == 20


def test_a_failed_resume_makes_no_folder(tmp_path) -> None:
    with pytest.raises(SettingsError, match="holds no run"):
        simulation().run(1, out=tmp_path / "none", resume=True)
    assert not (tmp_path / "none").exists()


# No write goes around the rule.

WRITES = {"mkdir", "write_bytes", "write_text", "unlink", "rmdir", "touch"}
SOURCES = Path(baffle.__file__).parent


def refused_in_words(node: ast.AST) -> bool:
    """Return whether what the disk refuses inside `node` becomes one of the library's errors, or is handled."""
    if isinstance(node, ast.With):
        calls = [item.context_expr for item in node.items]
        return any(isinstance(one, ast.Call) and ast.unparse(one.func) in ("writing", "suppress") for one in calls)
    return isinstance(node, ast.Try) and any("OSError" in ast.unparse(one.type) for one in node.handlers if one.type)


def writes(node: ast.AST, safe: bool = False) -> Iterator[ast.Call]:
    """Yield calls that write to the disk, outside of whatever puts its refusal into words."""
    safe = safe or refused_in_words(node)
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and not safe:
        modes = [one.value for one in node.args if isinstance(one, ast.Constant) and isinstance(one.value, str)]
        opened = node.func.attr == "open" and any(set("wax+") & set(mode) for mode in modes)
        if node.func.attr in WRITES or opened:
            yield node
    for child in ast.iter_child_nodes(node):
        yield from writes(child, safe)


def test_whatever_the_disk_refuses_is_put_into_words() -> None:
    """A library user gets a BaffleError that names the file; the command line catches its own where it starts."""
    found = {
        f"{path.relative_to(SOURCES)}:{call.lineno}: {ast.unparse(call)}"
        for path in SOURCES.rglob("*.py")
        if path.name != "storage.py" and "cli" not in path.parts
        for call in writes(ast.parse(path.read_text(encoding="utf-8")))
    }
    assert found == set()


def test_the_search_for_writes_finds_one() -> None:
    tree = ast.parse("path.mkdir()\nwith writing(path):\n    path.open('w')\npath.open('a')\npath.open('rb')")
    assert [call.lineno for call in writes(tree)] == [1, 4]
