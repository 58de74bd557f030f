"""Federated learning by forward passes alone.

A client evaluates the loss at displaced copies of the model and answers with a few integers; the server rebuilds the
gradient from them. `simulate` runs a whole federation; `Baffle` says what a round does.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from baffle.algorithms import Baffle
    from baffle.directions import Gaussian, Rademacher, Sparse
    from baffle.errors import (
        BaffleError,
        DataError,
        DivergenceError,
        LedgerError,
        MissingExtraError,
        ModelError,
        ReportError,
        SettingsError,
    )
    from baffle.estimators import CentralDifference, CentredDifference, ForwardDifference
    from baffle.optimizers import Adam, ExponentialAverage, Sgd
    from baffle.progress import Progress, Result
    from baffle.simulation import simulate

__version__ = "0.1.0"

__all__ = [
    "Adam",
    "Baffle",
    "BaffleError",
    "CentralDifference",
    "CentredDifference",
    "DataError",
    "DivergenceError",
    "ExponentialAverage",
    "ForwardDifference",
    "Gaussian",
    "LedgerError",
    "MissingExtraError",
    "ModelError",
    "Progress",
    "Rademacher",
    "ReportError",
    "Result",
    "SettingsError",
    "Sgd",
    "Sparse",
    "__version__",
    "simulate",
]

_HOMES = {
    "Adam": "baffle.optimizers",
    "Baffle": "baffle.algorithms",
    "BaffleError": "baffle.errors",
    "CentralDifference": "baffle.estimators",
    "CentredDifference": "baffle.estimators",
    "DataError": "baffle.errors",
    "DivergenceError": "baffle.errors",
    "ExponentialAverage": "baffle.optimizers",
    "ForwardDifference": "baffle.estimators",
    "Gaussian": "baffle.directions",
    "LedgerError": "baffle.errors",
    "MissingExtraError": "baffle.errors",
    "ModelError": "baffle.errors",
    "Progress": "baffle.progress",
    "Rademacher": "baffle.directions",
    "ReportError": "baffle.errors",
    "Result": "baffle.progress",
    "SettingsError": "baffle.errors",
    "Sgd": "baffle.optimizers",
    "Sparse": "baffle.directions",
    "simulate": "baffle.simulation",
}


def __getattr__(name: str) -> object:
    """Import a name when it is asked for: a client on a small device needs few of them."""
    if name not in _HOMES:
        raise AttributeError(f"module 'baffle' has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted(__all__)
