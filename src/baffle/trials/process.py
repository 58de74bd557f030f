"""One run's process, as the process that began it sees it."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from baffle.storage import make_folder, remove, writing
from baffle.trials.jobs import Job

LOG = "compare.log"
"""What a run's process printed and warned of; not there where it was silent."""


@dataclass(frozen=True, slots=True)
class Where:
    """How far a run is."""

    round: int
    accuracy: float | None
    """Of an evaluation just made."""


def start(job: Job) -> subprocess.Popen[str]:
    """Return the process of a new run, or of one that goes on where it was.

    It has a session of its own: an interrupt from the keyboard reaches this process alone.
    """
    make_folder(job.folder)
    with writing(job.folder / LOG), (job.folder / LOG).open("w", encoding="utf-8") as log:
        return subprocess.Popen(
            [sys.executable, "-m", "baffle.trials.worker"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=log,
            text=True,
            encoding="utf-8",
            start_new_session=True,
        )


def follow(process: subprocess.Popen[str], job: Job, watch: Callable[[Where], None]) -> str:
    """Tell a process its run, and `watch` where it is until it has ended; return why it did not finish, or nothing."""
    last: dict[str, Any] = {}
    order = json.dumps({"settings": job.settings(), "folder": str(job.folder)})
    with process, suppress(BrokenPipeError):  # it may have died, which its exit status tells
        if process.stdin is not None and process.stdout is not None:
            process.stdin.write(order + "\n")
            process.stdin.flush()
            for line in process.stdout:
                last = json.loads(line)
                if "round" in last:
                    watch(Where(last["round"], last["accuracy"]))
            process.wait()
    _drop_if_empty(job.folder / LOG)
    return _reason(last, process.returncode, job.folder / LOG)


def _reason(last: dict[str, Any], status: int, log: Path) -> str:
    if last.get("done"):
        return ""
    if "error" in last:
        return str(last["error"])
    how = f"by signal {-status} ({signal.strsignal(-status)})" if status < 0 else f"with status {status}"
    return f"its process ended {how}" + (f"; see {log}" if log.exists() else "")


def _drop_if_empty(path: Path) -> None:
    if path.exists() and path.stat().st_size == 0:
        remove(path)
