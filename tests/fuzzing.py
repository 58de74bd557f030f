"""What a fuzzer is let loose on: functions of bytes that fail where a promise is broken, and do nothing else.

`benchmarks/fuzz.py` drives them by coverage, `tests/secure/test_fuzzing.py` by hypothesis. Bytes are choices: which
message goes to whom, with what changed. Anything that is not an error which the docstrings name comes out as it is.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

from baffle.directions import Gaussian, Orthogonal, Rademacher, Sparse
from baffle.engines.network import covert, dialogue
from baffle.engines.network.commitments import Commitments
from baffle.engines.network.steps import numbers_of
from baffle.errors import LedgerError, ModelError, ReportError, SettingsError
from baffle.estimators import CentralDifference, CentredDifference, ForwardDifference
from baffle.mechanisms import MISSING
from baffle.messages import PROTOCOL, Aggregate, BlockPlan, Plan, Report, Round, decode, encode
from baffle.parameters import Layout, Tensor
from baffle.secure import (
    Aggregation,
    Answer,
    Candidate,
    Consent,
    Enrolment,
    Masked,
    Member,
    Pledge,
    Request,
    Ring,
    Roster,
    Slot,
    consistent,
)
from baffle.secure.messages import Closing, Deposit
from baffle.secure.pledge import binding_of, place_of, share_told, transcript_of
from baffle.server import State
from baffle.snapshots import _BLANK, _SEAL, _seal, read_snapshot, write_snapshot
from secured import CA, NOW, SUBJECT, drawn, enrolled, epoch, signer, terms
from secured import Round as Play

MOST_PLANNED = 1 << 16
"""Slopes of a plan above which nothing is allocated for it here."""
RING = Ring(4, 1, 127)
SLOTS = (Slot(1, 0), Slot(1, 1), Slot(2, 0))
STEPS = 24
"""Most steps of a play."""


@dataclass
class Choices:
    """Decisions made by bytes; 0 where they have come to an end."""

    data: bytes
    at: int = 0

    def __bool__(self) -> bool:
        return self.at < len(self.data)

    def below(self, count: int) -> int:
        """Return a number in [0, count), from one byte for up to 256."""
        size = 1 if count <= 256 else 3
        part = self.data[self.at : self.at + size]
        self.at += size
        return int.from_bytes(part, "little") % count

    def of(self, things):
        return things[self.below(len(things))]

    def some(self, things) -> tuple:
        bits = self.below(256)
        return tuple(thing for at, thing in enumerate(things) if bits >> at & 1)

    def rest(self) -> bytes:
        found = self.data[self.at :]
        self.at = len(self.data)
        return found


def bent(choices: Choices, data: bytes) -> bytes:
    """Return bytes with up to three of them changed, or others altogether."""
    found = bytearray(data)
    for _ in range(choices.below(4)):
        at, value = choices.below(len(found) + 1), choices.below(256)
        match choices.below(5):
            case 0:
                found[at : at + 1] = bytes([value])
            case 1:
                del found[at : at + 1 + value % 9]
            case 2:
                found[at:at] = bytes([value])
            case 3:
                found[at : at + 1] = bytes([found[at] ^ 1 << value % 8]) if at < len(found) else b""
            case _:
                return choices.rest()
    return bytes(found)


def heard(choices: Choices, message):
    """Return what arrives of a message: the same, or bent.

    Raises:
        ReportError: it is none any more.
    """
    return decode(bent(choices, encode(message)), type(message))


# What every message of a run is decoded by.


@cache
def spoken() -> tuple[tuple[type, bytes], ...]:
    """Return messages of all kinds, encoded."""
    estimators = (CentredDifference(scale=0.01), ForwardDifference(scale=1e-4), CentralDifference(scale=0.1))
    laws = (Rademacher(), Gaussian(), Sparse(16), Orthogonal(3))
    plans = [
        Plan(PROTOCOL, 3, 1, bytes(range(32)), (0, 2, 5), 2, 2, 1, 0.1, 32, 100, bits, estimator, blocks)
        for bits, estimator in zip((8, 2, 32), estimators, strict=True)
        for blocks in [tuple(BlockPlan(8 * i, 8 * i + 5, 3, 16.0, law, 0.5) for i, law in enumerate(laws))]
    ]
    slopes = np.array([[1, -1, 0, 1, MISSING, 0, 1, 1, 0, -1, -1, 1]])
    reports = [Report.of(plan, 5, 50, slopes) for plan in plans]
    sums = Aggregate.of(150, np.arange(24).reshape(2, 1, 12) - 9, 5)
    round_ = Round(plans[0], (0, 5), (40, 41), ((2, "no answer"), (None, "no report")), sums, "00" * 32)
    step = dialogue.Step(3, 1, b"\x25", sums, bytes(8))
    said: list[dialogue.Words] = [
        dialogue.Hello(PROTOCOL, "0.1", b"-----BEGIN", bytes(16)),
        dialogue.Turn(3, bytes(8), 0, 12, encode(reports[0]), 5),
        dialogue.Fetch(bytes(32), 7),
        dialogue.Bye(),
    ]
    replies: list[dialogue.Reply] = [
        dialogue.Challenge(bytes(16)),
        dialogue.Welcome({"rounds": 4}, dialogue.Kind((8, 8), 10, ("a", "b")), 1.5),
        dialogue.Begin(b"header", True),
        dialogue.Call((step, step), 3, 1, b"", bytes(8)),
        dialogue.Offer(5, 100, bytes(32)),
        dialogue.Part(b"data"),
        dialogue.Done((step,)),
        dialogue.Refused("no", True),
        dialogue.Wait(),
    ]
    slot, members = Slot(3, 1), (0, 2, 5)
    replies += [
        covert.Enrol(terms(3)),
        covert.Meet(tuple(candidates()[1]), slot),
        covert.Vow(slot),
        covert.Confirm(Closing(slot, bytes(32), members)),
        covert.Open(Request(slot, bytes(32), members, members, deposits(2), members, bytes(64 * 3))),
    ]
    told = covert.Told(candidates()[1][0], None, Masked(slot, 2, bytes(16), b"words", bytes(16)))
    signature = covert.Told(answer=Answer(slot, 2, (5,), bytes(32)), consent=Consent(slot, 2, bytes(64)))
    said += [dialogue.Turn(4, bytes(8), 3, 16, b"", 5, part, bytes(8)) for part in (told, signature)]
    signed = [dialogue.Signed(3, bytes(8), bytes(64), encode(words)) for words in said]
    kept = Commitments(5, slot, bytes(32))
    whole = [*plans, *reports, sums, round_, kept, *signed, *said, *replies]
    return tuple((type(message), encode(message)) for message in whole)


def messages(data: bytes) -> None:
    """Bytes are a message that is equal to what its own bytes say, or are refused as ReportError."""
    choices = Choices(data)
    kind, whole = choices.of(spoken())
    with suppress(ReportError):
        found = decode(bent(choices, whole), kind)
        again = encode(found)  # not compared as values: NaN, which a settings' float may be, differs from itself
        assert encode(decode(again, kind)) == again
        used(choices, found)


def used(choices: Choices, message: object) -> None:
    """Do with a message what is done with it next."""
    plan = decode(choices.of([whole for kind, whole in spoken() if kind is Plan]), Plan)
    match message:
        case Plan():
            asked(message)
        case Report() | Aggregate():
            assert message.integers(plan).dtype == np.int64
        case Round(plan=own, aggregate=Aggregate() as sums) if small(own):
            assert sums.integers(own).shape == own.shape
        case dialogue.Signed():
            said = dialogue.opened(message)
            assert dialogue.sealed(3, bytes(8), said, lambda _: b"")
        case dialogue.Call():
            for flags in (message.cohort, *(step.cohort for step in message.steps)):
                assert all(0 <= number < 9 for number in numbers_of(flags, 9))
        case _:
            pass


def small(plan: Plan) -> bool:
    return plan.groups * plan.steps * plan.directions <= MOST_PLANNED


def asked(plan: Plan) -> None:
    """A plan that was admitted can be counted, and refused for what it would do, in words."""
    assert plan.forwards > 0
    assert plan.directions >= len(plan.blocks)
    with suppress(SettingsError):
        plan.refuse_overflow()
    with suppress(ReportError):
        plan.refuse_other_model(40)
    for client in plan.cohort:
        assert 0 <= plan.group(client) < plan.groups
    if small(plan):
        assert plan.places.shape == plan.bounds.shape == (plan.directions,)
        codes = np.zeros((plan.steps, plan.directions), np.int64)
        report = Report.of(plan, plan.cohort[0], 1, codes)
        assert (report.integers(plan) == codes).all()


def replies(data: bytes) -> None:
    """A client that hears anything understands it or refuses it."""
    choices = Choices(data)
    known = [whole for kind, whole in spoken() if kind.__module__ in (dialogue.__name__, covert.__name__)]
    with suppress(ReportError):
        found = dialogue.heard(bent(choices, choices.of(known)))
        again = encode(found)
        assert encode(dialogue.heard(again)) == again
        used(choices, found)


# Enrolments, rosters, and members as they are stored.


@cache
def candidates() -> tuple[list[Candidate], list[Enrolment]]:
    made = [Candidate.draw(number, terms(3), drawn(number)) for number in (2, 5, 8)]
    return made, [enrolled(one) for one in made]


def enrolments(data: bytes) -> None:
    """Whatever enrols, the roster is refused or is the one that was signed; whatever roster comes, chains agree."""
    choices = Choices(data)
    own, signed = candidates()
    which = choices.below(3)
    with suppress(ReportError):
        changed = heard(choices, signed[which])
        chosen = [*signed[:which], changed, *signed[which + 1 :]]
        found = Roster.of(terms(3), chosen, CA.certificate, NOW)
        assert found == Roster.of(terms(3), signed, CA.certificate, NOW)
    with suppress(ReportError):
        roster = heard(choices, Roster.of(terms(3), signed, CA.certificate, NOW))
        chains = own[which].chains(roster)
        assert [len(chain) for chain in chains].count(0) == 1


def states(data: bytes) -> None:
    """A state that was stored and damaged is refused, or is one with which everything works or is refused."""
    choices = Choices(data)
    member = choices.of([*epoch(4, 3)[1], *begun()[0].values()])
    with suppress(ReportError):
        found = Member.restored(bent(choices, member.stored()))
        assert Member.restored(found.stored()) == found
        acted(choices, found)


def deposits(count: int) -> tuple[Deposit, ...]:
    return (Deposit(bytes(12), bytes(48), bytes(16), bytes(8)),) * count


def acted(choices: Choices, member: Member) -> None:
    slot = choices.of(SLOTS)
    everybody = tuple(number for number in member.roster.members if number < 1 << 32)
    for act in (
        lambda: member.pledge(slot, drawn(2)),
        lambda: member.mask(slot, everybody, RING, np.arange(4), 1, SUBJECT),
        lambda: member.confirm(Closing(slot, member.roster.digest, everybody), signer(member.number)),
        lambda: member.unmask(
            Request(slot, member.roster.digest, everybody, everybody, deposits(len(everybody) - 1), (), b"")
        ),
        lambda: member.forget(choices.below(4)),
    ):
        with suppress(ReportError):
            act()


# A server that may do what it likes, and members that keep to the protocol.


@cache
def begun() -> tuple[dict[int, Member], dict[tuple[Slot, int], Pledge]]:
    """Return four members, of whom three finish a slot, with their pledges for all slots."""
    members = {member.number: member for member in epoch(4, 3)[1]}
    pledges = {}
    for seed, slot in enumerate(SLOTS):
        for number in members:
            members[number], pledges[slot, number] = members[number].pledge(slot, drawn(100 * number + seed))
    return members, pledges


@dataclass
class Liar:
    """What a server has made four honest members say."""

    members: dict[int, Member]
    pledges: dict[tuple[Slot, int], list[Pledge]]
    shown: tuple[int, ...]
    """U, as the server mostly tells it."""
    masked: dict[tuple[Slot, int], tuple[Masked, tuple[int, ...]]] = field(default_factory=dict)
    told: dict[tuple[Slot, int], dict[int, set[str]]] = field(default_factory=lambda: defaultdict(dict))
    """Of an owner's secrets of a slot, by holder, the kinds of shares that it gave."""
    signed: dict[bytes, dict[int, bytes]] = field(default_factory=lambda: defaultdict(dict))
    """Members' signatures by transcript."""
    agreed: dict[Slot, set[bytes]] = field(default_factory=lambda: defaultdict(set))
    """Transcripts of a slot for which a member gave shares."""
    finished: dict[tuple[int, int], set[int]] = field(default_factory=lambda: defaultdict(set))
    """In which attempts a member answered, by member and round."""

    @classmethod
    def begin(cls, choices: Choices) -> Liar:
        members, pledges = begun()
        shown = choices.some(sorted(members)) if choices.below(2) == 1 else tuple(sorted(members))
        return cls(dict(members), {key: [pledge] for key, pledge in pledges.items()}, shown)

    @property
    def roster(self) -> Roster:
        return next(iter(self.members.values())).roster

    def masks(self, choices: Choices) -> None:
        """Have all mask in a slot or two, each for the cohort that the server shows it."""
        slots = choices.of([SLOTS[:1], SLOTS[:2], SLOTS[::2], SLOTS])
        split = choices.below(4) == 1
        for slot in slots:
            for number in self.members:
                cohort = (*choices.some(self.roster.members), number) if split else self.roster.members
                with suppress(ReportError):
                    self._mask(slot, number, tuple(sorted(set(cohort))))

    def mask(self, choices: Choices) -> None:
        number, slot = choices.of(sorted(self.members)), choices.of(SLOTS)
        cohort = choices.some(self.roster.members) if choices.below(4) == 1 else self.roster.members
        self._mask(slot, number, cohort)

    def _mask(self, slot: Slot, number: int, cohort: tuple[int, ...]) -> None:
        self.members[number], masked = self.members[number].mask(slot, cohort, RING, np.arange(4), 1, SUBJECT)
        self.masked[slot, number] = masked, cohort

    def pledge(self, choices: Choices) -> None:
        number, slot = choices.of(sorted(self.members)), choices.of(SLOTS)
        self.members[number], pledge = self.members[number].pledge(slot, drawn(choices.below(256)))
        self.pledges[slot, number].append(pledge)

    def forget(self, choices: Choices) -> None:
        number = choices.of(sorted(self.members))
        self.members[number] = self.members[number].forget(choices.below(4))

    def restore(self, choices: Choices) -> None:
        number = choices.of(sorted(self.members))
        before = self.members[number]
        self.members[number] = Member.restored(before.stored())
        assert self.members[number] == before

    def ask(self, choices: Choices) -> None:
        """Ask a member for what the server likes, and look at what it says."""
        holder, slot = choices.of(sorted(self.members)), SLOTS[max(0, choices.below(8) - 5)]
        _, cohort = self.masked.get((slot, holder), (None, self.roster.members))
        reported = choices.some(cohort) if choices.below(4) == 1 else tuple(i for i in self.shown if i in cohort)
        if choices.below(4) != 1:
            for number in reported:
                with suppress(ReportError):
                    self.sign(slot, number, reported)
        transcript = self.transcript(slot, cohort, reported)
        signatures = self.signed.get(choices.of(sorted(self.signed)) if choices.below(8) == 7 else transcript, {})
        signers = tuple(sorted(signatures))
        parts = tuple(self.deposit(choices, slot, owner, holder) for owner in cohort if owner != holder)
        whole = b"".join(signatures[number] for number in signers)
        request = Request(slot, self.roster.digest, cohort, reported, parts, signers, whole)
        request = heard(choices, request) if choices.below(8) == 1 else request
        self.members[holder], answer = self.members[holder].unmask(request)
        self.finished[holder, answer.slot.round].add(answer.slot.attempt)
        self.agreed[answer.slot].add(self.members[holder].transcript(answer.slot))
        shares = [answer.shares[at : at + 16] for at in range(0, len(answer.shares), 16)]
        given = [owner for owner in request.cohort if owner not in answer.unreadable]
        for owner, share in zip(given, shares, strict=True):
            kinds = self.told[answer.slot, owner].setdefault(holder, set())
            kinds.add(self.kind(answer.slot, owner, holder, share))

    def sign(self, slot: Slot, number: int, reported: tuple[int, ...]) -> None:
        """Have a member sign that these have reported."""
        self.members[number], consent = self.members[number].confirm(
            Closing(slot, self.roster.digest, reported), signer(number)
        )
        self.signed[self.members[number].transcript(slot)][number] = consent.signature

    def transcript(self, slot: Slot, cohort: tuple[int, ...], reported: tuple[int, ...]) -> bytes:
        return transcript_of(binding_of(self.roster.digest, slot, cohort, RING.bits, 5, SUBJECT), reported)

    def deposit(self, choices: Choices, slot: Slot, owner: int, holder: int) -> Deposit:
        """Return the part of some pledge for a holder, mostly the right one, with a witness that the server has."""
        source = (choices.of(SLOTS), choices.of(self.roster.members)) if choices.below(8) == 7 else (slot, owner)
        pledge = choices.of(self.pledges[source])
        others, place = self.roster.others(source[1]), self.roster.place(holder)
        rank = others.index(holder) if holder in others else 0
        masked, cohort = self.masked.get((slot, owner), (None, ()))
        peers = [number for number in cohort if number != owner]
        seen = b""
        if masked is not None and holder in peers:
            at = 8 * peers.index(holder)
            seen = masked.witnesses[at : at + 8]
        sealed = pledge.sealed[48 * rank : 48 * (rank + 1)]
        return Deposit(pledge.nonce, sealed, pledge.shares_told[16 * place : 16 * (place + 1)], seen)

    def kind(self, slot: Slot, owner: int, holder: int, share: bytes) -> str:
        """Return of which of an owner's secrets a share is, by the hashes that the owner told."""
        where, place = place_of(self.roster.digest, slot), self.roster.place(holder)
        hashes = share_told(where, owner, holder, (share, share))
        for pledge in self.pledges[slot, owner]:
            said = pledge.shares_told[16 * place : 16 * (place + 1)]
            for kind, part in (("self", slice(0, 8)), ("escrow", slice(8, 16))):
                if hashes[part] == said[part]:
                    return kind
        raise AssertionError(f"member {holder} gave something that is no share of member {owner}")

    def check(self) -> None:
        """Fail where the members have told too much."""
        for (slot, owner), by_holder in self.told.items():
            for holder, kinds in by_holder.items():
                assert len(kinds) == 1, f"{holder} told both secrets of {owner} in {slot}"
            known = [self.known(slot, owner, kind) for kind in ("self", "escrow")]
            assert not all(known), f"both secrets of {owner} in {slot} are known"
        for (holder, number), attempts in self.finished.items():
            assert len(attempts) == 1, f"{holder} finished round {number} in attempts {attempts}"
        for slot, transcripts in self.agreed.items():
            assert len(transcripts) == 1, f"{slot} was opened for {len(transcripts)} sets of reports"
        for slot in SLOTS:
            for crowd in self.opened(slot):
                assert len(crowd) >= self.roster.terms.least, f"the sum of {crowd} in {slot} is known"

    def known(self, slot: Slot, owner: int, kind: str) -> bool:
        holders = [holder for holder, kinds in self.told.get((slot, owner), {}).items() if kind in kinds]
        return len(holders) >= self.roster.terms.threshold

    def opened(self, slot: Slot) -> list[set[int]]:
        """Return the least sets of members whose sum the server can compute.

        Members whose b is known and that share a seed which is not known can be added up only together.
        """
        reports = {number: cohort for (at, number), (_, cohort) in self.masked.items() if at == slot}
        bare = {number for number in reports if self.known(slot, number, "self")}
        open_ = {number for number in self.roster.members if self.known(slot, number, "escrow")}
        sets: list[set[int]] = []
        left = set(bare)
        while left:
            crowd, edge = set(), {left.pop()}
            while edge:
                number = edge.pop()
                crowd.add(number)
                edge |= {j for j in reports.get(number, ()) if j not in open_ and j != number} - crowd
            left -= crowd
            pairs = [(i, j) for i in crowd for j in reports.get(i, ()) if j in crowd and i != j]
            if crowd <= bare and all(i in reports[j] for i, j in pairs):
                sets.append(crowd)
        return sets


def members(data: bytes) -> None:
    """A server that asks what it likes gets no two kinds of share and no sum of too few."""
    choices = Choices(data)
    liar = Liar.begin(choices)
    if choices.below(4):
        liar.masks(choices)
    acts = (*[liar.ask] * 11, liar.mask, liar.mask, liar.pledge, liar.forget, liar.restore)
    for _ in range(STEPS):
        if not choices:
            break
        act = choices.of(acts)
        with suppress(ReportError):
            act(choices)
    liar.check()


# Members that may say what they like, and a server that keeps to the protocol.


@cache
def played() -> tuple[Play, tuple[Masked, ...], tuple[Answer, ...], tuple[Answer, ...]]:
    """Return a slot in which three of four members reported, their reports and two sets of answers.

    The second answers are of the same members in another slot.
    """
    found = []
    for slot in SLOTS[:2]:
        play = Play.begin(epoch(4, 3)[1], slot, RING, 5)
        for number in play.roster.members[:3]:
            play.report(number, np.arange(4))
        play.mask(play.roster.members[3], np.arange(4))
        play.unmask(play.roster.members)
        assert len(play.server.consents) == 3
        found.append(play)
    first, second = found
    return first, first.server.reports, first.server.answers, second.server.answers


def aggregation(data: bytes) -> None:
    """Whatever members send, the server refuses it in words or has a sum of enough members; the right one of honest."""
    choices = Choices(data)
    play, reports, answers, others = played()
    with suppress(ReportError):
        pledges = [heard(choices, one) if choices.below(16) == 1 else one for one in play.server.pledges]
        consistent(play.roster, {one.number: one for one in pledges})
        server = Aggregation.of(play.roster, play.slot, RING, 5, SUBJECT, pledges)
        server = taken(choices, server, [*reports, *reports], "report").close()
        server = taken(choices, server, [*play.server.consents, *play.server.consents], "consent")
        for number in server.cohort if server.agreed else ():
            request = server.request(number)
            assert decode(encode(request), Request) == request
        server = taken(choices, server, [*answers, *answers, *others], "answer")
        assert all(holder in server.cohort for pair in server.complaints for holder in pair)
        checked_sum(play, server)


def taken(choices: Choices, server: Aggregation, given: Iterable, how: str) -> Aggregation:
    """Return the state with what it took of messages that come in any shape and number."""
    for message in given:
        with suppress(ReportError):
            server = getattr(server, how)(heard(choices, message) if choices.below(4) == 1 else message)
    return server


def checked_sum(play: Play, server: Aggregation) -> None:
    sums = server.sums()
    honest = {report.number: report.words for report in play.server.reports}
    assert len(sums.reported) >= play.roster.terms.least
    assert len(sums.reported) <= sums.weight <= len(sums.reported) * RING.most_weight
    if all(honest.get(report.number) == report.words for report in server.reports):
        assert sums.slopes.tolist() == (len(sums.reported) * np.arange(4)).tolist()


@cache
def kept() -> tuple[Layout, bytes]:
    """Return a layout, and the bytes of a snapshot of it."""
    layout = Layout((Tensor("a.weight", (2, 3)), Tensor("b", (3,), live=b"\x05")))
    vector = np.arange(8, dtype=np.float32)
    state = State(vector, vector, {"first": vector, "power1": np.ones(1)}, 7, 1, (0.5, 2.0), 1.0)
    with TemporaryDirectory() as folder:
        return layout, write_snapshot(Path(folder), layout, state, bytes(32)).read_bytes()


def snapshots(data: bytes) -> None:
    """A snapshot that was changed and sealed again is a state, or refused: damaged, or of another model."""
    choices = Choices(data)
    layout, whole = kept()
    found = _SEAL.sub(b'"seal":"' + _BLANK + b'"', bent(choices, whole))
    at = found.find(_BLANK)
    sealed = found[:at] + _seal(found) + found[at + len(_BLANK) :] if at >= 0 else found
    with TemporaryDirectory() as folder, suppress(LedgerError, ModelError):
        path = Path(folder) / "1.safetensors"
        path.write_bytes(sealed)
        state, _ = read_snapshot(path, layout)
        assert state.parameters.shape == state.average.shape == (layout.size,)


TARGETS: dict[str, Callable[[bytes], None]] = {
    "messages": messages,
    "replies": replies,
    "enrolments": enrolments,
    "states": states,
    "members": members,
    "aggregation": aggregation,
    "snapshots": snapshots,
}
