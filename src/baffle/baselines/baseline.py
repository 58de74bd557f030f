"""A baseline's whole run in one process."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import numpy as np

from baffle import checks, extras, server
from baffle.baselines.journal import METRICS, Journal, fingerprint
from baffle.baselines.step import start, step
from baffle.baselines.work import Differentiating, Gradient, Method, Rebuilding, Work, weighted_mean
from baffle.curve import Curve
from baffle.engines.presence import there
from baffle.errors import DivergenceError, ModelError, SettingsError
from baffle.header import Header
from baffle.keys import Key
from baffle.metrics import Metrics
from baffle.parameters import Vector, digest
from baffle.progress import Progress, Result, peak_memory
from baffle.runtimes import Batch, Runtime
from baffle.server import State
from baffle.simulation import Share, Simulation
from baffle.tally import Tally
from baffle.training import ATTEMPTS

_LOOKED_AT = 16
"""Samples of a client by which its data are known again."""


class Attempt(NamedTuple):
    """Who took part in an attempt at a round."""

    round: int
    number: int
    cohort: tuple[int, ...]
    answered: tuple[int, ...]
    complete: bool
    """Whether enough answered."""


@dataclass(frozen=True, slots=True)
class Baseline:
    """A method that Baffle is compared with, on a simulated federation.

    Data, model, first weights, cohorts, absences and mini-batches are those of the simulation with its seed; its own
    algorithm and engine are not used. There is no ledger: the curve is the record, and snapshots are what a run is
    taken up from. With equal arguments on one machine every weight is the same to the bit.

    Raises:
        SettingsError: the federation's engine is not "local".
    """

    method: Method
    federation: Simulation

    def __post_init__(self) -> None:
        checks.one_of("engine", self.federation.engine, ("local",))

    @property
    def runtime(self) -> Runtime:
        """What evaluates losses."""
        return self.federation.runtime

    @property
    def shares(self) -> Sequence[Share]:
        """Of each client."""
        return self.federation.shares

    def run(
        self,
        rounds: int,
        *,
        out: Path | None = None,
        resume: bool = False,
        settings: Mapping[str, Any] | None = None,
        progress: Callable[[Progress], None] = lambda _: None,
    ) -> Result:
        """Return the result after `rounds` rounds in all; arguments as in `Simulation.run`.

        A resumed run goes on from its newest snapshot: rounds after it are done again, and come out the same.

        Raises:
            SettingsError: an argument is out of its range; `out` holds a run already, or, with `resume`, another one.
            ModelError: the model can't be differentiated, and has to be.
            DivergenceError: training left the finite numbers, or a round never met its quorum; snapshots are kept.
        """
        checks.at_least("rounds", rounds, 0)
        header, gradient = self.federation.header(), self._gradient()
        with closing(Journal(out, self.runtime.layout, self._about(header))) as journal:
            curve = self._curve(rounds, out, progress)
            return self._run(rounds, header, gradient, journal, curve, settings or self.settings(rounds), resume=resume)

    def _run(
        self,
        rounds: int,
        header: Header,
        gradient: Gradient,
        journal: Journal,
        curve: Curve,
        settings: Mapping[str, Any],
        *,
        resume: bool,
    ) -> Result:
        tally = Tally.of(header.samples)
        state = self._begin(header, journal, curve, settings, resume=resume)
        answered = self._recount(header, tally, state.round)
        if curve.due(state) and not curve.has(state):
            curve.measure(state, answered, tally.means())
        for attempt in self._attempts(header.federation, state.round, rounds):
            self._count(tally, attempt)
            if attempt.complete:
                state = self._advance(state, attempt, gradient, header)
            self._show(curve, journal, tally, state, attempt)
        return self._result(state, curve, journal, tally)

    def _curve(self, rounds: int, out: Path | None, progress: Callable[[Progress], None]) -> Curve:
        return Curve(
            evaluate=self.federation.evaluate,
            every=self.federation.evaluate_every,
            rounds=rounds,
            metrics=Metrics(out / METRICS if out else None),
            progress=progress,
        )

    def _begin(
        self, header: Header, journal: Journal, curve: Curve, settings: Mapping[str, Any], *, resume: bool
    ) -> State:
        """Return the state to go on from: the newest on disk, or the first one, which is put there."""
        state = journal.resume(settings) if resume else None
        if state is not None:
            curve.resume(state)
            return state
        state = start(self.method, header.start(self.runtime.given).parameters)
        journal.begin(settings, state)
        return state

    def _show(self, curve: Curve, journal: Journal, tally: Tally, state: State, attempt: Attempt) -> None:
        if attempt.complete and (state.round % self.federation.snapshot_every == 0 or state.round == curve.rounds):
            journal.keep(state)
        if attempt.complete and curve.due(state):
            curve.measure(state, len(attempt.answered), tally.means())
        else:
            curve.tell(state, len(attempt.answered), tally.means())

    def _result(self, state: State, curve: Curve, journal: Journal, tally: Tally) -> Result:
        if not curve.has(state):
            curve.measure(state, 0, tally.means())
        result = Result(
            rounds=state.round,
            seconds=curve.seconds,
            peak_memory_bytes=peak_memory(),
            digest=digest(state.parameters),
            ledger_digest="",
            parameters=state.average,
            layout=self.runtime.layout,
            clients=tally.rows(),
            **tally.means(),
            **curve.measured(),
        )
        journal.finish(result.summary())
        return result

    def _advance(self, state: State, attempt: Attempt, gradient: Gradient, header: Header) -> State:
        """Return the state after a round."""
        shared = Key(header.federation.key).fold("round", attempt.round, attempt.number, "directions")
        private, weights = self.federation.key.fold("clients"), self.federation.weights()
        with np.errstate(over="ignore", invalid="ignore", divide="ignore"):  # `step` refuses what is not finite
            answers = [
                self.method.answer(
                    Work(
                        parameters=state.parameters,
                        share=self.shares[client],
                        runtime=self.runtime,
                        gradient=gradient,
                        kernels=self.federation.kernels,
                        shared=shared,
                        private=private.fold(client),
                        round=attempt.round,
                        attempt=attempt.number,
                    )
                )
                for client in attempt.answered
            ]
            mean = weighted_mean(answers, [weights[client] for client in attempt.answered])
        if isinstance(self.method, Rebuilding):
            mean = self.method.rebuild(mean, state.parameters.size, shared, self.federation.kernels)
        return step(self.method, state, mean)

    def _attempts(self, federation: server.Federation, first: int, rounds: int) -> Iterator[Attempt]:
        """Yield the attempts at rounds `first` to `rounds`: who is asked and who answers follows from the key alone.

        Raises:
            DivergenceError: a round never has enough answers.
        """
        chance, unavailable = self.federation.key.fold("unavailable"), self.federation.unavailable
        for number in range(first, rounds):
            for attempt in range(ATTEMPTS):
                cohort = server.cohort_of(federation, number, attempt)
                answered = tuple(there(cohort, unavailable, chance.fold(number, attempt)) if unavailable else cohort)
                complete = len(answered) >= min(federation.least, len(cohort))
                yield Attempt(number, attempt, cohort, answered, complete)
                if complete:
                    break
            else:
                raise DivergenceError(
                    f"round {number} was tried {ATTEMPTS} times and never had {federation.least} answers "
                    f"of {federation.cohort_size} clients"
                )

    def _count(self, tally: Tally, attempt: Attempt) -> None:
        cohort, answered = list(attempt.cohort), list(attempt.answered)
        traffic = self.method.traffic(self.runtime.layout.size)
        tally.sampled[cohort] += 1
        tally.answered[answered] += 1
        tally.forwards[answered] += [self.method.forwards(self.shares[client].indices.size) for client in answered]
        tally.upload[answered] += traffic.up
        tally.download[cohort] += traffic.down
        if attempt.complete:
            tally.download += traffic.news

    def _recount(self, header: Header, tally: Tally, rounds: int) -> int:
        """Count the rounds of earlier processes, and return how many clients answered in the last."""
        answered = 0
        for attempt in self._attempts(header.federation, 0, rounds):
            self._count(tally, attempt)
            answered = len(attempt.answered)
        return answered

    def _gradient(self) -> Gradient:
        """Return what differentiates, tried out on two samples; for a method that doesn't, something that refuses.

        Raises:
            SettingsError, ModelError: the model can't be differentiated.
        """
        if not isinstance(self.method, Differentiating):
            return _refuse
        extras.require("torch", "train")
        from baffle.baselines.backpropagation import Backpropagation
        from baffle.runtimes.torch import TorchRuntime

        if not isinstance(self.runtime, TorchRuntime):
            raise SettingsError(
                "runtime", type(self.runtime).__name__, "must be torch with a method that differentiates"
            )
        gradient = Backpropagation(self.runtime, checkpointing=self.method.checkpointing)
        share = self.shares[0]
        gradient(self.runtime.layout.flatten(self.runtime.given), share.data.take(share.indices[:2]))
        return gradient

    def _about(self, header: Header) -> bytes:
        """Return the fingerprint of what a run depends on; weights that came with a model are in its snapshots.

        Of each client's data some samples stand for all.
        """
        federation = msgspec.structs.replace(header.federation, costs=())
        own = (
            type(self.method).__name__,
            self.method,
            federation,
            header.samples,
            self.federation.weights(),
            self.federation.unavailable,
            "" if federation.layout.given else header.initial,
        )
        return fingerprint(msgspec.msgpack.encode(own), *(_looked_at(share) for share in self.shares))

    def settings(self, rounds: int) -> dict[str, Any]:
        """Return what was asked for, in words and numbers."""
        name = type(self.method).__name__
        return self.federation.settings(rounds) | {"algorithm": {"name": name, **msgspec.to_builtins(self.method)}}


def pooled(federation: Simulation) -> Simulation:
    """Return a federation of one client that has the samples of all, which must be of one data set.

    Raises:
        SettingsError: they are of several.
    """
    data = federation.shares[0].data
    if any(share.data is not data for share in federation.shares):
        raise SettingsError("clients", len(federation.shares), "must share one data set to be pooled")
    everything = Share(data, np.concatenate([share.indices for share in federation.shares]))
    return replace(federation, shares=[everything], participation=1.0, unavailable=0.0)


def _looked_at(share: Share) -> bytes:
    """Return the bytes of some of a client's samples, evenly spread."""
    places = np.unique(np.linspace(0, share.indices.size - 1, _LOOKED_AT).astype(np.int64))
    return b"".join(np.ascontiguousarray(part).tobytes() for part in share.data.take(share.indices[places]))


def _refuse(parameters: Vector, batch: Batch) -> Vector:
    del parameters, batch
    raise ModelError("this method has no gradients: it evaluates losses alone")
