"""What a server can tell of a client's data, from single reports, from sums, and from sums with noise.

    python benchmarks/attack.py [--pair alike|"one digit"|"at the bound"] [--rounds N] [--trials N]

Digits, `baffle train`'s model and method with a batch of 16, 1,280 forward equivalents and equal prices, eleven IID
shares: ten clients of equal weight train; the eleventh's share is what the first client's may have been replaced by
("alike"), or as many samples of one digit ("one digit"). The models θ_t are those of one real training with the first
data set. In each trial every client draws its mini-batch and rounds or noises anew, and `baffle.attack` tells the two
apart; its laws come from trials of its own. Half of the trials choose the threshold, the other half are counted. The
two candidates' trials have the others' batches and rounding in common, which intervals of either rate by itself allow.

A third pair, "at the bound", is no data: the client's slopes are as far from one another as the bound lets them be, in
every round, and the adversary takes off all others' reports. It is what the account has to hold for, so there an attack
should prove nearly what is accounted; 100,000 trials.

Others: "known" to the adversary are the nine other clients' data sets, not the batches that they draw; of "unknown"
ones it knows what all nine hold together but not who holds what: each trial deals them anew, with replacement.
Randomised quantisation, which takes most of the time, is followed for ten rounds.

Slopes are measured in their bound. Where noise is added, a client's are scaled to a norm of C, the median that the ten
clients' batches have in that round; the noise is the least with which the account (`baffle.accounting`) has T rounds
below ε at δ = 1e-5, one client's data replaced. Writes benchmarks/results/attack.json.
"""

from __future__ import annotations

import argparse
import json
import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from machine import describe

from baffle import server
from baffle.accounting import Curve, Gaussian, epsilon, least_noise
from baffle.assembly import assemble
from baffle.attack import (
    Advantage,
    Floats,
    Law,
    batch_slopes,
    best_threshold,
    log_ratio,
    most_advantage,
    sample_slopes,
)
from baffle.experiment import read
from baffle.mechanisms import Quantiser, clip
from baffle.mechanisms.clip_norm import clip_norm, norm
from baffle.mechanisms.discrete_gaussian import DiscreteGaussian, moved
from baffle.mechanisms.rqm import RandomisedQuantiser

RESULTS = Path(__file__).parent / "results" / "attack.json"
SETTINGS = {"clients": 11, "weight": "equal", "batch": 16, "forwards": 1280, "allocation": "equal", "seed": 0}
MARKS = (1, 10, 100)
DELTA, BUDGETS = 1e-5, (1.0, 8.0)
CLIENTS, DIGIT = 10, 1
PAIRS = ("alike", "one digit", "at the bound")
SLOPES = 100
"""K at the bound."""
LEARN = 600
"""Trials of the adversary's own, of each data set and round."""
QUANTA = 2048
"""Of a bound C, where shares of discrete noise are added."""
RQM_ROUNDS = 10
RQMS = {"q 0.42, Δ 1": RandomisedQuantiser(16, 0.42, 1.0), "q 0.1, Δ 10": RandomisedQuantiser(16, 0.1, 10.0)}

Process = Callable[[Floats, np.random.Generator, float], Floats]
"""(slopes in their bound, randomness, C) -> what a client sends, as slopes."""
EIGHT = Quantiser(8)


def eight_bits(slopes: Floats, generator: np.random.Generator, _: float) -> Floats:
    ones = np.ones(slopes.shape[-1])
    return EIGHT.slopes(EIGHT(clip(slopes, ones), ones, generator.random(slopes.shape)), ones)


def scaled(slopes: Floats, _: np.random.Generator, bound: float) -> Floats:
    return clip_norm(slopes, bound) / bound


def scaled_integers(slopes: Floats, generator: np.random.Generator, bound: float) -> Floats:
    return np.floor(clip_norm(slopes, bound) / bound * QUANTA + generator.random(slopes.shape))


def randomised(quantiser: RandomisedQuantiser) -> Process:
    def process(slopes: Floats, generator: np.random.Generator, _: float) -> Floats:
        ones = np.ones(slopes.shape[-1])
        return quantiser.slopes(quantiser.draw(slopes, ones, generator), ones)

    return process


@dataclass(frozen=True)
class Noise:
    """Noise on a sum and what the account says of so many rounds."""

    variance: float
    epsilon: float
    draw: Callable[[tuple[int, int], np.random.Generator], Floats]


def central(budget: float, rounds: int) -> Noise:
    """Gaussian noise at the server, the client's norm being 1."""
    multiplier = least_noise(Gaussian, budget, DELTA, rounds)
    spent = epsilon(Gaussian(multiplier), rounds, DELTA)
    return Noise(multiplier**2, spent, lambda shape, generator: multiplier * generator.standard_normal(shape))


def shared(budget: float, rounds: int, slopes: int) -> Noise:
    """Ten shares of discrete Gaussian noise, the client's norm being QUANTA before rounding.

    Their sum is drawn as one discrete Gaussian of ten times the variance, which it is but for less than 1e-15.
    """

    def curve(deviation: float) -> Curve:
        share, far = DiscreteGaussian(deviation**2), moved(QUANTA, slopes)
        return Curve(lambda orders: np.array([share.divergence(order, far, slopes, CLIENTS) for order in orders]))

    deviation = least_noise(curve, budget, DELTA, rounds, low=10.0)
    total = DiscreteGaussian(CLIENTS * deviation**2)
    reach = math.ceil(8 * math.sqrt(total.variance))
    steps = np.cumsum(total.probabilities(reach))
    return Noise(
        float(total.variance),
        epsilon(curve(deviation), rounds, DELTA),
        lambda shape, generator: np.minimum(np.searchsorted(steps, generator.random(shape)), 2 * reach) - float(reach),
    )


@dataclass
class View:
    """What is seen of a round, and Λ of every trial so far for each number of rounds."""

    name: str
    others: str
    """"none" are seen with it, or "known", "unknown"."""
    process: Process
    noises: dict[int, Noise]
    """By rounds; none where nothing is added."""
    accounts: dict[int, float]
    """By rounds, ε."""
    scores: dict[int, Floats]
    """By rounds, [2, trials]."""


def views(slopes: int, marks: tuple[int, ...], trials: int) -> list[View]:
    def view(name: str, others: str, process: Process, noise: Any = None, **more: Any) -> View:
        noises = {mark: noise(mark) for mark in marks} if noise else {}
        accounts = {mark: found.epsilon for mark, found in noises.items()} | more.get("accounts", {})
        followed = more.get("accounts", marks)
        return View(name, others, process, noises, accounts, {mark: np.zeros((2, trials)) for mark in followed})

    def curve(quantiser: RandomisedQuantiser, clients: int) -> dict[int, float]:
        cost = Curve(lambda orders: slopes * quantiser.summed(orders, clients))
        return {mark: epsilon(cost, mark, DELTA) for mark in marks if mark <= RQM_ROUNDS}

    found = [view("report, 8 bits", "none", eight_bits)]
    found += [view("sum, 8 bits", others, eight_bits) for others in ("known", "unknown")]
    for budget in BUDGETS[::-1]:
        found += [
            view("sum, Gaussian", others, scaled, lambda mark, b=budget: central(b, mark))
            for others in ("known", "unknown")
        ]
    for budget in BUDGETS[::-1]:
        found.append(view("sum, shares", "known", scaled_integers, lambda mark, b=budget: shared(b, mark, slopes)))
    for name, quantiser in RQMS.items():
        process = randomised(quantiser)
        found.append(view(f"report, RQM {name}", "none", process, accounts=curve(quantiser, 1)))
        found.append(view(f"sum, RQM {name}", "known", process, accounts=curve(quantiser, CLIENTS)))
    return found


@dataclass
class Round:
    """Slopes of every sample of a round, in their bound."""

    first: Floats
    second: Floats
    others: list[Floats]
    size: int
    bound: float


class Federation:
    """One real training, round by round, with the slopes that every sample has on the way."""

    def __init__(self, pair: str) -> None:
        whole = assemble(read(SETTINGS))
        self.data, self.shares = whole.shares[0].data, [share.indices for share in whole.shares]
        samples = self.shares[0].size
        if pair == "one digit":
            _, targets = self.data.take(np.arange(len(self.data)))
            self.shares[CLIENTS] = np.flatnonzero(targets == DIGIT)[:samples]
        self.simulation = replace(whole, shares=whole.shares[:CLIENTS])
        self.header = self.simulation.header()
        self.engine = self.simulation.gathering()
        self.state = self.header.start(self.simulation.runtime.given)

    def next(self) -> Round:
        made, federation = self.simulation, self.header.federation
        plan = server.plan(made.algorithm, federation, self.state)
        slopes = [
            sample_slopes(plan, self.state.parameters, self.data.take(share), made.runtime, made.kernels) / plan.bounds
            for share in self.shares
        ]
        reports = self.engine.gather(plan, self.state.parameters)
        self.state = server.advance(made.algorithm, self.state, plan, reports, made.kernels).state
        generator = np.random.default_rng(plan.round)
        norms = [norm(batch_slopes(one, plan.batch, 20, generator)) for one in slopes[:CLIENTS]]
        return Round(slopes[0], slopes[CLIENTS], slopes[1:CLIENTS], plan.batch, float(np.median(norms)))


class Dealt:
    """Who holds what in each trial, where the adversary does not know: the same in all rounds."""

    def __init__(self, trials: int, samples: int, pool: int, generator: np.random.Generator) -> None:
        self.held = generator.integers(0, pool, (CLIENTS - 1, trials, samples), np.int32)

    def batches(self, number: int, pool: Floats, size: int, generator: np.random.Generator) -> Floats:
        held = self.held[number]
        chosen = np.argpartition(generator.random(held.shape), size, axis=1)[:, :size]
        weights = np.zeros((len(held), len(pool)))
        np.add.at(weights, (np.arange(len(held))[:, None], np.take_along_axis(held, chosen, 1)), 1 / size)
        return weights @ pool


def parts_of(round_: Round, trials: int, dealt: Dealt, generator: np.random.Generator) -> dict[str, list[Floats]]:
    """Return batches [LEARN + trials, K] of the client with either candidate, and of the others that are with it."""
    pool = np.concatenate(round_.others)
    count = LEARN + trials
    return {
        "client": [batch_slopes(own, round_.size, count, generator) for own in (round_.first, round_.second)],
        "none": [],
        "known": [batch_slopes(one, round_.size, count, generator) for one in round_.others],
        "unknown": [dealt.batches(number, pool, round_.size, generator) for number in range(CLIENTS - 1)],
    }


def observe(found: list[View], parts: dict[str, list[Floats]], bound: float, at: int, generator: np.random.Generator):
    """Add a round's evidence to every Λ."""
    sent: dict[tuple[Process, str], list[Floats]] = {}
    for view in found:
        if at >= max(view.scores):
            continue
        for whose in ("client", view.others):
            if (view.process, whose) not in sent:
                sent[view.process, whose] = [view.process(part, generator, bound) for part in parts[whose]]
        others = sum(sent[view.process, view.others])
        seen = [own + others for own in sent[view.process, "client"]]
        laws = [Law.of(one[:LEARN]) for one in seen]
        for mark, scores in view.scores.items():
            if at < mark:
                add(scores, [one[LEARN:] for one in seen], laws, view.noises.get(mark), generator)


def add(scores: Floats, seen: list[Floats], laws: list[Law], noise: Noise | None, generator: np.random.Generator):
    first, second = (law.noised(noise.variance) if noise else law for law in laws)
    for candidate, what in enumerate(seen):
        found = what + noise.draw(what.shape, generator) if noise else what
        scores[candidate] += log_ratio(found, first, second)


def told(view: View, mark: int) -> dict[str, Any]:
    return {"view": view.name, "others": view.others, "rounds": mark} | counted(
        *view.scores[mark], view.accounts.get(mark)
    )


def counted(first: Floats, second: Floats, account: float | None) -> dict[str, Any]:
    """Return what Λ of trials with either candidate comes to, half of them for the threshold."""
    half = first.size // 2
    fair = Advantage.of(first[half:], second[half:], balanced(first[:half], second[:half]))
    sharp = Advantage.of(first[half:], second[half:], best_threshold(first[:half], second[:half], DELTA))
    return {
        "advantage": round(fair.value, 3),
        "interval": [round(end, 3) for end in fair.interval()],
        "epsilon proved": round(sharp.proved(DELTA), 2),
        "epsilon accounted": None if account is None else float(f"{account:.4g}"),
        "most advantage": None if account is None else round(most_advantage(account, DELTA), 3),
    }


def at_the_bound(rounds: int, trials: int = 100_000) -> dict[str, Any]:
    """What the mechanisms must hide at worst: +C against −C in one direction, or ±c in every slope of a report."""
    generator = np.random.default_rng(2)
    rows = []
    for budget in BUDGETS[::-1]:
        for mark in (mark for mark in MARKS if mark <= rounds):
            for name, noise, size in (
                ("sum, Gaussian", central(budget, mark), 1.0),
                ("sum, shares", shared(budget, mark, SLOPES), float(QUANTA)),
            ):
                laws = [Law(np.array([sign * size]), np.zeros((1, 1))) for sign in (-1, 1)]
                scores = np.zeros((2, trials))
                for _ in range(mark):
                    add(scores, [np.full((trials, 1), law.mean) for law in laws], laws, noise, generator)
                rows.append({"view": name, "rounds": mark} | counted(*scores, noise.epsilon))
    for name, quantiser in RQMS.items():
        first, second = quantiser.probabilities(np.array([-1.0, 1.0]))
        cost = epsilon(Curve(lambda orders, own=quantiser: SLOPES * own.local(orders)), 1, DELTA)
        scores = [generator.multinomial(SLOPES, law, trials) @ np.log(second / first) for law in (first, second)]
        rows.append({"view": f"report, RQM {name}", "rounds": 1} | counted(*scores, cost))
    tell("at the bound", rows)
    return {"slopes": SLOPES, "trials counted": trials // 2, "rows": rows}


def tell(pair: str, rows: list[dict[str, Any]]) -> None:
    for row in rows:
        print(f"{pair:12} " + ", ".join(f"{name} {value}" for name, value in row.items()), flush=True)


def balanced(first: Floats, second: Floats) -> float:
    """Return the threshold with the largest advantage on these trials."""
    choices = np.unique(np.quantile(np.concatenate([first, second]), np.linspace(0, 1, 200)))
    return float(max(choices, key=lambda one: Advantage.of(first, second, float(one)).value))


def attacked(pair: str, rounds: int, trials: int) -> dict[str, Any]:
    generator = np.random.default_rng(1)
    federation = Federation(pair)
    samples, pool = federation.shares[0].size, sum(share.size for share in federation.shares[1:CLIENTS])
    dealt = Dealt(LEARN + trials, samples, pool, generator)
    marks = tuple(mark for mark in MARKS if mark <= rounds)
    found: list[View] = []
    slopes = 0
    for at in range(rounds):
        round_ = federation.next()
        if round_.first.shape[1] != slopes:
            if found:
                raise SystemExit("rounds have different numbers of slopes: set allocation")
            slopes = round_.first.shape[1]
            found = views(slopes, marks, trials)
        observe(found, parts_of(round_, trials, dealt, generator), round_.bound, at, generator)
    rows = [told(view, mark) for view in found for mark in view.scores]
    tell(pair, rows)
    return {
        "slopes": slopes,
        "batch": SETTINGS["batch"],
        "samples": samples,
        "trials counted": trials // 2,
        "rows": rows,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--rounds", type=int, default=max(MARKS))
    parser.add_argument("--trials", type=int, default=1000, help="of each data set; half of them are counted")
    parser.add_argument("--pair", choices=PAIRS, help="only this one; the others' figures are left as they are")
    given = parser.parse_args()
    results = json.loads(RESULTS.read_text()) if RESULTS.exists() else {}
    results |= {"machine": describe(), "clients": CLIENTS, "delta": DELTA}
    for pair in [given.pair] if given.pair else PAIRS:
        bound = pair == "at the bound"
        results[pair] = at_the_bound(given.rounds) if bound else attacked(pair, given.rounds, given.trials)
    RESULTS.write_text(json.dumps(results, indent=1, ensure_ascii=False) + "\n")


if __name__ == "__main__":
    main()
