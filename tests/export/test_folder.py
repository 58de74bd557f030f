"""An exported folder: whole or refused, its constants held once, its graphs compared with the model's own outputs."""

from __future__ import annotations

import hashlib
import json
import shutil
from pathlib import Path

import msgspec
import numpy as np
import pytest

onnx = pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")

from baffle.bundle import (  # noqa: E402
    CONSTANTS,
    MANIFEST,
    WEIGHTS,
    Bundle,
)
from baffle.errors import ModelError, SettingsError, StorageError  # noqa: E402
from baffle.export import Choice, Source, export, from_onnx, prepared, trained  # noqa: E402
from baffle.export.model import normal  # noqa: E402
from baffle.export.prepare import runs  # noqa: E402
from baffle.runtimes.onnx import OnnxRuntime  # noqa: E402
from export.graphs import CLASSES, FEATURES, HIDDEN, draw, mlp, model, node, residual, save, x  # noqa: E402


def exported_to(folder: Path, made=None, choice: Choice | None = None, **settings) -> Bundle:
    made = normal(made or residual())
    trainable, expected = prepared(Source(made, runs(made, made.graph.output[0].name), ("*",)), choice or Choice())
    return export(trainable, folder, expected=expected, **settings)


@pytest.fixture(scope="module")
def original(tmp_path_factory) -> Path:
    """A folder with constants large enough to be shared: the head is trained, the rest is not."""
    return exported_to(tmp_path_factory.mktemp("folder") / "m", mlp(hidden=200), Choice(train=("second.*",))).folder


@pytest.fixture
def folder(original, tmp_path) -> Path:
    return Path(shutil.copytree(original, tmp_path / "model"))


def change(folder: Path, **fields) -> None:
    """Rewrite the manifest with other fields, as someone who means harm would."""
    told = json.loads((folder / MANIFEST).read_bytes()) | fields
    (folder / MANIFEST).write_bytes(msgspec.json.encode(told))


def test_a_folder_holds_graphs_weights_and_what_they_mean(original) -> None:
    names = {path.name for path in original.iterdir()}
    bundle = Bundle.read(original)
    assert names == {MANIFEST, WEIGHTS, CONSTANTS, "model.onnx", "trunk.onnx", "block-0.onnx"}
    assert set(bundle.manifest.files) == names - {MANIFEST}
    for name, digest in bundle.manifest.files.items():
        assert hashlib.blake2b((original / name).read_bytes(), digest_size=32).hexdigest() == digest
    assert bundle.digest == hashlib.blake2b((original / MANIFEST).read_bytes(), digest_size=32).hexdigest()
    assert (bundle.manifest.output, bundle.manifest.coupled, bundle.manifest.grid) == ("y", False, ())
    assert bundle.manifest.whole.displaced == ("second.weight", "second.bias")
    assert bundle.manifest.cuts[0].operations < bundle.manifest.whole.operations


@pytest.mark.parametrize("name", [WEIGHTS, CONSTANTS, "model.onnx", "trunk.onnx", "block-0.onnx"])
@pytest.mark.parametrize("place", [0, 0.5, -1])
def test_a_changed_byte_in_any_file_is_refused(name, place, folder) -> None:
    data = bytearray((folder / name).read_bytes())
    data[int(place * len(data)) if place >= 0 else place] ^= 1
    (folder / name).write_bytes(data)
    with pytest.raises(ModelError, match=f"{name} is not the file that was exported: export the model again"):
        OnnxRuntime(folder)


@pytest.mark.parametrize("name", [WEIGHTS, CONSTANTS, "model.onnx", "trunk.onnx", "block-0.onnx"])
def test_a_missing_file_is_named(name, folder) -> None:
    (folder / name).unlink()
    with pytest.raises(ModelError, match=f"{name} can't be read: No such file"):
        Bundle.read(folder)


def test_a_folder_without_a_manifest_is_no_exported_model(folder, tmp_path) -> None:
    (folder / MANIFEST).unlink()
    for place in (folder, tmp_path / "nowhere", folder / "model.onnx"):
        with pytest.raises(ModelError, match=r"is no exported model: manifest\.json can't be read \("):
            Bundle.read(place)


@pytest.mark.parametrize(
    "data",
    [b"", b"{}", b"[]", b"null", b"\xff\xfe", b'{"format": "baffle-model-2"}', b'{"format": "\xff"}', b"{" * 100_000],
    ids=range(8),
)
def test_a_manifest_that_is_none_is_refused(data, folder) -> None:
    (folder / MANIFEST).write_bytes(data)
    with pytest.raises(ModelError, match=r"manifest\.json is no manifest of an exported model: "):
        Bundle.read(folder)


@pytest.mark.parametrize(
    "fields",
    [
        {"format": "baffle-model-2"},
        {"features": []},
        {"more": 1},
        {"layout": {"tensors": []}},
        {"layout": {"tensors": [{"name": "w", "shape": [3], "live": "////"}]}},
        {"files": {"model.onnx": 3}},
        {"whole": {"file": "model.onnx", "displaced": [], "operations": -1}},
    ],
    ids=range(7),
)
def test_a_manifest_with_a_field_out_of_range_is_refused(fields, folder) -> None:
    change(folder, **fields)
    with pytest.raises(ModelError, match=r"manifest\.json is no manifest of an exported model: "):
        Bundle.read(folder)


def test_a_manifest_that_is_too_large_is_not_read(folder, monkeypatch) -> None:
    size = (folder / "manifest.json").stat().st_size
    monkeypatch.setattr("baffle.bundle._MOST_MANIFEST", size - 1)
    with pytest.raises(ModelError, match=f"manifest.json has {size} bytes, and a manifest at most {size - 1}"):
        Bundle.read(folder)


@pytest.mark.parametrize("name", ["../secret", "/etc/passwd", "sub/model.onnx", "./model.onnx", "..", ".", ""])
def test_a_manifest_that_names_files_elsewhere_is_refused(name, folder, tmp_path) -> None:
    (tmp_path / "secret").write_bytes(b"")
    told = json.loads((folder / MANIFEST).read_bytes())
    digest = hashlib.blake2b(b"", digest_size=32).hexdigest()
    for fields in (
        {"files": told["files"] | {name: digest}},
        {"trunk": name or "?"},
        {"whole": told["whole"] | {"file": name}},
        {"cuts": [told["cuts"][0] | {"file": name}]},
        {"files": told["files"] | {name: digest}, "trunk": name},
    ):
        change(folder, **(told | fields))
        with pytest.raises(ModelError, match=r"no file of the folder|can't be read|no manifest"):
            Bundle.read(folder)


@pytest.mark.parametrize("name", ["model.onnx", "trunk.onnx", "block-0.onnx", WEIGHTS, CONSTANTS])
def test_a_file_without_a_digest_is_not_used(name, folder) -> None:
    """What a graph refers to is a file as well: bytes that nobody vouches for."""
    told = json.loads((folder / MANIFEST).read_bytes())
    del told["files"][name]
    change(folder, **told)
    with pytest.raises(ModelError):
        OnnxRuntime(folder)


@pytest.mark.parametrize(
    "change_of",
    [
        lambda told: told["features"][0] | {"dtype": "float99"},
        lambda told: told["layout"]["tensors"][0] | {"shape": [7, 7]},
    ],
    ids=["type", "shape"],
)
def test_a_manifest_that_does_not_fit_its_files_is_told_in_words(change_of, folder) -> None:
    told = json.loads((folder / MANIFEST).read_bytes())
    changed = change_of(told)
    if "dtype" in changed:
        told["features"][0] = changed
    else:
        told["layout"]["tensors"][0] = changed
    change(folder, **told)
    with pytest.raises(ModelError):
        used(folder)


def used(folder: Path) -> None:
    runtime = OnnxRuntime(folder)
    runtime.evaluate(np.zeros(runtime.layout.size, np.float32), [(x()["x"], np.zeros(5, np.int64))])


# Constants.


def test_large_constants_are_held_once_for_all_graphs(tmp_path) -> None:
    bundle = exported_to(tmp_path / "m", mlp(hidden=1000), Choice(train=("*.bias",)), blocks=("f*", "s*"))
    held = (tmp_path / "m" / CONSTANTS).read_bytes()
    large = 1000 * FEATURES * 4 + 1000 * CLASSES * 4
    assert large <= len(held) < large + 3 * 4096
    sizes = {name: (tmp_path / "m" / name).stat().st_size for name in bundle.manifest.files}
    assert all(size < 3000 for name, size in sizes.items() if name.endswith(".onnx"))
    places = {}
    for name in sizes:
        if name.endswith(".onnx"):
            for tensor in onnx.load(tmp_path / "m" / name, load_external_data=False).graph.initializer:
                where = {entry.key: entry.value for entry in tensor.external_data}
                assert where["location"] == CONSTANTS
                assert int(where["offset"]) % 4096 == 0
                assert places.setdefault(tensor.name, where) == where
    assert set(places) == {"first.weight", "second.weight"}


def test_small_constants_stay_in_the_graphs(tmp_path) -> None:
    exported_to(tmp_path / "m", mlp(), Choice(train=("*.bias",)))
    assert (tmp_path / "m" / CONSTANTS).stat().st_size == 0


def test_the_same_model_gives_the_same_bytes(tmp_path) -> None:
    one, two = (exported_to(tmp_path / name) for name in "ab")
    assert one.digest == two.digest
    assert exported_to(tmp_path / "c", mlp()).digest != one.digest


# Writing.


def test_an_earlier_export_is_replaced(tmp_path) -> None:
    """By one of fewer cuts: what is left is what a folder of its own would hold."""
    exported_to(tmp_path / "m")
    again = exported_to(tmp_path / "m", blocks="whole")
    fresh = exported_to(tmp_path / "fresh", blocks="whole")
    assert again.digest == fresh.digest
    assert again.manifest.cuts == ()
    assert {path.name for path in (tmp_path / "m").iterdir()} == {path.name for path in (tmp_path / "fresh").iterdir()}


def test_folders_on_the_way_are_made_and_a_file_in_it_is_told(tmp_path) -> None:
    exported_to(tmp_path / "a" / "b" / "c")
    (tmp_path / "taken").write_text("a file")
    with pytest.raises(StorageError, match="taken can't be written: File exists"):
        exported_to(tmp_path / "taken")


def test_graphs_that_give_other_outputs_are_refused(tmp_path) -> None:
    trainable = trained(normal(mlp()), ["*"])
    for wrong in (np.zeros((2, CLASSES)), np.zeros((2, 1)), np.full((2, CLASSES), np.nan)):
        with pytest.raises(ModelError, match="gives other outputs than the model it was made from"):
            export(trainable, tmp_path / "m", expected=lambda _, wrong=wrong: wrong)


def test_blocks_that_match_nothing_are_refused(tmp_path) -> None:
    with pytest.raises(SettingsError, match=r"blocks = 'tail\.\*': must match a tensor; there are stem\.weight"):
        exported_to(tmp_path / "m", blocks=("tail.*",))
    assert not (tmp_path / "m" / MANIFEST).exists()


@pytest.mark.parametrize(
    ("rule", "displaced"),
    [
        ("whole", []),
        ("layers", [("shared.weight",), ("scale.weight",), ("head.weight", "head.bias")]),
        (("*.bias", "sh*", "sc*"), [("shared.weight",), ("scale.weight",), ("head.weight",), ("head.bias",)]),
    ],
)
def test_cuts_are_where_blocks_begin(rule, displaced, tmp_path) -> None:
    assert [cut.displaced for cut in exported_to(tmp_path / "m", blocks=rule).manifest.cuts] == displaced


def test_an_output_that_is_not_one_for_each_sample_is_refused(tmp_path) -> None:
    nodes = [node("MatMul", ["x", "w"], ["h"]), node("ReduceMean", ["h", "axis"], ["y"], keepdims=0)]
    constants = {"w": draw(FEATURES, CLASSES), "axis": np.array([0])}
    with pytest.raises(ModelError, match=r"output y has shape \[3\] for 2 samples: it must have one entry for each"):
        exported_to(tmp_path / "m", model(nodes, constants, outputs=(("y", None),)), Choice(train=("w",)))


def two_outputs():
    made = residual()
    made.graph.output.extend(model([], outputs=(("q", ["batch", HIDDEN]),)).graph.output)
    return made


def test_another_output_is_what_losses_are_made_from(tmp_path) -> None:
    source = from_onnx(save(two_outputs(), tmp_path / "model.onnx"), "q")
    trainable, expected = prepared(source, Choice(train=("s*",)), "q")
    bundle = export(trainable, tmp_path / "m", expected=expected, output="q")
    assert bundle.manifest.output == "q"
    runtime = OnnxRuntime(tmp_path / "m", loss=lambda outputs, _: outputs.sum(1))
    assert runtime.evaluate(runtime.layout.flatten(runtime.given), [(x()["x"], np.zeros(5))]).loss


def test_tensors_that_the_output_does_not_need_are_not_there(tmp_path) -> None:
    """Their probes would run the whole model to change nothing."""
    source = from_onnx(save(two_outputs(), tmp_path / "model.onnx"), "q")
    trainable, _ = prepared(source, Choice(train=("*",)), "q")
    assert not any(tensor.name.startswith("head") for tensor in trainable.tensors)
    with pytest.raises(ModelError, match=r"matches no tensor"):
        prepared(source, Choice(train=("head*",)), "q")


def test_free_axes_have_as_many_entries_as_is_said(tmp_path) -> None:
    nodes = [
        node("ReduceMean", ["x", "one"], ["m"], keepdims=0),
        node("MatMul", ["m", "w"], ["h"]),
        node("Tanh", ["h"], ["t"]),
        node("MatMul", ["t", "v"], ["y"]),
    ]
    constants = {"one": np.array([1]), "w": draw(FEATURES, HIDDEN), "v": draw(HIDDEN, CLASSES)}
    made = model(nodes, constants, (("x", ["batch", "length", FEATURES]),))
    counts = [exported_to(tmp_path / str(free), made, Choice(train=("?",)), free=free).manifest for free in (1, 8, 64)]
    assert [manifest.features[0].shape for manifest in counts] == [(-1, FEATURES)] * 3
    whole = [manifest.whole.operations for manifest in counts]
    assert whole[0] < whole[1] < whole[2]
    assert len({manifest.cuts[0].operations for manifest in counts}) == 1
    runtime = OnnxRuntime(tmp_path / "8", loss=lambda outputs, _: outputs.sum(1))
    for length in (1, 5, 100):
        runtime.evaluate(runtime.layout.flatten(runtime.given), [(draw(3, length, FEATURES), np.zeros(3))])


@pytest.mark.parametrize("free", [0, -1])
def test_axes_of_no_entries_are_refused(free, tmp_path) -> None:
    made = model([node("MatMul", ["x", "w"], ["y"])], {"w": draw(FEATURES, 2)}, (("x", [None, None, FEATURES]),))
    made.graph.output[0].type.tensor_type.ClearField("shape")
    with pytest.raises((SettingsError, ModelError)):
        exported_to(tmp_path / "m", made, Choice(train=("w",)), free=free)
