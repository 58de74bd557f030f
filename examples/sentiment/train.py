"""Train the classifier on clients that only run it: first its head, then its head, norms and biases."""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray
from prepare import HEAD, LAYERS, NORMS_AND_BIASES, SOURCES, WORK, exported

import baffle
from baffle.progress import Progress, Result, peak_memory
from baffle.runtimes.onnx import OnnxRuntime

RESULTS = "results.json"
TUNED = "head, norms and biases"
HEAD_ROUNDS, TUNED_ROUNDS = 25, 16
FIRST = baffle.Baffle(forwards=33, batch=32, optimizer=baffle.Adam(rate=1e-2, beta1=0.5), anneal=HEAD_ROUNDS)
THEN = baffle.Baffle(
    forwards=68,
    batch=4,
    groups=12,
    blocks=tuple(f"inner.encoder.layer.{number}.*" for number in range(LAYERS)),
    optimizer=baffle.Adam(rate=1e-3, beta1=0.5),
    anneal=TUNED_ROUNDS,
)
PASS = 8
"""Texts of similar length that are evaluated together."""
CURVE = 16
"""The loss is followed on every sixteenth text held out."""


@dataclass(frozen=True, slots=True)
class Texts:
    """Texts as numbers."""

    tokens: NDArray[np.int32]
    """[N, 48]; 0 is padding."""
    labels: NDArray[np.int64]
    """[N]; 1 for a rating above zero."""
    sources: NDArray[np.int64]
    """[N]"""
    clients: NDArray[np.int64]
    """[N]"""

    def some(self, chosen: NDArray[Any]) -> Texts:
        """Return the chosen ones."""
        return Texts(self.tokens[chosen], self.labels[chosen], self.sources[chosen], self.clients[chosen])

    def by_length(self) -> Texts:
        """Return them with the shortest first, so that texts of one pass are padded to a similar length."""
        return self.some(np.argsort((self.tokens > 0).sum(1), kind="stable"))

    def passes(self) -> list[slice]:
        """Return slices of a few texts each."""
        return [slice(start, start + PASS) for start in range(0, len(self.labels), PASS)]


def read(work: Path) -> tuple[Texts, Texts]:
    """Return the texts to train on and those held out, shortest first."""
    with np.load(work / "texts.npz") as found:
        texts = Texts(found["tokens"], found["labels"], found["sources"], found["clients"])
        held = found["held"]
    return texts.some(~held), texts.some(held).by_length()


def measured(runtime: OnnxRuntime, result: Result, held: Texts) -> dict[str, float]:
    """Return how many held-out texts the averaged weights tell the label of, for each source and overall, and loss."""
    found = {}
    for number, source in enumerate(SOURCES):
        own = held.some(held.sources == number)
        pairs = [(own.tokens[some], own.labels[some]) for some in own.passes()]
        found[source] = runtime.evaluate(result.parameters, pairs)
    shares = [np.mean(held.sources == number) for number in range(len(SOURCES))]
    overall = {name: np.dot(shares, [getattr(one, name) for one in found.values()]) for name in ("accuracy", "loss")}
    row = {source: one.accuracy for source, one in found.items()}
    return {name: round(float(value), 4) for name, value in {**row, **overall}.items()}


def results(work: Path) -> dict[str, Any]:
    """Return the results so far: for each name and seed a row."""
    path = work / RESULTS
    return json.loads(path.read_text()) if path.exists() else {}


def keep(work: Path, name: str, seed: int, row: dict[str, Any]) -> None:
    """Put one finished run into the file of results."""
    found = results(work)
    found.setdefault(name, {})[str(seed)] = row
    (work / RESULTS).write_text(json.dumps(found, indent=1) + "\n")
    print(f"{name}, seed {seed}: {json.dumps(row)}", flush=True)


def run(name: str, folder: Path, algorithm: baffle.Baffle, rounds: int, seed: int, work: Path) -> dict[str, Any]:
    """Train what `folder` says over twelve clients, measure it on the texts held out, and return the weights."""
    texts, held = read(work)
    runtime = OnnxRuntime(folder, chunk=algorithm.batch)
    parts = [texts.some(texts.clients == client) for client in np.unique(texts.clients)]
    some = held.some(np.arange(len(held.labels))[::CURVE])
    curve: list[tuple[int, float]] = []

    def tell(now: Progress) -> None:
        print(f"\r{name}, seed {seed}: round {now.round} of {rounds}", end="", flush=True)
        if now.loss is not None:
            curve.append((round(now.forward_equivalents), round(now.loss, 4)))

    began = time.monotonic()
    result = baffle.simulate(
        runtime,
        [(part.tokens, part.labels) for part in parts],
        rounds=rounds,
        algorithm=algorithm,
        seed=seed,
        test=(some.tokens, some.labels) if name == TUNED else None,
        evaluate_every=8,
        progress=tell,
    )
    seconds = time.monotonic() - began
    print()
    row = {
        **measured(runtime, result, held),
        **({"loss after forwards": curve} if curve[:1] else {}),
        "rounds": rounds,
        "seconds": round(seconds, 1),
        "peak memory, MB": round(peak_memory() / 1e6),
        "forwards a client and round": round(result.forward_equivalents / rounds, 1),
        "bytes up a client and round": round(result.upload_bytes / rounds),
        "bytes down a client and round": round(result.download_bytes / rounds),
    }
    keep(work, name, seed, row)
    return result.tensors()


def main() -> None:
    """Train the head, then head, norms and biases from there, with each seed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--work", type=Path, default=WORK, help="what prepare.py wrote (%(default)s)")
    parser.add_argument("--seeds", type=int, nargs="*", default=[0, 1, 2], help="(%(default)s)")
    parser.add_argument(
        "--rounds", type=int, default=TUNED_ROUNDS, help="with norms and biases; 0 is the head alone (%(default)s)"
    )
    options = parser.parse_args()
    done = results(options.work)
    for seed in options.seeds:
        tuned = options.work / f"tuned-{seed}"
        if str(seed) not in done.get("head", {}) or not tuned.exists():
            tensors = alone(run, "head", options.work / "head", FIRST, HEAD_ROUNDS, seed, options.work)
            exported(options.work, tuned, (*HEAD, *NORMS_AND_BIASES), tensors)
    algorithm = msgspec.structs.replace(THEN, anneal=options.rounds)
    for seed in options.seeds if options.rounds else ():
        if str(seed) not in done.get(TUNED, {}):
            alone(run, TUNED, options.work / f"tuned-{seed}", algorithm, options.rounds, seed, options.work)


def alone(function: Callable[..., Any], *arguments: Any) -> Any:
    """Return what a function returns in a process of its own, so that its peak memory is its own."""
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        return pool.submit(function, *arguments).result()


if __name__ == "__main__":
    main()
