"""What a client and its server say to each other, and its bytes.

A client asks and the server answers, never the other way round: whoever does not ask is owed at most one message.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from typing import Annotated, Any, TypeAlias

import msgspec
from msgspec import Meta

from baffle.engines.network.covert import Confirm, Enrol, Meet, Open, Told, Vow
from baffle.errors import ReportError
from baffle.messages import Aggregate, Count, Number, encode

PROTOCOL = 2
"""Version of this dialogue; another one is refused. In version 1, signatures were good at any server."""
PARK = 10.0
"""Seconds after which the server answers a client for which there is nothing to do."""
PART = 256 * 1024
"""Most bytes of a snapshot, or of steps, in one message."""
MOST = 1 << 20
"""Bytes of the largest message."""
CHECK = 8
"""Bytes of a digest that tells an accident, where nobody gains by a forgery."""

ANY_SERVER = bytes(32)
"""Stands for a server's certificate where there is none, and in a client's first words, before it has seen it."""

Session: TypeAlias = Annotated[bytes, Meta(min_length=8, max_length=8)]
"""Random name of a client's process."""
Check: TypeAlias = Annotated[bytes, Meta(min_length=CHECK, max_length=CHECK)]


class Hello(msgspec.Struct, frozen=True, array_like=True, tag="hello"):
    """A client's first words, twice: the second time with the server's challenge, which makes it fresh."""

    protocol: int
    software: Annotated[str, Meta(max_length=64)]
    certificate: Annotated[bytes, Meta(max_length=16_384)]
    """Of the key that signs, PEM; empty without keys."""
    challenge: Annotated[bytes, Meta(max_length=16)]


class Turn(msgspec.Struct, frozen=True, array_like=True, tag="turn"):
    """Where a client is, its report if it has one, and the question what is next."""

    serial: Count
    """Greater in every message of a process."""
    run: Annotated[bytes, Meta(max_length=CHECK)]
    """Of which run its state is; empty when it has none."""
    version: Count | None
    """Of its θ; None asks for a snapshot."""
    samples: Number
    """That it holds."""
    report: bytes
    """An encoded report, or nothing."""
    spent: Count
    """Milliseconds that the report took to make."""
    told: Told | None = None
    """The client's part in secure sums."""
    epoch: Annotated[bytes, Meta(max_length=CHECK)] = b""
    """Of secure sums, in which the client is."""


class Fetch(msgspec.Struct, frozen=True, array_like=True, tag="fetch"):
    """Asks for a part of a snapshot."""

    digest: Annotated[bytes, Meta(max_length=32)]
    offset: Count


class Bye(msgspec.Struct, frozen=True, array_like=True, tag="bye"):
    """The client has heard that the run is over, and leaves."""


Words: TypeAlias = Hello | Turn | Fetch | Bye


class Signed(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """A client's words, under its signature."""

    client: Count
    session: Session
    signature: Annotated[bytes, Meta(max_length=64)]
    """Of `signed`; empty without keys."""
    body: bytes


class Step(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """A round that counts, for whoever has been in step so far."""

    round: Count
    attempt: Count
    cohort: bytes
    """A bit for each client, lowest first; empty is all."""
    aggregate: Aggregate
    check: Check
    """Of θ after the round."""


class Challenge(msgspec.Struct, frozen=True, array_like=True, tag="challenge"):
    """To be said back, and whose it is."""

    challenge: Annotated[bytes, Meta(max_length=16)]
    certificate: Annotated[bytes, Meta(max_length=16_384)] = b""
    """The server's, PEM, to which all that the client signs from now on is bound; empty without keys."""


class Kind(msgspec.Struct, frozen=True):
    """What the samples of all clients have in common."""

    shape: Annotated[tuple[Annotated[int, Meta(ge=0, le=1 << 31)], ...], Meta(max_length=16)]
    """Of one sample."""
    classes: Annotated[int, Meta(ge=1, le=1 << 20)]
    class_names: Annotated[tuple[Annotated[str, Meta(max_length=1024)], ...], Meta(max_length=1 << 16)] = ()
    """By number, where they have names."""


Text: TypeAlias = Annotated[str, Meta(max_length=4096)]
Setting: TypeAlias = bool | int | float | Text | Annotated[tuple[int | Text, ...], Meta(max_length=4096)] | None
"""Of an experiment, as it travels: nothing that could be much larger in memory than in a message."""


class Welcome(msgspec.Struct, frozen=True, array_like=True, tag="welcome"):
    """The client is admitted."""

    settings: Annotated[dict[Annotated[str, Meta(max_length=64)], Setting], Meta(max_length=256)]
    """The experiment's."""
    kind: Kind
    time: float
    """The server's clock, seconds since 1970."""


class Stranger(msgspec.Struct, frozen=True, array_like=True, tag="stranger"):
    """The server does not know this process: it has to say hello."""


class Begin(msgspec.Struct, frozen=True, array_like=True, tag="begin"):
    """The run, with its secret: what a client starts from."""

    header: bytes
    anew: bool
    """Whether a state that the client has is of no use."""


class Steps(msgspec.Struct, frozen=True, array_like=True, tag="steps"):
    """Rounds that the client missed; more may follow."""

    steps: tuple[Step, ...]


class Call(msgspec.Struct, frozen=True, array_like=True, tag="call"):
    """Rounds that the client missed, and one to answer: the plan follows from the state."""

    steps: tuple[Step, ...]
    round: Count
    attempt: Count
    cohort: bytes
    check: Check
    """Of the plan."""
    masked: bytes | None = None
    """A bit for each client whose mask is in the secure sum, empty for all; None asks for a report in the open."""


class Offer(msgspec.Struct, frozen=True, array_like=True, tag="offer"):
    """A snapshot to fetch, for a client that missed too much."""

    version: Count
    size: Number
    digest: Annotated[bytes, Meta(min_length=32, max_length=32)]


class Part(msgspec.Struct, frozen=True, array_like=True, tag="part"):
    """A part of a snapshot."""

    data: Annotated[bytes, Meta(max_length=PART)]


class Gone(msgspec.Struct, frozen=True, array_like=True, tag="gone"):
    """That snapshot is no longer kept."""


class Wait(msgspec.Struct, frozen=True, array_like=True, tag="wait"):
    """Nothing to do: ask again."""


class Done(msgspec.Struct, frozen=True, array_like=True, tag="done"):
    """The run is over."""

    steps: tuple[Step, ...]


class Refused(msgspec.Struct, frozen=True, array_like=True, tag="refused"):
    """The client's words are not accepted."""

    reason: Annotated[str, Meta(max_length=4096)]
    final: bool
    """Whether asking again can't help."""


Reply: TypeAlias = (
    Challenge
    | Welcome
    | Stranger
    | Begin
    | Steps
    | Call
    | Offer
    | Part
    | Gone
    | Wait
    | Done
    | Refused
    | Enrol
    | Meet
    | Vow
    | Confirm
    | Open
)

_WORDS: msgspec.msgpack.Decoder[Words] = msgspec.msgpack.Decoder(Words)
_REPLY: msgspec.msgpack.Decoder[Reply] = msgspec.msgpack.Decoder(Reply)


def sealed(
    client: int, session: bytes, words: Words, sign: Callable[[bytes], bytes], server: bytes = ANY_SERVER
) -> bytes:
    """Return a client's words as they travel, to the server whose certificate has the SHA-256 `server`."""
    body = encode(words)
    return encode(Signed(client, session, sign(signed(server, session, body)), body))


def signed(server: bytes, session: bytes, body: bytes) -> bytes:
    """Return what is signed of words: SHA-256 of the server's certificate ‖ session ‖ body."""
    return server + session + body


def opened(message: Signed) -> Words:
    """Return what is in a message whose signature holds.

    Raises:
        ReportError: it is nothing that a client says.
    """
    return _decoded(_WORDS, message.body, "client's words")


def heard(data: bytes) -> Reply:
    """Return a server's reply.

    Raises:
        ReportError: it is none.
    """
    return _decoded(_REPLY, data, "server's reply")


def _decoded(decoder: msgspec.msgpack.Decoder[Any], data: bytes, what: str) -> Any:
    try:
        return decoder.decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise ReportError(f"no {what}: {error}") from None


def run_name(header: bytes) -> bytes:
    """Return a run's public name, from its encoded header."""
    return hashlib.blake2b(header, digest_size=CHECK, person=b"baffle-run").digest()


def check_of(data: bytes) -> bytes:
    """Return what tells an accident to `data`."""
    return hashlib.blake2b(data, digest_size=CHECK, person=b"baffle-check").digest()
