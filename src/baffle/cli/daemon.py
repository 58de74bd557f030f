"""Commands that run for days: their log, and how they are stopped."""

from __future__ import annotations

import logging
import signal
from collections.abc import Generator
from contextlib import contextmanager
from types import FrameType


class Interrupted(KeyboardInterrupt):
    """A command was stopped by its user; the text says how to go on."""


class Stopped(SystemExit):
    """A command was told to end, and did."""


def _stop(number: int, frame: FrameType | None) -> None:
    del number, frame
    logging.getLogger("baffle").info("stopped, as asked")
    raise Stopped(0)


@contextmanager
def until_told_to_stop(word: str) -> Generator[None]:
    """Log with the time; end well on SIGTERM, and on an interrupt with a `word` on how to go on."""
    logging.basicConfig(format="%(asctime)s %(levelname)s: %(message)s", level=logging.WARNING, force=True)
    logging.getLogger("baffle").setLevel(logging.INFO)
    before = signal.signal(signal.SIGTERM, _stop)
    try:
        yield
    except KeyboardInterrupt:
        raise Interrupted(word) from None
    finally:
        logging.getLogger("baffle").setLevel(logging.NOTSET)
        signal.signal(signal.SIGTERM, before)
