"""One process's part of a run: where its records, snapshots and curves go, and how it is taken up again."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import tomli_w
from numpy.typing import NDArray

from baffle import run as runs
from baffle.budget import Account
from baffle.curve import Curve, Evaluate
from baffle.errors import SettingsError
from baffle.header import Header, difference
from baffle.kernels import Kernels
from baffle.messages import Intent, Plan, Record, Round
from baffle.metrics import Metrics
from baffle.parameters import digest
from baffle.progress import Progress, Result, peak_memory
from baffle.run import Run
from baffle.server import State
from baffle.snapshots import snapshots
from baffle.storage import FolderLock, write_atomically
from baffle.tally import Tally


@dataclass(slots=True, kw_only=True)
class Session:
    """The bookkeeping of a run; with `out` None, nothing is written."""

    header: Header
    given: Mapping[str, NDArray[np.generic]]
    """First values of the tensors that are not drawn from the key."""
    evaluate: Evaluate
    """Parameters [n] to their loss and accuracy on held-out data, or None without such data."""
    evaluate_every: int
    snapshot_every: int
    rounds: int
    out: Path | None
    progress: Callable[[Progress], None]
    observe: Callable[[Round], None] = lambda _: None
    """Is shown every round that is in the ledger, in order: those of earlier processes as well."""
    held: bool = False
    """Whether the caller keeps others from the folder already; else the session does, from its start to its end."""
    tally: Tally = field(init=False)
    curve: Curve = field(init=False)
    run: Run | None = field(init=False, default=None)
    account: Account | None = field(init=False, default=None)
    """Of privacy, where something is promised."""
    epsilon: float | None = field(init=False, default=None)
    """Spent so far."""
    answered: int = field(init=False, default=0)
    """Clients whose reports counted in the last round."""
    _lock: FolderLock | None = field(init=False, default=None)
    _asked: tuple[int, int] | None = field(init=False, default=None)
    """Round and attempt that were counted as spent last."""

    def __post_init__(self) -> None:
        self.tally = Tally.of(self.header.samples)
        self.curve = Curve(
            evaluate=self.evaluate,
            every=self.evaluate_every,
            rounds=self.rounds,
            metrics=Metrics(self.out / "metrics.jsonl" if self.out else None),
            progress=self.progress,
        )
        if self.header.budget is not None:
            federation = self.header.federation
            self.account = Account.of(self.header.algorithm, federation.clients, self.header.budget)

    def __enter__(self) -> Session:
        return self

    def __exit__(self, *_: object) -> None:
        if self.run is not None:
            self.run.ledger.close()
        if self._lock is not None:
            self._lock.close()

    def begin(self, settings: Mapping[str, Any]) -> State:
        """Return the first state of a new run.

        Raises:
            SettingsError: the folder holds a run already, or is in use by another process.
        """
        self._take_folder()
        if self.out is not None and snapshots(self.out / runs.SNAPSHOTS):
            raise self._taken()
        return self._begin(settings)

    def _take_folder(self) -> None:
        """Keep others from the folder before anything in it is looked at or written."""
        if self.out is not None and not self.held:
            self._lock = FolderLock(self.out)

    def _taken(self) -> SettingsError:
        return SettingsError("out", str(self.out), "holds a run already: resume it, or name another folder")

    def _begin(self, settings: Mapping[str, Any]) -> State:
        """Begin in a folder without a ledger, where snapshots may be left of a run that lost its own."""
        state = self.header.start(self.given)
        if self.out is not None:
            if (self.out / runs.LEDGER).exists():
                raise self._taken()
            write_atomically(self.out / "settings.toml", tomli_w.dumps(dict(settings)).encode())
            self.run = runs.begin(self.out, self.header, self.given)
        self._measure(state)
        return state

    def resume(self, settings: Mapping[str, Any], kernels: Kernels) -> State:
        """Return the state in which an earlier process left the run in `out`.

        Raises:
            SettingsError: there is no such run, or it was begun with other settings.
            LedgerError: a record does not verify.
        """
        if self.out is None or not (self.out / "settings.toml").exists():
            raise SettingsError("resume", str(self.out), "holds no run")
        self._take_folder()
        if not (self.out / runs.LEDGER).exists():
            return self._begin(settings)
        resumed = runs.resume(self.out, kernels, self._count, self._accept)
        if resumed is None:
            return self._begin(settings)
        self.run, state = resumed
        self.header = self.run.header
        if self.run.ledger.version == 1 and self.header.guarded and state.round < self.rounds:
            rule = (
                "was begun by an earlier version, whose ledger can't say what was opened before a crash: with a budget "
                "or secure sums it can't go on. It still verifies and replays; begin a new run in another folder"
            )
            raise SettingsError("resume", str(self.out), rule)
        write_atomically(self.out / "settings.toml", tomli_w.dumps(dict(settings)).encode())
        self.curve.resume(state)
        if self.curve.due(state) and not self.curve.has(state):
            self._measure(state)
        return state

    def _accept(self, found: Header) -> None:
        """Refuse another run's header.

        First weights that came with the model, and costs that were counted on it, stay as the run was begun with them.
        """
        own = self.header
        if own.federation.layout.given:
            own = msgspec.structs.replace(own, initial=found.initial)
        federation = msgspec.structs.replace(own.federation, costs=found.federation.costs)
        own = msgspec.structs.replace(own, federation=federation)
        if found != own:
            rule = f"was begun with other settings, data or model: {difference(found, own)}"
            raise SettingsError("resume", str(self.out), rule)

    def _count(self, record: Record) -> None:
        """Count a record, and show it: an intent spends, a round costs."""
        if isinstance(record, Intent):
            self._spend(record.round, record.attempt, record.cohort)
            return
        # Of what version 1 wrote no intent, the round itself says that it was asked for.
        self._spend(record.plan.round, record.plan.attempt, record.plan.cohort)
        self.tally.add(record)
        self.observe(record)
        self.answered = len(record.answered)

    def _spend(self, number: int, attempt: int, cohort: Sequence[int]) -> None:
        """Count an attempt as spent, once: when its intent is written, or when its round says that it was asked for."""
        if self.account is not None and self._asked != (number, attempt):
            self._asked = (number, attempt)
            self.account.count(cohort)
            self.epsilon = self.account.spent

    def intend(self, plan: Plan) -> None:
        """Put on disk that a plan is about to be sent, and count it as spent."""
        if self.run is not None:
            self.run.intend(plan)
        self._spend(plan.round, plan.attempt, plan.cohort)

    def record(self, record: Round) -> None:
        """Make a round count."""
        if self.run is not None:
            self.run.append(record)

    def watch(self, state: State, record: Round) -> None:
        """Count a round, measure and keep its state where that is due, and tell of it."""
        self._count(record)
        done = record.aggregate is not None
        if done and self.run is not None and (state.round % self.snapshot_every == 0 or state.round == self.rounds):
            self.run.snapshot(state)
        if done and self.curve.due(state):
            self._measure(state)
        else:
            self.curve.tell(state, self.answered, self._costs())

    def finish(self, state: State) -> Result:
        """Return the run's result, and write its summary."""
        if not self.curve.has(state):
            self._measure(state)
        result = Result(
            rounds=state.round,
            seconds=self.curve.seconds,
            peak_memory_bytes=peak_memory(),
            digest=digest(state.parameters),
            ledger_digest=self.run.ledger.head.hex() if self.run else "",
            parameters=state.average,
            layout=self.header.federation.layout,
            epsilon=self.epsilon,
            delta=self.header.budget.delta if self.header.budget is not None else None,
            clients=self.tally.rows(),
            **self.tally.means(),
            **self.curve.measured(),
        )
        if self.run is not None:
            self.run.finish()
            write_atomically(self.run.folder / "summary.json", json.dumps(result.summary(), indent=1).encode())
        return result

    def _measure(self, state: State) -> None:
        self.curve.measure(state, self.answered, self._costs())

    def _costs(self) -> dict[str, float | None]:
        return {**self.tally.means(), "epsilon": self.epsilon}
