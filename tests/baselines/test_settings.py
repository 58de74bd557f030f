from __future__ import annotations

import ast
from pathlib import Path

import pytest

import baffle
from baffle import Adam, Baffle, SettingsError, Sgd
from baffle.baselines import Centralised, EvolutionStrategies, FedAvg, FedSgd, FedZo
from baffle.baselines.presets import BASELINES, OWN, TITLES
from baffle.experiment import Experiment, read

SOURCE = Path(baffle.__file__).parent


@pytest.mark.parametrize("name", BASELINES)
def test_without_settings_a_baseline_is_the_default_one(name) -> None:
    experiment = read({"algorithm": name})
    assert experiment.baseline() == BASELINES[name]
    assert read(experiment.told()) == experiment
    with pytest.raises(SettingsError, match="keeps no ledger"):
        experiment.baffle()


def test_names_are_methods() -> None:
    assert {name: type(method) for name, method in BASELINES.items()} == {
        "fedsgd": FedSgd,
        "fedavg": FedAvg,
        "fedadam": FedAvg,
        "fedzo": FedZo,
        "es": EvolutionStrategies,
        "centralised": Centralised,
    }
    assert BASELINES["fedadam"] == FedAvg.adam()
    assert isinstance(BASELINES["fedadam"].optimizer, Adam)
    assert BASELINES["fedavg"].optimizer == Sgd(rate=1.0)
    assert TITLES.keys() == BASELINES.keys()


def test_every_setting_reaches_the_method() -> None:
    given = {"algorithm": "fedavg", "batch": 9, "epochs": 3, "local_rate": 0.7, "local_momentum": 0.4}
    given |= {"checkpointing": True, "optimizer": "adam", "rate": 0.2, "eps": 0.1, "average": 0.5}
    assert read(given | {"schedule": "linear", "rounds": 33}).baseline() == FedAvg(
        batch=9,
        epochs=3,
        local_rate=0.7,
        local_momentum=0.4,
        checkpointing=True,
        optimizer=Adam(rate=0.2, eps=0.1),
        average=baffle.ExponentialAverage(decay=0.5),
        anneal=33,
    )
    assert read({"algorithm": "fedzo", "directions": 7, "scale": 0.3, "local_steps": 2}).baseline() == FedZo(
        directions=7, scale=0.3, local_steps=2
    )
    assert read({"algorithm": "es", "population": 8, "batch": 3, "scale": 0.3}).baseline() == EvolutionStrategies(
        population=8, batch=3, scale=0.3
    )


def test_a_mini_batch_that_baffle_would_choose_is_none_for_a_baseline() -> None:
    with pytest.raises(SettingsError) as error:
        read({"algorithm": "fedsgd", "batch": 0})
    assert (error.value.field, error.value.rule) == ("batch", "must be 1 or more")


USELESS = [
    ("fedsgd", "bits", 8),
    ("fedsgd", "forwards", 3200),
    ("fedsgd", "local_steps", 2),
    ("fedsgd", "epochs", 1),
    ("fedsgd", "momentum", 0.9),
    ("fedavg", "beta1", 0.5),
    ("fedavg", "estimator", "central"),
    ("fedavg", "population", 8),
    ("fedadam", "momentum", 0.9),
    ("fedzo", "checkpointing", True),
    ("fedzo", "local_momentum", 0.5),
    ("es", "law", "gaussian"),
    ("es", "directions", 7),
    ("centralised", "participation", 0.5),
    ("centralised", "quorum", 0.5),
    ("fedsgd", "workers", 2),
    ("fedsgd", "address", "auto"),
]


@pytest.mark.parametrize(("name", "setting", "value"), USELESS)
def test_a_setting_that_a_baseline_has_no_use_for_is_refused(name, setting, value) -> None:
    with pytest.raises(SettingsError, match=f"is of no use to algorithm = '{name}'") as error:
        read({"algorithm": name, setting: value})
    assert error.value.field == setting
    assert setting not in read({"algorithm": name}).told()


def test_local_steps_are_of_no_use_with_epochs() -> None:
    with pytest.raises(SettingsError, match="no use to algorithm = 'fedavg' with epochs"):
        read({"algorithm": "fedavg", "epochs": 1, "local_steps": 5})


@pytest.mark.parametrize(
    ("setting", "value"),
    [("epochs", 1), ("local_momentum", 0.5), ("checkpointing", True), ("directions", 5), ("population", 10)],
)
def test_settings_of_baselines_are_of_no_use_to_baffle(setting, value) -> None:
    with pytest.raises(SettingsError, match="only to baselines") as error:
        read({setting: value})
    assert error.value.field == setting


def test_baffles_settings_are_told_but_for_those_that_only_baselines_have() -> None:
    experiment = read({"algorithm": "paper"})
    assert experiment.told().keys() == set(Experiment.__struct_fields__) - set(OWN)
    assert read(experiment.told()) == experiment
    assert experiment.baseline() is None
    assert experiment.baffle() == Baffle.paper()


def test_one_file_alone_differentiates() -> None:
    """Baselines are the only ones that use autograd, and in one place."""
    found = set()
    for path in SOURCE.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            names = [getattr(node, "attr", None), getattr(node, "module", None)]
            names += [alias.name for alias in node.names] if isinstance(node, ast.Import | ast.ImportFrom) else []
            if any(
                part in ("autograd", "backward", "checkpoint") for name in names if name for part in name.split(".")
            ):
                found.add(path.relative_to(SOURCE).as_posix())
    found.discard("planning/advice.py")  # has a setting called backward
    assert found == {"baselines/backpropagation.py"}
