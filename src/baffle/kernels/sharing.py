"""Tasks shared among threads that are kept."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from typing import TypeVar

Task = TypeVar("Task")


def share(work: Callable[[Task], None], tasks: Sequence[Task], threads: int) -> None:
    """Do all tasks with at most `threads` threads, the caller's among them; whoever is free takes the next.

    The threads are Python's, not numba's own: those share OpenMP's settings with PyTorch, and a parallel loop of a few
    microseconds that waits for a busy core takes milliseconds.
    """
    if threads == 1 or len(tasks) == 1:
        for task in tasks:
            work(task)
        return
    queue = iter(tasks)

    def drain() -> None:
        for task in queue:
            work(task)

    asked = [_pool(threads).submit(drain) for _ in range(min(threads, len(tasks)) - 1)]
    drain()
    for helper in asked:
        if not helper.cancel():  # who has not begun by now has nothing left to do
            helper.result()


@cache
def _pool(threads: int) -> ThreadPoolExecutor:
    return ThreadPoolExecutor(threads - 1)  # kept: starting a thread takes as long as displacing a million weights


os.register_at_fork(after_in_child=_pool.cache_clear)  # a child has none of its parent's threads
