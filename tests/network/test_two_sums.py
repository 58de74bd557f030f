"""No server gets two sums of a slot that differ by one client's report: neither one that lies nor one that crashed."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import cache
from typing import Any

import numpy as np
import pytest

from baffle import certificates
from baffle import run as runs
from baffle.certificates import Pair, Signer
from baffle.client import Contribution
from baffle.engines.network.commitments import Commitments, MemoryBook
from baffle.engines.network.convener import Epoch, Gathering, Stage
from baffle.engines.network.hub import Hub
from baffle.engines.network.masker import Masker
from baffle.engines.network.roster import Roster
from baffle.errors import ReportError
from baffle.secure import Terms, subject_of, usual_threshold
from baffle.server import Summed, nobody
from federation import rounds_in, simulation
from networked import Machine, Net, hub_of, net

NOW = datetime.now(UTC)
SIZES = (12, 9, 12, 7, 11)
VICTIM = 3
QUICK = {"deadline": 1.5, "settle": 0.3}


@cache
def authority() -> Pair:
    return certificates.authority("Ours", 30, NOW)


@cache
def signing(number: int) -> Pair:
    return certificates.signing(authority(), number, 20, NOW)


@dataclass(slots=True, kw_only=True)
class Spied(Masker):
    """A client as it should be, whose contributions are looked at."""

    seen: dict[tuple[int, int], list[Contribution]] = field(default_factory=lambda: defaultdict(list))

    def mask(self, plan: Any, parameters: Any, cohort: Any, contribution: Any) -> Any:
        def looked_at() -> Contribution:
            self.seen[plan.round, plan.attempt].append(made := contribution())
            return made

        return Masker.mask(self, plan, parameters, cohort, looked_at)


class ForgetfulBook(MemoryBook):
    """Remembers nothing, as clients did before they had a book, or where a folder was deleted."""

    def commitments(self, run: str) -> Commitments:
        return Commitments()


class Federation:
    """Five clients by threads, with the rules of today, with a forgotten book, or as it was before both."""

    def __init__(self, tmp_path: Any, rules: str) -> None:
        self.made, self.folder = simulation(sizes=SIZES, secure="masks", quorum=0.8), tmp_path
        self.rules = rules
        self.maskers: dict[int, Spied] = {}

    def net(self, **changes: Any) -> Any:
        return net(self.made, self.folder, start=False, roster=self.roster(), **(QUICK | changes))

    def roster(self) -> Roster:
        return Roster(len(SIZES), authority().certificate)

    def start(self, found: Net, number: int, **changes: Any) -> None:
        pair = signing(number)
        signer = Signer.read(pair.key)
        self.maskers[number] = masker = Spied(
            number=number, signer=signer, certificate=pair.certificate, authority=authority().certificate
        )
        reproducible = self.rules == "none"
        member = found.member(number, reproducible=reproducible, certificate=pair.certificate, masker=masker)
        masker.book = member.standing.home if self.rules == "all" else ForgetfulBook()
        member.channel.sign = signer.sign
        for name, value in changes.items():
            setattr(member.channel, name, value)
        found.machines[number] = Machine(member)

    def report(self, slot: tuple[int, int], number: int) -> np.ndarray:
        """Return w · q of the first report that a client made of a slot."""
        first = self.maskers[number].seen[slot][0]
        return first.samples * first.integers


def gathered(hub: Hub, run: Any, opening: Any, gathering: Gathering) -> Summed | None:
    """Return the sum, or None where clients refuse it."""
    opening.secure = gathering
    try:
        while gathering.stage < Stage.DONE:
            hub._call(run, opening)
            with hub._changed:
                gathering.next()
        return gathering.summed()
    except ReportError:
        return None
    finally:
        with hub._changed:
            run.opening = None


@pytest.mark.parametrize("rules", ["all", "forgotten", "none"])
def test_a_server_that_asks_for_a_slot_again_in_another_epoch(rules, tmp_path, monkeypatch, caplog) -> None:
    """It gets nothing; where the book was lost, a sum of other integers; before, the report of any client in turn."""
    federation = Federation(tmp_path, rules)
    honestly, sums = Hub._summed, []

    def twice(hub: Hub, run: Any, opening: Any, parameters: Any) -> Summed:
        if opening.plan.round != 1 or sums:
            return honestly(hub, run, opening, parameters)
        for number, without in enumerate([(), (VICTIM,)]):
            asked = tuple(i for i in opening.plan.cohort if i not in without)
            epoch = Epoch(Terms(run.name, 100 + number, 1, usual_threshold(len(asked)), 2), asked)
            subject = subject_of(opening.plan, parameters)
            gathering = Gathering(opening.plan, epoch, authority().certificate, asked, subject)
            sums.append(gathered(hub, run, opening, gathering))
        hub._convener = None
        return sums[0] or nobody()

    monkeypatch.setattr(Hub, "_summed", twice)
    with federation.net() as found:
        for number in range(len(SIZES)):
            federation.start(found, number)
        found.serve(3)
    first, second = sums
    assert first is not None
    if rules == "all":
        assert second is None
        assert "round 1, attempt 0 is not reported on: this client has let round 1, attempt 0 be opened" in caplog.text
        return
    assert second is not None
    exact = (first.integers - second.integers == federation.report((1, 0), VICTIM)).all()
    assert exact == (rules == "none")


class KilledError(Exception):
    pass


@pytest.mark.parametrize("rules", ["all", "forgotten", "none"])
def test_a_server_that_is_killed_between_opening_and_recording(rules, tmp_path, monkeypatch) -> None:
    """It follows the protocol, and its memory has the first sum; at its restart one client is away."""
    federation = Federation(tmp_path, rules)
    honestly, sums = Hub._summed, []

    def killed(hub: Hub, run: Any, opening: Any, parameters: Any) -> Summed:
        summed = honestly(hub, run, opening, parameters)
        if opening.plan.round == 2 and summed.weight:
            sums.append((opening.plan.attempt, summed))
            if len(sums) == 1:
                raise KilledError
        return summed

    monkeypatch.setattr(Hub, "_summed", killed)
    with federation.net(park=0.3) as found:
        for number in range(len(SIZES)):
            federation.start(found, number, patience=1.0)
        with pytest.raises(KilledError):
            found.serve(4)
        found.machines[VICTIM].stop()
        found.hub.close()
        found.hub = hub_of(federation.made, park=0.3, roster=federation.roster(), **QUICK)
        found.hub.__enter__()
        found.serve(4, least=4)
    (_, first), (attempt, second) = sums
    assert sorted(first.uploads) == [0, 1, 2, 3, 4]
    assert sorted(second.uploads) == [0, 1, 2, 4]
    difference = first.integers - second.integers
    # The server's intent to ask for the first is in its ledger: it never asks for that attempt again.
    assert attempt > 0
    assert not (difference == federation.report((2, 0), VICTIM)).all()
    told = rounds_in(tmp_path / "run")
    assert [one.plan.round for one in told if one.aggregate is not None] == [0, 1, 2, 3]
    runs.verify(tmp_path / "run")
