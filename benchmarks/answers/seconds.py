"""Question 12: the processor time of a simulated round, ours and backpropagation's, in turn on one core.

Seconds to an accuracy are the rounds that question 8's curves took, times this: so evaluations are not in them, and
neither is what else the machine had to do.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from itertools import pairwise
from statistics import median
from typing import Any

from answers.asked import MNIST, OURS, PAPER, Settings, bytes_on_digits, bytes_on_mnist, here
from baffle.assembly import assemble
from baffle.experiment import read

TURNS = 2
NEVER = 1_000_000


def answer() -> dict[str, Any]:
    """Return seconds of processor time of rounds of every method on every data set."""
    mnist = {label: MNIST | row for label, row in bytes_on_mnist().items()}
    mnist |= {"ours": MNIST | OURS, "paper's": MNIST | PAPER}
    return {"rows": {"digits": timed(bytes_on_digits(), 10), "MNIST": timed(mnist, 4)}}


def timed(methods: Mapping[str, Settings], rounds: int) -> dict[str, list[float]]:
    """Return seconds of single rounds, the methods in turn; first and last rounds, which evaluate, do not count."""
    there = {label: assemble(read(here(row | {"evaluate_every": NEVER}, 0))) for label, row in methods.items()}
    rows: dict[str, list[float]] = {label: [] for label in there}
    for _ in range(TURNS):
        for label, run in there.items():
            stamps: list[float] = []
            run.run(rounds, progress=lambda _, stamps=stamps: stamps.append(time.process_time()))
            rows[label] += [round(after - before, 5) for before, after in pairwise(stamps[1:-1])]
    for label, turns in rows.items():
        print(f"12  {label:24} {median(turns):9.4f} s a round", flush=True)
    return rows
