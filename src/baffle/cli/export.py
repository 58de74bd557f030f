"""`baffle export`."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from baffle import extras
from baffle import run as runs
from baffle.baselines.presets import BASELINES
from baffle.bundle import MANIFEST
from baffle.errors import SettingsError
from baffle.experiment import Experiment, check, read, read_toml
from baffle.kernels import PlainKernels
from baffle.parameters import Layout, Vector

if TYPE_CHECKING:
    from baffle.bundle import Bundle
    from baffle.export import Source

_SETTINGS = "settings.toml"


def export(options: argparse.Namespace) -> None:
    """Write a model for clients that only run inference, or a plain ONNX file, or both."""
    if options.out is None and options.plain is None:
        raise SettingsError("out", None, "say where to: --out DIR for clients, --plain FILE.onnx for anything else")
    extras.require("onnx", "onnx")
    extras.require("onnxruntime", "onnx")
    from baffle.export import Choice, prepared, write_plain
    from baffle.export import export as write

    choice = Choice(
        train=tuple(options.train),
        grid=tuple(options.grid),
        int8=options.int8,
        lora=options.lora,
        lora_on=tuple(options.lora_on),
        lora_b_only=options.lora_b_only,
        pruned=options.pruned,
        seed=options.seed,
    )
    source = _source(options.source, options.output)
    trainable, expected = prepared(source, choice, options.output)
    if options.plain is not None:
        write_plain(trainable, options.plain)
        print(f"model       {options.plain}")
    if options.out is not None:
        blocks = check("blocks", options.blocks, text=True)
        bundle = write(
            trainable, options.out, expected=expected, blocks=blocks, output=options.output, free=options.free
        )
        _show(bundle)


def _source(path: Path, output: str | None) -> Source:
    """Return the model in an ONNX file, of a run, or that settings describe."""
    from baffle.export import from_onnx

    if path.is_dir():
        if (path / MANIFEST).exists():
            raise SettingsError("source", str(path), "is exported already: export what it was made from")
        return _trained(path)
    if path.suffix == ".toml":
        from baffle.assembly import source

        return source(read(read_toml(path)))
    return from_onnx(path, output)


def _trained(folder: Path) -> Source:
    """Return a run's model with its averaged weights.

    Raises:
        SettingsError: the folder holds no run.
    """
    from baffle.export import from_bundle, with_weights

    if not (folder / _SETTINGS).exists():
        raise SettingsError("source", str(folder), "holds no run, and is no ONNX file and no settings")
    found = read_toml(folder / _SETTINGS)
    if not isinstance(found.get("algorithm"), str):
        raise SettingsError("source", str(folder), "holds no run that `baffle train` began")
    known = {name: value for name, value in found.items() if name in Experiment.__struct_fields__}
    experiment = read(known | {"out": ""})
    layout, average = _learned(folder, experiment)
    weights = layout.unflatten(average)
    model = Path(experiment.model)
    if (model / MANIFEST).exists():
        return with_weights(from_bundle(model), weights, layout)
    from baffle.assembly import source

    return with_weights(source(experiment), weights, layout)


def _learned(folder: Path, experiment: Experiment) -> tuple[Layout, Vector]:
    """Return what a run's averaged weights are: by its ledger, or a baseline's newest snapshot."""
    if experiment.algorithm not in BASELINES:
        header, state = runs.replay(folder, PlainKernels())
        return header.federation.layout, state.average
    from baffle.assembly import assemble
    from baffle.baselines.journal import newest

    layout = assemble(experiment).runtime.layout
    return layout, newest(folder, layout).average


def _show(bundle: Bundle) -> None:
    """Say what was exported."""
    manifest = bundle.manifest
    layout = manifest.layout
    whole = max(manifest.whole.operations, 1)
    size = sum((bundle.folder / name).stat().st_size for name in manifest.files)
    print(f"model       {bundle.folder} ({size / 1e6:.1f} MB; the graphs give the outputs of the model they come from)")
    print(f"trained     {layout.size} weights in {len(layout.tensors)} tensors", end="")
    print(f", {len(manifest.grid)} of them on a grid" if manifest.grid else "")
    for cut in (manifest.whole, *manifest.cuts):
        if cut is not manifest.whole:
            print(f"  {cut.operations / whole:7.2%} of a forward pass for {', '.join(cut.displaced)}")
    print(f"digest      {bundle.digest}")


__all__ = ["export"]
