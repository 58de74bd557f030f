"""The model as one flat vector: where each tensor lies in it, how it begins, and its blocks."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping
from fnmatch import fnmatchcase
from functools import lru_cache
from itertools import accumulate, groupby
from typing import Annotated, Any, Literal, TypeAlias

import msgspec
import numpy as np
from msgspec import Meta
from numpy.typing import NDArray

from baffle import bits
from baffle.errors import ModelError, SettingsError
from baffle.keys import Key

Vector: TypeAlias = NDArray[np.floating[Any]]
"""All parameters, float32 [n]."""

BlockRule: TypeAlias = Literal["whole", "layers"] | tuple[str, ...]
"""The whole vector, one block a layer, or patterns of tensors' names that go together."""


class Uniform(msgspec.Struct, frozen=True, tag_field="initial", tag="uniform"):
    """Starts uniformly in (−bound, bound): weight i is bound · (2u + 1 − 2¹⁶)/2¹⁶ with u the stream's 16-bit word i."""

    bound: float


class Constant(msgspec.Struct, frozen=True, tag_field="initial", tag="constant"):
    """Starts with one value everywhere."""

    value: float


class Given(msgspec.Struct, frozen=True, tag_field="initial", tag="given"):
    """Starts as the model's owner gave it; the values are kept beside the ledger."""


Initial: TypeAlias = Uniform | Constant | Given


class Tensor(msgspec.Struct, frozen=True):
    """A named tensor of the model: its shape and how it begins.

    Raises:
        ModelError: `live` is not a bit for each weight.
    """

    name: str
    shape: Annotated[tuple[Annotated[int, Meta(ge=0, le=(1 << 63) - 1)], ...], Meta(max_length=64)]
    initial: Initial = Given()
    live: bytes = b""
    """Which weights the flat vector has, a bit each, lowest first; the others are zero and stay so. Empty is all."""

    def __post_init__(self) -> None:
        size = math.prod(self.shape)
        if self.live and (len(self.live) != -(-size // 8) or int.from_bytes(self.live, "little") >> size):
            raise ModelError(f"parameter {self.name}: {len(self.live)} bytes are no mask of shape {self.shape}")

    @property
    def size(self) -> int:
        """Number of weights in the flat vector."""
        return int.from_bytes(self.live, "little").bit_count() if self.live else math.prod(self.shape)

    def places(self) -> NDArray[np.int64]:
        """Return where the flat vector's weights lie in the flattened tensor, ascending."""
        return _places(self.live, math.prod(self.shape))

    def dense(self, weights: NDArray[Any]) -> NDArray[Any]:
        """Return the tensor of its weights [m]: a view of them where all are in use."""
        if not self.live:
            return weights.reshape(self.shape)
        tensor = np.zeros(math.prod(self.shape), weights.dtype)
        tensor[self.places()] = weights
        return tensor.reshape(self.shape)


@lru_cache(maxsize=256)
def _places(live: bytes, size: int) -> NDArray[np.int64]:
    if not live:
        return np.arange(size)
    return np.flatnonzero(np.unpackbits(np.frombuffer(live, np.uint8), bitorder="little"))


def mask_of(tensor: NDArray[Any]) -> bytes:
    """Return `Tensor.live` of a pruned tensor: a bit for each weight that is not zero; empty where none is zero."""
    live = np.asarray(tensor).ravel() != 0
    return b"" if live.all() else np.packbits(live, bitorder="little").tobytes()


class Block(msgspec.Struct, frozen=True):
    """A group of parameters that is displaced together: positions `start` to `stop` of the flat vector."""

    name: str
    start: int
    stop: int

    @property
    def size(self) -> int:
        """Number of weights."""
        return self.stop - self.start


class Layout(msgspec.Struct, frozen=True):
    """The order of the model's tensors in the flat vector.

    Raises:
        ModelError: there is nothing to train.
    """

    tensors: tuple[Tensor, ...]

    def __post_init__(self) -> None:
        if self.size == 0:
            raise ModelError("the model has no trainable parameters: at least one must have requires_grad set")

    @property
    def size(self) -> int:
        """n, the number of weights."""
        return sum(tensor.size for tensor in self.tensors)

    @property
    def given(self) -> bool:
        """Whether some tensor's first values come with the model instead of from a key."""
        return any(isinstance(tensor.initial, Given) for tensor in self.tensors)

    def slices(self) -> dict[str, slice]:
        """Return where each tensor lies in the flat vector."""
        stops = accumulate(tensor.size for tensor in self.tensors)
        return {tensor.name: slice(stop - tensor.size, stop) for tensor, stop in zip(self.tensors, stops, strict=True)}

    def within(self, start: int, stop: int) -> dict[str, slice]:
        """Return the tensors that have weights in positions `start` to `stop`, and where they lie."""
        return {name: own for name, own in self.slices().items() if max(own.start, start) < min(own.stop, stop)}

    def unflatten(self, vector: NDArray[np.generic]) -> dict[str, NDArray[np.generic]]:
        """Return the named tensors of `vector` [n], as views of it where no weight is missing."""
        slices = self.slices()
        return {tensor.name: tensor.dense(vector[slices[tensor.name]]) for tensor in self.tensors}

    def flatten(self, tensors: Mapping[str, NDArray[np.generic]]) -> Vector:
        """Return the flat vector of the named tensors, float32 [n].

        Raises:
            ModelError: a tensor is missing or has another shape, or a weight that is not in use is not zero.
        """
        vector = np.empty(self.size, np.float32)
        slices = self.slices()
        for tensor in self.tensors:
            name, values = tensor.name, tensors.get(tensor.name)
            if values is None or values.shape != tensor.shape:
                found = "nothing" if values is None else values.shape
                raise ModelError(f"parameter {name}: expected shape {tensor.shape}, found {found}")
            vector[slices[name]] = values.ravel()[tensor.places()] if tensor.live else values.ravel()
            if tensor.live and np.count_nonzero(values) > np.count_nonzero(vector[slices[name]]):
                raise ModelError(f"parameter {name}: weights that are pruned must be zero")
        return vector

    def blocks(self, rule: BlockRule) -> tuple[Block, ...]:
        """Return the blocks, in the order of the vector.

        "whole" is one block; "layers" has one for each run of tensors whose names share all but the last part. Patterns
        (as file names have them: *, ?, [...]) have one for each run of tensors that the same pattern is the first to
        match; tensors that none matches are parted by layer.

        Raises:
            SettingsError: a pattern matches no tensor.
        """
        if rule == "whole":
            return (Block("all", 0, self.size),)
        patterns = () if rule == "layers" else rule
        for pattern in patterns:
            if not any(fnmatchcase(tensor.name, pattern) for tensor in self.tensors):
                names = ", ".join(tensor.name for tensor in self.tensors[:20])
                raise SettingsError("blocks", pattern, f"must match a tensor; there are {names}")

        def family(tensor: Tensor) -> str:
            layer = tensor.name.rpartition(".")[0] or tensor.name
            return next((pattern for pattern in patterns if fnmatchcase(tensor.name, pattern)), layer)

        slices = self.slices()
        layers = groupby(self.tensors, key=family)
        spans = [(layer, [slices[tensor.name] for tensor in tensors]) for layer, tensors in layers]
        return tuple(
            Block(layer, spans[0].start, spans[-1].stop) for layer, spans in spans if spans[0].start < spans[-1].stop
        )

    def initial(self, key: Key, given: Mapping[str, NDArray[np.generic]] | None = None) -> Vector:
        """Return θ₀, float32 [n]: drawn from `key`, or taken from `given` where the layout says so.

        Bit for bit the same on every machine (docs/noise.md, section 5).

        Raises:
            ModelError: a given tensor is missing or has another shape.
        """
        tensors: dict[str, NDArray[np.generic]] = {}
        for number, tensor in enumerate(self.tensors):
            match tensor.initial:
                case Uniform(bound):
                    drawn = np.frombuffer(bits.words(key, number, 0, 2 * math.prod(tensor.shape)), "<u2")
                    centred = 2.0 * drawn.astype(np.float64) + 1.0 - 65536.0
                    tensors[tensor.name] = (centred * (bound / 65536.0)).reshape(tensor.shape)
                case Constant(value):
                    tensors[tensor.name] = np.full(tensor.shape, value)
                case Given():
                    if given is not None and tensor.name in given:
                        tensors[tensor.name] = given[tensor.name]
            if tensor.live and not isinstance(tensor.initial, Given):
                tensors[tensor.name] = tensor.dense(tensors[tensor.name].ravel()[tensor.places()])
        return self.flatten(tensors)


def digest(vector: Vector) -> str:
    """Return BLAKE2b-256 of the vector's bytes (little-endian float32), in hexadecimal."""
    return hashlib.blake2b(np.ascontiguousarray(vector, "<f4").tobytes(), digest_size=32).hexdigest()
