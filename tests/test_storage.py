from __future__ import annotations

import threading

import pytest

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
