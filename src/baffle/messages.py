"""What crosses the wire, and its bytes: MessagePack arrays, checked when they enter."""

from __future__ import annotations

import hashlib
import math
import sys
import threading
from bisect import bisect_left
from itertools import pairwise
from typing import Annotated, Any, TypeAlias, TypeVar

import msgspec
import numpy as np
from msgspec import Meta
from numpy.typing import NDArray

from baffle.directions import Law
from baffle.errors import ReportError, SettingsError
from baffle.estimators import Estimator
from baffle.keys import Key
from baffle.mechanisms import MISSING, Protection, Quantiser
from baffle.packing import pack, packed_size, unpack

PROTOCOL = 1
"""Version of every message below; another one is refused."""

MOST_SLOPES = 1 << 28
"""Most slopes of a round over all groups: a bound on what a plan can make anybody allocate."""

Count: TypeAlias = Annotated[int, Meta(ge=0, le=(1 << 63) - 1)]
Number: TypeAlias = Annotated[int, Meta(ge=1, le=(1 << 63) - 1)]
Positive: TypeAlias = Annotated[float, Meta(gt=0, le=sys.float_info.max)]
Message = TypeVar("Message", bound=msgspec.Struct)


class BlockPlan(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """A block's part of a round."""

    start: Count
    """First position in the flat vector."""
    stop: Number
    """Position after the last."""
    budget: Number
    """K_b, directions of this block."""
    bound: Positive
    """c_b, largest slope that is reported."""
    law: Law
    """What its directions are drawn from."""
    cost: Annotated[float, Meta(gt=0, le=1)] = 1.0
    """Share of a forward pass that a probe of this block runs, where what lies before it is computed once a batch."""


class Plan(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """What the server asks of a round's cohort."""

    protocol: int
    round: Count
    """Round number, from 0; also the version that a client's copy of θ must have."""
    attempt: Count
    """0, or how often this round was tried before; a new attempt has a new key."""
    key: Annotated[bytes, Meta(min_length=32, max_length=32)]
    """The round's secret; directions are drawn below it."""
    cohort: Annotated[tuple[Count, ...], Meta(min_length=1)]
    """Numbers of the clients asked, ascending; the i-th belongs to group i mod `groups`."""
    quorum: Number
    """Fewest reports that close the round."""
    groups: Number
    """G, how many sets of directions there are: 1 shares them among all, |cohort| gives each client its own."""
    steps: Number
    """H, local steps a client takes."""
    rate: Positive
    """η of the local steps; of no effect for H = 1."""
    batch: Number
    """Samples of a client's mini-batch."""
    most_samples: Number
    """Largest sample count that a report may carry."""
    bits: Annotated[int, Meta(ge=2, le=32)]
    """b, bits of a slope."""
    estimator: Estimator
    blocks: Annotated[tuple[BlockPlan, ...], Meta(min_length=1)]
    privacy: Protection | None = None
    """What clients do to their slopes so that little can be told from them, or nothing."""

    def __post_init__(self) -> None:
        if self.protocol != PROTOCOL:
            raise ReportError(f"protocol {self.protocol} where {PROTOCOL} is spoken")
        edges = [edge for block in self.blocks for edge in (block.start, block.stop)]
        if any(block.stop <= block.start for block in self.blocks) or edges != sorted(edges):
            raise ReportError("the plan's blocks are empty, overlap, or are not in ascending order")
        if any(a >= b for a, b in pairwise(self.cohort)):
            raise ReportError("the cohort is not in ascending order")
        for block in self.blocks:
            if block.law.most is not None and max(block.budget, block.stop - block.start) > block.law.most:
                raise ReportError(
                    f"{block.budget} directions of {block.stop - block.start} weights where at most {block.law.most} "
                    "are orthogonal"
                )
        slopes = self.groups * self.steps * self.directions
        if slopes > MOST_SLOPES:
            raise ReportError(f"{slopes} slopes a round are more than {MOST_SLOPES}")

    @property
    def directions(self) -> int:
        """K, directions of one step over all blocks."""
        return sum(block.budget for block in self.blocks)

    @property
    def shape(self) -> tuple[int, int, int]:
        """Of an aggregate: (G, H, K)."""
        return self.groups, self.steps, self.directions

    @property
    def words(self) -> int:
        """Integers of a report: H · K, and one more where norms are counted."""
        return self.steps * self.directions + (1 if self.privacy is not None and self.privacy.counts else 0)

    @property
    def places(self) -> NDArray[np.int64]:
        """The block of every slope of a step, by its place in the plan, [K]."""
        return np.repeat(np.arange(len(self.blocks)), [block.budget for block in self.blocks])

    @property
    def bounds(self) -> NDArray[np.float64]:
        """C of every slope of a step, [K]."""
        return np.repeat([block.bound for block in self.blocks], [block.budget for block in self.blocks])

    @property
    def quantiser(self) -> Quantiser:
        """What turns this round's slopes into integers."""
        return Quantiser(self.bits)

    @property
    def forwards(self) -> float:
        """Forward equivalents that one client spends: forward passes over single samples, counted.

        A probe counts what it runs again; what lies before the blocks is run once.
        """
        probes = sum(block.budget * block.cost for block in self.blocks) * len(self.estimator.signs)
        prefixes = 1.0 - min(block.cost for block in self.blocks)
        return self.steps * self.batch * (probes + prefixes + self.estimator.base)

    def group(self, client: int) -> int:
        """Return the group of a client.

        Raises:
            ReportError: the client is not in the cohort.
        """
        position = bisect_left(self.cohort, client)
        if position == len(self.cohort) or self.cohort[position] != client:
            raise ReportError(f"client {client} is not in the cohort of round {self.round}")
        return position % self.groups

    def stream(self, group: int, step: int, block: int) -> Key:
        """Return the key of a block's directions (docs/noise.md, section 6)."""
        return Key(self.key).fold(group, step, block)

    def refuse_other_model(self, size: int) -> None:
        """Raise ReportError if this plan displaces more than `size` parameters."""
        last = self.blocks[-1].stop
        if last > size:
            raise ReportError(f"the plan displaces parameter {last - 1} of a model of {size}")

    def refuse_overflow(self) -> None:
        """Raise SettingsError if integer reconstruction could leave int64: Σ |q| · w · |z| must stay below 2⁶³."""
        weight = len(self.cohort) * self.most_samples
        peak = max(block.budget * block.law.peak for block in self.blocks)
        rounding = self.steps * peak  # what standing in for a missing probe may add to each sum
        reach = self.steps * peak * weight * self.quantiser.levels + rounding
        reach += (reach >> (self.bits - 1)) + 1  # what rounding the sums may add
        reach += self.steps * peak * (self.privacy.most(len(self.cohort)) if self.privacy is not None else 0)
        if reach >= 1 << 63:
            raise SettingsError(
                "bits",
                self.bits,
                f"sums could reach 2^{math.log2(reach):.1f} and must stay below 2^63; use fewer bits, forwards or "
                "clients a round, or weight = 'equal'",
            )


class Report(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """A client's answer: H · K integers and its sample count."""

    protocol: int
    round: Count
    attempt: Count
    client: Count
    samples: Number
    slopes: bytes
    """H · K integers of b bits, step by step, block by block, and one more where norms are counted; see `packing`."""

    @classmethod
    def of(cls, plan: Plan, client: int, samples: int, integers: NDArray[np.int64]) -> Report:
        """Return the report of `integers`, [H, K] or all `plan.words` of them, MISSING where no loss was finite."""
        codes = np.where(integers == MISSING, -(1 << (plan.bits - 1)), integers).ravel()
        return cls(PROTOCOL, plan.round, plan.attempt, client, samples, pack(codes, plan.bits))

    def integers(self, plan: Plan) -> NDArray[np.int64]:
        """Return the slopes [H, K], MISSING where a probe gave no finite loss.

        Raises:
            ReportError: the report does not fit the plan, or every slope is missing.
        """
        if (self.protocol, self.round, self.attempt) != (PROTOCOL, plan.round, plan.attempt):
            raise ReportError(
                f"protocol {self.protocol}, round {self.round}, attempt {self.attempt} "
                f"where {PROTOCOL}, {plan.round}, {plan.attempt} were asked"
            )
        if self.samples > plan.most_samples:
            raise ReportError(f"{self.samples} samples where at most {plan.most_samples} are admitted")
        codes = unpack(self.slopes, plan.words, plan.bits)
        slopes = codes[: plan.steps * plan.directions].reshape(plan.steps, plan.directions)
        integers = np.where(slopes == -(1 << (plan.bits - 1)), MISSING, slopes)
        if (integers == MISSING).all():
            raise ReportError("no probe had a finite loss")
        if plan.privacy is not None and (codes == -(1 << (plan.bits - 1))).any():
            raise ReportError("a slope is missing, which no noise covers")
        return integers

    def inside(self, plan: Plan) -> int:
        """Return the integer that tells whether the slopes were within their bound; 0 where that is not counted."""
        return int(unpack(self.slopes, plan.words, plan.bits)[-1]) if plan.words > plan.steps * plan.directions else 0


class Aggregate(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """The sum of a round's reports: all that reconstruction needs, in as many bits as a report's slopes have."""

    weight: Number
    """W, samples behind the sum (or reports, when all weigh the same)."""
    bits: Annotated[int, Meta(ge=2, le=64)]
    """Width of each integer in `sums`."""
    sums: bytes
    """G · H · K integers of that width, in units of 2^shift; see `packing`."""
    shift: Annotated[int, Meta(ge=0, le=62)] = 0
    """Lowest bits that were rounded away."""
    inside: tuple[int, ...] = ()
    """A sum for each group that tells, noised, how many clients' slopes were within their bound; or nothing."""

    def __post_init__(self) -> None:
        if self.bits + self.shift > 64:
            raise ReportError(f"sums of {self.bits} bits times 2^{self.shift} do not fit 64 bits")

    @classmethod
    def of(cls, weight: int, sums: NDArray[np.int64], most_bits: int = 64, inside: tuple[int, ...] = ()) -> Aggregate:
        """Return the message that carries `sums` [G, H, K], rounded to `most_bits` bits (≥ 2) where they have more.

        Sums of many clients, weighted by samples, have digits far below the noise that rounding the clients' own slopes
        has left; without them the way down is as narrow as the way up. Rounds to the nearest, ties away from zero.
        """
        needed = max(2, int(np.abs(sums).max()).bit_length() + 1)
        shift = max(0, needed - most_bits)
        bits = needed - shift
        largest = (1 << (bits - 1)) - 1
        units = (np.abs(sums) + ((1 << shift) >> 1)) >> shift
        rounded = np.sign(sums) * np.minimum(units, largest)
        return cls(weight, bits, pack(rounded.ravel(), bits), shift, inside)

    def integers(self, plan: Plan) -> NDArray[np.int64]:
        """Return the sums, int64 [G, H, K].

        Raises:
            ReportError: the length does not fit the plan.
        """
        return unpack(self.sums, math.prod(plan.shape), self.bits).reshape(plan.shape) << self.shift


class Intent(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True, tag="intent"):
    """A ledger's record that an attempt is about to be asked for, on disk before anybody is asked.

    Where sums are secure or a budget is kept, whatever becomes of the attempt counts as opened and spent.
    """

    round: Count
    attempt: Count
    cohort: Annotated[tuple[Count, ...], Meta(min_length=1)]
    """Numbers of the clients asked, ascending."""
    plan: Annotated[bytes, Meta(min_length=32, max_length=32)]
    """Digest of the plan that they are sent: `plan_digest`."""

    @classmethod
    def of(cls, plan: Plan) -> Intent:
        """Return the intent to ask what `plan` asks."""
        return cls(plan.round, plan.attempt, plan.cohort, plan_digest(plan))


class Round(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True, tag="round"):
    """A ledger's record of one attempt at a round."""

    plan: Plan
    answered: tuple[Count, ...]
    """Clients whose reports count, ascending."""
    uploads: tuple[Count, ...]
    """Bytes of each of those reports."""
    left_out: tuple[tuple[int | None, str], ...]
    """Refused reports, or no answer: the client, if it can be told, and the reason."""
    aggregate: Aggregate | None
    """None when the quorum was missed and the round is tried again."""
    digest: str | None
    """Of θ after the round, or None."""
    epsilon: float | None = None
    """ε that the client asked most often has spent so far, at the δ of the run's header; None without a budget."""
    average: str | None = None
    """Digest of the averaged weights after the round; None where the quorum was missed, and in version 1."""


Record: TypeAlias = Intent | Round
"""What follows the header in a ledger."""


def encode(message: msgspec.Struct) -> bytes:
    """Return the message's bytes."""
    return msgspec.msgpack.encode(message)


_DECODERS: dict[type[Any], msgspec.msgpack.Decoder[Any]] = {}
_ONE_BY_ONE = threading.Lock()
"""Two threads that make msgspec look at one type for the first time at once end the process."""


def _decoder(kind: type[Message]) -> msgspec.msgpack.Decoder[Message]:
    if kind not in _DECODERS:
        with _ONE_BY_ONE:
            _DECODERS[kind] = msgspec.msgpack.Decoder(kind)
    return _DECODERS[kind]


def decode(data: bytes, kind: type[Message]) -> Message:
    """Return the message of type `kind` in `data`.

    Raises:
        ReportError: these bytes are no such message.
    """
    return decode_by(_decoder(kind), data, kind.__name__.lower())


def decode_by(decoder: msgspec.msgpack.Decoder[Any], data: bytes, what: str) -> Any:
    """Return what `decoder` finds in `data`, which is called `what` in words.

    Raises:
        ReportError: these bytes are no such message.
    """
    try:
        return decoder.decode(data)
    except ReportError:
        raise
    except (msgspec.DecodeError, SettingsError, UnicodeDecodeError, RecursionError) as error:
        raise ReportError(f"not a {what}: {error}") from None


def plan_digest(plan: Plan) -> bytes:
    """Return the digest of an encoded plan, 32 bytes: BLAKE2b, personalised."""
    return hashlib.blake2b(encode(plan), digest_size=32, person=b"baffle-plan").digest()


def report_size(plan: Plan) -> int:
    """Return the bytes of slopes in a report of `plan`, without its envelope."""
    return packed_size(plan.words, plan.bits)
