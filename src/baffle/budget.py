"""A privacy budget: the noise that keeps a run within it, and what each client has spent of it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Literal, TypeAlias, cast, get_args

import msgspec
import numpy as np
from numpy.typing import NDArray

from baffle import accounting, checks
from baffle.accounting import Spending
from baffle.algorithms import Baffle
from baffle.errors import SettingsError
from baffle.mechanisms import GaussianPrivacy, Privacy, Quantiser, RandomisedPrivacy
from baffle.server import Federation, State

MechanismName: TypeAlias = Literal["gaussian", "shares", "rqm"]
KEEP = 0.1
"""q of randomised quantisation: few levels kept cost least at an error that is of use (docs/privacy.md)."""
MOST_LEVELS = 15
"""Of randomised quantisation, to each side: beyond, the divergence of a sum takes minutes."""
COARSE = 1e-3
"""Precision of the extension that is searched for, as each divergence of a large sum takes seconds."""
AGAIN = 0.02
"""Attempts that are tried again, as a share of the rounds, for which there is budget."""


class Target(msgspec.Struct, frozen=True, kw_only=True):
    """What a run promises each of its clients.

    Raises:
        SettingsError: a field is out of its range.
    """

    mechanism: MechanismName
    """Noise by the server, in shares of the clients, or by randomised quantisation."""
    epsilon: float
    """ε that no client may exceed, > 0."""
    delta: float = 1e-5
    """δ, above 0 and below 1."""
    rounds: int
    """For which it has to last, ≥ 1."""
    size: float = 1.0
    """Largest root mean square of a client's slopes, > 0; the first one's if it adapts."""
    quantile: float = 0.0
    """Share of clients' slopes that the bound leaves alone, in [0, 1); 0 keeps the bound."""
    colluding: int = 0
    """Clients whose noise the server may know, ≥ 0."""

    def __post_init__(self) -> None:
        checks.one_of("mechanism", self.mechanism, get_args(MechanismName))
        for name in ("epsilon", "size"):
            checks.positive(name, getattr(self, name))
        checks.at_least("rounds", self.rounds, 1)
        checks.at_least("colluding", self.colluding, 0)
        checks.below_one("quantile", self.quantile)
        if not 0 < self.delta < 1:
            raise SettingsError("delta", self.delta, "must be above 0 and below 1")
        if self.mechanism == "rqm" and self.quantile:
            raise SettingsError("quantile", self.quantile, "must be 0 with rqm, which bounds each slope by itself")


class Budget(msgspec.Struct, frozen=True):
    """What a run's header says of its promise."""

    epsilon: float
    delta: float
    attempts: int
    """That a client may be asked; the noise is made for so many."""

    def allowed(self, asked: NDArray[np.int64], present: Sequence[int] | None) -> Sequence[int] | None:
        """Return those of the clients that are `present` (None is all) who have budget left; None where that is all.

        Args:
            asked: how often each has been asked, [clients].
            present: numbers of clients, ascending.
        """
        left = asked < self.attempts
        if left.all():
            return present
        there = range(asked.size) if present is None else present
        return [number for number in there if left[number]]


def private(method: Baffle, federation: Federation, target: Target) -> tuple[Baffle, Budget]:
    """Return the method with the least noise that keeps the target, and the budget.

    A client spends by every attempt that asks it, whether or not it answers. With cohorts, each is asked in some of the
    rounds only; who has spent all is not asked again. There is no amplification: the ledger names the cohorts.

    Raises:
        SettingsError: the target can't be kept, or the settings don't go with it.
        MissingExtraError: dp_accounting is not installed.
    """
    attempts = _attempts(federation, target.rounds)
    levels = Quantiser(method.bits).levels
    honest = federation.least - target.colluding
    if target.mechanism != "gaussian" and federation.secure and honest < 1:
        rule = f"must be below {federation.least}, the reports of a round that counts"
        raise SettingsError("colluding", target.colluding, rule)
    if target.mechanism == "shares" and not federation.secure:
        raise SettingsError("mechanism", target.mechanism, "needs secure sums: a share alone hides little")
    make = _maker(method, federation, target, honest)

    def cost(noise: float) -> accounting.Mechanism:
        return make(noise).account(levels)

    precision = COARSE if target.mechanism == "rqm" else accounting.PRECISION
    noise = accounting.least_noise(cost, target.epsilon, target.delta, attempts, precision=precision)
    privacy = make(noise)
    budget = Budget(target.epsilon, target.delta, attempts)
    return msgspec.structs.replace(method, privacy=privacy), budget


def _attempts(federation: Federation, rounds: int) -> int:
    """Return how often a client is asked in so many rounds, but for bad luck, and some for attempts that fail."""
    share = min(1.0, federation.cohort_size / federation.clients)
    mean = share * rounds
    return math.ceil(mean * (1 + AGAIN) + 3 * math.sqrt(mean * (1 - share)))


def _maker(method: Baffle, federation: Federation, target: Target, honest: int) -> partial[Privacy]:
    """Return noise -> what a method is given."""
    if target.mechanism != "rqm":
        shares = honest if target.mechanism == "shares" else 0
        return partial(_gaussian, size=target.size, quantile=target.quantile, shares=shares)
    levels = Quantiser(method.bits).levels
    if levels > MOST_LEVELS:
        raise SettingsError("bits", method.bits, "must be at most 5 with rqm")
    if method.allocation != "equal":
        raise SettingsError("allocation", method.allocation, "must be 'equal' with rqm, which accounts for each slope")
    blocks = method.blocks_of(federation, _blank(method))
    slopes = method.local_steps * sum(block.budget for block in blocks)
    summed = honest if federation.secure else 0
    return partial(_randomised, size=target.size, slopes=slopes, summed=summed)


def _gaussian(noise: float, **settings: float) -> GaussianPrivacy:
    return GaussianPrivacy(multiplier=noise, **cast("dict[str, int]", settings))


def _randomised(noise: float, **settings: float) -> RandomisedPrivacy:
    return RandomisedPrivacy(keep=KEEP, extension=noise, **cast("dict[str, int]", settings))


def _blank(method: Baffle) -> State:
    """Return a state in which nothing has been seen."""
    nothing = np.zeros(0, np.float32)
    return State(nothing, nothing, method.optimizer.init(0))


@dataclass(slots=True)
class Account:
    """What each client of a run has spent, counted from its ledger's records."""

    budget: Budget
    spending: Spending
    asked: NDArray[np.int64] = field(repr=False)
    """Attempts, [clients]."""

    @classmethod
    def of(cls, method: Baffle, clients: int, budget: Budget) -> Account:
        """Return the account of a run that begins.

        Raises:
            MissingExtraError: dp_accounting is not installed.
        """
        if method.privacy is None:
            raise ValueError("a budget needs a mechanism")
        mechanism = method.privacy.account(Quantiser(method.bits).levels)
        return cls(budget, Spending(mechanism, budget.delta), np.zeros(clients, np.int64))

    def count(self, cohort: Sequence[int]) -> None:
        """Take note that an attempt is about to ask these clients: from then on it is spent, whatever becomes of it."""
        self.asked[list(cohort)] += 1

    @property
    def spent(self) -> float:
        """ε of the client asked most."""
        return self.spending.after(int(self.asked.max()))

    def allowed(self, present: Sequence[int] | None) -> Sequence[int] | None:
        """Return those of the clients that are `present` (None is all) who have budget left; None where that is all."""
        return self.budget.allowed(self.asked, present)
