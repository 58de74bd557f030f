"""A federation of machines, from the server's side: a run that clients join, leave and take up again."""

from __future__ import annotations

import logging
import secrets
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec

from baffle import checks, server
from baffle import run as runs
from baffle.engines.network.hub import Hub
from baffle.engines.network.shelf import Shelf
from baffle.errors import SettingsError
from baffle.header import Header, initial_parameters
from baffle.keys import BYTES
from baffle.parameters import digest
from baffle.progress import Progress, Result
from baffle.server import State
from baffle.session import Session
from baffle.simulation import Simulation
from baffle.training import Training

MOST_SAMPLES = 1 << 31
_FOREVER = 1 << 62
log = logging.getLogger("baffle")


@dataclass(frozen=True, slots=True, kw_only=True)
class Service:
    """A run whose clients are elsewhere.

    Raises:
        SettingsError: a field is out of its range.
    """

    simulation: Simulation
    """The model, the method and held-out samples; its clients' samples are not used, but where `reproducible`."""
    hub: Hub
    """Whose clients have been admitted, or will be."""
    out: Path
    """The run's folder. A run that is there already goes on."""
    reproducible: bool = False
    """Whether the run's secret comes from the experiment's seed, and clients are those of the simulation: then the
    ledger is the local engine's. For tests and research: whoever knows the seed knows the secret."""
    least: int = 0
    """Clients that must be there before a new run begins, ≥ 0; 0 is all that may join."""
    replay: int = -1
    """Bytes of missed rounds beyond which a client gets a snapshot; −1 is the size of a snapshot."""
    most_samples: int = MOST_SAMPLES
    """A client that says it has more counts as much as one with so many, ≥ 1."""
    linger: float = 30.0
    """Seconds for which clients are told that the run is over, if they do not all hear it at once."""
    held: bool = False
    """Whether the caller keeps other processes from the folder already."""

    def __post_init__(self) -> None:
        if self.simulation.secure == "ideal":
            raise SettingsError("secure", "ideal", "must be 'masks' or 'none' where clients are elsewhere")
        checks.at_least("least", self.least, 0)
        checks.at_least("replay", self.replay, -1)
        checks.at_least("linger", self.linger, 0)
        checks.within("most_samples", self.most_samples, 1, MOST_SAMPLES)

    def run(
        self, rounds: int, *, settings: Mapping[str, Any], progress: Callable[[Progress], None] = lambda _: None
    ) -> Result:
        """Return the result after `rounds` rounds in all.

        Raises:
            SettingsError: the folder holds a run with other settings.
            LedgerError: the run there does not verify, or the disk refuses a record: nothing before it is lost.
            DivergenceError: training left the finite numbers; every round before is kept.
        """
        begun = (self.out / runs.LEDGER).exists()
        found = runs.header_of(self.out)  # None as well where a server was killed as it wrote the header
        header = self._new() if found is None else self._again(found)
        session = self._session(header, rounds, progress)
        with session:
            shelf = self._open(header if found is None else found)
            state = self._resumed(session, settings) if begun else session.begin(settings)
            self._keep_first(session, state, shelf)
            self.hub.start()
            begun_with, kernels = session.header, self.simulation.kernels
            training = Training(
                begun_with.algorithm,
                begun_with.federation,
                self.hub,
                kernels,
                session.record,
                session.watch,
                _FOREVER,
                session.account,
                session.intend if begun_with.guarded else None,
            )
            result = session.finish(training.run(state, rounds))
            self.hub.finish(self.linger)
            return result

    def _resumed(self, session: Session, settings: Mapping[str, Any]) -> State:
        try:
            return session.resume(settings, self.simulation.kernels)
        except SettingsError as error:
            if error.field != "resume":
                raise
            rule = f"holds a run that {error.rule}. Name another folder, or go back to them"
            raise SettingsError("out", str(self.out), rule) from None

    def _session(self, header: Header, rounds: int, progress: Callable[[Progress], None]) -> Session:
        own = self.simulation
        return Session(
            header=header,
            given=own.runtime.given,
            evaluate=own.evaluate,
            evaluate_every=own.evaluate_every,
            snapshot_every=own.snapshot_every,
            rounds=rounds,
            out=self.out,
            progress=progress,
            observe=self.hub.closed,
            held=self.held,
        )

    def _new(self) -> Header:
        """Return the header of a run that begins now, with the clients that are there."""
        header = self.simulation.header()
        least = self.least or self.hub.roster.expected
        samples = self.hub.gathered(least)
        if self.reproducible:
            return header
        log.info("the run begins with %s", ", ".join(f"client {n} ({count} samples)" for n, count in samples.items()))
        key = secrets.token_bytes(BYTES)
        told = tuple(min(samples.get(number, 0), self.most_samples) for number in range(header.federation.clients))
        most = 1 if self.simulation.weight == "equal" else max(told)
        made = self._with(header, key, told, most)
        # What can't be planned is refused before the run begins.
        server.plan(made.algorithm, made.federation, made.start(self.simulation.runtime.given))
        return made

    def _again(self, found: Header) -> Header:
        """Return what the header of the run that is here would be with these settings."""
        header = self.simulation.header()
        if self.reproducible:
            return header
        federation = found.federation
        return self._with(header, federation.key, found.samples, federation.most_samples)

    def _with(self, header: Header, key: bytes, samples: tuple[int, ...], most: int) -> Header:
        federation = msgspec.structs.replace(header.federation, key=key, most_samples=most)
        initial = digest(initial_parameters(federation, self.simulation.runtime.given))
        return msgspec.structs.replace(header, federation=federation, samples=samples, initial=initial)

    def _open(self, header: Header) -> Shelf:
        state = header.start(self.simulation.runtime.given)
        vectors = 2 + len(state.memory)
        most = vectors * state.parameters.nbytes if self.replay < 0 else self.replay
        shelf = Shelf(self.out / runs.SNAPSHOTS, header.federation.layout)
        self.hub.open(header, shelf, most_bytes=most)
        return shelf

    @staticmethod
    def _keep_first(session: Session, state: State, shelf: Shelf) -> None:
        """Keep a snapshot for clients that can't draw θ₀ from the run's key."""
        if session.run is not None and session.header.federation.layout.given and shelf.newest() is None:
            session.run.snapshot(state)
