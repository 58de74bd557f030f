"""The same with backpropagation: the float model, all texts in one place, Adam."""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterator
from fnmatch import fnmatchcase
from itertools import islice
from pathlib import Path

import numpy as np
import onnxruntime
import torch
from numpy.typing import NDArray
from prepare import LAYERS, NORMS_AND_BIASES, SOURCES, WORK
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn import functional
from train import Texts, keep, read

from baffle.keys import Key
from baffle.progress import peak_memory

HEADS = 12
BATCH = 32
HEAD_RATE, HEAD_EPOCHS = 1e-2, 10
RATE = 1e-3


class Layer(nn.Module):
    """One layer of BERT, under the names that its weights have."""

    def __init__(self, width: int, inner: int) -> None:
        super().__init__()
        projections = {name: nn.Linear(width, width) for name in ("query", "key", "value")}
        norms = {"dense": nn.Linear(width, width), "LayerNorm": nn.LayerNorm(width, 1e-12)}
        self.attention = nn.ModuleDict({"self": nn.ModuleDict(projections), "output": nn.ModuleDict(norms)})
        self.intermediate = nn.ModuleDict({"dense": nn.Linear(width, inner)})
        self.output = nn.ModuleDict({"dense": nn.Linear(inner, width), "LayerNorm": nn.LayerNorm(width, 1e-12)})

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        """Return [B, L, width] from the same, for tokens where `mask` [B, 1, 1, L] is true."""
        parts = [self.attention["self"][name](x).unflatten(2, (HEADS, -1)) for name in ("query", "key", "value")]
        mixed = functional.scaled_dot_product_attention(*(part.transpose(1, 2) for part in parts), attn_mask=mask)
        out = self.attention["output"]
        x = out["LayerNorm"](x + out["dense"](mixed.transpose(1, 2).flatten(2)))
        inner = functional.gelu(self.intermediate["dense"](x))
        return self.output["LayerNorm"](x + self.output["dense"](inner))


class Encoder(nn.Module):
    """MiniLM with six layers: tokens [B, L] to embeddings [B, 384] whose root mean square is 1."""

    def __init__(self, width: int = 384, inner: int = 1536) -> None:
        super().__init__()
        tables = {"word": 30522, "position": 512, "token_type": 2}
        tables = {f"{name}_embeddings": nn.Embedding(rows, width) for name, rows in tables.items()}
        self.embeddings = nn.ModuleDict({**tables, "LayerNorm": nn.LayerNorm(width, 1e-12)})
        self.encoder = nn.ModuleDict({"layer": nn.ModuleList(Layer(width, inner) for _ in range(LAYERS))})

    def forward(self, tokens: Tensor) -> Tensor:
        """Return the mean over each text's tokens, scaled."""
        tokens = tokens[:, : int((tokens > 0).sum(1).max())]
        mask = tokens > 0
        tables = self.embeddings
        x = tables["word_embeddings"](tokens) + tables["token_type_embeddings"](torch.zeros_like(tokens))
        x = tables["LayerNorm"](x + tables["position_embeddings"](torch.arange(tokens.shape[1])))
        for layer in self.encoder["layer"]:
            x = layer(x, mask[:, None, None])
        total = (x * mask[:, :, None]).sum(1)
        return total / (total.square().mean(1, keepdim=True) + 1e-9).sqrt()


class Classifier(nn.Module):
    """The encoder and a linear head that begins at zero."""

    def __init__(self, weights: dict[str, Tensor]) -> None:
        super().__init__()
        self.encoder, self.head = Encoder(), nn.Linear(384, 2)
        self.encoder.load_state_dict({name: weights[name] for name in self.encoder.state_dict()})
        nn.init.zeros_(self.head.weight)
        nn.init.zeros_(self.head.bias)

    def forward(self, tokens: Tensor) -> Tensor:
        """Return logits [B, 2]."""
        return self.head(self.encoder(tokens))

    def tune(self) -> dict[str, nn.Parameter]:
        """Have head, norms and biases be trained; return the latter two by name."""
        named = {f"inner.{name.removeprefix('encoder.')}": tensor for name, tensor in self.named_parameters()}
        tuned = {n: t for n, t in named.items() if any(fnmatchcase(n, pattern) for pattern in NORMS_AND_BIASES)}
        self.encoder.requires_grad_(False)
        for tensor in tuned.values():
            tensor.requires_grad_(True)
        return tuned


def gradient(model: Classifier, texts: Texts, count: int = 1536) -> dict[str, float]:
    """Return how large the gradient of norms and biases is: of all texts together, and of single ones.

        s = ⟨g₁, g₂⟩,   v = N ‖g₁ − g₂‖² / 4

    g₁ and g₂ are means over half of N = `count` texts each; E s is the squared norm of the mean over all texts, E v
    what single texts add to it.
    """
    halves: list[dict[str, Tensor]] = [{}, {}]
    tuned = model.tune()
    chosen = np.linspace(0, len(texts.labels) - 1, count).astype(int).reshape(-1, 2, BATCH // 2)
    for half, pieces in zip(halves, chosen.swapaxes(0, 1), strict=True):
        for some in pieces:
            loss = functional.cross_entropy(
                model(torch.from_numpy(texts.tokens[some]).long()), torch.from_numpy(texts.labels[some])
            )
            for name, part in zip(tuned, torch.autograd.grad(loss, list(tuned.values())), strict=True):
                half[name] = half.get(name, torch.zeros_like(part)) + part / len(pieces)
    first, second = (torch.cat([half[name] for name in tuned]) for half in halves)
    told = {"weights": len(first), "texts": count, "mean": (first @ second).item()}
    return {**told, "single": count * (first - second).square().sum().item() / 4}


def batches(texts: Texts, generator: np.random.Generator) -> Iterator[NDArray[np.int64]]:
    """Yield an epoch's mini-batches: texts of a similar length, in random order."""
    lengths = (texts.tokens > 0).sum(1)
    for some in np.array_split(generator.permutation(len(lengths)), len(lengths) // (16 * BATCH)):
        pieces = np.array_split(some[np.argsort(lengths[some], kind="stable")], len(some) // BATCH)
        yield from (pieces[number] for number in generator.permutation(len(pieces)))


def row(held: Texts, logits: Tensor, seconds: float, steps: int) -> dict[str, float]:
    """Return a row of the results: accuracy of each source and overall, loss, and how long it took."""
    right = logits.argmax(1).numpy() == held.labels
    found = {source: right[held.sources == number].mean() for number, source in enumerate(SOURCES)}
    loss = functional.cross_entropy(logits, torch.from_numpy(held.labels)).item()
    told = {name: round(float(value), 4) for name, value in {**found, "accuracy": right.mean(), "loss": loss}.items()}
    return {**told, "steps": steps, "seconds": round(seconds, 1)}


@torch.no_grad()
def in_passes(model: nn.Module, texts: Texts) -> Tensor:
    """Return the model's outputs for texts that are sorted by length."""
    return torch.cat([model(torch.from_numpy(texts.tokens[some]).long()) for some in texts.passes()])


def embeddings(encoder: nn.Module, texts: Texts, held: Texts, kept: Path) -> tuple[Tensor, Tensor]:
    """Return the frozen encoder's embeddings of the texts to train on and of those held out, made once."""
    if not kept.exists():
        np.savez(kept, train=in_passes(encoder, texts).numpy(), held=in_passes(encoder, held).numpy())
    with np.load(kept) as found:
        return torch.from_numpy(found["train"]), torch.from_numpy(found["held"])


def agreement(work: Path, held: Texts, embedded: Tensor) -> dict[str, float]:
    """Return the cosines of the clients' int8 embeddings with the float model's, over a tenth of the held-out texts."""
    chosen = np.arange(0, len(held.labels), 10)
    some, floats = held.some(chosen), embedded.numpy()[chosen]
    trunk = onnxruntime.InferenceSession(work / "head" / "trunk.onnx", providers=["CPUExecutionProvider"])
    given = ({"tokens": some.tokens[part].astype(np.int64)} for part in some.passes())
    whole = np.concatenate([trunk.run(["embedding_of_text"], one)[0] for one in given])
    cosines = (whole * floats).mean(1)  # both have a root mean square of 1
    return {"mean": round(float(cosines.mean()), 4), "least": round(float(cosines.min()), 4)}


def fit(model: nn.Module, inputs: Tensor, labels: Tensor, order: list[NDArray[np.int64]], rate: float) -> float:
    """Train what may be trained with Adam, its rate falling linearly; return the seconds it took."""
    began = time.monotonic()
    optimizer = torch.optim.Adam([one for one in model.parameters() if one.requires_grad], lr=rate)
    for step, chosen in enumerate(order):
        optimizer.param_groups[0]["lr"] = rate * (1 - step / len(order))
        loss = functional.cross_entropy(model(inputs[chosen]), labels[chosen])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return time.monotonic() - began


def main() -> None:
    """Train the head on frozen embeddings, then head, norms and biases, with each seed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--work", type=Path, default=WORK, help="what prepare.py wrote (%(default)s)")
    parser.add_argument("--seeds", type=int, nargs="*", default=[0, 1, 2])
    parser.add_argument("--steps", type=int, default=200, help="of head, norms and biases (%(default)s)")
    options = parser.parse_args()
    torch.set_num_threads(1)
    texts, held = read(options.work)
    texts = texts.by_length()
    weights = load_file(options.work / "model.safetensors")
    frozen = embeddings(Classifier(weights).encoder, texts, held, options.work / "embeddings.npz")
    keep(options.work, "cosine of int8 and float embeddings", 0, agreement(options.work, held, frozen[1]))
    labels = torch.from_numpy(texts.labels)
    for seed in options.seeds:
        model = Classifier(weights)
        generator = Key.root(seed).fold("baseline").generator()
        order = [one for _ in range(HEAD_EPOCHS) for one in batches(texts, generator)]
        seconds = fit(model.head, frozen[0], labels, order, HEAD_RATE)
        keep(options.work, "backpropagation, head", seed, row(held, model.head(frozen[1]), seconds, len(order)))
        if seed == 0:
            keep(options.work, "gradient of norms and biases", seed, gradient(model, texts))
        model.tune()
        order = list(islice(batches(texts, generator), options.steps))
        seconds = fit(model, torch.from_numpy(texts.tokens).long(), labels, order, RATE)
        told = {**row(held, in_passes(model, held), seconds, len(order)), "peak memory, MB": round(peak_memory() / 1e6)}
        keep(options.work, "backpropagation, head, norms and biases", seed, told)


if __name__ == "__main__":
    main()
