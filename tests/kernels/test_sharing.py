import subprocess
import sys
import threading

import pytest

from baffle.kernels.sharing import share


@pytest.mark.parametrize("threads", [1, 2, 5])
@pytest.mark.parametrize("count", [0, 1, 3, 200])
def test_every_task_is_done_once(threads, count):
    done = []
    share(done.append, list(range(count)), threads)
    assert sorted(done) == list(range(count))


def test_threads_work_at_once():
    both, places = threading.Barrier(2, timeout=30), []
    share(lambda _: places.append(both.wait()), [0, 1], 2)  # one alone would wait for the other in vain
    assert sorted(places) == [0, 1]


@pytest.mark.parametrize("threads", [1, 3])
def test_an_error_comes_out(threads):
    def fail(task):
        raise ValueError(task)

    with pytest.raises(ValueError, match=r"^[1-4]$"):
        share(fail, [1, 2, 3, 4], threads)


def test_a_forked_process_has_threads_of_its_own():
    program = """
import os, threading, warnings
from baffle.kernels.sharing import share
warnings.simplefilter("ignore")
wait = lambda _: threading.Barrier.wait(both, 30)
both = threading.Barrier(2)
share(wait, [0, 1], 2)
child = os.fork()
if child == 0:
    both = threading.Barrier(2)
    share(wait, [0, 1], 2)
    os._exit(7)
raise SystemExit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""
    assert subprocess.run([sys.executable, "-c", program], check=False, timeout=60).returncode == 7
