"""How a run over a network is getting on: one JSON file in its folder, for people and their tools."""

from __future__ import annotations

import contextlib
import json
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, NoReturn, cast

import msgspec
from msgspec import Meta

from baffle.errors import SettingsError
from baffle.messages import Count

NAME = "status.json"
"""The file's, in a run's folder."""
STALE = 5.0
"""Seconds after which the status of a server that runs would have been replaced."""

Moment = Annotated[float, Meta(ge=0, le=253_402_214_400)]
"""Seconds since 1970, up to the year 9999."""
Duration = Annotated[float, Meta(ge=0, le=1e18)]
"""Seconds."""

_failing: set[Path] = set()

log = logging.getLogger("baffle")


class Client(msgspec.Struct, frozen=True, kw_only=True):
    """A client as the server sees it; counts are of messages since the server began."""

    client: Count
    """Its number."""
    state: str = ""
    """`never seen`, `away`, `ready`, `busy`, `done` or `revoked`."""
    version: Count | None = None
    """Rounds in its θ; None where it has none."""
    samples: Count = 0
    software: str = ""
    last_heard: Moment | None = None
    last_report: Moment | None = None
    """When its last report that counted came."""
    missing_for: Duration | None = None
    """Since its link is down; None where it is up."""
    latency: Duration | None = None
    """From call to report, median over its last reports."""
    evaluation: Duration = 0.0
    """What its last report took to make, as it says itself."""
    up: Count = 0
    """Bytes of its messages."""
    down: Count = 0
    """Bytes of the server's messages to it."""
    answered: Count = 0
    """Reports that counted."""
    late: Count = 0
    """Reports on rounds that were closed."""
    duplicate: Count = 0
    """Messages that had come before."""
    refused: Count = 0
    dropped: Count = 0
    """Messages for which the server had no room."""
    joined: Count = 0
    """How often a process of the client joined."""
    last_refusal: str = ""
    """Why something of its was refused last; empty where nothing was."""
    certificate_days: Count | None = None
    """For which its certificate lasts; None without one."""


class Waiting(msgspec.Struct, frozen=True, kw_only=True):
    """What the server had not answered yet, and what it never will."""

    messages: Count = 0
    bytes: Count = 0
    """Of those messages, with 4 KiB for each."""
    peak_messages: Count = 0
    """The most so far."""
    peak_bytes: Count = 0
    dropped: Count = 0
    """Messages of clients that had joined, for which there was no room."""
    dropped_strangers: Count = 0
    """Messages of others for which there was none."""


class Status(msgspec.Struct, frozen=True, kw_only=True):
    """A run over a network at a moment. Its texts can be printed as they are: see `printable`."""

    time: Moment
    """When it was so."""
    round: Count = 0
    """Rounds done."""
    rounds: Count | None = None
    """How many there are to be in all."""
    attempt: Count = 0
    """How often the open round was tried before."""
    finished: bool = False
    asked: Count = 0
    """Clients of the open round; 0 where none is open."""
    waiting_for: tuple[Count, ...] = ()
    """Those that have not answered."""
    rounds_a_minute: Annotated[float, Meta(ge=0, le=1e9)] = 0.0
    """Over the last minute."""
    strangers: Count = 0
    """Messages refused that were of no client."""
    inbox: Waiting = Waiting()
    clients: tuple[Client, ...] = ()
    """Those that the server knows, by number."""
    expected: tuple[Count, ...] = ()
    """Numbers of all clients that may join, where the server says them."""
    started: Moment | None = None
    """When the server began."""
    listen: tuple[str, ...] = ()
    """HOST:PORT of each address that it listens on."""
    certificate_days: Count | None = None
    """For which the server's certificate lasts; None without one."""
    pid: Count | None = None
    """The server's process."""

    def age(self, now: float) -> float:
        """Return the seconds between the status and `now`, which is seconds since 1970; ≥ 0."""
        return max(0.0, now - self.time)

    def stale(self, now: float) -> bool:
        """Return whether a server that runs would have written a newer one by `now`."""
        return not self.finished and self.age(now) > STALE

    def unseen(self) -> list[int]:
        """Return the clients that are expected and have never been here, ascending."""
        rows = {row.client: row for row in self.clients}
        named = {*self.expected, *self.waiting_for, *rows}
        return sorted(number for number in named if number not in rows or rows[number].state == "never seen")


def write_status(folder: Path, status: Mapping[str, Any]) -> None:
    """Put `status` into a run's folder, made if need be, such that a reader finds the old one or the new.

    It does not outlast a power failure for sure, and where the disk refuses it there is a warning, one for each
    time that writing begins to fail: no run depends on it.
    """
    temporary = folder / f"{NAME}.part"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        temporary.write_text(json.dumps(status) + "\n", "ascii")
        temporary.replace(folder / NAME)
        _failing.discard(folder)
    except OSError as error:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)
        if folder not in _failing:
            _failing.add(folder)
            log.warning("%s can't be written: %s; the run goes on", folder / NAME, error.strerror or error)


def read_status(folder: Path) -> Status:
    """Return the status of the run in a folder. What a later version adds to it is ignored.

    Raises:
        SettingsError: the folder holds none, or one that can't be read.
    """
    return read_both(folder)[0]


def read_both(folder: Path) -> tuple[Status, dict[str, Any]]:
    """Return the status of the run in a folder, and the JSON object that it was read from, as it is.

    Raises:
        SettingsError: the folder holds none, or one that can't be read.
    """
    try:
        found = json.loads((folder / NAME).read_bytes(), parse_constant=_refuse)
        return msgspec.convert(_printable(found), Status), found
    except (FileNotFoundError, NotADirectoryError):
        raise SettingsError("folder", str(folder), "holds no status: it is written by `baffle serve`") from None
    except OSError as error:
        reason = error.strerror or str(error)
    except (ValueError, RecursionError) as error:  # msgspec's ValidationError is a ValueError
        reason = printable(str(error))
    raise SettingsError("folder", str(folder), f"holds a {NAME} that can't be read: {reason}")


def printable(text: str) -> str:
    r"""Return `text` with whatever a terminal or a browser might obey, not show, as an escape.

    >>> printable("né\x1b[31m\u202e")
    'né\\x1b[31m\\u202e'
    """
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def _printable(value: object) -> object:
    if isinstance(value, str):
        return printable(value)
    if isinstance(value, list):
        return [_printable(item) for item in cast("list[object]", value)]
    if isinstance(value, dict):
        return {name: _printable(item) for name, item in cast("dict[str, object]", value).items()}
    return value


def _refuse(constant: str) -> NoReturn:
    raise ValueError(f"{constant} is no number")
