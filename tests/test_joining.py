"""What a client makes of the settings that a server tells it: they can name neither code nor files of its machine."""

from __future__ import annotations

import time

import msgspec
import numpy as np
import pytest

from baffle import DataError, SettingsError
from baffle.assembly import assemble
from baffle.engines.network.dialogue import Kind, Welcome
from baffle.errors import MissingExtraError
from baffle.experiment import read
from baffle.joining import equip
from baffle.keys import Key

PRIVATE = Key(b"7" * 32)


def welcome(kind: Kind | None = None, **settings: object) -> Welcome:
    experiment = msgspec.to_builtins(read({"clients": 4, "precision": "float64"}))
    return Welcome(experiment | settings, kind or Kind((64,), 10), time.time())


def equipped(told: Welcome, number: int = 1, own=None, **changes):
    settings = {"data": None, "reproducible": False} | changes
    return equip(told, number, PRIVATE, own or {}, **settings)


@pytest.fixture
def samples(tmp_path):
    path = tmp_path / "mine.npz"
    rng = np.random.default_rng(0)
    np.savez(path, x=rng.random((30, 64)).astype(np.float32), y=np.arange(30) % 9)
    return path


def test_a_client_takes_its_share_of_the_experiments_data() -> None:
    found = equipped(welcome(), 1, reproducible=True)
    simulated = assemble(read({"clients": 4, "precision": "float64"}))
    assert found.samples == simulated.shares[1].indices.size
    assert found.private == simulated.clients()[1].private
    assert found.runtime.layout == simulated.runtime.layout
    generators = (np.random.default_rng(0) for _ in range(2))
    for mine, theirs in zip(
        found.draw(next(generators), 5), simulated.clients()[1].draw(next(generators), 5), strict=True
    ):
        np.testing.assert_array_equal(mine, theirs)


def test_its_randomness_is_its_own_unless_it_is_told_otherwise_here() -> None:
    assert equipped(welcome()).private == PRIVATE


def test_a_client_brings_its_own_file(samples) -> None:
    found = equipped(welcome(), data=samples)
    assert found.samples == 30
    assert found.runtime.layout == assemble(read({"clients": 4})).runtime.layout, "ten classes, though it has nine"


def test_a_file_of_other_samples_is_refused_before_anything_is_sent(samples) -> None:
    with pytest.raises(DataError, match=r"samples of shape \[64\]: the federation's have \[32\]"):
        equipped(welcome(Kind((32,), 10)), data=samples)
    with pytest.raises(DataError, match="label 8 of sample 8"):
        equipped(welcome(Kind((64,), 8)), data=samples)


@pytest.mark.parametrize("model", ["os:system", "mine:make", "/etc", "../model"])
def test_a_server_cannot_name_code_or_folders_here(model, samples) -> None:
    with pytest.raises(
        SettingsError, match="is the server's, and not built in: name this machine's copy of it with --model"
    ):
        equipped(welcome(model=model), data=samples)


@pytest.mark.parametrize("dataset", ["/etc/passwd.csv", "held-out.npz"])
def test_a_server_cannot_name_files_here(dataset) -> None:
    with pytest.raises(SettingsError, match="is the server's, and not built in: name this client's file with --data"):
        equipped(welcome(dataset=dataset))


def test_folders_and_addresses_that_a_server_tells_are_not_used(samples) -> None:
    told = welcome(data_dir="/elsewhere", out="/elsewhere", engine="ray", address="10.0.0.1:1", device="cuda:9")
    assert equipped(told, data=samples).samples == 30


def test_a_folder_that_is_no_exported_model_is_refused(samples, tmp_path) -> None:
    with pytest.raises(SettingsError, match="is no folder that `baffle export` made"):
        equipped(welcome(), data=samples, own={"model": str(tmp_path)})


def test_settings_that_are_not_known_here_are_refused_in_words() -> None:
    with pytest.raises(SettingsError, match="is no setting"):
        equipped(welcome(of_a_later_version=1))


def test_a_number_beyond_the_shares_is_refused() -> None:
    with pytest.raises(SettingsError, match="must be below 4"):
        equipped(welcome(), 4)


def test_without_torch_it_says_what_to_bring(samples, monkeypatch) -> None:
    from baffle import extras

    def absent(module: str, extra: str) -> None:
        raise MissingExtraError(module, extra)

    monkeypatch.setattr(extras, "require", absent)
    with pytest.raises(SettingsError, match="needs PyTorch, which is not here: name a folder of `baffle export`"):
        equipped(welcome(), data=samples)


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("chunk", 1 << 30, "must be at most 4096 where it is; choose it with --chunk"),
        ("memory", 1 << 40, "must be at most 4096 where it is; choose it with --memory"),
        ("clients", 1 << 40, "must be at most 65536 where it is$"),
        ("shards", 1 << 40, "must be at most 65536 where it is$"),
        ("image_size", 10_000, "must be at most 64 where it is$"),
        ("hidden", [1 << 20, 1 << 20], "would have 1099591319562 weights, where at most 67108864 are made at its word"),
    ],
)
def test_what_would_fill_its_memory_only_at_the_servers_word_is_refused(name, value, words) -> None:
    with pytest.raises(SettingsError, match=words):
        equipped(welcome(**{name: value}))


def test_classes_make_no_model_too_large_and_what_is_its_own_choice_is_not_refused(samples) -> None:
    for model in ("lenet", "mlp"):
        with pytest.raises(SettingsError, match=f"model = '{model}': is the server's, and would have"):
            equipped(welcome(Kind((1, 8, 8), 1 << 20), model=model, hidden=[1024]), data=samples)
    assert equipped(welcome(chunk=1 << 30, memory=1 << 40), data=samples, own={"chunk": 64, "memory": 64}).samples == 30
    assert equipped(welcome(clients=1 << 20), data=samples).samples == 30
