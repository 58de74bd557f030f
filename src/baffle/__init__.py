"""Federated learning by forward passes alone.

A client evaluates the loss at displaced copies of the model and answers with a few integers; the server rebuilds the
gradient from them. `simulate` runs a whole federation; `Baffle` says what a round does.
"""

from __future__ import annotations

from baffle.algorithms import Baffle
from baffle.directions import Gaussian, Rademacher
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
    "__version__",
    "simulate",
]
