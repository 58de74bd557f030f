"""What counts as work besides products of matrices, in floating-point operations."""

from __future__ import annotations

MOVED = 25
"""What moving one number through memory costs, in floating-point operations, on processors of today."""
LOSS = 1000
"""Floating-point operations of the loss, for each of the model's outputs."""
