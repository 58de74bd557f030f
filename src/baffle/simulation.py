"""A whole federation in one process."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeAlias, cast, get_args

import msgspec
import numpy as np
from numpy.typing import NDArray

from baffle import checks, extras, server
from baffle.algorithms import Baffle
from baffle.budget import Target, private
from baffle.client import Client
from baffle.data.samples import Arrays, Samples
from baffle.engines import Engine, Local
from baffle.engines.ray import Ray
from baffle.engines.trusted import Trusted
from baffle.errors import DataError, SettingsError
from baffle.header import Header, initial_parameters
from baffle.kernels import Kernels, fastest
from baffle.keys import Key
from baffle.parameters import digest
from baffle.progress import Progress, Result
from baffle.runtimes import Batch, BlockRuntime, Evaluation, Runtime
from baffle.server import Federation
from baffle.session import Session
from baffle.training import Training

if TYPE_CHECKING:
    from torch import nn

Pair: TypeAlias = tuple[NDArray[Any], NDArray[Any]]
"""Inputs [N, ...] and targets [N, ...]."""
Weight: TypeAlias = Literal["samples", "equal"]
EngineName: TypeAlias = Literal["local", "ray"]
Secure: TypeAlias = Literal["none", "masks", "ideal"]
_PASS = 1024
"""Samples of one forward pass in an evaluation."""


@dataclass(frozen=True, slots=True)
class Share:
    """One client's samples: some of a data set that all clients may have in common, held once."""

    data: Samples
    indices: NDArray[np.int64]

    def draw(self, generator: np.random.Generator, count: int) -> Batch:
        """Return `count` samples drawn without replacement, or all where there are fewer."""
        return self.data.take(generator.choice(self.indices, min(count, self.indices.size), replace=False))


@dataclass(frozen=True, slots=True, kw_only=True)
class Simulation:
    """A federation that is simulated in this process: what `simulate` and the command line run.

    Raises:
        SettingsError: a field is out of its range.
        DataError: a client has no samples.
    """

    runtime: Runtime
    shares: Sequence[Share]
    """Of each client."""
    algorithm: Baffle
    test: Samples | None = None
    seed: int = 0
    """Of everything random, 0 ≤ seed < 2⁶⁴; a run with equal arguments on one machine has the same ledger."""
    participation: float = 1.0
    """Share of the clients asked in a round, in (0, 1]."""
    quorum: float = 0.5
    """Share of those that must answer, in (0, 1]."""
    weight: Weight = "samples"
    """What a client counts for in the mean: how many samples it holds, or 1."""
    unavailable: float = 0.0
    """Chance that a client asked does not answer, in [0, 1)."""
    engine: EngineName = "local"
    """What evaluates probes: this process, or the workers of a "ray" cluster, with the same ledger."""
    workers: int = 0
    """Of a Ray cluster, ≥ 0; 0 takes one for each core."""
    address: str = ""
    """Of a Ray cluster, "host:port" or "auto"; empty starts one on this machine for the run."""
    secure: Secure = "none"
    """How the server comes to see sums alone: not at all, by "masks" (`baffle.secure`), or "ideal", as if somebody
    trusted added them up, with the bytes and the time of reports in the open."""
    minimum: int = 2
    """Fewest reports of which a secure sum is opened, ≥ 2."""
    sum_size: int = 0
    """Fewest clients of a group whose reports are summed by themselves, ≥ 3; 0 sums a cohort's reports in one."""
    privacy: Target | None = None
    """What the run promises each client, or nothing."""
    evaluate_every: int = 10
    """Rounds between evaluations on the test data, ≥ 1."""
    snapshot_every: int = 50
    """Rounds between snapshots, ≥ 1."""
    kernels: Kernels = field(default_factory=fastest)

    def __post_init__(self) -> None:
        checks.at_least("clients", len(self.shares), 1)
        checks.below_one("unavailable", self.unavailable)
        for name in ("evaluate_every", "snapshot_every"):
            checks.at_least(name, getattr(self, name), 1)
        if self.weight not in ("samples", "equal"):
            raise SettingsError("weight", self.weight, "must be 'samples' or 'equal'")
        checks.one_of("engine", self.engine, get_args(EngineName))
        checks.one_of("secure", self.secure, get_args(Secure))
        if self.engine == "ray" and self.secure != "none":
            raise SettingsError("engine", self.engine, "must be 'local' where sums are secure")
        checks.at_least("workers", self.workers, 0)
        for number, share in enumerate(self.shares):
            if share.indices.size == 0:
                raise DataError(f"client {number} has no samples")

    @property
    def key(self) -> Key:
        """The experiment's; the run's secret and each client's private key are folded from it."""
        return Key.root(self.seed)

    def weights(self) -> list[int]:
        """Return what each client's reports weigh."""
        return [share.indices.size if self.weight == "samples" else 1 for share in self.shares]

    def header(self) -> Header:
        """Return what the run's ledger begins with."""
        federation = Federation(
            key=self.key.fold("run").secret,
            costs=self._costs(),
            layout=self.runtime.layout,
            clients=len(self.shares),
            participation=self.participation,
            quorum=self.quorum,
            most_samples=max(self.weights()),
            secure=self.secure != "none",
            minimum=self.minimum,
            sum_size=self.sum_size,
        )
        algorithm, budget = self.algorithm, None
        if self.privacy is not None:
            algorithm, budget = private(algorithm, federation, self.privacy)
        return Header(
            budget=budget,
            algorithm=algorithm,
            federation=federation,
            samples=tuple(share.indices.size for share in self.shares),
            initial=digest(initial_parameters(federation, self.runtime.given)),
        )

    def _costs(self) -> tuple[float, ...]:
        """Return what probes of the method's blocks cost on this runtime, counted on some client's samples."""
        if not isinstance(self.runtime, BlockRuntime):
            return ()
        share = self.shares[0]
        blocks = self.runtime.layout.blocks(self.algorithm.blocks)
        return self.runtime.costs(blocks, share.data.take(share.indices[:3]))

    def clients(self) -> list[Client]:
        """Return the clients, in the order of their numbers."""
        private = self.key.fold("clients")
        return [
            Client(number, weight, private.fold(number), share.draw)
            for number, (share, weight) in enumerate(zip(self.shares, self.weights(), strict=True))
        ]

    def gathering(self) -> Engine:
        """Return what carries the rounds."""
        common = (self.clients(), self.runtime, self.kernels, self.unavailable, self.key.fold("unavailable"))
        if self.engine == "ray":
            return Ray(*common, self.workers, self.address)
        match self.secure:
            case "none":
                return Local(*common)
            case "ideal":
                return Trusted(*common)
            case "masks":
                from baffle.engines.masked import Masked

                return Masked(*common, self.sum_size, self.minimum)

    def evaluate(self, parameters: NDArray[np.floating]) -> Evaluation | None:
        """Return the loss and accuracy of `parameters` [n] on the test data, if there are any."""
        if self.test is None:
            return None
        parts = np.array_split(np.arange(len(self.test)), -(-len(self.test) // _PASS))
        return self.runtime.evaluate(parameters, (self.test.take(part) for part in parts))

    def _try(self, header: Header) -> None:
        """Fail now rather than in the first round, with nothing begun."""
        state = header.start(self.runtime.given)
        plan = server.plan(header.algorithm, header.federation, state)
        client = self.clients()[0]
        self.runtime.losses([state.parameters.astype(self.runtime.precision)], [client.batch(plan, 0)])

    def settings(self, rounds: int) -> dict[str, Any]:
        """Return what was asked for, in words and numbers."""
        names = (
            "seed",
            "participation",
            "quorum",
            "weight",
            "unavailable",
            "engine",
            "workers",
            "address",
            "secure",
            "minimum",
            "sum_size",
            "evaluate_every",
            "snapshot_every",
        )
        own = {name: getattr(self, name) for name in names}
        said = {"algorithm": _told(self.algorithm)} | ({"privacy": _told(self.privacy)} if self.privacy else {})
        return {"clients": len(self.shares), "rounds": rounds, **own, **said}

    def run(
        self,
        rounds: int,
        *,
        out: Path | None = None,
        resume: bool = False,
        settings: Mapping[str, Any] | None = None,
        progress: Callable[[Progress], None] = lambda _: None,
    ) -> Result:
        """Return the result after `rounds` rounds in all; see `simulate` for the other arguments and what is raised.

        `settings` are written beside the ledger for whoever reads the folder; by default this object's own.
        """
        checks.at_least("rounds", rounds, 0)
        header = self.header()
        if not resume:
            self._try(header)
        session = Session(
            header=header,
            given=self.runtime.given,
            evaluate=self.evaluate,
            evaluate_every=self.evaluate_every,
            snapshot_every=self.snapshot_every,
            rounds=rounds,
            out=out,
            progress=progress,
        )
        settings = settings or self.settings(rounds)
        with session, closing(self.gathering()) as engine:
            state = session.resume(settings, self.kernels) if resume else session.begin(settings)
            training = Training(
                session.header.algorithm,
                session.header.federation,
                engine,
                self.kernels,
                session.record,
                session.watch,
                account=session.account,
                intend=session.intend if session.header.guarded else None,
            )
            return session.finish(training.run(state, rounds))


def simulate(
    model: nn.Module | Runtime,
    clients: Sequence[Pair],
    *,
    rounds: int,
    algorithm: Baffle | None = None,
    test: Pair | None = None,
    out: Path | str | None = None,
    resume: bool = False,
    progress: Callable[[Progress], None] = lambda _: None,
    **settings: Any,
) -> Result:
    """Train `model` over `clients` in this process, and return what came of it.

    Args:
        model: a PyTorch module, trained from the weights it has (or, resumed, from those it was begun with), with
            cross-entropy, in float32; or, for another loss, device or precision, a
            `baffle.runtimes.torch.TorchRuntime`. It is not changed: `Result.tensors()` has the trained weights.
        clients: inputs [N, ...] and targets [N] of each.
        rounds: how many in all, ≥ 0.
        algorithm: what a round does; by default `Baffle()`.
        test: held-out inputs and targets.
        out: a folder for the ledger, snapshots and curves; without one, nothing is written.
        resume: go on with the run in `out`, begun with equal arguments; `rounds` may be more than it was.
        progress: is shown every round.
        settings: `Simulation`'s further fields, such as seed, participation, weight, evaluate_every.

    Raises:
        SettingsError: an argument is out of its range; `out` holds a run already, or, with `resume`, another one.
        DataError, ModelError: data or model can't be used.
        LedgerError: with `resume`, the run in `out` does not verify.
        DivergenceError: training left the finite numbers; with `out`, every round before is kept.
    """
    unknown = settings.keys() - {name for name in Simulation.__dataclass_fields__ if name not in ("runtime", "shares")}
    if unknown:
        raise TypeError(f"simulate() has no argument {sorted(unknown)[0]!r}")
    data = [Arrays(f"client {number}", *client) for number, client in enumerate(clients)]
    simulation = Simulation(
        runtime=_runtime(model),
        shares=[Share(samples, np.arange(len(samples))) for samples in data],
        algorithm=algorithm or Baffle(),
        test=Arrays("test", *test) if test is not None else None,
        **settings,
    )
    return simulation.run(rounds, out=Path(out) if out is not None else None, resume=resume, progress=progress)


def _told(settings: msgspec.Struct) -> dict[str, Any]:
    """Return settings as TOML can say them."""
    return {name: value for name, value in msgspec.to_builtins(settings).items() if value is not None}


def _runtime(model: nn.Module | Runtime) -> Runtime:
    if hasattr(model, "losses"):
        return cast("Runtime", model)
    module = cast("nn.Module", model)
    extras.require("torch", "train")
    from baffle.runtimes.torch import TorchRuntime

    return TorchRuntime(module)
