"""A federation simulated on a Ray cluster: workers share probes or clients, and the ledger is the local engine's."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from baffle import checks
from baffle.client import Client, answers
from baffle.engines.crew import Crew
from baffle.engines.presence import present
from baffle.engines.sharding import Spread, balanced
from baffle.kernels import Kernels
from baffle.keys import Key
from baffle.messages import Plan, Report, encode
from baffle.parameters import Vector
from baffle.runtimes import Batch, Runtime


@dataclass(slots=True)
class Ray:
    """Clients in this process, whose losses are evaluated by the workers of a Ray cluster.

    Where directions are shared, a round's probes are cut among the workers; where there are several sets of them, or
    local steps, clients are. Batches are drawn here, so data leave this process as mini-batches only. A worker that
    dies is started again, and its part computed again. Rounds are the local engine's to the bit; in float32, on
    processors of one kind.

    Ray is started, or connected to, at the first round. `close`, or the end of a `with` block, stops the workers, and
    Ray if it was started here; a later round would start them again.

    Raises:
        SettingsError: `workers` is negative; in the first round: nobody answers at `address`, or the cluster has fewer
            cores than `workers`.
        MissingExtraError: in the first round: Ray is not installed.
        ModelError: in a round: the runtime can't be pickled, or workers keep dying.
    """

    clients: Sequence[Client]
    """In the order of their numbers."""
    runtime: Runtime
    """Each worker has a copy of it, on one thread."""
    kernels: Kernels
    unavailable: float = 0.0
    """Chance that a client does not answer in a round, 0 to 1."""
    chance: Key | None = None
    """What decides who does not; needed if `unavailable` is above 0."""
    workers: int = 0
    """How many, each on one core (and on a GPU of its own where the runtime is on one); 0: as many as there are."""
    address: str = ""
    """Of a running cluster: "host:port" or "auto" for one that this machine is a node of, "ray://host:port" for any;
    "" starts one on this machine alone. Where this process is connected to one already, that is used."""
    _crew: Crew | None = field(default=None, init=False, repr=False)

    def __post_init__(self) -> None:
        checks.at_least("workers", self.workers, 0)

    def __enter__(self) -> Ray:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Stop the workers, and Ray if it was started here."""
        if self._crew is not None:
            self._crew.close()
            self._crew = None

    def present(self) -> None:
        """Return None: all clients can be asked."""

    def gather(self, plan: Plan, parameters: Vector) -> list[bytes]:
        """Return the encoded reports of the clients that are there."""
        if self._crew is None:
            self._crew = Crew(self.runtime, self.kernels, self.workers, self.address)
        there = present(plan, self.clients, self.unavailable, self.chance)
        together = _together(plan, there)
        if _busy(len(together), len(self._crew), plan.steps):
            reports = _by_client(self._crew, plan, parameters, together)
        else:
            spread = Spread(self.runtime, len(self._crew), self._crew.sweep)
            reports = answers(plan, parameters, there, spread, self.kernels)
        return [encode(report) for report in reports]


def _together(plan: Plan, clients: Sequence[Client]) -> list[list[Client]]:
    """Return the clients that `answers` evaluates together: a group's, or, with local steps, each by itself."""
    found: dict[int, list[Client]] = {}
    for client in clients:
        found.setdefault(plan.group(client.number) if plan.steps == 1 else client.number, []).append(client)
    return list(found.values())


def _busy(parts: int, workers: int, steps: int) -> bool:
    """Tell whether whole parts keep the workers busy, or busier than the probes of one local step at a time would."""
    idle = -parts % workers
    return parts >= workers and (steps > 1 or 4 * idle <= parts)


def _by_client(crew: Crew, plan: Plan, parameters: Vector, together: Sequence[Sequence[Client]]) -> list[Report]:
    """Return the reports of all clients, in the order of their numbers; those of one list have one worker."""
    shares = [
        [replace(client, draw=_Drawn(client, plan)) for place in places for client in together[place]]
        for places in balanced([len(some) for some in together], len(crew))
    ]
    reports = [report for some in crew.answers((plan, parameters), shares) for report in some]
    return sorted(reports, key=lambda report: report.client)


class _Drawn:
    """Hands out the batches of a client's round in their order, drawn beforehand."""

    def __init__(self, client: Client, plan: Plan) -> None:
        self._left = iter([client.batch(plan, step) for step in range(plan.steps)])

    def __call__(self, generator: np.random.Generator, count: int) -> Batch:
        """Return the next batch."""
        del generator, count
        return next(self._left)
