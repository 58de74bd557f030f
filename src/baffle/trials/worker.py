"""The process of one run: `python -m baffle.trials.worker`, told what to do by a line of JSON, telling by such lines.

It ends when its standard input does, hence with the process that began it, however that ends.
"""

from __future__ import annotations

import fcntl
import json
import logging
import os
import sys
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from threading import Thread
from typing import Any, TextIO, TypeAlias

from baffle.errors import BaffleError
from baffle.experiment import read
from baffle.progress import Progress
from baffle.storage import make_folder

Tell: TypeAlias = Callable[[dict[str, Any]], None]
_PAUSE = 0.2
"""Seconds between two tellings, evaluations apart."""


def main() -> int:
    """Do the run that the first line of standard input names; tell of it, and at last of an error, if there was one."""
    order = json.loads(sys.stdin.readline())
    told = os.fdopen(os.dup(1), "w", encoding="utf-8", buffering=1)
    os.dup2(2, 1)  # whatever prints does not end up among the lines told
    Thread(target=_end_with_the_other, daemon=True).start()
    logging.basicConfig(format="%(levelname)s: %(message)s", level=logging.WARNING)
    tell = _teller(told)
    error = _tried(order["settings"], Path(order["folder"]), tell)
    tell({"done": True} if error is None else {"error": error})
    return 0 if error is None else 2


def _tried(settings: dict[str, Any], folder: Path, tell: Tell) -> str | None:
    """Return why a run did not finish, or None."""
    try:
        _run(settings, folder, tell)
    except BaffleError as error:
        return str(error)
    except OSError as error:
        return f"{error.filename or 'a file'}: {error.strerror or error}"
    except Exception as error:  # whatever one run does, the others go on
        traceback.print_exc()
        first = (str(error).strip().splitlines() or ["no more is said"])[0]
        return f"{type(error).__name__}: {first}"
    return None


def _run(settings: dict[str, Any], folder: Path, tell: Tell) -> None:
    from baffle.assembly import assemble

    make_folder(folder)
    lock = os.open(folder, os.O_RDONLY)
    try:
        # The process of a comparison that was killed may still be about to end.
        fcntl.flock(lock, fcntl.LOCK_EX)
        experiment = read(settings | {"out": ""})
        simulation = assemble(experiment)
        simulation.run(
            experiment.rounds,
            out=folder,
            resume=(folder / "settings.toml").exists(),
            settings=settings,
            progress=_Watch(tell),
        )
    finally:
        os.close(lock)


class _Watch:
    """Tells where a run is, not more often than a person reads."""

    def __init__(self, tell: Tell) -> None:
        self._tell = tell
        self._last = 0.0

    def __call__(self, progress: Progress) -> None:
        if progress.accuracy is not None or time.monotonic() - self._last > _PAUSE:
            self._last = time.monotonic()
            self._tell({"round": progress.round, "accuracy": progress.accuracy})


def _teller(file: TextIO) -> Tell:
    def tell(told: dict[str, Any]) -> None:
        file.write(json.dumps(told) + "\n")
        file.flush()

    return tell


def _end_with_the_other() -> None:
    while os.read(0, 1):
        pass
    os._exit(1)


if __name__ == "__main__":
    raise SystemExit(main())
