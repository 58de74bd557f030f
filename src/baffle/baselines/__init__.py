"""What Baffle is compared with: methods by backpropagation and by forward passes, on the same federation.

A method is an object of settings; `baffle.baselines.baseline.Baseline` runs it. Importing this imports no torch.
"""

from __future__ import annotations

from baffle.baselines.centralised import Centralised
from baffle.baselines.evolution import EvolutionStrategies
from baffle.baselines.fedavg import FedAvg
from baffle.baselines.fedsgd import FedSgd
from baffle.baselines.fedzo import FedZo

__all__ = ["Centralised", "EvolutionStrategies", "FedAvg", "FedSgd", "FedZo"]
