"""ONNX Runtime: models that `baffle export` made, evaluated without any training framework."""

# pyright: standard
from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, nullcontext
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from baffle import checks
from baffle.bundle import Bundle, Cut, Feature, on_grid
from baffle.errors import ModelError
from baffle.extras import require
from baffle.parameters import Block
from baffle.probes import Probes
from baffle.runtimes import Batch, Evaluation, slices

Loss = Callable[[NDArray[Any], NDArray[Any]], NDArray[np.floating]]
"""(outputs, targets) -> the loss of each sample [B, ...]."""
Arrays = dict[str, NDArray[Any]]


def cross_entropy(outputs: NDArray[Any], targets: NDArray[Any]) -> NDArray[np.float64]:
    """Return each sample's cross-entropy [B] from logits [B, classes], computed in float64."""
    logits = outputs.astype(np.float64)
    logits -= logits.max(1, keepdims=True)
    chosen = np.take_along_axis(logits, targets[:, None], 1)[:, 0]
    return np.log(np.exp(logits, out=logits).sum(1)) - chosen


class Joined(NamedTuple):
    """The targets of several batches that are evaluated together, and how many samples each batch has."""

    targets: NDArray[Any]
    sizes: list[int]


class _Session(NamedTuple):
    run: Callable[..., Any]
    inputs: frozenset[str]


class OnnxRuntime:
    """Losses of an exported model (`baffle.bundle`).

    What lies before a displaced block is computed once a batch; then each probe runs the rest, one at a time, with the
    block's displaced tensors as inputs. Memory: the model's, two vectors of its trained weights, and the activations of
    one pass for each thread. Values are float32.

    Args:
        folder: what `baffle export` wrote.
        loss: (outputs, targets) -> the loss of each sample.
        chunk: most samples in one forward pass, ≥ 1: bounds the memory of activations.
        threads: probes evaluated at the same time, each on one processor thread, ≥ 1: results do not depend on it.

    Raises:
        ModelError: the folder holds no exported model, or ONNX Runtime can't run it.
        MissingExtraError: onnxruntime is not installed.
    """

    precision: np.dtype[Any] = np.dtype(np.float32)

    def __init__(self, folder: Path | str, *, loss: Loss = cross_entropy, chunk: int = 256, threads: int = 1) -> None:
        for name, number in (("chunk", chunk), ("threads", threads)):
            checks.at_least(name, number, 1)
        require("onnxruntime", "client")
        self.bundle = Bundle.read(Path(folder))
        self.chunk = chunk
        self.threads = threads
        self._loss = loss
        self.layout = self.bundle.manifest.layout
        given = self.bundle.given()
        self.given = {t.name: t.dense(given[t.name].ravel()) for t in self.layout.tensors if t.name in given}
        self._tensors = {tensor.name: tensor for tensor in self.layout.tensors}
        self._sessions: dict[str, _Session] = {}
        self._grid = frozenset(self.bundle.manifest.grid)

    def __reduce__(self) -> tuple[Any, ...]:
        """Travel as the folder's name: it must be there, too."""
        return _again, (self.bundle.folder, self._loss, self.chunk, self.threads)

    def losses(self, points: Iterable[NDArray[np.floating]], batches: Sequence[Batch]) -> NDArray[np.float64]:
        """Return the mean loss at each of P points on each of C batches, float64 [P, C], the whole model run."""
        rows = []
        for point in points:
            tensors = self._named(point)
            parts = [
                self._means(np.concatenate([self._whole(tensors, piece) for piece in pieces]), some)
                for some, pieces in self._passes(batches)
            ]
            rows.append(np.concatenate(parts))
        return np.stack(rows)

    def sweep(self, blocks: Sequence[Probes], batches: Sequence[Batch]) -> list[NDArray[np.float64]]:
        """Return the mean loss at each block's probes on each of C batches, float64 [P, C] each; all around one θ."""
        tensors = self._named(blocks[0].parameters)
        with self._pool() as pool:
            parts = [
                [self._block(probes, tensors, some, pieces, pool) for probes in blocks]
                for some, pieces in self._passes(batches)
            ]
        return [np.concatenate(columns, axis=1) for columns in zip(*parts, strict=True)]

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
        tensors = self._named(np.asarray(parameters, self.precision))
        for batch in batches:
            for (targets, _), pieces in self._passes([batch]):
                outputs = np.concatenate([self._whole(tensors, piece) for piece in pieces])
                total += float(self._losses_of(outputs, targets).sum())
                classes = outputs.ndim == 2 and targets.ndim == 1 and np.issubdtype(targets.dtype, np.integer)
                correct += float((outputs.argmax(1) == targets).sum()) if classes else math.nan
                samples += len(targets)
        return Evaluation(total / samples, correct / samples)

    def _block(
        self,
        probes: Probes,
        tensors: Arrays,
        some: Joined,
        pieces: Sequence[Arrays],
        pool: ThreadPoolExecutor | None,
    ) -> NDArray[np.float64]:
        names = self.layout.within(probes.block.start, probes.block.stop)
        cut = self._cut(names)
        session = self._session(cut.file)
        span = slice(min(s.start for s in names.values()), max(s.stop for s in names.values()))
        wanted = session.inputs
        before = [self._before(wanted, tensors, piece) for piece in pieces]
        kept = {name: tensors[name] for name in wanted & tensors.keys() - names.keys()}
        moved = {name: own for name, own in names.items() if name in wanted}

        def one(job: tuple[int, int]) -> NDArray[np.float64]:
            direction, sign = job
            row = probes.rows(span, direction, 1, sign)[0]
            own = {n: self._laid_out(n, row[s.start - span.start : s.stop - span.start]) for n, s in moved.items()}
            outputs = [self._run(session, [self.bundle.manifest.output], kept | own | held)[0] for held in before]
            return self._means(outputs[0] if len(outputs) == 1 else np.concatenate(outputs), some)

        jobs = [(direction, sign) for direction in probes.directions for sign in probes.signs]
        return np.stack(list(map(one, jobs) if pool is None else pool.map(one, jobs)))

    def _before(self, wanted: frozenset[str], tensors: Arrays, piece: Arrays) -> Arrays:
        """Return the samples and the values computed before a cut, of those that are `wanted`."""
        held = {name: piece[name] for name in wanted & piece.keys()}
        values = sorted(wanted - piece.keys() - tensors.keys())
        if values:
            trunk = self._session(self.bundle.manifest.trunk)
            held |= zip(values, self._run(trunk, values, tensors | piece), strict=True)
        return held

    def _whole(self, tensors: Arrays, piece: Arrays) -> NDArray[Any]:
        """Return the outputs for one pass's samples."""
        session = self._session(self.bundle.manifest.whole.file)
        return self._run(session, [self.bundle.manifest.output], tensors | piece)[0]

    def _run(self, session: _Session, names: Sequence[str], given: Arrays) -> list[NDArray[Any]]:
        own = {name: value for name, value in given.items() if name in session.inputs}
        try:
            return session.run(names, own, _only_what_is_asked())
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

    def _named(self, point: NDArray[np.floating]) -> Arrays:
        """Return the named tensors of θ as the graphs take them."""
        return {name: self._laid_out(name, point[own]) for name, own in self.layout.slices().items()}

    def _laid_out(self, name: str, weights: NDArray[np.floating]) -> NDArray[Any]:
        if name in self._grid:
            return self._tensors[name].dense(on_grid(weights))
        return self._tensors[name].dense(weights)

    def _passes(self, batches: Sequence[Batch]) -> Iterator[tuple[Joined, list[Arrays]]]:
        """Yield runs of batches that are evaluated together, and their samples in passes of at most `chunk`.

        A model whose samples share the range of their activations sees one batch at a time.
        """
        coupled = self.bundle.manifest.coupled
        for some in [slice(i, i + 1) for i in range(len(batches))] if coupled else slices(batches, self.chunk):
            inputs, targets = (np.concatenate(parts) for parts in zip(*batches[some], strict=True))
            starts = range(0, len(targets), self.chunk)
            pieces = [self._features(inputs[start : start + self.chunk]) for start in starts]
            yield Joined(targets, [len(own) for _, own in batches[some]]), pieces

    def _features(self, inputs: NDArray[Any]) -> Arrays:
        """Return samples as the graphs take them."""
        features = self.bundle.manifest.features
        if len(features) == 1:
            return {features[0].name: _checked(features[0], inputs)}
        fields = inputs.dtype.names or ()
        if missing := [one.name for one in features if one.name not in fields]:
            raise ModelError(f"samples must be a structured array with fields {', '.join(missing)}")
        return {one.name: _checked(one, inputs[one.name]) for one in features}

    def _means(self, outputs: NDArray[Any], some: Joined) -> NDArray[np.float64]:
        """Return the mean loss of each batch [C]."""
        values = self._losses_of(outputs, some.targets)
        if len(set(some.sizes)) == 1:
            return values.reshape(len(some.sizes), -1).mean(1)
        return np.array([part.mean() for part in np.split(values, np.cumsum(some.sizes)[:-1])])

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


def _again(folder: Path, loss: Loss, chunk: int, threads: int) -> OnnxRuntime:
    return OnnxRuntime(folder, loss=loss, chunk=chunk, threads=threads)


def _opened(path: Path) -> _Session:
    """Return a session on one thread, whose memory is that of all sessions together."""
    import onnxruntime

    _share_memory()
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 3
    options.enable_mem_pattern = False  # a session of its own plan would not give memory back to the others
    options.add_session_config_entry("session.use_env_allocators", "1")
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
