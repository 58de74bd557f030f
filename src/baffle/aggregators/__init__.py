"""Reports of C clients to one vector of sums."""

from __future__ import annotations

from baffle.aggregators.mean import weighted_mean

__all__ = ["weighted_mean"]
