"""A client's half of a federation: join, keep in step, answer, and never lose more than time."""

from __future__ import annotations

import logging
import secrets
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import msgspec
import numpy as np

from baffle import __version__
from baffle.client import Client, Contribution, answer, contributions
from baffle.engines.network.channel import Channel, RefusedError
from baffle.engines.network.covert import Confirm, Enrol, Meet, Open, Told, Vow
from baffle.engines.network.dialogue import (
    PROTOCOL,
    Begin,
    Call,
    Challenge,
    Done,
    Fetch,
    Gone,
    Hello,
    Kind,
    Offer,
    Part,
    Reply,
    Step,
    Steps,
    Stranger,
    Turn,
    Wait,
    Welcome,
)
from baffle.engines.network.masker import Masker
from baffle.engines.network.promise import Wanted
from baffle.engines.network.shelf import digest_of, largest
from baffle.engines.network.standing import Standing
from baffle.engines.network.steps import OutOfStepError, numbers_of
from baffle.errors import BaffleError, ReportError
from baffle.header import Header
from baffle.keys import Key
from baffle.messages import Plan, encode
from baffle.runtimes import Batch, Runtime
from baffle.server import State

CLOCKS = 300.0
"""Seconds by which two clocks may differ before it is worth a word."""

log = logging.getLogger("baffle")


class SecureError(BaffleError):
    """A secure sum can't be taken part in as the server asks."""


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
    reproducible: bool = False
    """Whether `private` is used as it is, so that sums are those of a simulation: for tests and research."""


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

    channel: Channel
    standing: Standing
    equip: Callable[[Welcome], Equipment]
    """From the experiment's settings, as the server tells them: untrusted."""
    certificate: bytes = b""
    """PEM, of the key that signs; empty without keys."""
    masker: Masker | None = None
    """For secure sums; None without keys."""
    secure: bool = False
    """Whether to take part in secure sums alone."""
    wanted: Wanted | None = None
    """What a run must promise this client before it answers; None wants no promise."""
    _promised: bytes = b""
    """The run whose promise has been looked at."""
    told: Callable[[Where], None] = lambda _: None
    _equipment: Equipment | None = None
    _about: tuple[Mapping[str, Any], Kind] | None = None
    _report: bytes = b""
    _of: tuple[bytes, int, int] | None = None
    """Run, round and attempt of the report."""
    _fresh: bool = False
    """Whether the server may not have the report yet."""
    _told: Told | None = None
    """The part in secure sums that the server may not have yet."""
    _spent: int = 0
    _behind: bool = True
    """Whether no round was answered since the client joined."""
    _answered: int = 0

    def run(self) -> State | None:
        """Take part until the run is over, and return the last state; None where the channel is stopped before.

        Raises:
            RefusedError: the server does not admit this client.
            ModelError: its model is not the run's, or can't be evaluated.
            BaffleError: this machine computes other models than the server.
        """
        try:
            self._join()
            if self._equipment is not None:
                self.standing.take_up(self._equipment.runtime)
            while not self.channel.stopped.is_set():
                reply = self.channel.say(self._turn())
                if reply is None:
                    continue
                self._fresh = self._fresh and isinstance(reply, Stranger)
                self._told = self._told if isinstance(reply, Stranger) else None
                if self._heed(reply):
                    return self.standing.state
            return None
        finally:
            self.standing.save(0.0)

    def _join(self) -> None:
        """Say hello until the server knows this process."""
        challenge = b""
        while not self.channel.stopped.is_set():
            reply = self.channel.say(Hello(PROTOCOL, f"baffle {__version__}", self.certificate, challenge))
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
        log.info("joined as client %d, with %d samples", self.channel.number, self._equipment.samples)

    def _turn(self) -> Turn:
        at = self.standing
        samples = self._equipment.samples if self._equipment is not None else 1
        report = self._report if self._fresh else b""
        epoch = self.masker.epoch if self.masker is not None else b""
        serial, size = self.channel.serial, self._said(samples)
        return Turn(serial, at.run, at.version, size, report, self._spent, self._told, epoch)

    def _said(self, samples: int) -> int:
        """Return what the server is told of this client's size: where sums are secure, the next power of two."""
        hides = self.secure or (self._about is not None and self._about[0].get("secure", "none") != "none")
        return 1 << (samples - 1).bit_length() if hides else samples

    def _heed(self, reply: Reply) -> bool:
        """Do what the server says; return whether the run is over."""
        try:
            if isinstance(reply, Enrol | Meet | Vow | Confirm | Open):
                self._take_part(reply)
            elif isinstance(reply, Done):
                return self._end(reply)
            elif not isinstance(reply, Wait):
                self._go_on(reply)
        except OutOfStepError as error:
            self.standing.slipped(error)
            self._report = b""
        except SecureError as error:
            self.channel.pause(f"secure sums: {error}")
        return False

    def _go_on(self, reply: Reply) -> None:
        match reply:
            case Stranger():
                self._join()
            case Begin():
                self._begin(reply)
            case Steps():
                self._follow(reply.steps)
            case Call():
                self._follow(reply.steps)
                self._call(reply)
            case Offer():
                self._fetch(reply)
            case _:
                log.warning("the server says what does not belong here: %s", type(reply).__name__)

    def _end(self, done: Done) -> bool:
        self._follow(done.steps)
        self.channel.leave()
        log.info("the run is over after %d rounds", self.standing.version or 0)
        return True

    def _begin(self, begin: Begin) -> None:
        if self.standing.begin(begin.header, self._own().runtime, anew=begin.anew):
            self._report = b""

    def _follow(self, steps: Sequence[Step]) -> None:
        if self._behind and len(steps) > 1:
            log.info("catching up by replay: rounds %d to %d", steps[0].round, steps[-1].round)
        state = self.standing.follow(steps)
        if self.masker is not None:
            self.masker.forget(state.round)
        if steps:
            self._tell()

    def _fetch(self, offer: Offer) -> None:
        """Fetch a snapshot, part by part."""
        header = self.standing.header
        if header is None:
            raise OutOfStepError("a snapshot is offered before the run that it is of")
        if offer.size > (most := largest(header)):
            raise OutOfStepError(f"a snapshot of {offer.size} bytes is offered, and one of this run has at most {most}")
        log.info("fetching a snapshot of round %d, %d bytes", offer.version, offer.size)
        data = bytearray()
        while len(data) < offer.size and not self.channel.stopped.is_set():
            reply = self.channel.say(Fetch(offer.digest, len(data)))
            if isinstance(reply, Part) and 0 < len(reply.data) <= offer.size - len(data):
                data += reply.data
            elif isinstance(reply, Stranger):
                return self._join()
            elif isinstance(reply, Gone):
                return None
            elif reply is not None:
                raise OutOfStepError("what comes is no part of the snapshot that is offered")
        if len(data) != offer.size:
            return None
        if digest_of(bytes(data)) != offer.digest:
            raise OutOfStepError("a snapshot came damaged")
        self.standing.replace(bytes(data), offer.version)
        self._report = b""
        return self._tell()

    def _call(self, call: Call) -> None:
        """Answer a round, or find the answer given before."""
        plan = self.standing.asked(call)
        header, state = self.standing.held()
        if self.wanted is not None and self._promised != self.standing.run:
            self.wanted.refuse_less(header)
            self._promised = self.standing.run
        if call.masked is not None:
            self._behind = False
            self._masked(plan, call.masked)
        elif self.secure or header.federation.secure:
            raise RefusedError("a report in the open is asked for, and this client takes part in secure sums alone")
        else:
            self._report_on(plan, header, state)

    def _report_on(self, plan: Plan, header: Header, state: State) -> None:
        """Make a report in the open, or find the one made before."""
        of = (self.standing.run, plan.round, plan.attempt)
        self._fresh, self._behind = True, False
        if of == self._of and self._report:
            return
        self._spend(header, plan)
        began = time.monotonic()
        own = self._own()
        client = self._client(header)
        if not own.reproducible:
            client = replace(client, private=client.private.fold("run", self.standing.run.hex()))
        report = answer(plan, state.parameters, client, own.runtime, self.standing.kernels)
        self._report, self._of = encode(report), of
        self._spent = round(1000 * (time.monotonic() - began))
        self._answered += 1

    def _spend(self, header: Header, plan: Plan) -> None:
        """Count an answer against what the run promises, on this client's own disk, before the answer is made.

        A server that forgets what it has asked, or starts again and again, is answered no more often than promised.

        Raises:
            RefusedError: the budget is spent, or what is spent can't be kept.
        """
        if header.budget is None:
            return
        home, run = self.standing.home, self.standing.run.hex()
        given, promised = home.commitments(run), header.budget
        if given.answered >= promised.attempts:
            raise RefusedError(
                f"round {plan.round}, attempt {plan.attempt} is asked for, and this client has given the "
                f"{promised.attempts} answers for which ε = {promised.epsilon:g}, δ = {promised.delta:g} is promised"
            )
        try:
            home.commit(run, msgspec.structs.replace(given, answered=given.answered + 1))
        except ReportError as error:
            raise RefusedError(str(error)) from None

    def _take_part(self, reply: Enrol | Meet | Vow | Confirm | Open) -> None:
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
                case Confirm():
                    self._told = masker.confirm(reply)
                case Open():
                    self._told = masker.open(reply.request)
        except ReportError as error:
            raise SecureError(str(error)) from None

    def _masked(self, plan: Plan, cohort: bytes) -> None:
        """Mask this client's part of a round."""
        header, state = self.standing.held()
        masker, began = self._masker(), time.monotonic()

        def contribution() -> Contribution:
            self._spend(header, plan)
            own, made = self._client(header), self._own()
            if not made.reproducible:
                own = replace(own, private=masker.folded(own.private))
            self._answered += 1
            return contributions(plan, state.parameters, [own], made.runtime, self.standing.kernels)[0]

        try:
            numbers = tuple(numbers_of(cohort, header.federation.clients))
            self._told = masker.mask(plan, state.parameters, numbers, contribution)
        except ReportError as error:
            raise SecureError(str(error)) from None
        self._spent = round(1000 * (time.monotonic() - began))

    def _masker(self) -> Masker:
        if self.masker is None:
            raise RefusedError("sums are secure here, and need keys: `baffle keys client` makes them")
        self.masker.enter(self.standing.run)
        return self.masker

    def _client(self, header: Header) -> Client:
        own = self._own()
        weight = min(own.samples, header.federation.most_samples)
        return Client(self.channel.number, weight, own.private, own.draw, own.randomness)

    def _own(self) -> Equipment:
        if self._equipment is None:
            raise OutOfStepError("the server has not said what the run is about")
        return self._equipment

    def _tell(self) -> None:
        self.told(Where(self.standing.version or 0, self._answered, self.channel.up, self.channel.down))


__all__ = ["Equipment", "Member", "RefusedError", "Where"]
