"""How far a client is in a run: the state it holds, moved by the server's steps and kept on its disk."""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
from dataclasses import dataclass

from baffle.engines.network.dialogue import Call, Step, run_name
from baffle.engines.network.home import Home
from baffle.engines.network.steps import OutOfStepError, asked, follow, refuse_other_state
from baffle.errors import BaffleError, LedgerError, ModelError
from baffle.header import Header
from baffle.kernels import Kernels
from baffle.messages import Plan, decode
from baffle.runtimes import Runtime
from baffle.server import State

_SLIPS = 3
"""Times in a row that a state may turn out not to be the server's."""

log = logging.getLogger("baffle")


@dataclass(slots=True, kw_only=True)
class Standing:
    """A client's copy of a run."""

    home: Home
    kernels: Kernels
    save_seconds: float = 60.0
    """Least seconds between two states on disk."""
    run: bytes = b""
    """Its name; empty before there is one."""
    header: Header | None = None
    state: State | None = None
    """None where it has to come from the server."""
    _plan: Plan | None = None
    """The last that was asked, from the state held."""
    _slips: int = 0
    _saved: tuple[int, float] = (-1, 0.0)
    """Version on disk, and when it was written."""

    @property
    def version(self) -> int | None:
        """Rounds that the state has behind it."""
        return self.state.round if self.state is not None else None

    def take_up(self, runtime: Runtime) -> None:
        """Go on with the latest run of this model of which there is a state on disk."""
        for name in self.home.runs():
            encoded = self.home.header(name)
            if encoded is None:
                continue
            try:
                self.begin(encoded, runtime, anew=False)
            except ModelError:  # of another experiment, kept in the same folder
                continue
            return

    def begin(self, encoded: bytes, runtime: Runtime, *, anew: bool) -> bool:
        """Take up a run, from the state on disk or from its beginning; return False where it goes on already.

        Args:
            encoded: the run's header.
            runtime: of the model that is here.
            anew: whether what is on disk is of no use.

        Raises:
            ModelError: the run is of another model.
        """
        name = run_name(encoded)
        if name == self.run and self.state is not None and not anew:
            return False
        header = decode(encoded, Header)
        if header.federation.layout != runtime.layout:
            raise ModelError("the run's model has other tensors than the one here; take the model of the experiment")
        if name != self.run:
            self.home.keep_header(name.hex(), encoded)
        self.run, self.header, self._plan, self._slips = name, header, None, 0
        if anew:
            self.home.forget(name.hex())
        self.state = self.home.state(name.hex(), header) or _first(header, runtime, anew=anew)
        self._saved = (-1, 0.0)
        return True

    def follow(self, steps: Sequence[Step]) -> State:
        """Move the state by the server's steps, and return it.

        Raises:
            OutOfStepError: they do not lead on from it, or to another model than the server's.
        """
        header, state = self.held()
        for step in steps:
            self.state = state = follow(header, state, step, self.kernels, self._plan)
            self._plan, self._slips = None, 0
        if steps:
            self.save(self.save_seconds)
        return state

    def asked(self, call: Call) -> Plan:
        """Return the plan that a call means.

        Raises:
            OutOfStepError: it is not what follows from the state.
        """
        header, state = self.held()
        self._plan = None  # of as many clients as the next: they need not be there twice
        self._plan = asked(header, state, call)
        return self._plan

    def replace(self, snapshot: bytes, version: int) -> None:
        """Go on from a snapshot that the server sent.

        Raises:
            OutOfStepError: it is damaged.
        """
        if self.header is None:
            return
        try:
            state = self.home.taken(self.run.hex(), snapshot, version, self.header)
        except LedgerError as error:
            raise OutOfStepError(str(error)) from None
        try:
            refuse_other_state(self.header, state)
        except OutOfStepError:
            self.home.forget(self.run.hex())
            raise
        self.state = state
        self._plan, self._saved = None, (self.state.round, time.monotonic())

    def slipped(self, error: OutOfStepError) -> None:
        """Let go of a state that turned out not to be the server's.

        Raises:
            BaffleError: that has happened several times in a row.
        """
        self._slips += 1
        if self._slips > _SLIPS:
            raise BaffleError(f"this machine computes other models than the server, {_SLIPS} times in a row: {error}")
        log.warning("out of step with the server: %s; asking for a snapshot", error)
        self.state, self._plan = None, None

    def held(self) -> tuple[Header, State]:
        """Return the run's header and the state.

        Raises:
            OutOfStepError: there is none.
        """
        if self.header is None or self.state is None:
            raise OutOfStepError("a round came without a state to do it from")
        return self.header, self.state

    def save(self, seconds: float) -> None:
        """Keep the state on disk if it is not there and the last was written so many seconds ago."""
        if self.header is None or self.state is None:
            return
        version, moment = self._saved
        if self.state.round != version and time.monotonic() - moment >= seconds:
            self.home.keep(self.run.hex(), self.header, self.state)
            self._saved = (self.state.round, time.monotonic())


def _first(header: Header, runtime: Runtime, *, anew: bool) -> State | None:
    """Return the run's first state, or None where it has to come from the server."""
    try:
        return header.start(runtime.given)
    except LedgerError as error:
        if anew:
            raise ModelError(f"the run can't begin here: {error}") from None
        return None
