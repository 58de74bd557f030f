from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path
from threading import Lock

import msgspec
import numpy as np
import pytest
from torch import nn

from baffle import ForwardDifference, Gaussian, server
from baffle import run as runs
from baffle.data.samples import Arrays
from baffle.engines import Engine
from baffle.engines.crew import RETRIES, Worker
from baffle.engines.ray import Ray
from baffle.engines.sharding import Piece
from baffle.errors import MissingExtraError, ModelError, SettingsError
from baffle.kernels.compiled import CompiledKernels
from baffle.keys import Key
from baffle.probes import Probes
from baffle.runtimes.torch import TorchRuntime
from baffle.simulation import Share, Simulation
from baffle.training import Training
from federation import METHOD, Network, simulation

ray = pytest.importorskip("ray")

_MODULES = sys.modules[__name__], sys.modules[Network.__module__]
CORES = 12

OWN = msgspec.structs.replace(METHOD, groups=3)
STEPS = msgspec.structs.replace(METHOD, forwards=80, local_steps=2)
LONG = msgspec.structs.replace(METHOD, forwards=400)
CASES = {
    "shared directions": simulation(),
    "own directions": simulation(OWN),
    "local steps": simulation(STEPS),
    "some of the clients": simulation(OWN, sizes=(12, 3, 7, 12, 12, 4), participation=0.5),
    "absent clients": simulation(sizes=(12,) * 6, unavailable=0.4),
    "a base": simulation(msgspec.structs.replace(METHOD, estimator=ForwardDifference(1e-3), law=Gaussian())),
}


@pytest.fixture(scope="module", autouse=True)
def cluster() -> Iterator[str]:
    """A cluster of as many cores as the workers below need together, started once; gives its address."""
    for module in _MODULES:
        ray.cloudpickle.register_pickle_by_value(module)  # workers don't find what only pytest finds
    context = ray.init("local", num_cpus=CORES, include_dashboard=False, log_to_driver=False, logging_level="ERROR")
    yield context.address_info["gcs_address"]
    ray.shutdown()
    for module in _MODULES:
        ray.cloudpickle.unregister_pickle_by_value(module)


@pytest.fixture(scope="module")
def networks() -> Iterator[Callable[[int], Ray]]:
    """Engines of so many workers, kept."""
    engines: dict[int, Ray] = {}

    def engine(workers: int) -> Ray:
        return engines.setdefault(workers, on_ray(simulation(), workers))

    yield engine
    for kept in engines.values():
        kept.close()


def on_ray(made: Simulation, workers: int, address: str = "") -> Ray:
    return replace(made, engine="ray", workers=workers, address=address).gathering()


def ledger(made: Simulation, engine: Engine, folder: Path, rounds: int = 3) -> str:
    """Return the digest of the ledger that an engine writes."""
    header = made.header()
    run = runs.begin(folder, header, made.runtime.given)
    with closing(run.ledger):
        training = Training(made.algorithm, header.federation, engine, made.kernels, run.append, lambda *_: None)
        training.run(header.start(made.runtime.given), rounds)
        return run.ledger.head.hex()


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("workers", [1, 2, 3])
def test_the_ledger_is_the_local_engines(
    networks: Callable[[int], Ray], case: str, workers: int, tmp_path: Path
) -> None:
    made = CASES[case]
    engine, local = networks(workers), made.gathering()
    engine.clients, engine.unavailable, engine.chance = local.clients, local.unavailable, local.chance
    assert ledger(made, engine, tmp_path / "ray") == ledger(made, local, tmp_path / "local")


def test_in_float32_it_is_with_equal_slices(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    data = Arrays("images", rng.normal(size=(40, 1, 8, 8)).astype(np.float32), rng.integers(0, 3, 40))
    method = msgspec.structs.replace(METHOD, forwards=4000, batch=8, bits=32, clip=0.3)
    model = nn.Sequential(nn.Flatten(), nn.Linear(64, 9), nn.Tanh(), nn.Linear(9, 3))
    made = Simulation(
        runtime=TorchRuntime(model, device="cpu", chunk=20, threads=2),
        shares=[Share(data, part) for part in np.array_split(rng.permutation(40), 5)],
        algorithm=method,
    )
    with on_ray(made, 2) as engine:
        for name, changes in {"layers": {}, "own": {"groups": 5}, "whole": {"blocks": "whole"}}.items():
            changed = replace(made, algorithm=msgspec.structs.replace(method, **changes))
            folders = tmp_path / name / "ray", tmp_path / name / "local"
            assert ledger(changed, engine, folders[0], 2) == ledger(changed, changed.gathering(), folders[1], 2)


@dataclass(frozen=True)
class Mortal(Network):
    """Kills its process, as often as there is a file to take away, after some of its probes."""

    deaths: Path = Path()

    def losses(self, points, batches):
        def until_death():
            for number, point in enumerate(points):
                if number == 2 and (left := list(self.deaths.glob("death-*"))):
                    with contextlib.suppress(FileNotFoundError):  # another worker has died of it
                        left[0].unlink()
                        os.kill(os.getpid(), signal.SIGKILL)
                yield point

        return super().losses(until_death(), batches)


def mortal(folder: Path, deaths: int) -> Simulation:
    for number in range(deaths):
        (folder / f"death-{number}").touch()
    return simulation(LONG, runtime=Mortal(deaths=folder))


def test_what_a_killed_worker_had_to_do_is_done_again(tmp_path: Path) -> None:
    made = mortal(tmp_path, 2)
    with on_ray(made, 2) as engine:
        found = ledger(made, engine, tmp_path / "ray")
    assert not list(tmp_path.glob("death-*"))
    assert found == ledger(simulation(LONG), simulation(LONG).gathering(), tmp_path / "local")


def test_a_worker_that_always_dies_is_an_error(tmp_path: Path) -> None:
    made = mortal(tmp_path, 100)
    with on_ray(made, 1) as engine, pytest.raises(ModelError, match=rf"died {RETRIES + 1} times"):
        ledger(made, engine, tmp_path / "ray")
    # A try whose worker dies before it begins uses up no death.
    assert 100 - (RETRIES + 1) <= len(list(tmp_path.glob("death-*"))) < 100


@dataclass(frozen=True)
class Failing(Network):
    kind: str = "model"

    def losses(self, points, batches):
        if self.kind == "model":
            raise ModelError("the model fails on samples of shape [4]: it is tired")
        if self.kind == "settings":
            raise SettingsError("law", "orthogonal", "has no direction 9")
        return {}[self.kind]


@dataclass(frozen=True)
class Threaded(Network):
    """Its losses tell how many threads it uses."""

    threads: int = 4

    def losses(self, points, batches):
        return np.full((len(list(points)), len(batches)), float(self.threads))


def test_a_worker_uses_one_thread_and_arrays_of_its_own() -> None:
    pack = ray.cloudpickle.dumps
    worker, runtime = Worker(), Threaded()
    tools = [ray.put(pack((runtime, CompiledKernels(threads=4))))]
    plan = server.plan(METHOD, simulation().header().federation, simulation().header().start({}))
    point = np.zeros(runtime.layout.size)
    probes = Probes(point, plan.blocks[0], Key.root(0), 0.1, (1,), CompiledKernels())
    batch = np.zeros((2, 4)), np.zeros(2, int)
    share = [Piece(0, 1, 0, 0, 3, 1.0)]
    (found,) = worker.sweep(tools, pack(([probes], [batch])), pack(share))
    assert found.tolist() == [[1.0]] * 3
    (report,) = worker.answers(tools, pack((plan, point)), pack(simulation().clients()[:1]))
    assert (report.client, report.samples) == (0, 12)
    assert worker.answers(tools, pack((plan, point)), pack("nobody")).kind is AttributeError
    assert runtime.threads == 4


@pytest.mark.parametrize(
    ("kind", "error", "text"),
    [
        ("model", ModelError, "the model fails on samples of shape [4]: it is tired"),
        ("settings", SettingsError, "law = 'orthogonal': has no direction 9"),
        ("unforeseen", KeyError, "'unforeseen'"),
    ],
)
def test_errors_in_a_worker_come_out_as_they_are(tmp_path: Path, kind: str, error: type, text: str) -> None:
    made = simulation(runtime=Failing(kind=kind))
    with on_ray(made, 1) as engine, pytest.raises(error) as caught:
        ledger(made, engine, tmp_path)
    assert (type(caught.value), str(caught.value)) == (error, text)
    if kind == "settings":
        assert caught.value.field == "law"
    # Of the unforeseen, whoever wrote the runtime wants to know where.
    notes = "".join(getattr(caught.value, "__notes__", []))
    assert ("return {}[self.kind]" in notes) == (kind == "unforeseen")


def test_a_runtime_that_cannot_travel_is_refused() -> None:
    with pytest.raises(ModelError, match="can't be pickled for Ray's workers"):
        play_one(on_ray(simulation(runtime=Network(given={"lock": Lock()})), 1))


def play_one(engine: Ray) -> list[bytes]:
    made = simulation()
    header = made.header()
    plan = server.plan(made.algorithm, header.federation, header.start({}))
    return engine.gather(plan, header.start({}).parameters)


def test_more_workers_than_cores_are_refused() -> None:
    with pytest.raises(SettingsError, match="workers = 13: the cluster has 12 CPUs"):
        play_one(on_ray(simulation(), CORES + 1))
    with pytest.raises(SettingsError, match="workers = -1: must be 0 or more"):
        on_ray(simulation(), -1)


def test_ray_is_needed_only_where_it_is_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    engine = on_ray(simulation(), 1)
    with pytest.raises(MissingExtraError, match=r"pip install 'baffle\[ray\]'"):
        play_one(engine)
    code = "import sys, baffle, baffle.engines, baffle.engines.ray; print('ray' in sys.modules)"
    assert run(code) == ["False"]


@pytest.mark.parametrize(
    ("address", "rule"),
    [
        ("127.0.0.1:1", "nobody answers there"),
        ("ray://127.0.0.1:1", "nobody answers there"),
        ("auto", "could not find any running ray"),
        ("somewhere", "must be 'auto', 'host:port' or 'ray://host:port'"),
        ("host:99999", "nobody answers there"),
    ],
)
def test_an_address_that_leads_nowhere_is_refused(address: str, rule: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ray, "is_initialized", lambda: False)
    monkeypatch.setattr(ray, "init", nobody_there)
    with pytest.raises(SettingsError) as caught:
        play_one(on_ray(simulation(), 1, address))
    assert caught.value.field == "address"
    assert rule in str(caught.value).lower()


def nobody_there(*_: object, **__: object) -> None:
    raise ConnectionError("Could not find any running Ray instance.")


ELSEWHERE = """
import sys
from pathlib import Path
import federation
import ray
from test_engine_ray import ledger, on_ray

ray.cloudpickle.register_pickle_by_value(federation)
made = federation.simulation()
with on_ray(made, 2, sys.argv[1]) as engine:
    print(ledger(made, engine, Path(sys.argv[2])))
    print(ray.nodes()[0]["NodeManagerAddress"])
print(ray.is_initialized())
"""


def test_a_cluster_is_found_at_its_address(cluster: str, tmp_path: Path) -> None:
    digest, _, connected = run(ELSEWHERE, cluster, str(tmp_path / "ray"))
    assert digest == ledger(simulation(), simulation().gathering(), tmp_path / "local")
    assert connected == "False"
    assert ray.is_initialized()  # the cluster goes on


def test_a_cluster_of_this_machine_alone_is_quiet_listens_on_loopback_and_is_gone_at_the_end(tmp_path: Path) -> None:
    digest, host, connected = run(ELSEWHERE, "", str(tmp_path / "ray"))
    assert digest == ledger(simulation(), simulation().gathering(), tmp_path / "local")
    assert (host, connected) == ("127.0.0.1", "False")


def run(code: str, *arguments: str) -> list[str]:
    """Return the lines that another process prints, which must be all that it says."""
    paths = os.pathsep.join(map(str, (Path(__file__).parent, Path(__file__).parents[1])))
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code, *arguments],
        env=os.environ | {"PYTHONPATH": paths},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout.split()
