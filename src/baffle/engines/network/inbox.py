"""What waits at the server's desk: a little of everybody's, and each in turn."""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TypeAlias

import msgspec

from baffle.engines.network.dialogue import Session
from baffle.engines.network.roster import Request, Roster
from baffle.engines.network.served import seldom
from baffle.messages import Count

Letter: TypeAlias = tuple[Request, int | None]
"""A message, and the client whose link it came by, where that is certain."""

STRANGERS = -1
"""The lane of messages that came by a link of nobody in particular, from a process that has not joined."""
_NOTICES = 256
"""Notices of strangers' links that wait at once; of a client's, as many as messages."""
_AROUND = 4096
"""Bytes that a waiting message takes beside its own."""
_OTHERS = 4
"""Messages of clients that have joined to one of those that have not, or of slow lanes, while both wait."""
_SLOW = 0.05
"""Seconds between two messages of lanes that have been too full."""
_QUANTUM = 1 << 16
"""Bytes of a message for each turn that it waits."""

log = logging.getLogger("baffle")


@dataclass(frozen=True, slots=True)
class Limits:
    """How much may wait: messages, and bytes with 4 KiB for each message; one message may always."""

    messages: int = 8
    """Of one client. It has one question open, and says it again now and then."""
    size: int = 2 << 20
    """Bytes of one client's."""
    strangers_messages: int = 256
    strangers_size: int = 8 << 20
    all_messages: int = 16_384
    all_size: int = 32 << 20

    def fits(self, lane: Lane, size: int) -> bool:
        """Return whether a lane may take a message of that size too."""
        ours = lane.number != STRANGERS
        messages, most = (self.messages, self.size) if ours else (self.strangers_messages, self.strangers_size)
        return lane.messages < messages and (lane.messages == 0 or lane.size + size <= most)


@dataclass(slots=True)
class Lane:
    """What waits of one client, or of all strangers."""

    number: int
    joined: bool
    """Whether a process of the client had joined when the lane began to fill."""
    mail: deque[tuple[Letter | str, int]] = field(default_factory=deque["tuple[Letter | str, int]"])
    """With sizes; a notice has none."""
    messages: int = 0
    size: int = 0
    credit: int = 0
    slow: bool = False
    """Whether it has been too full, and not empty since."""

    def evict(self) -> int:
        """Take out the newest message, and return its size."""
        at = next(at for at in range(len(self.mail) - 1, -1, -1) if not isinstance(self.mail[at][0], str))
        size = self.mail[at][1]
        del self.mail[at]
        self.messages -= 1
        self.size -= size
        return size


@dataclass(slots=True)
class Inbox:
    """A fair queue of clients' messages with little room, and of notices that links are down, which never get lost.

    Whoever asks is answered once and asks again, so what there is no room for is dropped, and counted. Each client has
    a lane of its own with room for a few messages, and lanes are served in turn, one message each; a large one waits
    a turn for each 64 KiB (after deficit round robin, Shreedhar and Varghese 1996). Lanes of clients that have joined
    go first, but one message in five is of the others while both wait. A lane that was too full once is slow until it
    has been empty: of all slow lanes together 20 messages a second are answered at most, and one in five while others
    wait, so that floods do not have the processor. When all lanes together hold too much, the fullest lose their
    newest: before all, those of clients that have not joined.

    Whose lane a message goes into must be certain before its signature is looked at. With keys, zenoh's access control
    lets a link speak at the door of the client that its TLS certificate names and at no other's: then whoever floods
    the server fills its own lane alone, and costs each of the others one message of waiting at a time. That holds
    against any set of certified clients, by their share of the lanes. A message by a door that is open to all (another
    version's; a carrier without such doors) goes into the lane of the client that it claims to be of only if it names
    the session of a process that has joined, 64 random bits which the server and that client know. All others share
    one lane, first come first served: strangers can keep strangers out there, and nobody else. Without keys, claims
    are believed, and nothing is promised.

    Notices stand in their client's lane behind what came before them.
    """

    roster: Roster
    limits: Limits = field(default_factory=Limits)
    clock: Callable[[], float] = time.monotonic
    """Seconds."""
    messages: int = 0
    """That wait now."""
    size: int = 0
    """Bytes of them."""
    peak: tuple[int, int] = (0, 0)
    """The most messages, and the most bytes, that have waited."""
    dropped: int = 0
    """Messages of clients that had joined."""
    dropped_strangers: int = 0
    """Messages of others."""
    _lanes: dict[int, Lane] = field(default_factory=dict[int, Lane], repr=False)
    _joined: deque[int] = field(default_factory=deque[int], repr=False)
    """Whose turn it is."""
    _others: deque[int] = field(default_factory=deque[int], repr=False)
    _slow: deque[int] = field(default_factory=deque[int], repr=False)
    _slow_at: float = 0.0
    """When a message of a slow lane may be taken."""
    _quick: int = 0
    """Messages of others since the last of a slow lane."""
    _row: int = 0
    """Messages of clients that have joined since the last of the others."""
    _closed: bool = False
    _changed: threading.Condition = field(default_factory=threading.Condition, repr=False)

    def put(self, request: Request, client: int | None = None) -> None:
        """Take a message, or drop it; never waits.

        Args:
            request: the message.
            client: whose link it came by; None where that is not certain.
        """
        number = self._claimed(request.payload) if client is None else client
        size = len(request.payload) + _AROUND
        with self._changed:
            lane = self._lane(number)
            if not self._closed and self.limits.fits(lane, size) and self._room(lane, size):
                self._add(lane, (request, client), size)
                return
            count = self._drop(lane)
            self._slow_down(lane)
        if seldom(count):
            whose = "of strangers" if number == STRANGERS else f"of client {number}"
            log.warning("a message %s is dropped (%d so far): more come than can be answered", whose, count)

    def notice(self, session: str, client: int | None = None) -> None:
        """Take the name of a process, in hexadecimal, whose link is down."""
        if client is None:
            entry = self.roster.of_session(session)
            client = STRANGERS if entry is None else entry.number
        with self._changed:
            lane = self._lane(client)
            if self._closed or (lane.mail and lane.mail[-1][0] == session):
                return
            names = [mail for mail, _ in lane.mail if isinstance(mail, str)]
            if len(names) >= (_NOTICES if client == STRANGERS else self.limits.messages):
                self._forget(lane, names)
            self._add(lane, session, 0)

    def get(self, timeout: float) -> Letter | str | None:
        """Return the next message or notice, or None where there is none in `timeout` seconds, or none any more."""
        with self._changed:
            found = self._taken()
            if found is None and not self._closed:
                until_slow = self._slow_at - self.clock() if self._slow else timeout
                self._changed.wait(max(0.0, min(timeout, until_slow)))
                found = self._taken()
            return found

    def close(self) -> None:
        """Take nothing more; what waits can still be got."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()

    @property
    def done(self) -> bool:
        """Whether it is closed and empty."""
        with self._changed:
            return self._closed and not self._lanes

    def status(self) -> dict[str, int]:
        """Return what is told of it."""
        with self._changed:
            return {
                "messages": self.messages,
                "bytes": self.size,
                "peak_messages": self.peak[0],
                "peak_bytes": self.peak[1],
                "dropped": self.dropped,
                "dropped_strangers": self.dropped_strangers,
            }

    def _claimed(self, payload: bytes) -> int:
        """Return the lane of a message that came by nobody's link."""
        try:
            claim = _CLAIM.decode(payload)
        except (msgspec.DecodeError, RecursionError):
            return STRANGERS
        return claim.client if self.roster.session_of(claim.client) == claim.session else STRANGERS

    # `_changed` is held.

    def _lane(self, number: int) -> Lane:
        """Return a client's lane; one that is empty is not kept."""
        return self._lanes.get(number) or Lane(number, bool(self.roster.session_of(number)))

    def _add(self, lane: Lane, mail: Letter | str, size: int) -> None:
        if not lane.mail:
            self._lanes[lane.number] = lane
            self._turns(lane).append(lane.number)
        lane.mail.append((mail, size))
        if size:
            lane.messages, lane.size = lane.messages + 1, lane.size + size
            self.messages, self.size = self.messages + 1, self.size + size
            self.peak = max(self.peak[0], self.messages), max(self.peak[1], self.size)
        if not lane.slow:
            self._changed.notify()

    def _turns(self, lane: Lane) -> deque[int]:
        """Return the turns that a lane is in."""
        if lane.slow:
            return self._slow
        return self._joined if lane.joined else self._others

    def _slow_down(self, lane: Lane) -> None:
        if lane.mail and not lane.slow:
            self._turns(lane).remove(lane.number)
            lane.slow = True
            self._slow.append(lane.number)

    def _room(self, lane: Lane, size: int) -> bool:
        """Make room for a message in a lane at the cost of fuller ones; return whether there is any."""
        while self.messages >= self.limits.all_messages or self.size + size > self.limits.all_size:
            fullest = self._fullest(lane, size)
            if fullest is None:
                return self.messages == 0
            freed = fullest.evict()
            self.messages, self.size = self.messages - 1, self.size - freed
            self._drop(fullest)
            if not fullest.mail:
                del self._lanes[fullest.number]
                self._turns(fullest).remove(fullest.number)
        return True

    def _fullest(self, lane: Lane, size: int) -> Lane | None:
        """Return the lane that has to give way to a message in another, or None."""
        filled = [one for one in self._lanes.values() if one.messages and one is not lane]
        strange = [one for one in filled if not one.joined]
        if lane.joined and strange:
            return max(strange, key=_fullness)
        own = lane.size + size, lane.messages + 1
        rivals = [one for one in (filled if lane.joined else strange) if _fullness(one) > own]
        return max(rivals, key=_fullness, default=None)

    def _drop(self, lane: Lane) -> int:
        """Count a message that is dropped; return how many were, of that client or of strangers."""
        if lane.joined:
            self.dropped += 1
        else:
            self.dropped_strangers += 1
        entry = self.roster.entries.get(lane.number)
        if entry is None:
            return self.dropped_strangers
        entry.dropped += 1
        return entry.dropped

    def _forget(self, lane: Lane, names: list[str]) -> None:
        """Make room for a notice by the oldest of a process that has not joined: nothing depends on it."""
        known = self.roster.session_of(lane.number).hex()
        oldest = next((name for name in names if name != known), names[0])
        lane.mail.remove((oldest, 0))

    def _whose(self) -> deque[int]:
        """Return the turns whose turn it is; none where nothing can be taken now."""
        now = self.clock()
        idle = not self._joined and not self._others
        if self._slow and (self._closed or now >= self._slow_at) and (idle or self._quick >= _OTHERS):
            self._slow_at, self._quick = now + _SLOW, 0
            return self._slow
        self._quick += 1
        joined = bool(self._joined) and (self._row < _OTHERS or not self._others)
        self._row = self._row + 1 if joined else 0
        return self._joined if joined else self._others

    def _taken(self) -> Letter | str | None:
        """Return what is next, or None."""
        turns = self._whose()
        if not turns:
            return None
        while True:
            lane = self._lanes[turns[0]]
            turns.rotate(-1)
            mail, size = lane.mail[0]
            lane.credit += _QUANTUM + _AROUND
            if lane.credit >= size:
                break
        lane.mail.popleft()
        lane.credit = 0
        if size:
            lane.messages, lane.size = lane.messages - 1, lane.size - size
            self.messages, self.size = self.messages - 1, self.size - size
        if not lane.mail:
            del self._lanes[lane.number]
            turns.pop()
        return mail


class _Claim(msgspec.Struct, frozen=True, array_like=True):
    """Of whom a message says that it is; the rest is not looked at."""

    client: Count
    session: Session


_CLAIM = msgspec.msgpack.Decoder(_Claim)


def _fullness(lane: Lane) -> tuple[int, int]:
    return lane.size, lane.messages


__all__ = ["STRANGERS", "Inbox", "Lane", "Letter", "Limits"]
