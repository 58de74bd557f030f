import ctypes
import subprocess
import sys

import pytest

from baffle.runtimes import allocator
from baffle.runtimes.allocator import keep_freed_memory


class Library:
    """A C library whose `mallopt` takes values up to a largest one."""

    def __init__(self, most: int) -> None:
        self.most, self.calls = most, []

    def mallopt(self, parameter: int, value: int) -> int:
        self.calls.append((parameter, value))
        return int(value <= self.most)


@pytest.fixture
def library(monkeypatch):
    def use(found, platform="linux"):
        monkeypatch.setattr(sys, "platform", platform)
        monkeypatch.setattr(ctypes, "CDLL", lambda _: found)
        return found

    return use


def test_both_thresholds_are_raised_at_once(library) -> None:
    found = library(Library(1 << 31))
    keep_freed_memory()
    assert found.calls == [(-3, 1 << 30), (-1, 1 << 30)]


def test_an_older_version_is_given_the_most_that_it_takes(library) -> None:
    found = library(Library(32 << 20))
    keep_freed_memory()
    assert found.calls == [(-3, 1 << 30), (-3, 32 << 20), (-1, 1 << 30), (-1, 32 << 20)]


def test_one_that_refuses_both_is_left_alone(library) -> None:
    found = library(Library(0))
    keep_freed_memory()
    assert len(found.calls) == 4


def test_a_library_without_it_is_left_alone(library) -> None:
    library(object())
    keep_freed_memory()


def test_another_system_is_left_alone(library) -> None:
    found = library(Library(1 << 31), platform="darwin")
    keep_freed_memory()
    assert not found.calls


FREED = """
import ctypes, sys
from baffle.runtimes.allocator import keep_freed_memory
if sys.argv[1] == "kept":
    keep_freed_memory()
    keep_freed_memory()
library = ctypes.CDLL(None)
library.malloc.restype, library.free.argtypes = ctypes.c_void_p, [ctypes.c_void_p]
size = 24 << 20
def resident():
    return next(int(line.split()[1]) << 10 for line in open("/proc/self/status") if line.startswith("VmRSS"))
before = resident()
place = library.malloc(size)
ctypes.memset(place, 1, size)
library.free(place)
print((resident() - before) / size)
"""


@pytest.mark.skipif(not hasattr(ctypes.CDLL(None), "gnu_get_libc_version"), reason="needs glibc")
def test_a_large_block_that_is_freed_stays_with_the_process() -> None:
    shares = [
        float(subprocess.run([sys.executable, "-c", FREED, how], capture_output=True, check=True, text=True).stdout)
        for how in ("kept", "given back")
    ]
    assert shares[0] > 0.9
    assert shares[1] < 0.1


def test_the_constants_are_glibcs() -> None:
    assert (allocator._TRIM_THRESHOLD, allocator._MMAP_THRESHOLD) == (-1, -3)  # malloc.h
