"""A network in one process, which loses, doubles and delays what it carries as often as it is told to."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass, field

from baffle import checks
from baffle.engines.network.roster import Request
from baffle.keys import Key


@dataclass(frozen=True, slots=True)
class Faults:
    """What may happen to a message, each way and by itself.

    Raises:
        SettingsError: a chance outside [0, 1), or a negative delay.
    """

    lose: float = 0.0
    """Chance that it never arrives."""
    double: float = 0.0
    """Chance that it arrives twice."""
    delay: float = 0.0
    """Longest delay in seconds, each drawn evenly from 0 to it: what is sent later may arrive first."""

    def __post_init__(self) -> None:
        checks.below_one("lose", self.lose)
        checks.below_one("double", self.double)
        checks.at_least("delay", self.delay, 0)


@dataclass(slots=True)
class _Question:
    """A message on its way, and the place for its answer."""

    payload: bytes
    line: Line
    answer: bytes | None = None
    arrived: threading.Event = field(default_factory=threading.Event)

    def reply(self, payload: bytes) -> None:
        self.line.carry(lambda: self._take(payload))

    def _take(self, payload: bytes) -> None:
        if not self.arrived.is_set():
            self.answer = payload
            self.arrived.set()


@dataclass(slots=True)
class Line:
    """One client's way to the server."""

    receive: Callable[[Request], None]
    """The server's."""
    faults: Faults = Faults()
    chance: Key = field(default_factory=lambda: Key.root(0))
    """What decides about faults."""
    _carried: int = 0
    _lock: threading.Lock = field(default_factory=threading.Lock, repr=False)

    def ask(self, payload: bytes, timeout: float) -> bytes | None:
        """Return the server's reply, or None where none arrives in `timeout` seconds."""
        question = _Question(payload, self)
        self.carry(lambda: self.receive(question))
        question.arrived.wait(timeout)
        return question.answer

    def carry(self, deliver: Callable[[], None]) -> None:
        """Deliver something now, later, twice, or never."""
        with self._lock:
            self._carried += 1
            draws = self.chance.fold(self._carried).generator().random(4)
        if draws[0] < self.faults.lose:
            return
        for late in draws[1 : 3 if draws[3] < self.faults.double else 2]:
            if self.faults.delay:
                timer = threading.Timer(float(late) * self.faults.delay, deliver)
                timer.daemon = True
                timer.start()
            else:
                deliver()
