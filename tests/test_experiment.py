from __future__ import annotations

import pytest

from baffle import (
    Adam,
    Baffle,
    CentralDifference,
    CentredDifference,
    ExponentialAverage,
    ForwardDifference,
    Gaussian,
    Rademacher,
    SettingsError,
    Sgd,
)
from baffle.experiment import FIELDS, PRESETS, Experiment, about, check, defaults, read, read_toml


def test_without_settings_the_method_is_the_default_one() -> None:
    assert read({}).baffle() == Baffle()
    assert read({}) == read()


def test_presets_are_the_methods_they_name() -> None:
    assert read({"algorithm": "baffle"}).baffle() == Baffle()
    assert read({"algorithm": "paper"}).baffle() == Baffle.paper()
    assert read({"algorithm": "paper", "forwards": 201 * 32}).baffle() == Baffle.paper(200)
    assert read({"algorithm": "grid"}).baffle() == Baffle.grid()
    assert read({"algorithm": "grid", "odds": 40}).baffle() == Baffle.grid(40)
    assert {"baffle": Baffle(), "paper": Baffle.paper(), "grid": Baffle.grid()} == PRESETS


def test_the_paper_is_the_papers() -> None:
    """Section 4 and the published code: K + 1 passes, σ = 1e-4, Gaussian, Adam at 1e-2, EMA of 0.995."""
    method = Baffle.paper(50)
    assert (method.forwards, method.batch) == (51 * 32, 32)
    assert (Baffle.paper().forwards, Baffle.paper(20, batch=8).forwards) == (101 * 32, 21 * 8)
    assert Baffle.paper(20, batch=8).batch == 8
    assert not method.orthogonal
    assert method.estimator == ForwardDifference(scale=1e-4)
    assert method.law == Gaussian()
    assert (method.blocks, method.groups, method.bits) == ("whole", 1, 16)
    assert method.optimizer == Adam(rate=1e-2, beta1=0.9, beta2=0.99, weight_decay=5e-4)
    assert method.average == ExponentialAverage(decay=0.995)


def test_every_setting_of_the_method_reaches_it() -> None:
    method = read(
        {
            "forwards": 60,
            "batch": 3,
            "allocation": "variance",
            "orthogonal": False,
            "estimator": "central",
            "scale": 0.5,
            "law": "gaussian",
            "blocks": "whole",
            "groups": 3,
            "bits": 5,
            "bound": 2.0,
            "spread": 1.0,
            "local_steps": 2,
            "local_rate": 0.7,
            "clip": 0.1,
            "optimizer": "sgd",
            "rate": 0.3,
            "momentum": 0.2,
            "weight_decay": 0.1,
            "average": 0.5,
            "schedule": "linear",
            "rounds": 77,
        }
    ).baffle()
    assert method == Baffle(
        forwards=60,
        batch=3,
        allocation="variance",
        orthogonal=False,
        estimator=CentralDifference(scale=0.5),
        law=Gaussian(),
        blocks="whole",
        groups=3,
        bits=5,
        bound=2.0,
        spread=1.0,
        local_steps=2,
        local_rate=0.7,
        clip=0.1,
        optimizer=Sgd(rate=0.3, momentum=0.2, weight_decay=0.1),
        average=ExponentialAverage(decay=0.5),
        anneal=77,
    )


@pytest.mark.parametrize(
    ("settings", "estimator"),
    [
        ({}, CentredDifference()),
        ({"estimator": "forward"}, ForwardDifference()),
        ({"estimator": "central"}, CentralDifference()),
        ({"algorithm": "paper"}, ForwardDifference(scale=1e-4)),
        ({"algorithm": "paper", "estimator": "forward"}, ForwardDifference(scale=1e-4)),
        ({"algorithm": "paper", "estimator": "centred"}, CentredDifference()),
        ({"algorithm": "paper", "estimator": "centred", "scale": 0.5}, CentredDifference(scale=0.5)),
    ],
)
def test_another_estimator_comes_with_its_own_scale(settings, estimator) -> None:
    assert read(settings).baffle().estimator == estimator


@pytest.mark.parametrize(
    ("settings", "optimizer"),
    [
        ({"optimizer": "sgd"}, Sgd()),
        ({"optimizer": "sgd", "rate": 0.5}, Sgd(rate=0.5)),
        ({"algorithm": "paper", "optimizer": "sgd"}, Sgd()),
        ({"algorithm": "paper", "beta1": 0.5}, Adam(rate=1e-2, beta1=0.5, beta2=0.99, weight_decay=5e-4)),
    ],
)
def test_another_optimizer_comes_with_its_own_rate(settings, optimizer) -> None:
    assert read(settings).baffle().optimizer == optimizer


def test_later_sources_overrule_earlier_ones() -> None:
    experiment = read({"seed": 1, "batch": 2}, {"seed": 3}, {})
    assert (experiment.seed, experiment.batch) == (3, 2)
    assert read({"algorithm": "paper"}, {"algorithm": "baffle"}) == read({})


def test_the_schedule_spans_the_rounds() -> None:
    assert read({"schedule": "linear", "rounds": 9}).baffle().anneal == 9
    assert read({"schedule": "constant", "rounds": 9}).baffle().anneal == 0


@pytest.mark.parametrize(
    ("name", "text", "value"),
    [
        ("hidden", "64,32", (64, 32)),
        ("hidden", "", ()),
        ("hidden", "8", (8,)),
        ("rate", "1e-3", 0.001),
        ("rate", "1", 1.0),
        ("rounds", "12", 12),
        ("model", "12", "12"),
        ("out", "", ""),
        ("law", "gaussian", "gaussian"),
        ("batch", "0", 0),
        ("orthogonal", "false", False),
        ("orthogonal", "True", True),
        ("allocation", "variance", "variance"),
        ("blocks", "whole", "whole"),
        ("blocks", "layers", "layers"),
        ("blocks", "head.*", ("head.*",)),
        ("blocks", "head.*,body.[02].*", ("head.*", "body.[02].*")),
    ],
)
def test_a_flags_text_becomes_the_settings_type(name, text, value) -> None:
    got = check(name, text, text=True)
    assert got == value
    assert type(got) is type(value)


@pytest.mark.parametrize(
    ("name", "value", "rule"),
    [
        ("rounds", "12", "must be a whole number, got str"),
        ("rate", "0.1", "must be a number, got str"),
        ("hidden", "8,8", "must be a list, got str"),
        ("seed", 1.0, "must be a whole number, got float"),
        ("batch", "0", "must be a whole number, got str"),
        ("batch", 2.0, "must be a whole number, got float"),
        ("orthogonal", "false", "must be true or false, got str"),
        ("orthogonal", 0, "must be true or false, got int"),
        ("blocks", "head.*", "must be whole, layers, or a list of patterns of tensor names"),
        ("blocks", ["head.*", 3], "must be whole, layers, or a list of patterns of tensor names"),
        ("blocks", 3, "must be whole, layers, or a list of patterns of tensor names"),
    ],
)
def test_a_files_value_must_be_of_the_type_already(name, value, rule) -> None:
    with pytest.raises(SettingsError) as caught:
        check(name, value)
    assert (caught.value.field, caught.value.value, caught.value.rule) == (name, value, rule)


def test_a_whole_number_will_do_for_a_number() -> None:
    assert check("rate", 1) == 1.0


@pytest.mark.parametrize(
    ("name", "near"), [("forwrads", "forwards"), ("learning_rate", "local_rate"), ("Rounds", "rounds"), ("qqq", None)]
)
def test_an_unknown_setting_is_met_with_the_nearest(name, near) -> None:
    with pytest.raises(SettingsError) as caught:
        check(name, 1)
    assert caught.value.field == name
    assert caught.value.rule == "is no setting" + (f"; did you mean {near}?" if near else "")


def test_every_setting_is_described_in_a_few_words() -> None:
    assert list(FIELDS) == list(Experiment.__struct_fields__)
    for name in FIELDS:
        told = about(name)
        assert told.section in ("data", "model", "method", "round", "privacy", "run")
        assert 5 < len(told.text) < 140
        assert not told.text.endswith(".")


def test_settings_of_the_method_have_their_defaults_in_one_place() -> None:
    """Nothing that `Baffle` decides has a default of its own in `Experiment`."""
    method = {name for name in FIELDS if about(name).section == "method"} - {"algorithm"}
    assert method == set(defaults("baffle", {}))
    with pytest.raises(TypeError, match="Missing required argument"):
        Experiment()


def test_a_file_is_read_as_toml(tmp_path) -> None:
    path = tmp_path / "mine.toml"
    path.write_text("# a comment\nrounds = 3\nhidden = [4, 4]\n")
    assert read_toml(path) == {"rounds": 3, "hidden": [4, 4]}
    assert read(read_toml(path)).hidden == (4, 4)


def test_an_experiment_does_not_change() -> None:
    with pytest.raises(AttributeError):
        read({}).seed = 3  # type: ignore[misc]


def test_laws_by_name() -> None:
    assert read({"law": "rademacher"}).baffle().law == Rademacher()
    assert read({"law": "gaussian"}).baffle().law == Gaussian()
