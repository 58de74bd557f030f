"""ONNX Runtime: models that `baffle export` made, evaluated without any training framework."""

# pyright: standard
from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, nullcontext
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from baffle import checks
from baffle.bundle import LAID_OUT, Bundle, Cut, Feature, on_grid, this_processor
from baffle.errors import ModelError
from baffle.extras import require
from baffle.parameters import Block
from baffle.probes import Probes
from baffle.runtimes import Batch, Evaluation, slices

Loss = Callable[[NDArray[Any], NDArray[Any]], NDArray[np.floating]]
"""(outputs, targets) -> the loss of each sample [B, ...]."""
Arrays = dict[str, NDArray[Any]]
_TOGETHER = 32
"""Most probes whose displaced weights are made, and whose losses are taken, in one call."""
_ROOM = 1 << 16
"""Weights that such probes may have together."""


def cross_entropy(outputs: NDArray[Any], targets: NDArray[Any]) -> NDArray[np.float64]:
    """Return each sample's cross-entropy [B] from logits [B, classes], computed in float64."""
    logits = outputs.astype(np.float64)
    logits -= logits.max(1, keepdims=True)
    chosen = np.take_along_axis(logits, targets[:, None], 1)[:, 0]
    return np.log(np.exp(logits, out=logits).sum(1)) - chosen


class _Pass(NamedTuple):
    """Samples that are evaluated together."""

    clients: slice
    """Whose they are, by the places of their batches."""
    features: Arrays
    targets: NDArray[Any]
    sizes: list[int]
    """How many are of each of these batches."""
    share: float
    """Of a batch that is cut into several passes."""


class _Session(NamedTuple):
    run: Callable[..., Any]
    inputs: frozenset[str]

    @property
    def tensors(self) -> dict[str, str]:
        """Return the name of the tensor that each input is, in some layout."""
        return {name: name.rpartition(LAID_OUT)[0] or name for name in self.inputs}


class OnnxRuntime:
    """Losses of an exported model (`baffle.bundle`).

    What lies before a displaced block is computed once a batch; then each probe runs the rest, one at a time, with the
    block's displaced tensors as inputs. Memory: the model's, two vectors of its trained weights, and the activations of
    one pass for each thread. Values are float32.

    Args:
        folder: what `baffle export` wrote.
        loss: (outputs, targets) -> the loss of each sample.
        chunk: most samples in one forward pass, ≥ 1: bounds the memory of activations. Where activations are quantised
            as they come (`Manifest.coupled`), each pass has a range of its own, so losses depend on it.
        threads: probes evaluated at the same time, each on one processor thread, ≥ 1: results do not depend on it.
        settled: use graphs rewritten for this processor where the folder has them: faster convolutions, some more
            memory, and losses that may differ in their last digits.

    Raises:
        ModelError: the folder holds no exported model, or ONNX Runtime can't run it.
        MissingExtraError: onnxruntime is not installed.
    """

    precision: np.dtype[Any] = np.dtype(np.float32)

    def __init__(
        self,
        folder: Path | str,
        *,
        loss: Loss = cross_entropy,
        chunk: int = 256,
        threads: int = 1,
        settled: bool = True,
    ) -> None:
        for name, number in (("chunk", chunk), ("threads", threads)):
            checks.at_least(name, number, 1)
        onnxruntime = require("onnxruntime", "client")
        self.bundle = Bundle.read(Path(folder))
        self.chunk = chunk
        self.threads = threads
        self._loss = loss
        self.layout = self.bundle.manifest.layout
        self._tensors = {tensor.name: tensor for tensor in self.layout.tensors}
        self._sessions: dict[str, _Session] = {}
        self._grid = frozenset(self.bundle.manifest.grid)
        self.settled = settled
        self._at_home = settled and self.bundle.manifest.settled_for == this_processor(onnxruntime.__version__) != ""
        self._places = self._gathered() if self._at_home else {}

    @property
    def given(self) -> Mapping[str, NDArray[np.generic]]:
        """The model's own values of its trainable tensors, by name; a client, which is sent θ, never reads them."""
        weights = self.bundle.given()
        return {t.name: t.dense(weights[t.name].ravel()) for t in self.layout.tensors if t.name in weights}

    def __reduce__(self) -> tuple[Any, ...]:
        """Travel as the folder's name: it must be there, too."""
        return _again, (self.bundle.folder.absolute(), self._loss, self.chunk, self.threads, self.settled)

    def losses(self, points: Iterable[NDArray[np.floating]], batches: Sequence[Batch]) -> NDArray[np.float64]:
        """Return the mean loss at each of P points on each of C batches, float64 [P, C], the whole model run."""
        rows = []
        for point in points:
            here = np.asarray(point, self.precision)
            found = [(own, self._means(self._whole(here, own.features), own)) for own in self._passes(batches)]
            rows.append(_together(found, len(batches)))
        return np.concatenate(rows)

    def sweep(self, blocks: Sequence[Probes], batches: Sequence[Batch]) -> list[NDArray[np.float64]]:
        """Return the mean loss at each block's probes on each of C batches, float64 [P, C] each; all around one θ."""
        point = blocks[0].parameters
        found: list[list[tuple[_Pass, NDArray[np.float64]]]] = [[] for _ in blocks]
        with self._pool() as pool:
            for own in self._passes(batches):
                sessions = [self._of(self._cut(self._moved(probes))) for probes in blocks]
                held = self._before(sessions, point, own.features)
                for number, (session, probes) in enumerate(zip(sessions, blocks, strict=True)):
                    found[number].append((own, self._block(session, probes, point, own, held, pool)))
                    later = {name for one in sessions[number + 1 :] for name in one.inputs}
                    held = {name: array for name, array in held.items() if name in later}
        return [_together(parts, len(batches)) for parts in found]

    def costs(self, blocks: Sequence[Block], batch: Batch) -> tuple[float, ...]:
        """Return the share of a forward pass that a probe of each block has to run again, in (0, 1]: counted."""
        del batch
        cuts = [self._cut(self.layout.within(block.start, block.stop)) for block in blocks]
        return tuple(max(cut.operations, 1) / max(self.bundle.manifest.whole.operations, 1) for cut in cuts)

    def together(self, probes: Probes, batches: Sequence[Batch]) -> int:
        """Return 1: probes are evaluated one by one."""
        del probes, batches
        return 1

    def evaluate(self, parameters: NDArray[np.floating], batches: Iterable[Batch]) -> Evaluation:
        """Return the mean loss and the accuracy of `parameters` [n] over all samples of `batches`."""
        total, correct, samples = 0.0, 0.0, 0
        point = np.asarray(parameters, self.precision)
        for batch in batches:
            for own in self._passes([batch]):
                outputs, targets = self._whole(point, own.features), own.targets
                total += float(self._losses_of(outputs, targets).sum())
                classes = outputs.ndim == 2 and targets.ndim == 1 and np.issubdtype(targets.dtype, np.integer)
                correct += float((outputs.argmax(1) == targets).sum()) if classes else math.nan
                samples += len(targets)
        return Evaluation(total / samples, correct / samples)

    def _moved(self, probes: Probes) -> dict[str, slice]:
        """Return the tensors that probes displace, and where they lie in θ."""
        return self.layout.within(probes.block.start, probes.block.stop)

    def _block(
        self,
        session: _Session,
        probes: Probes,
        point: NDArray[np.floating],
        own: _Pass,
        before: Arrays,
        pool: ThreadPoolExecutor | None,
    ) -> NDArray[np.float64]:
        """Return the mean loss at each probe on each of one pass's batches [P, C]."""
        names = self._moved(probes)
        span = slice(min(s.start for s in names.values()), max(s.stop for s in names.values()))
        held = {name: array for name, array in before.items() if name in session.inputs}
        held |= self._kept(session, point, names)
        moved = {
            name: (tensor, slice(names[tensor].start - span.start, names[tensor].stop - span.start))
            for name, tensor in session.tensors.items()
            if tensor in names
        }
        together = max(1, min(_TOGETHER, _ROOM // (span.stop - span.start)))

        def outputs(row: NDArray[np.floating]) -> NDArray[Any]:
            displaced = {name: self._laid_out(name, tensor, row[place]) for name, (tensor, place) in moved.items()}
            return self._run(session, [self.bundle.manifest.output], held | displaced)[0]

        def some_losses(job: tuple[int, int, int]) -> NDArray[np.float64]:
            first, count, sign = job
            rows = probes.rows(span, first, count, sign)
            return self._means(np.concatenate([outputs(row) for row in rows]), own)

        budget, signs = probes.directions, probes.signs
        jobs = [
            (first, min(together, budget.stop - first), sign)
            for first in range(budget.start, budget.stop, together)
            for sign in signs
        ]
        found = map(some_losses, jobs) if pool is None else pool.map(some_losses, jobs)
        losses = np.empty((len(budget), len(signs), len(own.sizes)))
        for (first, count, sign), part in zip(jobs, found, strict=True):
            losses[first - budget.start : first - budget.start + count, signs.index(sign)] = part
        return losses.reshape(-1, len(own.sizes))

    def _kept(self, session: _Session, point: NDArray[np.floating], moved: Iterable[str] = ()) -> Arrays:
        """Return the tensors of θ that a graph takes, but for those that are `moved`."""
        slices = self.layout.slices()
        return {
            name: self._laid_out(name, tensor, point[slices[tensor]])
            for name, tensor in session.tensors.items()
            if tensor in slices and tensor not in moved
        }

    def _before(self, sessions: Sequence[_Session], point: NDArray[np.floating], samples: Arrays) -> Arrays:
        """Return the samples and the values computed before that graphs take, from one run for all of them."""
        wanted = {name: tensor for session in sessions for name, tensor in session.tensors.items()}
        held = {name: array for name, array in samples.items() if name in wanted}
        values = sorted(name for name, tensor in wanted.items() if name not in samples and tensor not in self._tensors)
        if values:
            trunk = self._session(self.bundle.manifest.trunk)
            given = {name: array for name, array in samples.items() if name in trunk.inputs}
            held |= zip(values, self._run(trunk, values, given | self._kept(trunk, point)), strict=True)
        return held

    def _whole(self, point: NDArray[np.floating], samples: Arrays) -> NDArray[Any]:
        """Return the outputs for one pass's samples."""
        session = self._of(self.bundle.manifest.whole)
        given = self._kept(session, point) | {name: own for name, own in samples.items() if name in session.inputs}
        return self._run(session, [self.bundle.manifest.output], given)[0]

    def _of(self, cut: Cut) -> _Session:
        """Return the session of a part of the model, in the form that is best here."""
        return self._session(cut.settled if cut.settled and self._at_home else cut.file)

    def _run(self, session: _Session, names: Sequence[str], given: Arrays) -> list[NDArray[Any]]:
        try:
            return session.run(names, given, _only_what_is_asked())
        except Exception as error:  # ONNX Runtime's own kinds are no public names
            raise ModelError(f"ONNX Runtime fails on {self.bundle.folder}: {_told(error)}") from error

    def _cut(self, names: Iterable[str]) -> Cut:
        """Return the smallest part of the model that follows displacements of tensors `names`."""
        manifest, wanted = self.bundle.manifest, set(names)
        fitting = [cut for cut in manifest.cuts if wanted <= set(cut.displaced)]
        return min([*fitting, manifest.whole], key=lambda cut: cut.operations)

    def _session(self, file: str) -> _Session:
        if file not in self._sessions:
            try:
                self._sessions[file] = _opened(self.bundle.folder / file)
            except Exception as error:  # as above
                raise ModelError(f"ONNX Runtime can't load {self.bundle.folder / file}: {_told(error)}") from error
        return self._sessions[file]

    def _laid_out(self, name: str, tensor: str, weights: NDArray[np.floating]) -> NDArray[Any]:
        """Return a tensor's weights [m] as the input `name` of a graph takes them."""
        if name in self._places:
            return np.append(weights, weights.dtype.type(0)).take(self._places[name])
        return self._tensors[tensor].dense(on_grid(weights) if tensor in self._grid else weights)

    def _gathered(self) -> dict[str, NDArray[np.int32]]:
        """Return where in a tensor's weights, a zero put behind them, the entries of each layout come from."""
        found: dict[str, NDArray[np.int32]] = {}
        for name, places in self.bundle.layouts().items():
            tensor = self._tensors[name.rpartition(LAID_OUT)[0]]
            inverse = np.full(math.prod(tensor.shape) + 1, tensor.size, np.int32)
            inverse[tensor.places()] = np.arange(tensor.size)
            found[name] = inverse[places]
        return found

    def _passes(self, batches: Sequence[Batch]) -> Iterator[_Pass]:
        """Yield the samples in passes of at most `chunk`: of several batches, or of a part of a large one.

        A model whose samples share the range of their activations sees one batch at a time.
        """
        coupled = self.bundle.manifest.coupled
        for some in [slice(i, i + 1) for i in range(len(batches))] if coupled else slices(batches, self.chunk):
            inputs, targets = (np.concatenate(parts) for parts in zip(*batches[some], strict=True))
            if len(targets) <= self.chunk:
                sizes = [len(own) for _, own in batches[some]]
                yield _Pass(some, self._features(inputs), targets, sizes, 1.0)
                continue
            for start in range(0, len(targets), self.chunk):
                piece = slice(start, start + self.chunk)
                own = targets[piece]
                yield _Pass(some, self._features(inputs[piece]), own, [len(own)], len(own) / len(targets))

    def _features(self, inputs: NDArray[Any]) -> Arrays:
        """Return samples as the graphs take them."""
        features = self.bundle.manifest.features
        if len(features) == 1:
            return {features[0].name: _checked(features[0], inputs)}
        fields = inputs.dtype.names or ()
        if missing := [one.name for one in features if one.name not in fields]:
            raise ModelError(f"samples must be a structured array with fields {', '.join(missing)}")
        return {one.name: _checked(one, inputs[one.name]) for one in features}

    def _means(self, outputs: NDArray[Any], own: _Pass) -> NDArray[np.float64]:
        """Return the mean loss of each batch at each of P probes [P, C], from outputs [P · S, ...]."""
        probes = len(outputs) // len(own.targets)
        targets = np.concatenate([own.targets] * probes) if probes > 1 else own.targets
        values = self._losses_of(outputs, targets).reshape(probes, -1)
        if len(set(own.sizes)) == 1:
            return values.reshape(probes, len(own.sizes), -1).mean(2)
        parts = np.split(values, np.cumsum(own.sizes)[:-1], axis=1)
        return np.stack([part.mean(1) for part in parts], 1)

    def _losses_of(self, outputs: NDArray[Any], targets: NDArray[Any]) -> NDArray[np.float64]:
        shapes = f"outputs of shape {list(outputs.shape)} and targets of shape {list(targets.shape)}"
        try:
            with np.errstate(all="ignore"):  # a loss that is not finite is reported as missing
                values = np.asarray(self._loss(outputs, targets), np.float64)
        except Exception as error:  # a user's own loss may fail in any way
            raise ModelError(f"the loss fails on {shapes}: {_told(error)}") from error
        if values.shape[:1] != targets.shape[:1]:
            raise ModelError(f"the loss gives {list(values.shape)} for {shapes}: it must give one for each sample")
        return values.reshape(len(targets), -1).mean(1)

    def _pool(self) -> AbstractContextManager[ThreadPoolExecutor | None]:
        return nullcontext() if self.threads == 1 else ThreadPoolExecutor(self.threads)


def _again(folder: Path, loss: Loss, chunk: int, threads: int, settled: bool) -> OnnxRuntime:
    return OnnxRuntime(folder, loss=loss, chunk=chunk, threads=threads, settled=settled)


def _together(parts: Sequence[tuple[_Pass, NDArray[np.float64]]], batches: int) -> NDArray[np.float64]:
    """Return the losses [P, C] of passes that have parts of them."""
    losses = np.zeros((len(parts[0][1]), batches))
    for own, found in parts:
        losses[:, own.clients] += own.share * found
    return losses


def _opened(path: Path) -> _Session:
    """Return a session on one thread, whose memory is that of all sessions together."""
    import onnxruntime

    _share_memory()
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 3
    options.enable_mem_pattern = False  # a session of its own plan would not give memory back to the others
    options.add_session_config_entry("session.use_env_allocators", "1")
    options.add_session_config_entry("session.qdq_matmulnbits_accuracy_level", "0")  # else it rounds activations, too
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    return _Session(session.run, frozenset(one.name for one in session.get_inputs()))


@cache
def _share_memory() -> None:
    """Have all sessions of this process take memory from one arena, which grows by no more than is asked for."""
    import onnxruntime

    kind = onnxruntime.OrtMemoryInfo(
        "Cpu", onnxruntime.OrtAllocatorType.ORT_ARENA_ALLOCATOR, 0, onnxruntime.OrtMemType.DEFAULT
    )
    onnxruntime.create_and_register_allocator(kind, onnxruntime.OrtArenaCfg(0, 1, -1, -1))


@cache
def _only_what_is_asked() -> Any:
    import onnxruntime

    options = onnxruntime.RunOptions()
    options.only_execute_path_to_fetches = True
    return options


def _checked(feature: Feature, values: NDArray[Any]) -> NDArray[Any]:
    """Return samples of one array in the type that the graphs take.

    Raises:
        ModelError: they have another shape, or numbers that can't be of that type.
    """
    shape, kind = values.shape[1:], np.dtype(feature.dtype)
    fits = len(shape) == len(feature.shape) and all(
        own in (-1, size) for own, size in zip(feature.shape, shape, strict=True)
    )
    if not fits or not np.can_cast(values.dtype, kind, "same_kind"):
        expected = f"{feature.dtype} of shape {_shape(feature.shape)}"
        raise ModelError(f"the model takes samples ({feature.name}) of {expected}, not {values.dtype} {list(shape)}")
    return np.ascontiguousarray(values, kind)


def _shape(shape: Sequence[int]) -> str:
    return "[" + ", ".join("any" if size < 0 else str(size) for size in shape) + "]"


def _told(error: Exception) -> str:
    return str(error).strip().split("\n")[0][:300]
