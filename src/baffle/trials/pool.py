"""Runs one after another, or some at once."""

from __future__ import annotations

import subprocess
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from functools import partial
from threading import Lock
from typing import Protocol

from baffle.trials.jobs import Job, share
from baffle.trials.process import Where, follow, start


class Watch(Protocol):
    """Is told of runs, from several threads where several go on at once."""

    def began(self, job: Job) -> None:
        """Note that a run has a process now."""
        ...

    def went_on(self, job: Job, where: Where) -> None:
        """Note that a run got further."""
        ...

    def ended(self, job: Job, reason: str) -> None:
        """Note that a run finished, or did not for that reason."""
        ...


class _Pool:
    """The processes that go on at a moment."""

    def __init__(self, watch: Watch) -> None:
        self._watch = watch
        self._lock = Lock()
        self._processes: set[subprocess.Popen[str]] = set()
        self._stopped = False

    def run(self, job: Job) -> str:
        """Return why a run did not finish, or nothing."""
        with self._lock:
            if self._stopped:
                return "was not begun"
            process = start(job)
            self._processes.add(process)
        self._watch.began(job)
        reason = follow(process, job, partial(self._watch.went_on, job))
        with self._lock:
            self._processes.discard(process)
            stopped = self._stopped
        if not stopped:
            self._watch.ended(job, reason)
        return reason

    def stop(self) -> None:
        """End all processes, and begin no other; what they wrote so far is kept."""
        with self._lock:
            self._stopped = True
            for process in self._processes:
                process.terminate()


def run_all(jobs: Sequence[Job], at_once: int, watch: Watch) -> dict[Job, str]:
    """Run `jobs`, `at_once` ≥ 1 of them at a time, each in its own process; return why each did not finish, or "".

    On an interrupt all processes end before it is raised again; runs that were begun go on when they are run again.
    """
    pool = _Pool(watch)
    for job in jobs if at_once > 1 else ():
        share(job.folder)
    futures: list[Future[str]] = []
    with ThreadPoolExecutor(at_once) as executor:
        try:
            futures = [executor.submit(pool.run, job) for job in jobs]
            wait(futures)
        except BaseException:
            pool.stop()
            raise
    return {job: future.result() for job, future in zip(jobs, futures, strict=True)}
