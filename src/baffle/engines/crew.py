"""Workers of a Ray cluster that evaluate losses, each with a runtime of its own."""

# pyright: standard
from __future__ import annotations

import os
import socket
import traceback
from collections.abc import Callable, Sequence
from types import ModuleType
from typing import Any, NamedTuple

from baffle import extras
from baffle.client import Client, answers
from baffle.engines.sharding import Piece, Task, losses_of
from baffle.errors import BaffleError, ModelError, SettingsError
from baffle.kernels import Kernels
from baffle.messages import Plan, Report
from baffle.parameters import Vector
from baffle.processors import cores
from baffle.runtimes import Runtime

RETRIES = 3
"""Times that what a worker died of is computed again."""
_ALONE = {
    "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",  # on any system: listen on loopback, not on every interface
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_worker_niceness": "0",  # Ray's own would leave the processor to whoever else wants it
}
"""Environment in which a cluster of this machine alone is started."""
_ANSWER_S = 5.0
"""Seconds that an address has to take a connection; Ray itself would try for two minutes and then end the process."""
_START_S = 300
"""Seconds that workers may take to start, on a cluster that others use or that has to grow."""


class Failure(NamedTuple):
    """An exception on its way; those that take other arguments than they keep can't be pickled themselves."""

    kind: type[Exception]
    arguments: tuple[Any, ...]
    attributes: dict[str, Any]

    def error(self) -> Exception:
        """Return the exception as it was raised."""
        error = self.kind.__new__(self.kind)
        error.args = self.arguments
        error.__dict__.update(self.attributes)
        return error


class Worker:
    """A process of the cluster, whose runtime and kernels use one thread.

    It asks for them when it needs them: what a constructor is given would be missing where a worker is started again.
    """

    def __init__(self) -> None:
        self._ray = extras.require("ray", "ray")
        self._tools: tuple[Runtime, Kernels] | None = None

    def ready(self) -> None:
        """Return."""

    def sweep(self, tools: list[Any], task: bytes, share: bytes) -> Any:
        """Return the losses of a share of a sweep, or the Failure."""
        return self._try(losses_of, tools, task, share)

    def answers(self, tools: list[Any], task: bytes, share: bytes) -> Any:
        """Return the reports of some clients, or the Failure."""

        def work(runtime: Runtime, kernels: Kernels, task: tuple[Plan, Vector], clients: list[Client]) -> list[Report]:
            return answers(*task, clients, runtime, kernels)

        return self._try(work, tools, task, share)

    def _try(self, work: Callable[..., object], tools: list[Any], task: bytes, share: bytes) -> object:
        unpacked = self._ray.cloudpickle.loads
        try:
            self._tools = self._tools or _on_one_thread(*unpacked(self._ray.get(tools[0])))
            return work(*self._tools, unpacked(task), unpacked(share))
        except Exception as error:  # a user's own runtime may fail in any way
            if not isinstance(error, BaffleError):
                error.add_note(f"in a Ray worker:\n{traceback.format_exc()}")
            return Failure(type(error), error.args, vars(error))


def _on_one_thread(runtime: Runtime, kernels: Kernels) -> tuple[Runtime, Kernels]:
    for tool in (runtime, kernels):
        if hasattr(tool, "threads"):
            object.__setattr__(tool, "threads", 1)  # kernels are frozen
    return runtime, kernels


class Crew:
    """The workers of one engine.

    What they are sent is packed into bytes, of which each makes arrays of its own: those that Ray shares among
    processes can't be written to, and PyTorch warns of them.

    Raises:
        MissingExtraError: Ray is not installed.
        SettingsError: nobody answers at `address`, or the cluster is smaller than `workers`.
        ModelError: the runtime can't be pickled.
    """

    def __init__(self, runtime: Runtime, kernels: Kernels, workers: int, address: str) -> None:
        if not address:
            for name, value in _ALONE.items():
                os.environ.setdefault(name, value)  # the first is read when Ray is imported
        self._ray = extras.require("ray", "ray")
        try:
            tools = self._ray.cloudpickle.dumps((runtime, kernels))
        except Exception as error:  # a user's own runtime may fail in any way
            raise ModelError(f"the runtime can't be pickled for Ray's workers: {error}") from error
        self._started = _connected(self._ray, workers, address)
        self._workers: list[Any] = []
        try:
            self._tools = [self._ray.put(tools)]  # in a list, an object is sent as its name
            self._hire("GPU" if _on_gpu(runtime) else "CPU", workers)
        except BaseException:
            self.close()
            raise

    def __len__(self) -> int:
        return len(self._workers)

    def sweep(self, task: Task, shares: Sequence[Sequence[Piece]]) -> list[Any]:
        """Return the losses of the pieces of each share, as `losses_of` gives them."""
        return self._ask("sweep", task, shares)

    def answers(self, task: tuple[Plan, Vector], shares: Sequence[Sequence[Client]]) -> list[list[Report]]:
        """Return the reports of the clients of each share."""
        return self._ask("answers", task, shares)

    def close(self) -> None:
        """Stop the workers, and Ray if it was started or connected to for them."""
        if not self._ray.is_initialized():  # somebody shut it down before
            return
        for worker in self._workers:
            self._ray.kill(worker)
        if self._started:
            self._ray.shutdown()

    def _hire(self, resource: str, workers: int) -> None:
        there = int(self._ray.cluster_resources().get(resource, 0))
        if workers > there or not there:
            raise SettingsError("workers", workers, f"the cluster has {there} {resource}s, and each takes one")
        needs = {"num_cpus": 1, "num_gpus": int(resource == "GPU")}
        remote = self._ray.remote(Worker).options(**needs, max_restarts=-1, max_task_retries=RETRIES)
        self._workers = [remote.remote() for _ in range(workers or there)]
        answers = [worker.ready.remote() for worker in self._workers]
        ready, _ = self._ray.wait(answers, num_returns=len(answers), timeout=_START_S)
        if len(ready) < len(answers):
            raise SettingsError("workers", len(answers), f"after {_START_S} s only {len(ready)} had found a free core")

    def _ask(self, method: str, task: object, shares: Sequence[Sequence[object]]) -> list[Any]:
        """Return what each worker's `method` makes of the task and its share; one whose share is empty isn't asked."""
        pack = self._ray.cloudpickle.dumps
        common = self._ray.put(pack(task))
        asked = [
            (place, getattr(worker, method).remote(self._tools, common, pack(share)))
            for place, (worker, share) in enumerate(zip(self._workers, shares, strict=True))
            if share
        ]
        try:
            found = self._ray.get([answer for _, answer in asked])
        except self._ray.exceptions.RayActorError as error:
            raise ModelError(
                f"a worker died {RETRIES + 1} times of the same probes, perhaps for want of memory; Ray's logs say more"
            ) from error
        results: list[Any] = [[] for _ in shares]
        for (place, _), result in zip(asked, found, strict=True):
            if isinstance(result, Failure):
                raise result.error()
            results[place] = result
        return results


def _connected(ray: ModuleType, workers: int, address: str) -> bool:
    """Start or find a cluster, and return whether this process was connected to it just now."""
    if ray.is_initialized():
        return False
    quiet: dict[str, Any] = {"log_to_driver": False, "logging_level": "ERROR"}
    if not address:
        ray.init("local", num_cpus=workers or cores(), include_dashboard=False, **quiet)
        return True
    _refuse_deaf(address)
    try:
        ray.init(address, **quiet)
    except (Exception, SystemExit) as error:  # Ray ends the process where a cluster does not speak its protocol
        raise SettingsError("address", address, f"Ray can't connect: {error}") from None
    return True


def _refuse_deaf(address: str) -> None:
    if address == "auto":
        return
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if not host or not port.isdecimal():
        raise SettingsError("address", address, "must be 'auto', 'host:port' or 'ray://host:port'")
    try:
        socket.create_connection((host, int(port)), _ANSWER_S).close()
    except (OSError, OverflowError) as error:
        raise SettingsError("address", address, f"nobody answers there: {error}") from None


def _on_gpu(runtime: Runtime) -> bool:
    return str(getattr(runtime, "device", "cpu")).startswith("cuda")
