"""What is measured of a run while it goes on, and told of it."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from baffle.metrics import Metrics
from baffle.progress import Progress
from baffle.runtimes import Evaluation
from baffle.server import State

Evaluate = Callable[[NDArray[np.floating]], Evaluation | None]


@dataclass(slots=True, kw_only=True)
class Curve:
    """The rows of a run: one at its start, one every so many rounds, one at its end."""

    evaluate: Evaluate
    """Parameters [n] to their loss and accuracy on held-out data, or None without such data."""
    every: int
    """Rounds between evaluations, ≥ 1."""
    rounds: int
    """In all."""
    metrics: Metrics
    progress: Callable[[Progress], None]
    """Is told of every round."""
    began: float = field(default_factory=time.monotonic)
    """When the run would have begun had it never been interrupted, on the monotonic clock."""

    @property
    def seconds(self) -> float:
        """Since the run began, interruptions left out."""
        return time.monotonic() - self.began

    def resume(self, state: State) -> None:
        """Take up the rows that an earlier process wrote up to `state`; later ones are dropped."""
        self.metrics.resume(state.round)
        self.began -= self.metrics.seconds

    def has(self, state: State) -> bool:
        """Return whether there is a row of this round."""
        return any(row["round"] == state.round for row in self.metrics.rows)

    def due(self, state: State) -> bool:
        """Return whether this round is one to be measured."""
        return state.round % self.every == 0 or state.round == self.rounds

    def tell(self, state: State, answered: int, costs: Mapping[str, Any]) -> None:
        """Tell of a round without measuring it."""
        self.progress(self._where(state, answered, costs))

    def measure(self, state: State, answered: int, costs: Mapping[str, Any]) -> None:
        """Measure averaged and last weights, add a row, and tell of it.

        Args:
            state: after the round.
            answered: clients whose reports counted in it.
            costs: of one client so far, on average: forward_equivalents, upload_bytes, download_bytes; and epsilon.
        """
        average, last = self.evaluate(state.average), self.evaluate(state.parameters)
        where = replace(
            self._where(state, answered, costs),
            accuracy=_known(average and average.accuracy),
            accuracy_last=_known(last and last.accuracy),
            loss=_known(average and average.loss),
        )
        self.metrics.append(asdict(where))
        self.progress(where)

    def measured(self) -> dict[str, Any]:
        """Return what the last row says of the weights."""
        return {name: self.metrics.rows[-1][name] for name in ("accuracy", "accuracy_last", "loss")}

    def _where(self, state: State, answered: int, costs: Mapping[str, Any]) -> Progress:
        return Progress(round=state.round, answered=answered, seconds=self.seconds, **costs)


def _known(value: float | None) -> float | None:
    """Return what JSON can say: a finite number, or None."""
    return value if value is not None and np.isfinite(value) else None
