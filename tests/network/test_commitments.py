"""What a client has given away is on its disk before it is given, is never forgotten, and is never begun anew."""

from __future__ import annotations

import contextlib
import os
import stat
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from baffle import certificates, server
from baffle.certificates import Signer
from baffle.client import Contribution
from baffle.engines.network import home as homes
from baffle.engines.network.commitments import Book, Commitments, MemoryBook
from baffle.engines.network.covert import Confirm, Enrol, Meet
from baffle.engines.network.home import Home
from baffle.engines.network.masker import Masker
from baffle.errors import ReportError, SettingsError, StorageError
from baffle.keys import Key
from baffle.mechanisms.private import Noised, Randomised
from baffle.messages import Plan
from baffle.secure import Aggregation, Request, Ring, Roster, Slot, Terms, subject_of, usual_threshold
from federation import METHOD, simulation

NOW = datetime.now(UTC)
CA = certificates.authority("Ours", 30, NOW)
PAIRS = [certificates.signing(CA, number, 20, NOW) for number in range(5)]
RUN, OTHER = b"run name", b"another!"
ONE, TWO = bytes([1] * 32), bytes([2] * 32)
slots = st.builds(Slot, st.integers(0, 3), st.integers(0, 3))


@given(st.lists(st.tuples(slots, st.sampled_from([ONE, TWO]))))
def test_slots_are_opened_forwards_and_each_for_one_sum(asked) -> None:
    found, opened = Commitments(), []
    for slot, transcript in asked:
        if opened and (slot < opened[-1][0] or (slot == opened[-1][0] and transcript != opened[-1][1])):
            with pytest.raises(ReportError, match="can't be opened: this client has let"):
                found.opening(slot, transcript)
            continue
        found = found.opening(slot, transcript)
        opened.append((slot, transcript))
        assert (found.opened, found.transcript) == (slot, transcript)
    assert opened == sorted(opened, key=lambda one: one[0])
    assert len(dict(opened)) == len(set(opened))
    for slot in [slot for slot, _ in asked]:
        with pytest.raises(ReportError, match="not reported on") if opened and slot <= opened[-1][0] else _fine():
            found.refuse_masking(slot)


_fine = contextlib.nullcontext


def test_what_else_is_given_away_stays() -> None:
    assert Commitments(answered=7).opening(Slot(1, 0), ONE) == Commitments(7, Slot(1, 0), ONE)


@pytest.fixture
def at(tmp_path):
    """Return a way to open the client's folder again, as a process that was started again does."""
    with contextlib.ExitStack() as stack:
        opened: list[Home] = []

        def again() -> Home:
            if opened:
                opened.pop().close()
            opened.append(stack.enter_context(Home(tmp_path / "client")))
            return opened[-1]

        yield again


def test_it_is_on_the_disk_and_its_owners_alone(at, tmp_path, monkeypatch) -> None:
    home = at()
    assert home.commitments("run") == Commitments()
    synced: list[str] = []
    honest = os.fsync
    monkeypatch.setattr(
        os, "fsync", lambda one: (synced.append(str(Path(f"/proc/self/fd/{one}").readlink())), honest(one))
    )
    value = Commitments(3, Slot(5, 1), ONE)
    home.commit("run", value)
    folder = tmp_path / "client/run"
    assert [one.removeprefix(str(tmp_path)) for one in synced] == [
        "/client/run/commitments.part",
        "/client/run",
        "/client",
    ]
    assert stat.S_IMODE((folder / "commitments").stat().st_mode) == 0o600
    assert at().commitments("run") == value
    assert at().commitments("another run") == Commitments()
    assert not list(folder.glob("*.part"))


@pytest.mark.parametrize("damage", ["cut", "empty", "flipped", "head", "not this", "longer"])
def test_a_damaged_file_is_refused_and_stays(damage, at, tmp_path) -> None:
    home = at()
    home.commit("run", Commitments(3, Slot(5, 1), ONE))
    path = tmp_path / "client/run/commitments"
    whole = path.read_bytes()
    damaged = {
        "cut": whole[:-1],
        "empty": b"",
        "flipped": whole[:-3] + bytes([whole[-3] ^ 1]) + whole[-2:],
        "head": b"x" + whole[1:],
        "not this": b"\x93\x00\xc0\xc4\x20" + bytes(32),
        "longer": whole + b"\0",
    }[damage]
    path.write_bytes(damaged)
    with pytest.raises(SettingsError, match="is damaged: without it this client could be made to give a report away"):
        at().commitments("run")
    assert path.read_bytes() == damaged


@given(st.binary(max_size=120))
def test_no_other_bytes_are_commitments(data) -> None:
    with pytest.raises(ReportError, match="damaged"):
        Commitments.restored(data)


def test_a_file_that_cannot_be_read_is_no_empty_one(at, tmp_path) -> None:
    (tmp_path / "client/run/commitments").mkdir(parents=True)
    with pytest.raises(SettingsError, match="can't be read"):
        at().commitments("run")


# What a client does with it.


@dataclass
class Play:
    """Clients, and a server that relays what it likes."""

    maskers: list[Masker]
    plan: Plan
    parameters: np.ndarray
    made: Any
    told: list[Any] = field(default_factory=list)

    @classmethod
    def of(cls, *books: Book) -> Play:
        made = simulation(METHOD, sizes=(12,) * len(books), secure="masks")
        header = made.header()
        state = header.start({})
        plan = server.plan(made.algorithm, header.federation, state)
        found = cls([], plan, state.parameters, made)
        for number, book in enumerate(books):
            found.maskers.append(found.masker(number, book))
        return found

    def masker(self, number: int, book: Book) -> Masker:
        """Return a client as it is when it was started (again)."""
        pair = PAIRS[number]
        signer = Signer.read(pair.key)
        masker = Masker(number=number, signer=signer, certificate=pair.certificate, authority=CA.certificate, book=book)
        masker.enter(RUN)
        return masker

    def epoch(self, number: int, slot: Slot, among: tuple[int, ...], threshold: int | None = None) -> Roster:
        """Begin an epoch and have all pledge for a slot."""
        terms = Terms(RUN, number, slot.round, usual_threshold(len(among)) if threshold is None else threshold, 2)
        enrolments = [self.maskers[i].enrol(Enrol(terms)).enrolment for i in among]
        self.told = [self.maskers[i].meet(Meet(tuple(enrolments), slot)).pledge for i in among]
        return Roster.of(terms, enrolments, CA.certificate, NOW)

    def asked(self, slot: Slot) -> Plan:
        return replace(self.plan, round=slot.round, attempt=slot.attempt)

    def mask(self, number: int, slot: Slot, cohort: tuple[int, ...]) -> Any:
        own = Contribution(number, 1, np.full(self.plan.words, number))
        return self.maskers[number].mask(self.asked(slot), self.parameters, cohort, lambda: own).masked

    def reported(self, roster: Roster, slot: Slot) -> Aggregation:
        """Return a slot in which all members of an epoch have reported."""
        plan = self.asked(slot)
        state = Aggregation.of(
            roster, slot, Ring.of(plan), plan.words + 1, subject_of(plan, self.parameters), self.told
        )
        for number in roster.members:
            state = state.report(self.mask(number, slot, roster.members))
        return state.close()

    def agreed(self, state: Aggregation) -> Aggregation:
        for number in state.reported:
            state = state.consent(self.maskers[number].confirm(Confirm(state.closing())).consent)
        return state

    def opened(self, state: Aggregation) -> Aggregation:
        state = self.agreed(state)
        for number in state.reported:
            state = state.answer(self.maskers[number].open(state.request(number)).answer)
        return state


SLOT = Slot(2, 0)
ALL = (0, 1, 2)


def begun(*books: Book) -> tuple[Play, Aggregation]:
    play = Play.of(*books or (MemoryBook(), MemoryBook(), MemoryBook()))
    return play, play.reported(play.epoch(1, SLOT, ALL), SLOT)


def test_a_sum_is_opened_and_the_same_again() -> None:
    play, state = begun()
    opened = play.opened(state)
    assert opened.sums().slopes.tolist() == [3] * play.plan.words
    assert play.maskers[0].open(opened.request(0)).answer == opened.answers[0]
    assert play.maskers[0].confirm(Confirm(state.closing())).consent == opened.consents[0]
    assert play.maskers[0].book.commitments(RUN.hex()).opened == SLOT


@pytest.mark.parametrize("restarts", [False, True])
@pytest.mark.parametrize("since", ["signed", "answered"])
@pytest.mark.parametrize("slot", [SLOT, Slot(1, 9), Slot(0, 0)])
def test_after_a_signature_no_report_at_or_below_the_slot_in_any_epoch(slot, since, restarts, at) -> None:
    play, state = begun(at(), MemoryBook(), MemoryBook())
    if since == "signed":
        play.maskers[0].confirm(Confirm(state.closing()))
    else:
        play.opened(state)
    if restarts:
        play.maskers[0] = play.masker(0, at())
    play.epoch(2, slot, ALL)
    with pytest.raises(ReportError, match="is not reported on: this client has let round 2, attempt 0 be opened"):
        play.mask(0, slot, ALL)
    later = Slot(2, 1)
    assert play.opened(play.reported(play.epoch(3, later, ALL), later)).sums().weight == 3


def test_a_report_that_was_masked_before_another_epoch_opened_its_slot_stays_sealed() -> None:
    play, old = begun()
    keep = play.maskers[0]._member
    play.opened(play.reported(play.epoch(2, SLOT, ALL), SLOT))
    play.maskers[0]._member = keep  # as if a client had kept what it drops when it meets another epoch
    with pytest.raises(ReportError, match="can't be opened: this client has let round 2, attempt 0 be opened"):
        play.maskers[0].confirm(Confirm(old.closing()))


@pytest.mark.parametrize("act", ["confirm", "open"])
def test_where_the_disk_refuses_nothing_is_sent(act, at, monkeypatch) -> None:
    home = at()
    play, state = begun(home, MemoryBook(), MemoryBook())
    what: Any = lambda: play.maskers[0].confirm(Confirm(state.closing()))  # noqa: E731
    if act == "open":
        play.maskers[0].book = MemoryBook()
        request = play.agreed(state).request(0)
        play.maskers[0].book = home
        what = lambda: play.maskers[0].open(request)  # noqa: E731

    def full(path: Path, *_: object, **__: object) -> None:
        raise StorageError(path, "can't be written: No space left on device")

    before = play.maskers[0]._member
    with monkeypatch.context() as patch:
        patch.setattr(homes, "write_atomically", full)
        with pytest.raises(ReportError, match=r"can't be kept first: .*commitments can't be written: No space left"):
            what()
    assert play.maskers[0]._member is before
    assert home.commitments(RUN.hex()) == Commitments()
    assert what() is not None
    assert home.commitments(RUN.hex()).opened == SLOT


def test_it_is_kept_before_the_message_is_made() -> None:
    """Nothing comes back from a client before its book has it."""

    class Stops(MemoryBook):
        def commit(self, run: str, value: Commitments) -> None:
            raise KeyboardInterrupt

    play, state = begun(Stops(), MemoryBook(), MemoryBook())
    with pytest.raises(KeyboardInterrupt):
        play.maskers[0].confirm(Confirm(state.closing()))


def test_what_is_counted_meanwhile_is_not_written_over(at) -> None:
    """Others count in the same file."""
    home = at()
    play, state = begun(home, MemoryBook(), MemoryBook())
    home.commit(RUN.hex(), Commitments(answered=5))
    play.opened(state)
    assert home.commitments(RUN.hex()).answered == 5


def test_an_epoch_under_another_runs_name_is_refused() -> None:
    """Else a server could have the book looked up under a name of which nothing is in it."""
    play = Play.of(MemoryBook(), MemoryBook(), MemoryBook())
    with pytest.raises(ReportError, match="an epoch of another run"):
        play.maskers[0].enrol(Enrol(Terms(OTHER, 1, 0, 2, 2)))
    fresh = Masker(number=0, signer=play.maskers[0].signer, certificate=b"", authority=b"")
    with pytest.raises(ReportError, match="an epoch of another run"):
        fresh.enrol(Enrol(Terms(RUN, 1, 0, 2, 2)))
    play.epoch(1, SLOT, ALL)
    assert play.maskers[0].epoch
    play.maskers[0].enter(OTHER)
    assert not play.maskers[0].epoch
    with pytest.raises(ReportError, match="in no epoch"):
        play.mask(0, SLOT, ALL)


def test_an_epoch_in_which_fewer_than_two_thirds_open_a_sum_is_refused() -> None:
    """Three of four can't be played against each other by one colluder; of five, three could."""
    play = Play.of(MemoryBook(), MemoryBook(), MemoryBook(), MemoryBook())
    with pytest.raises(SettingsError, match="threshold"):
        play.epoch(1, SLOT, (0, 1, 2), threshold=1)
    play.epoch(2, SLOT, (0, 1, 2, 3), threshold=3)
    wide = Play.of(*(MemoryBook() for _ in range(5)))
    with pytest.raises(ReportError, match="3 of 5 members could open a sum, and no fewer than 4 are admitted"):
        wide.epoch(1, SLOT, (0, 1, 2, 3, 4), threshold=3)


def test_batches_and_rounding_of_an_epoch_are_no_other_epochs() -> None:
    play = Play.of(MemoryBook(), MemoryBook(), MemoryBook())
    private, found = Key.root(5), []
    for number in (1, 1, 2):  # the same terms twice: the members' keys are new
        play.epoch(number, SLOT, ALL)
        found += [masker.folded(private) for masker in play.maskers[:2]]
    assert len({key.secret for key in [private, *found]}) == 4  # alike for two clients with one secret
    with pytest.raises(ReportError, match="in no epoch"):
        play.masker(0, MemoryBook()).folded(private)


@pytest.mark.parametrize("what", ["plan", "theta"])
def test_members_that_were_asked_different_things_are_not_added_up(what) -> None:
    play = Play.of(MemoryBook(), MemoryBook(), MemoryBook(), MemoryBook())
    members = (0, 1, 2, 3)
    roster = play.epoch(1, SLOT, members)
    plan, theta = play.asked(SLOT), play.parameters
    odd_plan = replace(plan, batch=plan.batch + 1) if what == "plan" else plan
    odd_theta = theta if what == "plan" else np.nextafter(theta, np.float32(9))
    state = Aggregation.of(roster, SLOT, Ring.of(plan), plan.words + 1, subject_of(plan, theta), play.told)
    for number in members[1:]:
        state = state.report(play.mask(number, SLOT, members))
    own = Contribution(0, 1, np.zeros(plan.words, np.int64))
    odd = play.maskers[0].mask(odd_plan, odd_theta, members, lambda: own).masked
    with pytest.raises(ReportError, match="masked for another cohort, plan, model or pledge"):
        state.report(odd)
    # A server that does not mind gets no share of its mask, and no signature of it.
    forged = Aggregation(
        roster, SLOT, state.ring, state.count, state.subject, state.pledges, (odd, *state.reports), members
    )
    consents = [play.maskers[number].confirm(Confirm(forged.closing())).consent for number in members]
    with pytest.raises(ReportError, match="the signature of member 0 is not of the reports that came"):
        forged.consent(consents[0])
    for consent in consents[1:]:
        forged = forged.consent(consent)
    for number in members[1:]:
        assert play.maskers[number].open(forged.request(number)).answer.unreadable == (0,)
    request: Request = forged.request(0)
    with pytest.raises(ReportError, match="the signature of member 1 is not of the reports that came"):
        play.maskers[0].open(request)


def test_a_private_runs_sum_of_fewer_reports_than_its_noise_is_made_for_is_not_taken_part_in() -> None:
    """A server that lies begins an epoch of few: their shares of the noise add up to a part of what is promised."""
    play = Play.of(MemoryBook(), MemoryBook(), MemoryBook())
    play.plan = replace(play.plan, privacy=Noised(1.0, 100.0, 3, False), quorum=3)
    assert play.epoch(1, SLOT, ALL).terms.least == 2
    words = "sums of 2 reports are opened in this epoch, and what the run promises counts on 3 or more"
    with pytest.raises(ReportError, match=words):
        play.mask(0, SLOT, ALL)
    play.plan = replace(play.plan, privacy=Randomised(0.3, 2.0))
    with pytest.raises(ReportError, match=words):
        play.mask(0, SLOT, ALL)
    play.plan = replace(play.plan, privacy=Noised(1.0, 100.0, 3, False), quorum=2)
    assert play.mask(0, SLOT, ALL) is not None


def test_noise_that_the_server_adds_lets_groups_be_summed_that_are_smaller_than_the_quorum() -> None:
    play = Play.of(MemoryBook(), MemoryBook(), MemoryBook())
    play.plan = replace(play.plan, privacy=Noised(1.0, 100.0, 0, False), quorum=3)
    assert play.epoch(1, SLOT, ALL).terms.least == 2
    assert play.mask(0, SLOT, ALL) is not None
