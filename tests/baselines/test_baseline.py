from __future__ import annotations

import dataclasses
import json
import shutil
import tomllib

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from baffle import Adam, Baffle, DivergenceError, LedgerError, ModelError, SettingsError, Sgd  # noqa: E402
from baffle.baselines import Centralised, EvolutionStrategies, FedAvg, FedSgd, FedZo  # noqa: E402
from baffle.baselines.baseline import Baseline, _refuse  # noqa: E402
from baffle.data.samples import Arrays  # noqa: E402
from baffle.server import cohort_of  # noqa: E402
from baffle.simulation import Share  # noqa: E402
from baselines.small import federation, rows, run  # noqa: E402

METHODS = {
    "fedsgd": FedSgd(batch=6, optimizer=Adam(rate=0.05)),
    "fedavg": FedAvg(batch=6, local_steps=2, local_momentum=0.5, optimizer=Sgd(rate=1.0, momentum=0.5)),
    "fedadam": FedAvg.adam(),
    "fedzo": FedZo(batch=6, directions=4, local_steps=2),
    "es": EvolutionStrategies(batch=6, population=8),
    "centralised": Centralised(batch=6),
}
UNSURE = {"participation": 0.75, "unavailable": 0.3, "quorum": 0.6}
WEIGHTS = 6 * 8 + 8 + 8 * 3 + 3


class Killed(BaseException):
    pass


def killed_after(rounds: int):
    def progress(where) -> None:
        if where.round == rounds:
            raise Killed

    return progress


# One start, one course.


def test_curves_start_where_baffles_does(tmp_path) -> None:
    made = federation()
    made.run(0, out=tmp_path / "baffle")
    for name, method in METHODS.items():
        Baseline(method, made).run(0, out=tmp_path / name)
        assert rows(tmp_path / name) == rows(tmp_path / "baffle")


def test_cohorts_are_baffles() -> None:
    made = dataclasses.replace(federation(**UNSURE), algorithm=Baffle(forwards=300, batch=4))
    theirs, ours = made.run(6), Baseline(FedSgd(), made).run(6)
    names = ("client", "samples", "sampled", "answered", "left_out")
    assert [[row[name] for name in names] for row in theirs.clients] == [
        [row[name] for name in names] for row in ours.clients
    ]
    assert len({cohort_of(made.header().federation, number, 0) for number in range(6)}) > 1


@pytest.mark.parametrize("name", METHODS)
def test_a_run_is_the_same_to_the_bit_again(name) -> None:
    first, second = (run(METHODS[name], 4, **UNSURE) for _ in "ab")
    assert first.digest == second.digest
    assert first.digest != run(METHODS[name], 4, seed=4, **UNSURE).digest


@pytest.mark.parametrize("stop", [0, 1, 3, 4, 5])
@pytest.mark.parametrize("name", METHODS)
def test_a_run_that_was_killed_goes_on_as_if_it_had_not(name, stop, tmp_path) -> None:
    whole = run(METHODS[name], 7, out=tmp_path / "whole", **UNSURE)
    with pytest.raises(Killed):
        run(METHODS[name], 7, out=tmp_path / "cut", progress=killed_after(stop), **UNSURE)
    resumed = run(METHODS[name], 7, out=tmp_path / "cut", resume=True, **UNSURE)
    assert resumed.digest == whole.digest
    np.testing.assert_array_equal(resumed.parameters, whole.parameters)
    assert resumed.clients == whole.clients
    assert rows(tmp_path / "cut") == rows(tmp_path / "whole")
    assert [row["round"] for row in rows(tmp_path / "cut")] == [0, 2, 4, 6, 7]


def test_a_damaged_snapshot_is_passed_over(tmp_path, caplog) -> None:
    whole = run(METHODS["fedsgd"], 7, out=tmp_path)
    newest = tmp_path / "snapshots" / "00000007.safetensors"
    newest.write_bytes(newest.read_bytes()[:-1] + b"x")
    with (tmp_path / "metrics.jsonl").open("a") as file:
        file.write('{"round": 7, "accu')
    assert run(METHODS["fedsgd"], 9, out=tmp_path, resume=True).digest == run(METHODS["fedsgd"], 9).digest
    assert "an older one is used" in caplog.text
    assert [row["round"] for row in rows(tmp_path)] == [0, 2, 4, 6, 8, 9]
    assert whole.rounds == 7


def test_without_a_whole_snapshot_there_is_nothing_to_go_on_from(tmp_path) -> None:
    run(METHODS["fedsgd"], 1, out=tmp_path)
    for path in (tmp_path / "snapshots").iterdir():
        path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(SettingsError, match="has no snapshot that is whole"):
        run(METHODS["fedsgd"], 2, out=tmp_path, resume=True)


def test_interrupted_before_its_first_snapshot_a_run_begins(tmp_path) -> None:
    run(METHODS["fedsgd"], 2, out=tmp_path)
    shutil.rmtree(tmp_path / "snapshots")
    assert run(METHODS["fedsgd"], 4, out=tmp_path, resume=True).digest == run(METHODS["fedsgd"], 4).digest
    assert [row["round"] for row in rows(tmp_path)] == [0, 2, 4]


@pytest.mark.parametrize(
    ("method", "settings"),
    [
        (FedSgd(batch=7, optimizer=Adam(rate=0.05)), {}),
        (METHODS["fedavg"], {}),
        (METHODS["fedsgd"], {"seed": 4}),
        (METHODS["fedsgd"], {"weight": "equal"}),
        (METHODS["fedsgd"], {"unavailable": 0.1}),
        (METHODS["fedsgd"], {"sizes": (12, 20, 9, 16)}),
        (METHODS["fedsgd"], {"module": torch.nn.Linear(6, 3)}),
    ],
    ids=["batch", "method", "seed", "weight", "unavailable", "data", "model"],
)
def test_another_runs_folder_is_refused(method, settings, tmp_path) -> None:
    run(METHODS["fedsgd"], 2, out=tmp_path)
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    with pytest.raises(SettingsError, match="was begun with other settings, data or model"):
        run(method, 4, out=tmp_path, resume=True, **settings)
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before


def test_other_data_of_the_same_size_are_refused(tmp_path) -> None:
    run(METHODS["fedsgd"], 2, out=tmp_path)
    other = federation()
    data = Arrays("other", 1 - other.shares[0].data.inputs, other.shares[0].data.targets)
    other = dataclasses.replace(other, shares=[Share(data, share.indices) for share in other.shares])
    with pytest.raises(SettingsError, match="was begun with other settings, data or model"):
        Baseline(METHODS["fedsgd"], other).run(4, out=tmp_path, resume=True)


def test_folders_of_runs_are_kept_apart(tmp_path) -> None:
    run(METHODS["fedsgd"], 1, out=tmp_path / "baseline")
    federation().run(1, out=tmp_path / "baffle")
    with pytest.raises(SettingsError, match="holds a run already"):
        run(METHODS["fedsgd"], 1, out=tmp_path / "baseline")
    with pytest.raises(SettingsError, match="holds a run already"):
        run(METHODS["fedsgd"], 1, out=tmp_path / "baffle")
    with pytest.raises(SettingsError, match="holds a run already"):
        federation().run(1, out=tmp_path / "baseline")
    with pytest.raises(SettingsError, match="with a ledger"):
        run(METHODS["fedsgd"], 1, out=tmp_path / "baffle", resume=True)
    with pytest.raises(SettingsError, match="holds no run"):
        run(METHODS["fedsgd"], 1, out=tmp_path / "nothing", resume=True)


def test_the_folder_holds_settings_curve_and_summary(tmp_path) -> None:
    result = run(METHODS["fedavg"], 3, out=tmp_path)
    assert sorted(str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*") if path.is_file()) == [
        "lock",
        "metrics.jsonl",
        "settings.toml",
        "snapshots/00000000.safetensors",
        "snapshots/00000003.safetensors",
        "summary.json",
    ]
    assert json.loads((tmp_path / "summary.json").read_text()) == result.summary()
    settings = tomllib.loads((tmp_path / "settings.toml").read_text())
    assert settings["algorithm"]["name"] == "FedAvg"
    assert (settings["clients"], settings["rounds"], settings["algorithm"]["local_steps"]) == (4, 3, 2)


# What it costs.


@pytest.mark.parametrize(
    ("name", "forwards", "up", "down"),
    [
        ("fedsgd", 6 * 3, 4 * WEIGHTS, 4 * WEIGHTS),
        ("fedavg", 2 * 6 * 3, 4 * WEIGHTS, 4 * WEIGHTS),
        ("fedzo", 2 * 6 * 5, 4 * WEIGHTS, 4 * WEIGHTS),
        ("es", 8 * 6, 4 * 8, 32 + 32 + 4 * 8),
        ("centralised", 6 * 3, 0, 0),
    ],
)
def test_costs_of_a_round_by_hand(name, forwards, up, down) -> None:
    found = run(METHODS[name], 5)
    for row in found.clients:
        assert (row["sampled"], row["answered"]) == (5, 5)
        assert row["forward_equivalents"] == 5 * forwards
        assert row["upload_bytes"] == 5 * up
        assert row["download_bytes"] == 5 * down
    assert found.forward_equivalents == 5 * forwards


def test_a_client_that_does_not_answer_was_still_sent_the_model() -> None:
    found = run(METHODS["fedsgd"], 8, **UNSURE)
    assert any(row["left_out"] for row in found.clients)
    for row in found.clients:
        assert row["upload_bytes"] == 4 * WEIGHTS * row["answered"]
        assert row["download_bytes"] == 4 * WEIGHTS * row["sampled"]
        assert row["forward_equivalents"] == 18 * row["answered"]


def test_a_client_with_few_samples_computes_less_and_checkpointing_more() -> None:
    found = run(FedSgd(batch=15), 1)
    assert [row["forward_equivalents"] for row in found.clients] == [36, 45, 27, 45]
    again = run(FedSgd(batch=15, checkpointing=True), 1)
    assert [row["forward_equivalents"] for row in again.clients] == [48, 60, 36, 60]
    epochs = run(FedAvg(batch=5, epochs=2), 1)
    assert [row["forward_equivalents"] for row in epochs.clients] == [72, 120, 54, 90]


def test_equal_weights_are_another_mean() -> None:
    assert run(METHODS["fedsgd"], 1).digest != run(METHODS["fedsgd"], 1, weight="equal").digest


# When it goes wrong.


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize(
    "method",
    [
        FedSgd(optimizer=Sgd(rate=3e38)),
        FedAvg(local_rate=3e38),
        FedZo(local_rate=3e38),
        Centralised(optimizer=Sgd(rate=3e38)),
    ],
    ids=lambda method: type(method).__name__,
)
def test_weights_that_leave_the_numbers_end_the_run_in_words(method, tmp_path) -> None:
    with pytest.raises(DivergenceError, match=r"would make a weight infinite.*smaller rate"):
        run(method, 9, out=tmp_path, snapshot_every=1)
    kept = sorted((tmp_path / "snapshots").glob("*"))
    assert kept, "the last good state is there"
    from baffle.snapshots import read_snapshot

    state, _ = read_snapshot(kept[-1], federation().runtime.layout)
    assert np.isfinite(state.parameters).all()


def test_a_round_that_nobody_answers_is_given_up() -> None:
    with pytest.raises(DivergenceError, match="round 0 was tried 20 times and never had 4 answers of 4 clients"):
        run(METHODS["es"], 3, unavailable=0.95, quorum=1.0)


def test_a_method_without_gradients_has_none() -> None:
    with pytest.raises(ModelError, match="no gradients"):
        _refuse(np.zeros(1, np.float32), (np.zeros(1), np.zeros(1)))


def test_a_runtime_that_can_not_differentiate_is_named() -> None:
    from federation import simulation

    with pytest.raises(SettingsError, match="must be torch with a method that differentiates"):
        Baseline(FedSgd(), simulation()).run(1)


def test_forward_methods_run_on_any_runtime() -> None:
    from federation import simulation

    for method in (METHODS["es"], METHODS["fedzo"]):
        assert Baseline(method, simulation()).run(2).rounds == 2


def test_there_is_no_ledger_to_replay(tmp_path) -> None:
    from baffle import run as runs
    from baffle.kernels import PlainKernels

    run(METHODS["es"], 1, out=tmp_path)
    with pytest.raises((LedgerError, OSError)):
        runs.replay(tmp_path, PlainKernels())
