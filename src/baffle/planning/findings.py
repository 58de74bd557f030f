"""What a few rounds tell, and the process that is asked for it."""

from __future__ import annotations

import subprocess
import sys
import time
from typing import Any, NamedTuple

import msgspec

from baffle.baselines.price import StepCost
from baffle.errors import BaffleError
from baffle.experiment import Experiment


class Request(msgspec.Struct):
    """What is asked for."""

    experiment: dict[str, Any]
    seconds: float
    """That it may take, without what starting takes."""
    begun: float
    """When the process was asked for, seconds since 1970."""
    batch: int
    """Samples of a pass of backpropagation; 0 is the plan's mini-batch."""


class Time(NamedTuple):
    """Seconds."""

    wall: float
    """On the clock."""
    processor: float
    """Of all processor cores together: what other programs on a machine do not change."""

    def times(self, factor: float) -> Time:
        """Return `factor` times the time."""
        return Time(self.wall * factor, self.processor * factor)

    def plus(self, *others: Time) -> Time:
        """Return the sum."""
        return Time(*map(sum, zip(self, *others, strict=True)))

    def minus(self, other: Time) -> Time:
        """Return the difference, 0 or more."""
        return Time(max(0.0, self.wall - other.wall), max(0.0, self.processor - other.processor))

    @classmethod
    def now(cls) -> Time:
        """Return the time by clocks that never go back."""
        return cls(time.monotonic(), time.process_time())


class Findings(msgspec.Struct, frozen=True):
    """What came out."""

    startup: Time
    """Until the first round could begin."""
    warmup: Time
    """That the first probes take beyond their share."""
    first: Time
    """From the beginning of a run to its first round: the first evaluation, and files."""
    a_forward: Time
    """Of one forward equivalent of one client, everything else of a round included."""
    evaluation: Time
    """Of one evaluation on the held-out data."""
    peak_memory: int
    """Bytes, of the process."""
    rounds: int
    """That were tried; 0 where one round took too long."""
    budgets: tuple[tuple[int, ...], ...]
    """Of the blocks in each of them."""
    smoothed: tuple[float, ...]
    """The mean square slopes that the next round's budgets follow."""
    squares: tuple[float, ...]
    """Of each block: the mean square of a group's mean slopes without rounding's noise, about ‖g_b‖², at the end."""
    apart: tuple[float, ...]
    """Of each block: that over the same of all clients together; 1 with one group."""
    passes: dict[str, StepCost]
    """Of the kinds of pass of `baselines.cost`; none where the model can't be differentiated."""


def measured(experiment: Experiment, seconds: float, batch: int = 0) -> Findings:
    """Return what a process of its own finds in about `seconds`, besides what starting it takes.

    Args:
        experiment: its settings.
        seconds: > 0.
        batch: samples of a mini-batch by backpropagation; 0 is as many as the plan's.

    Raises:
        BaffleError: the experiment can't be run, or the process died.
    """
    request = Request(msgspec.to_builtins(experiment), seconds, time.time(), batch)
    command = [sys.executable, "-P", "-m", "baffle.planning.trial"]
    done = subprocess.run(command, input=msgspec.json.encode(request), capture_output=True, check=False)
    lines = done.stdout.splitlines()
    if done.returncode or not lines:
        raise BaffleError(_why(done.returncode, done.stderr.decode(errors="replace")))
    answer: dict[str, Any] = msgspec.json.decode(lines[-1])
    if "error" in answer:
        raise BaffleError(answer["error"])
    return msgspec.convert(answer, Findings)


def _why(status: int, told: str) -> str:
    """Return why there are no findings: a signal, or an error's last line."""
    if status < 0:
        return f"the measurement was ended by signal {-status}, as a process is that takes too much memory: --measure 0"
    last = told.strip().splitlines()[-1:] or ["it said nothing"]
    return f"the measurement failed: {last[0]}"
