"""The protocol's promises, against a server that asks whatever it likes, in any order, of clients that may restart.

The same clients without one of their rules break a promise within a few hundred steps: so the search is able to.
`python benchmarks/protocol_model.py` takes 100,000 steps.
"""

from __future__ import annotations

from contextlib import ExitStack, suppress
from fractions import Fraction

import pytest
from hypothesis import Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule, run_state_machine_as_test

from baffle.errors import ReportError
from baffle.secure import Slot
from protocol import SLOTS, BrokenError, Rules, Sums, World, cheap, play

clients = st.integers(0, 6)
some = st.frozensets(clients, max_size=2)
"""Who is left out."""
slots = st.sampled_from(SLOTS[:2])


class Server(RuleBasedStateMachine):
    """All that a server may do."""

    rules_kept = Rules()

    def __init__(self) -> None:
        super().__init__()
        self.stack = ExitStack()
        self.stack.enter_context(cheap(self.rules_kept))

    def teardown(self) -> None:
        self.stack.close()

    @initialize(count=st.integers(4, 7), working=st.integers(0, 4), seed=st.randoms(use_true_random=False))
    def begin(self, count, working, seed) -> None:
        most = -(-2 * count // 3) - 1
        self.world = World(count, frozenset(seed.sample(range(count), min(working, most))), self.rules_kept)

    def who(self, without=()) -> list[int]:
        return [number for number in range(self.world.clients) if number not in without]

    def one(self, client: int) -> int:
        return client % self.world.clients

    @rule(slot=slots, without=some, gone=some, silent=some)
    def whole_round(self, slot, without, gone, silent) -> None:
        if not (among := self.who(without)):
            return
        epoch = self.world.enrol(among)
        self.world.round(epoch, slot, reporting=self.who(gone), asked=self.who(silent), anew=True)

    @rule(slot=slots, gone=some, silent=some)
    def round_in_the_epoch(self, slot, gone, silent) -> None:
        if self.world.terms:
            epoch = max(self.world.terms)
            self.world.round(epoch, slot, reporting=self.who(gone), asked=self.who(silent))

    @rule(slot=slots, some_gone=some, other_gone=some, some_asked=st.frozensets(clients))
    def round_told_two_ways(self, slot, some_gone, other_gone, some_asked) -> None:
        """All report; some are told of one set of reports, and the rest of another."""
        if self.world.terms:
            self.world.round(max(self.world.terms), slot, reporting=self.who(), asked=())
            for act in (self.world.confirm, self.world.open):
                for client in self.who():
                    with suppress(ReportError):
                        act(client, slot, self.who(some_gone if client in some_asked else other_gone))

    @rule(client=clients, slot=slots, without=some)
    def meet(self, client, slot, without) -> None:
        if self.world.terms:
            with suppress(ReportError):
                self.world.meet(max(self.world.terms), self.one(client), slot, without - {self.one(client)})

    @rule(client=clients, slot=slots, without=some, model=st.integers(0, 1))
    def mask(self, client, slot, without, model) -> None:
        with suppress(ReportError):
            self.world.mask(self.one(client), slot, self.who(without), model)

    @rule(client=clients, slot=slots, without=some)
    def confirm(self, client, slot, without) -> None:
        with suppress(ReportError):
            self.world.confirm(self.one(client), slot, self.who(without))

    @rule(client=clients, slot=slots, without=some)
    def open(self, client, slot, without) -> None:
        with suppress(ReportError):
            self.world.open(self.one(client), slot, self.who(without))

    @rule(client=clients, before=st.integers(0, 2))
    def forget(self, client, before) -> None:
        with suppress(ReportError):
            self.world.forget(self.one(client), before)

    @rule(client=clients)
    def restart(self, client) -> None:
        self.world.restart(self.one(client))

    @rule(client=clients)
    def wipe(self, client) -> None:
        self.world.wipe(self.one(client))

    @invariant()
    def holds(self) -> None:
        if hasattr(self, "world"):
            self.world.check()


def machine(rules: Rules) -> type[Server]:
    return type("Rules", (Server,), {"rules_kept": rules})


def test_whatever_a_server_asks() -> None:
    run_state_machine_as_test(
        machine(Rules()), settings=settings(max_examples=40, stateful_step_count=40, deadline=None)
    )


@pytest.mark.parametrize("rules", [Rules(), Rules(book=False), Rules(folded=False)], ids=["all", "no book", "no fold"])
def test_at_random_for_long(rules) -> None:
    """Each of the two rules against second sums is enough while no folder is deleted; the fold, even then."""
    done, opened = play(800, 7, rules)
    assert sum(done.values()) == 800
    assert opened > 10


@pytest.mark.parametrize(
    ("rules", "words"),
    [
        (Rules(book=False, folded=False), r"the report of client \d can be solved for"),
        (Rules(signed=False), "sets of reports were opened in one epoch"),
    ],
    ids=["as before", "unsigned"],
)
def test_without_its_rule_a_promise_is_broken_soon(rules, words) -> None:
    with pytest.raises(BrokenError, match=words):
        play(2000, 1, rules)
    found = settings(max_examples=200, stateful_step_count=30, deadline=None, derandomize=True, phases=[Phase.generate])
    with pytest.raises(BrokenError):
        run_state_machine_as_test(machine(rules), settings=found)


def test_two_sums_that_differ_by_one_report_by_hand() -> None:
    """Finding it does not hang on chance: seven, then six of them in another epoch, at one slot."""
    for rules, broken in ((Rules(), False), (Rules(book=False), False), (Rules(book=False, folded=False), True)):
        world = World(7, frozenset(), rules)
        everybody = list(range(7))
        with cheap(rules):
            for among in (everybody, everybody[:-1]):
                world.round(world.enrol(among), Slot(1, 0), reporting=among, asked=among, anew=True)
            crowds = [crowd for seen in world.seen.values() for crowd in world.bare(seen)]
            assert sorted(map(len, crowds)) == ([7] if rules.book else [6, 7])
            if broken:
                with pytest.raises(BrokenError, match="the report of client 6 can be solved for"):
                    world.check()
            else:
                world.check()


def test_what_can_be_solved_for() -> None:
    sums = Sums()
    for members in ("abc", "ab"):
        sums.add(frozenset(members))
    assert sums.solved() == ["c"]
    sums = Sums()
    for members in ("ab", "bc", "ca", "abc"):  # an odd cycle tells all; over integers modulo 2 it would not
        sums.add(frozenset(members))
    assert sorted(sums.solved()) == ["a", "b", "c"]
    sums = Sums()
    for members in ("ab", "bc", "cd", "da", "abcd"):  # an even one tells nothing
        sums.add(frozenset(members))
    assert sums.solved() == []
    assert all(isinstance(value, Fraction) for row in sums.rows for value in row.values())
