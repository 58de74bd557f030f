"""Several experiments with several seeds, each in a process of its own, so that peak memory and crashes are its own."""

from __future__ import annotations

from baffle.trials.entries import entry_of, folder_entries
from baffle.trials.jobs import Job, State, jobs_of, labels, shared
from baffle.trials.pool import Watch, run_all
from baffle.trials.process import Where
from baffle.trials.task import check_task

__all__ = [
    "Job",
    "State",
    "Watch",
    "Where",
    "check_task",
    "entry_of",
    "folder_entries",
    "jobs_of",
    "labels",
    "run_all",
    "shared",
]
