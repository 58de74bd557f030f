"""A client's half of a federation: join, keep in step, answer, and never lose more than time."""

from __future__ import annotations

import logging
import secrets
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from threading import Event
from typing import Any

import numpy as np

from baffle import __version__
from baffle.client import Client, Contribution, answer, contributions
from baffle.engines.network.covert import Enrol, Meet, Open, Told, Vow
from baffle.engines.network.dialogue import (
    PARK,
    Begin,
    Bye,
    Call,
    Challenge,
    Done,
    Fetch,
    Gone,
    Hello,
    Kind,
    Offer,
    Part,
    Refused,
    Reply,
    Steps,
    Stranger,
    Turn,
    Wait,
    Welcome,
    Words,
    heard,
    run_name,
    sealed,
)
from baffle.engines.network.home import Home
from baffle.engines.network.masker import Masker
from baffle.engines.network.shelf import digest_of
from baffle.engines.network.steps import OutOfStepError, asked, follow, numbers_of
from baffle.errors import BaffleError, LedgerError, ModelError, ReportError
from baffle.header import Header
from baffle.kernels import Kernels
from baffle.keys import Key
from baffle.messages import PROTOCOL, Plan, decode, encode
from baffle.runtimes import Batch, Runtime
from baffle.server import State

CLOCKS = 300.0
"""Seconds by which two clocks may differ before it is worth a word."""
_LONGEST = 4.0
"""Seconds between two tries to reach a server, at most."""
_SLIPS = 3
"""Times in a row that a state may turn out not to be the server's."""

log = logging.getLogger("baffle")


class SecureError(BaffleError):
    """A secure sum can't be taken part in as the server asks."""


class RefusedError(ReportError):
    """The server does not admit this client; trying again can't help."""


@dataclass(frozen=True, slots=True)
class Equipment:
    """What a client answers with."""

    runtime: Runtime
    samples: int
    """≥ 1."""
    draw: Callable[[np.random.Generator, int], Batch]
    """(generator, batch size) -> a mini-batch."""
    private: Key
    """Of batches and rounding."""
    randomness: Callable[[int], bytes] = secrets.token_bytes
    """Of noise that protects."""


@dataclass(frozen=True, slots=True)
class Where:
    """How far a client is."""

    round: int
    answered: int
    """Reports made by this process."""
    up: int
    """Bytes of messages to the server."""
    down: int
    """Bytes of messages from it."""


@dataclass(slots=True, kw_only=True)
class Member:
    """A client of a federation, by whatever carries its questions."""

    ask: Callable[[bytes, float], bytes | None]
    """(message, seconds) -> the server's reply, or None."""
    number: int
    certificate: bytes = b""
    """PEM, of the key that signs; empty without keys."""
    sign: Callable[[bytes], bytes] = lambda _: b""
    masker: Masker | None = None
    """For secure sums; None without keys."""
    secure: bool = False
    """Whether to take part in secure sums alone."""
    home: Home
    equip: Callable[[Welcome], Equipment]
    """From the experiment's settings, as the server tells them: untrusted."""
    kernels: Kernels
    patience: float = PARK + 10.0
    """Seconds to wait for a reply; more than the server's patience with a client."""
    save_seconds: float = 60.0
    """Least seconds between two states on disk."""
    why: Callable[[], str] = lambda: ""
    """Why the server can't be reached, in words; empty where it can."""
    told: Callable[[Where], None] = lambda _: None
    session: bytes = field(default_factory=lambda: secrets.token_bytes(8))
    stopped: Event = field(default_factory=Event)
    _equipment: Equipment | None = None
    _about: tuple[Mapping[str, Any], Kind] | None = None
    _header: Header | None = None
    _run: bytes = b""
    _state: State | None = None
    _report: bytes = b""
    _told: Told | None = None
    """The part in secure sums that the server may not have yet."""
    _plan: Plan | None = None
    """The last that was asked, from the state held."""
    _of: tuple[bytes, int, int] | None = None
    """Run, round and attempt of the report."""
    _fresh: bool = False
    """Whether the server may not have the report yet."""
    _spent: int = 0
    _behind: bool = True
    """Whether no round was answered since the client joined."""
    _serial: int = 0
    _slips: int = 0
    _saved: tuple[int, float] = (-1, 0.0)
    """Version on disk, and when it was written."""
    _answered: int = 0
    _up: int = 0
    _down: int = 0
    _trouble: str = ""
    _tries: int = 0
    """Messages without a reply, one after another."""

    def run(self) -> State | None:
        """Take part until the run is over, and return the last state; None where `stopped` is set before.

        Raises:
            RefusedError: the server does not admit this client.
            ModelError: its model is not the run's, or can't be evaluated.
            BaffleError: this machine computes other models than the server.
        """
        try:
            self._join()
            self._take_up()
            while not self.stopped.is_set():
                reply = self._asked(self._turn())
                if reply is None:
                    continue
                self._fresh = self._fresh and isinstance(reply, Stranger)
                self._told = self._told if isinstance(reply, Stranger) else None
                if self._heed(reply):
                    return self._state
            return None
        finally:
            self._save(0.0)

    def _join(self) -> None:
        """Say hello until the server knows this process."""
        challenge = b""
        while not self.stopped.is_set():
            reply = self._asked(Hello(PROTOCOL, f"baffle {__version__}", self.certificate, challenge))
            if isinstance(reply, Challenge):
                challenge = reply.challenge
            elif isinstance(reply, Welcome):
                self._welcomed(reply)
                return

    def _welcomed(self, welcome: Welcome) -> None:
        off = welcome.time - time.time()
        if abs(off) > CLOCKS:
            log.warning("the server's clock is %.0f s %s this one", abs(off), "ahead of" if off > 0 else "behind")
        about = (welcome.settings, welcome.kind)
        if self._equipment is None or about != self._about:
            self._about, self._equipment = about, self.equip(welcome)
        self._behind = True
        log.info("joined as client %d, with %d samples", self.number, self._equipment.samples)

    def _take_up(self) -> None:
        """Go on with the latest run of this model of which there is a state here."""
        for name in self.home.runs():
            encoded = self.home.header(name)
            if encoded is None:
                continue
            try:
                return self._begin(encoded, anew=False)
            except ModelError:  # of another experiment, kept in the same folder
                continue
        return None

    def _turn(self) -> Turn:
        samples = self._equipment.samples if self._equipment is not None else 1
        version = self._state.round if self._state is not None else None
        report = self._report if self._fresh else b""
        epoch = self.masker.epoch if self.masker is not None else b""
        return Turn(self._serial, self._run, version, self._said(samples), report, self._spent, self._told, epoch)

    def _said(self, samples: int) -> int:
        """Return what the server is told of this client's size: where sums are secure, the next power of two."""
        hides = self.secure or (self._about is not None and self._about[0].get("secure", "none") != "none")
        return 1 << (samples - 1).bit_length() if hides else samples

    def _asked(self, words: Words) -> Reply | None:
        """Return the server's reply, or None after a pause where it has none, or nothing that can be understood."""
        self._serial += 1
        data = sealed(self.number, self.session, words, self.sign)
        self._up += len(data)
        answer = self.ask(data, self.patience)
        if answer is None:
            return self._wait("")
        self._down += len(answer)
        try:
            reply = heard(answer)
        except ReportError as error:
            return self._wait(str(error))
        if isinstance(reply, Refused):
            if reply.final:
                raise RefusedError(f"the server refuses client {self.number}: {reply.reason}")
            return self._wait(f"the server refuses a message: {reply.reason}")
        if self._trouble:
            log.info("the server answers again")
        self._trouble, self._tries = "", 0
        return reply

    def _wait(self, trouble: str) -> None:
        """Say once what is wrong, and wait, longer each time, before the next try.

        Why there is no reply is looked into ever more rarely: a link that is refused costs the server time.
        """
        self._tries += 1
        if not trouble and self._tries & (self._tries - 1) == 0:
            trouble = self.why() or "no reply yet"
        if trouble and trouble != self._trouble:
            log.warning("%s; trying again", trouble.rstrip("."))
            self._trouble = trouble
        self.stopped.wait(min(_LONGEST, 0.125 * 1.5**self._tries, self.patience / 4))

    def _heed(self, reply: Reply) -> bool:
        """Do what the server says; return whether the run is over."""
        try:
            if isinstance(reply, Enrol | Meet | Vow | Open):
                self._take_part(reply)
            elif isinstance(reply, Done):
                return self._end(reply)
            elif not isinstance(reply, Wait):
                self._go_on(reply)
        except OutOfStepError as error:
            self._slipped(error)
        except SecureError as error:
            self._wait(f"secure sums: {error}")
        return False

    def _go_on(self, reply: Reply) -> None:
        match reply:
            case Stranger():
                self._join()
            case Begin():
                self._begin(reply.header, anew=reply.anew)
            case Steps():
                self._follow(reply)
            case Call():
                self._follow(reply)
                self._call(reply)
            case Offer():
                self._fetch(reply)
            case _:
                log.warning("the server says what does not belong here: %s", type(reply).__name__)

    def _end(self, done: Done) -> bool:
        self._follow(done)
        self._leave()
        log.info("the run is over after %d rounds", self._state.round if self._state else 0)
        return True

    def _leave(self) -> None:
        """Say that the end was heard, so that the server need not wait; it will not wait for long if this is lost."""
        data = sealed(self.number, self.session, Bye(), self.sign)
        any(self.ask(data, min(1.0, self.patience)) is not None for _ in range(3))

    def _slipped(self, error: OutOfStepError) -> None:
        self._slips += 1
        if self._slips > _SLIPS:
            raise BaffleError(f"this machine computes other models than the server, {_SLIPS} times in a row: {error}")
        log.warning("out of step with the server: %s; asking for a snapshot", error)
        self._state, self._report, self._plan = None, b"", None

    def _begin(self, encoded: bytes, *, anew: bool) -> None:
        """Take up a run, from the state here or from its beginning."""
        name = run_name(encoded)
        if name == self._run and self._state is not None and not anew:
            return
        header = decode(encoded, Header)
        if header.federation.layout != self._own().runtime.layout:
            raise ModelError("the run's model has other tensors than the one here; take the model of the experiment")
        if name != self._run:
            self.home.keep_header(name.hex(), encoded)
        self._run, self._header, self._report, self._plan, self._slips = name, header, b"", None, 0
        if anew:
            self.home.forget(name.hex())
        self._state = self.home.state(name.hex(), header) or self._first(header, anew=anew)
        self._saved = (-1, 0.0)

    def _first(self, header: Header, *, anew: bool) -> State | None:
        """Return the run's first state, or None where it has to come from the server."""
        try:
            return header.start(self._own().runtime.given)
        except LedgerError as error:
            if anew:
                raise ModelError(f"the run can't begin here: {error}") from None
            return None

    def _follow(self, reply: Steps | Call | Done) -> None:
        header, state = self._held()
        if self._behind and len(reply.steps) > 1:
            log.info("catching up by replay: rounds %d to %d", reply.steps[0].round, reply.steps[-1].round)
        for step in reply.steps:
            self._state = state = follow(header, state, step, self.kernels, self._plan)
            self._plan = None
            self._slips = 0
        if self.masker is not None:
            self.masker.forget(state.round)
        if reply.steps:
            self._save(self.save_seconds)
            self._tell()

    def _take_part(self, reply: Enrol | Meet | Vow | Open) -> None:
        """Do what a secure sum needs."""
        masker = self._masker()
        try:
            match reply:
                case Enrol():
                    self._told = masker.enrol(reply)
                case Meet():
                    self._told = masker.meet(reply)
                case Vow():
                    self._told = masker.pledge(reply.slot)
                case Open():
                    self._told = masker.open(reply.request)
        except ReportError as error:
            raise SecureError(str(error)) from None

    def _masked(self, plan: Plan, cohort: bytes) -> None:
        """Mask this client's part of a round."""
        header, state = self._held()
        began = time.monotonic()

        def contribution() -> Contribution:
            own, made = self._client(header), self._own()
            self._answered += 1
            return contributions(plan, state.parameters, [own], made.runtime, self.kernels)[0]

        try:
            numbers = tuple(numbers_of(cohort, header.federation.clients))
            self._told = self._masker().mask(plan, numbers, contribution)
        except ReportError as error:
            raise SecureError(str(error)) from None
        self._spent = round(1000 * (time.monotonic() - began))

    def _masker(self) -> Masker:
        if self.masker is None:
            raise RefusedError("sums are secure here, and need keys: `baffle keys client` makes them")
        return self.masker

    def _client(self, header: Header) -> Client:
        own = self._own()
        weight = min(own.samples, header.federation.most_samples)
        return Client(self.number, weight, own.private, own.draw, own.randomness)

    def _call(self, call: Call) -> None:
        """Answer a round, or find the answer given before."""
        header, state = self._held()
        self._plan = plan = asked(header, state, call)
        if call.masked is not None:
            self._behind = False
            self._masked(plan, call.masked)
        elif self.secure or header.federation.secure:
            raise RefusedError("a report in the open is asked for, and this client takes part in secure sums alone")
        else:
            self._report_on(plan, header, state)

    def _report_on(self, plan: Plan, header: Header, state: State) -> None:
        """Make a report in the open, or find the one made before."""
        of = (self._run, plan.round, plan.attempt)
        self._fresh, self._behind = True, False
        if of == self._of and self._report:
            return
        began = time.monotonic()
        report = answer(plan, state.parameters, self._client(header), self._own().runtime, self.kernels)
        self._report, self._of = encode(report), of
        self._spent = round(1000 * (time.monotonic() - began))
        self._answered += 1

    def _fetch(self, offer: Offer) -> None:
        """Fetch a snapshot, part by part."""
        log.info("fetching a snapshot of round %d, %d bytes", offer.version, offer.size)
        data = bytearray()
        while len(data) < offer.size and not self.stopped.is_set():
            reply = self._asked(Fetch(offer.digest, len(data)))
            if isinstance(reply, Part) and reply.data:
                data += reply.data
            elif isinstance(reply, Stranger):
                return self._join()
            elif isinstance(reply, Gone):
                return None
        if self._header is None or len(data) != offer.size:
            return None
        if digest_of(bytes(data)) != offer.digest:
            raise OutOfStepError("a snapshot came damaged")
        try:
            self._state = self.home.taken(self._run.hex(), bytes(data), offer.version, self._header)
        except LedgerError as error:
            raise OutOfStepError(str(error)) from None
        self._report, self._plan, self._saved = b"", None, (self._state.round, time.monotonic())
        self._tell()
        return None

    def _own(self) -> Equipment:
        if self._equipment is None:
            raise OutOfStepError("the server has not said what the run is about")
        return self._equipment

    def _held(self) -> tuple[Header, State]:
        if self._header is None or self._state is None:
            raise OutOfStepError("a round came without a state to do it from")
        return self._header, self._state

    def _save(self, seconds: float) -> None:
        if self._header is None or self._state is None:
            return
        version, moment = self._saved
        if self._state.round != version and time.monotonic() - moment >= seconds:
            self.home.keep(self._run.hex(), self._header, self._state)
            self._saved = (self._state.round, time.monotonic())

    def _tell(self) -> None:
        self.told(Where(self._state.round if self._state else 0, self._answered, self._up, self._down))


__all__ = ["Equipment", "Member", "RefusedError", "Where"]
