"""A command line that is called in this process, on few rounds of few forwards."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from baffle.cli import main

QUICK = ("--threads", "1", "--forwards", "96", "--clients", "4", "--hidden", "4", "--batch", "8", "--no-report")


@dataclass(frozen=True)
class Told:
    """What a command left behind."""

    status: int
    out: str
    error: str


@pytest.fixture
def command(capsys, monkeypatch, tmp_path) -> Callable[..., Told]:
    """Returns a function: arguments -> exit status and texts, in an empty working folder."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "200")
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level

    def run(*arguments: object) -> Told:
        capsys.readouterr()
        try:
            status = main([str(argument) for argument in arguments])
        except SystemExit as stopped:
            status = stopped.code
        finally:
            root.handlers[:] = handlers
            root.setLevel(level)
        told = capsys.readouterr()
        return Told(status, told.out, told.err)

    return run


@pytest.fixture
def train(command) -> Callable[..., Told]:
    """Returns a function that trains, quickly unless told otherwise, into the folder `run`."""

    def run(*arguments: object, out: str | Path | None = "run") -> Told:
        place = () if out is None else ("--out", out)
        return command("train", *QUICK, *place, *arguments)

    return run
