"""What a few rounds tell, in a process of their own: time, memory, slopes.

    python -m baffle.planning.trial < request > findings

The rounds are the run's first ones, with the same draws, in a folder that is removed. Where a round takes longer than
there is time, one with fewer directions is timed instead and scaled by its forwards.
"""

from __future__ import annotations

import math
import os
import sys
import tempfile
import time
from contextlib import closing, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import msgspec
import numpy as np
from numpy.typing import NDArray

from baffle import run as runs
from baffle import server
from baffle.assembly import simulation_of
from baffle.baselines.price import StepCost, kinds
from baffle.errors import BaffleError
from baffle.experiment import read
from baffle.header import Header
from baffle.mechanisms.private import Noised, Randomised
from baffle.messages import Plan, Round
from baffle.planning.cosine import slope_noise
from baffle.planning.findings import Findings, Request, Time
from baffle.progress import Progress, peak_memory
from baffle.server import State
from baffle.simulation import Simulation
from baffle.tally import drawn

SHARE = 10
"""One of so many rounds of the run is tried, and more until they have taken `LEAST`, if there is time."""
LEAST = 2.0
"""Seconds of rounds that their time is told from, if the run has as many: shorter ones say little."""
_FEWEST = 3
"""Rounds that are tried at least, if there is time."""
_THIN = 0.02
"""Share of a round's directions in the first look at its time."""
_ROUNDS_TIME, _BACKWARD_TIME = 0.7, 0.05
"""Shares of the time for rounds, and for each kind of pass of backpropagation."""
_FLOOR = 0.01
"""Share of a mean square that is taken for slopes at least, however coarse their rounding."""
_FINE, _HARDLY = 16, 0.25
"""Bits of a slope, and variance in quanta, with which noise and rounding are next to nothing."""
_ENOUGH = 100
"""Directions of a block from which its slopes' mean square is taken."""


class _Enough(Exception):  # noqa: N818 (it is no error)
    """The time is over."""


def main() -> None:
    """Read a request from standard input, and write findings, or what is wrong, to standard output."""
    request = msgspec.json.decode(sys.stdin.buffer.read(), type=Request)
    try:
        answer: Any = trial(request)
    except BaffleError as error:
        answer = {"error": str(error)}
    sys.stdout.buffer.write(b"\n" + msgspec.json.encode(answer) + b"\n")


def trial(request: Request) -> Findings:
    """Return what a few rounds of an experiment tell.

    Raises:
        BaffleError: it can't be run; says why.
    """
    experiment = read(request.experiment)
    simulation = simulation_of(experiment)
    header = simulation.header()
    simulation = replace(simulation, algorithm=header.algorithm, privacy=None)  # the noise is found once
    state = header.start(simulation.runtime.given)
    plan = server.plan(header.algorithm, header.federation, state)
    startup = Time(time.time() - request.begun, time.process_time())
    time_left = _ROUNDS_TIME * request.seconds
    cold, warm = (_seconds(simulation, _thinner(plan, _THIN), state)[0] for _ in range(2))
    estimate = _estimate(simulation, plan, state, time_left)
    if _FEWEST * estimate <= time_left and experiment.rounds:
        played = _play(simulation, header, experiment.rounds, time_left, Path(experiment.out or "runs"))
    else:
        played = _part(simulation, header, plan, state, time_left / max(estimate, 1e-9))
    peak = peak_memory()
    played |= _hidden(simulation, header, played["state"])
    return Findings(
        startup=startup,
        warmup=cold.minus(warm),
        peak_memory=peak,
        apart=_apart(simulation, header, played["state"]),
        passes=_passes(simulation, request.batch or plan.batch, request.seconds),
        **{name: value for name, value in played.items() if name != "state"},
    )


def _estimate(simulation: Simulation, plan: Plan, state: State, seconds: float) -> float:
    """Return about how long a round takes: a small part of one, and a larger one as long as that takes little time."""
    share, estimate = _THIN, 0.0
    while share < 1 and (not estimate or _FEWEST * estimate > seconds > 10 * share * estimate):
        part = _thinner(plan, share)
        estimate = _seconds(simulation, part, state)[0].wall * plan.forwards / part.forwards
        share *= 4
    return estimate


def _play(simulation: Simulation, header: Header, rounds: int, seconds: float, out: Path) -> dict[str, Any]:
    """Run the first rounds into a folder that goes away."""
    enough = max(_FEWEST, math.ceil(rounds / SHARE))
    times: list[Time] = []
    measured: list[bool] = []

    def watch(progress: Progress) -> None:
        times.append(Time.now())
        measured.append(progress.loss is not None)
        late = progress.round >= enough and progress.seconds >= LEAST
        if late or (progress.seconds > seconds and progress.round >= 1):
            raise _Enough

    with tempfile.TemporaryDirectory(prefix=".baffle-plan-", dir=_writable(out)) as folder:
        begun = Time.now()
        with suppress(_Enough):
            simulation.run(rounds, out=Path(folder) / "run", progress=watch)
        evaluation = _evaluation(simulation, header)
        _, found = runs.read(Path(folder) / "run")
        _, state = runs.replay(Path(folder) / "run", simulation.kernels)
    spent = times[-1].minus(times[0]).minus(evaluation.times(2 * sum(measured[1:])))
    records = [record for record in found if isinstance(record, Round)]
    work = sum(_work(record, header) for record in records)
    closed = [record for record in records if record.aggregate is not None]
    last = closed[-1]
    return {
        "first": times[0].minus(begun),
        "a_forward": spent.times(1 / work if work else 0.0),
        "evaluation": evaluation,
        "rounds": len(closed),
        "budgets": tuple(tuple(block.budget for block in record.plan.blocks) for record in closed),
        "smoothed": state.squares,
        "state": state,
        "squares": mean_squares(last),
    }


def _part(simulation: Simulation, header: Header, plan: Plan, state: State, share: float) -> dict[str, Any]:
    """Time a part of the first round."""
    evaluation = _evaluation(simulation, header)
    part = _thinner(plan, min(1.0, share))
    seconds, outcome = _seconds(simulation, part, state)
    squares = mean_squares(outcome.record) if outcome.record.aggregate is not None else (0.0,) * len(part.blocks)
    return {
        "first": evaluation.times(2),
        "a_forward": seconds.times(1 / (_work(outcome.record, header) or part.forwards)),
        "evaluation": evaluation,
        "rounds": 0,
        "budgets": (),
        "smoothed": outcome.state.squares,
        "state": state,
        "squares": squares,
    }


def _writable(out: Path) -> Path | None:
    """Return the folder in which the run's own would be, so that the same disk is measured; None for any."""
    near = out.parent if out.parent.is_dir() else Path.cwd()
    return near if os.access(near, os.W_OK) else None


def _evaluation(simulation: Simulation, header: Header) -> Time:
    parameters = header.start(simulation.runtime.given).parameters
    begun = Time.now()
    simulation.evaluate(parameters)
    return Time.now().minus(begun)


def _work(record: Round, header: Header) -> float:
    """Return the forward equivalents of all clients that answered a round."""
    samples = np.array(header.samples, np.int64)[list(record.answered)]
    return record.plan.forwards * float(drawn(samples, record.plan.batch).sum())


def _seconds(simulation: Simulation, plan: Plan, state: State) -> tuple[Time, server.Outcome]:
    """Return how long a round takes, and what comes of it."""
    with closing(simulation.gathering()) as engine:
        begun = Time.now()
        reports = engine.gather(plan, state.parameters)
        outcome = server.advance(simulation.algorithm, state, plan, reports, simulation.kernels)
        return Time.now().minus(begun), outcome


def _thinner(plan: Plan, share: float, fewest: int = 1) -> Plan:
    """Return the plan with a share of its directions in each block, `fewest` of them at least if it has so many."""
    least = max(plan.estimator.least, fewest)
    blocks = tuple(
        msgspec.structs.replace(block, budget=min(block.budget, max(least, math.ceil(share * block.budget))))
        for block in plan.blocks
    )
    return msgspec.structs.replace(plan, blocks=blocks)


def mean_squares(record: Round) -> tuple[float, ...]:
    """Return each block's mean square of a group's mean slopes in a round that closed, without what is added."""
    plan, aggregate = record.plan, record.aggregate
    assert aggregate is not None
    unit = plan.groups / (plan.quantiser.levels * aggregate.weight)
    slopes: NDArray[np.float64] = aggregate.integers(plan) * (unit * plan.bounds)
    seen = [float((slopes[..., plan.places == number] ** 2).mean()) for number in range(len(plan.blocks))]
    added = [slope_noise(plan, block, square) for block, square in zip(plan.blocks, seen, strict=True)]
    return tuple(square * max(_FLOOR, 1.0 - noise) for square, noise in zip(seen, added, strict=True))


def quiet(plan: Plan) -> Plan:
    """Return the plan with slopes limited as its privacy limits them, and hardly any noise."""
    match plan.privacy:
        case None:
            return plan
        case Noised() as noised:
            noised = msgspec.structs.replace(noised, variance=_HARDLY, shares=0, counts=False)
            return msgspec.structs.replace(plan, bits=_FINE, privacy=noised)
        case Randomised(extension=extension):
            blocks = tuple(msgspec.structs.replace(b, bound=b.bound / (1 + extension)) for b in plan.blocks)
            return msgspec.structs.replace(plan, bits=_FINE, privacy=None, blocks=blocks)


def _hidden(simulation: Simulation, header: Header, state: State) -> dict[str, Any]:
    """Return each block's mean square of a group's mean slopes in a private run, seen once more without its noise."""
    plan = server.plan(simulation.algorithm, header.federation, state)
    if plan.privacy is None:
        return {}
    record = _seconds(simulation, _thinner(quiet(plan), 0.0, _ENOUGH), state)[1].record
    return {} if record.aggregate is None else {"squares": mean_squares(record)}


def _apart(simulation: Simulation, header: Header, state: State) -> tuple[float, ...]:
    """Return how much larger the squares of single groups are than those of all clients together, at least 1."""
    method = simulation.algorithm
    plan = quiet(server.plan(method, header.federation, state))
    if plan.groups == 1:
        return (1.0,) * len(plan.blocks)
    own, joint = (
        _seconds(simulation, msgspec.structs.replace(_thinner(plan, 0.0, _ENOUGH), groups=groups), state)[1].record
        for groups in (plan.groups, 1)
    )
    if own.aggregate is None or joint.aggregate is None:
        return (1.0,) * len(plan.blocks)
    pairs = zip(mean_squares(own), mean_squares(joint), strict=True)
    return tuple(max(1.0, one / all_of_them) if all_of_them else 1.0 for one, all_of_them in pairs)


def _passes(simulation: Simulation, batch: int, seconds: float) -> dict[str, StepCost]:
    """Return what passes of the model itself cost on the largest mini-batch of a client; nothing for a graph."""
    if not kinds(simulation.runtime):
        return {}
    from baffle.baselines.cost import costs_of

    largest = max(simulation.shares, key=lambda share: share.indices.size)
    batch_of = largest.data.take(largest.indices[:batch])
    return costs_of(cast(Any, simulation.runtime), batch_of, _BACKWARD_TIME * seconds)


if __name__ == "__main__":
    main()
