"""Several experiments with several seeds beside one another: tables, pictures, one page, JSON and CSV."""

from __future__ import annotations

from baffle.report.comparison.entries import Comparison, Entry, Trial, chosen_target
from baffle.report.comparison.listings import Listing, listings
from baffle.report.comparison.verdict import verdict
from baffle.report.comparison.writing import write_comparison

__all__ = ["Comparison", "Entry", "Listing", "Trial", "chosen_target", "listings", "verdict", "write_comparison"]
