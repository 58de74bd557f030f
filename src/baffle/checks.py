"""Rules that settings are held to, in the words of SettingsError."""

from __future__ import annotations

import math
from collections.abc import Iterable

from baffle.errors import SettingsError


def positive(field: str, value: float) -> None:
    """Refuse a `value` that is not a finite number above 0."""
    if not (value > 0 and math.isfinite(value)):
        raise SettingsError(field, value, "must be a finite number > 0")


def within(field: str, value: float, low: float, high: float) -> None:
    """Refuse a `value` outside [low, high]."""
    if not low <= value <= high:
        raise SettingsError(field, value, f"must be between {low} and {high}")


def at_least(field: str, value: float, low: float) -> None:
    """Refuse a `value` below `low`, or not finite."""
    if not (value >= low and math.isfinite(value)):
        raise SettingsError(field, value, f"must be {low} or more")


def one_of(field: str, value: object, choices: Iterable[object]) -> None:
    """Refuse a `value` that is none of `choices`."""
    if value not in choices:
        raise SettingsError(field, value, "must be one of " + ", ".join(map(str, choices)))


def below_one(field: str, value: float) -> None:
    """Refuse a `value` outside [0, 1)."""
    if not 0 <= value < 1:
        raise SettingsError(field, value, "must be at least 0 and below 1")
