"""The questions that are answered by training: which runs each compares."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import product
from typing import Any

Settings = dict[str, Any]
PAPER: Settings = {"algorithm": "paper", "forwards": 3232}
MNIST: Settings = {"dataset": "mnist", "image_size": 14, "model": "lenet"}
OURS: Settings = {"rate": 4e-2, "beta1": 0.5}
"""On MNIST; `accuracy.py` has 800 rounds of them."""
# The baselines' rates are those of question `rates`.
FEDSGD: Settings = {"algorithm": "fedsgd", "rate": 8e-2}
FEDAVG: Settings = {"algorithm": "fedavg", "local_momentum": 0.9, "local_rate": 0.4}
FEDZO: Settings = {"algorithm": "fedzo", "local_rate": 0.3}
ON_LENET: dict[str, Settings] = {
    "FedZO": FEDZO | {"local_rate": 0.1},
    "FedSGD": FEDSGD | {"rate": 4e-2},
    "FedAvg": FEDAVG | {"local_rate": 0.5},
}
ON_WRN: dict[str, Settings] = {
    "FedZO": FEDZO | {"local_rate": 3e-2},
    "FedSGD": FEDSGD | {"rate": 1e-2},
    "FedAvg": FEDAVG | {"local_rate": 0.1},
}
ACTIVATIONS = ("hardswish", "relu", "selu", "gelu")


@dataclass(frozen=True, slots=True)
class Question:
    """Runs to compare."""

    title: str
    rows: Mapping[str, Settings]
    common: Settings = field(default_factory=lambda: {"rounds": 200, "evaluate_every": 20})
    seeds: int = 3

    def settings(self, label: str) -> Settings:
        """Return a row's settings, without what differs from machine to machine."""
        return self.common | self.rows[label]


def here(settings: Settings, seed: int) -> Settings:
    """Return settings with this machine's folder of data, and the seed."""
    data = {"data_dir": os.environ["BAFFLE_MNIST"]} if settings.get("dataset") == "mnist" else {}
    return settings | data | {"seed": seed}


def guidelines() -> dict[str, Settings]:
    """The paper's settings, and ours, with one guideline changed."""
    central = {"estimator": "central"}
    rows: dict[str, Settings] = {
        "paper's": PAPER,
        "paper's, central, equal forwards": PAPER | central | {"scale": 1e-4},
        "paper's, central, equal K": PAPER | central | {"scale": 1e-4, "forwards": 6400},
        "ours": {},
        "ours, forward difference": {"estimator": "forward", "scale": 1e-3},
        "ours, central, equal forwards": central | {"scale": 1e-2},
    }
    for activation in ACTIVATIONS[1:]:
        rows[f"paper's, {activation}"] = PAPER | {"activation": activation}
        rows[f"ours, {activation}"] = {"activation": activation}
    return rows


def norms() -> dict[str, Settings]:
    """LeNet on digits with and without GroupNorm."""
    return {
        f"{name}, {norm}": base | {"model": "lenet", "norm": norm}
        for name, base in (("paper's", PAPER), ("ours", {}))
        for norm in ("none", "group")
    }


def participation() -> dict[str, Settings]:
    """All, half and a tenth of 100 clients, at equal work of a client that is asked."""
    few = {"clients": 100, "forwards": 320}
    return {f"{share:.0%} of 100": few | {"participation": share} for share in (1.0, 0.5, 0.1)}


def clients() -> dict[str, Settings]:
    """More clients that share the same work, and the same data."""
    return {
        f"{count:,} clients, {way}": {"clients": count, "forwards": 32_000 // count, "groups": groups}
        for way, groups in (("directions shared", 1), ("ten groups", 10))
        for count in (10, 100, 1000)
    }


def groups() -> dict[str, Settings]:
    """Sets of directions among ten clients, at equal forwards of a client."""
    whole = {"blocks": "whole", "orthogonal": False, "batch": 32}
    return {
        f"{way}, G = {count}": base | {"groups": count}
        for way, base in (
            ("whole vector, 3,200", whole),
            ("whole vector, 320", whole | {"forwards": 320, "batch": 8}),
            ("layers, 320", {"forwards": 320}),
        )
        for count in (1, 2, 5, 10)
    }


def centralised() -> dict[str, Settings]:
    """One client that holds everything, beside ten."""
    return {
        "ten clients": {},
        "one client, a client's work": {"clients": 1},
        "one client, ten clients' work": {"clients": 1, "forwards": 32_000},
        "one client, paper's, K = 100": PAPER | {"clients": 1},
        "one client, backpropagation on 32": FEDSGD | {"rate": 2e-2, "clients": 1},
    }


SHARES: dict[str, Settings] = {"IID": {}} | {
    f"Dirichlet({alpha:g})": {"partition": "dirichlet", "alpha": alpha} for alpha in (0.1, 0.3, 1.0)
}


Rounds = tuple[int, int, int, int]
NETWORKS: tuple[tuple[str, str, Settings, dict[str, Settings], Rounds], ...] = (
    ("LeNet", "lenet", OURS, ON_LENET, (60, 60, 24, 6)),
    ("WRN-10-2", "wrn", OURS | {"rate": 1e-2}, ON_WRN, (30, 15, 6, 3)),
)
"""Title, name, ours, baselines; rounds with K = 100, 200, 500, and between evaluations."""


def mnist() -> dict[str, Settings]:
    """Shares of the data × network × K × method on MNIST, and the baselines."""
    rows: dict[str, Settings] = {}
    for (share, split), (network, model, ours, baselines, (*rounds, every)) in product(SHARES.items(), NETWORKS):
        name = f"{network}, {share}"
        common = split | {"model": model, "evaluate_every": every}
        for k, count in zip((100, 200, 500), rounds, strict=True):
            both = common | {"rounds": count}
            rows[f"{name}, K = {k}, ours"] = both | ours | {"forwards": 32 * k}
            rows[f"{name}, K = {k}, paper's"] = both | {"algorithm": "paper", "forwards": (k + 1) * 32}
        for title, baseline in baselines.items():
            uneven = {"local_rate": 0.3} if split and (model, title) == ("lenet", "FedAvg") else {}  # 0.5 diverges
            rows[f"{name}, {title}"] = common | {"rounds": rounds[0]} | baseline | uneven
    return rows


def digits() -> dict[str, Settings]:
    """Shares of the data × K × method on digits, rounds for equal forwards, and the baselines for equal rounds."""
    rows: dict[str, Settings] = {}
    for share, split in SHARES.items():
        for title, baseline in (("FedSGD", FEDSGD), ("FedAvg", FEDAVG)):
            rows[f"{share}, {title}"] = split | baseline | {"rounds": 100}
        for k, rounds in ((100, 100), (200, 50), (500, 20)):
            both = split | {"rounds": rounds}
            rows[f"{share}, K = {k}, ours"] = both | {"forwards": 32 * k}
            rows[f"{share}, K = {k}, paper's"] = both | {"algorithm": "paper", "forwards": (k + 1) * 32}
    return rows


def bytes_on_digits() -> dict[str, Settings]:
    """What reaches a target on digits, evaluated often."""
    return {
        "ours": {"rounds": 150},
        "ours, batch 32": {"batch": 32, "rounds": 150},
        "paper's": PAPER | {"rounds": 300},
        "FedSGD": FEDSGD | {"rounds": 150},
        "FedAvg": FEDAVG | {"rounds": 60, "evaluate_every": 1},
        "FedAvg, 100 steps": FEDAVG | {"local_steps": 100, "rounds": 15, "evaluate_every": 1},
        "FedZO": FEDZO | {"rounds": 100, "evaluate_every": 5},
    }


def bytes_on_mnist() -> dict[str, Settings]:
    """The same on MNIST; ours and the paper's settings are `accuracy.py goal`."""
    return {
        "ours, batch 32": OURS | {"batch": 32, "rounds": 200, "evaluate_every": 20},
        "FedSGD": ON_LENET["FedSGD"] | {"rounds": 200, "evaluate_every": 10},
        "FedAvg": ON_LENET["FedAvg"] | {"rounds": 60, "evaluate_every": 4},
        "FedAvg, 100 steps": ON_LENET["FedAvg"]
        | {"local_steps": 100, "local_rate": 0.3, "rounds": 15, "evaluate_every": 1},
    }


def rates() -> dict[str, Settings]:
    """Rates of every method on both data, of which a baseline has the one with the fewest rounds to 95 %."""
    fedavg, few = FEDAVG | {"evaluate_every": 1}, {"local_steps": 100, "rounds": 15}
    lenet = MNIST | {"rounds": 100, "evaluate_every": 5}
    grids: dict[str, tuple[Settings, str, tuple[float, ...]]] = {
        "digits, ours": ({}, "rate", (1e-2, 2e-2, 4e-2, 8e-2, 1.6e-1)),
        "digits, paper's": (PAPER, "rate", (5e-3, 1e-2, 2e-2, 4e-2, 8e-2)),
        "digits, FedSGD": (FEDSGD, "rate", (1e-2, 2e-2, 4e-2, 8e-2, 1.6e-1)),
        "digits, FedAvg": (fedavg, "local_rate", (0.1, 0.2, 0.4, 0.8)),
        "digits, FedAvg, 100 steps": (fedavg | few, "local_rate", (0.1, 0.2, 0.4, 0.8)),
        "digits, FedZO": (FEDZO | {"evaluate_every": 5}, "local_rate", (3e-2, 1e-1, 3e-1, 1.0)),
        "MNIST, LeNet, ours": (lenet | {"beta1": 0.5}, "rate", (2e-2, 4e-2, 8e-2)),
        "MNIST, LeNet, FedSGD": (lenet | FEDSGD, "rate", (1e-2, 2e-2, 4e-2, 8e-2)),
        "MNIST, LeNet, FedAvg": (lenet | fedavg | {"rounds": 60}, "local_rate", (0.1, 0.3, 0.5, 0.7)),
        "MNIST, LeNet, FedAvg, 100 steps": (lenet | fedavg | few, "local_rate", (0.1, 0.3, 0.5)),
        "MNIST, LeNet, FedZO": (lenet | FEDZO | {"rounds": 60}, "local_rate", (3e-2, 1e-1, 3e-1)),
    }
    wide = lenet | {"model": "wrn", "rounds": 30, "evaluate_every": 3}
    grids["MNIST, WRN-10-2, ours"] = (wide, "rate", (5e-3, 1e-2, 2e-2))
    grids["MNIST, WRN-10-2, FedSGD"] = (wide | FEDSGD, "rate", (5e-3, 1e-2, 2e-2))
    return {f"{label}, {rate:g}": base | {name: rate} for label, (base, name, own) in grids.items() for rate in own}


WIDTHS = (26, 128, 512, 2048, 13333)
"""Of an MLP's hidden layer on digits: 75 weights each, and 10."""


def sizes() -> dict[str, Settings]:
    """Weights × rates, at few forwards; what counts is the best rate of each size."""
    return {
        f"{75 * width + 10:,} weights, {name}, rate {rate:g}": method | {"hidden": (width,), "rate": rate}
        for width in WIDTHS
        for name, method in (("ours, 320", {"forwards": 320}), ("FedSGD", FEDSGD))
        for rate in (8e-2, 2e-2, 5e-3)
    }


FEW: Settings = {"rounds": 100, "evaluate_every": 10}
QUESTIONS: dict[str, Question] = {
    "1": Question("MNIST", mnist(), MNIST, 1),
    "1-digits": Question("the same on digits", digits(), {"evaluate_every": 10}, 5),
    "5": Question("size of the model", sizes(), FEW, 3),
    "8": Question("bytes to a target, digits", bytes_on_digits(), {"evaluate_every": 2}, 5),
    "8-mnist": Question("bytes to a target, MNIST", bytes_on_mnist(), MNIST, 1),
    "2": Question("each guideline alone", guidelines(), seeds=5),
    "2-norm": Question("GroupNorm", norms(), {"rounds": 60, "evaluate_every": 10}),
    "3": Question("participation", participation(), FEW, 5),
    "4": Question("more clients", clients(), FEW),
    "9": Question("sets of directions", groups(), FEW, 5),
    "11": Question("centralised", centralised(), FEW, 5),
    "rates": Question("which rates", rates(), {"rounds": 100, "evaluate_every": 2}, 1),
    "long": Question(
        "as many steps as the paper's 20 epochs",
        {
            "ours": OURS | {"schedule": "linear"},
            "FedSGD": FEDSGD | {"rate": 2e-2, "schedule": "linear"},
            "FedSGD, rate 4e-2": FEDSGD | {"rate": 4e-2, "schedule": "linear"},
        },
        MNIST | {"rounds": 3440, "evaluate_every": 40},
        1,
    ),
}
