"""Numbers as a person reads them, each with the exact value beside it."""

from __future__ import annotations

import math
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Quantity:
    """A number's short text and its exact one, the latter with its unit."""

    text: str
    exact: str


def percent(value: float) -> Quantity:
    """Return a share between 0 and 1 in percent, to a hundredth."""
    return _unknown(value) or Quantity(f"{100 * value:.2f}%", _exact(value))


def plain(value: float) -> Quantity:
    """Return a number without a unit to four significant digits."""
    return _unknown(value) or Quantity(f"{value:.4g}", _exact(value))


def count(value: float, unit: str) -> Quantity:
    """Return a count of `unit`: in full below ten thousand, then to three digits with k, M, G or T."""
    if abs(value) < 9_999.5:
        return Quantity(f"{value:,.0f}", f"{_exact(value)} {unit}")
    return _unknown(value) or Quantity(_scaled(value, ("", "k", "M", "G", "T"), ""), f"{_exact(value)} {unit}")


def size(value: float) -> Quantity:
    """Return bytes to three digits, in decimal units: 1 kB is 1,000 bytes."""
    return _unknown(value) or Quantity(_scaled(value, ("B", "kB", "MB", "GB", "TB"), " "), f"{_exact(value)} bytes")


def brief(seconds: float) -> Quantity:
    """Return seconds in milliseconds below ten seconds, then as `duration` does."""
    if abs(seconds) < 10:
        return Quantity(f"{1000 * seconds:,.0f} ms", f"{_exact(seconds)} seconds")
    return duration(seconds)


def duration(seconds: float) -> Quantity:
    """Return seconds as such below a hundred, then minutes and seconds, then hours and minutes."""
    if unknown := _unknown(seconds):
        return unknown
    exact = f"{_exact(seconds)} seconds"
    if seconds < 99.95:
        return Quantity(f"{seconds:.1f} s", exact)
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return Quantity(f"{minutes} min {rest:02} s", exact)
    return Quantity(f"{minutes // 60} h {minutes % 60:02} min", exact)


def _unknown(value: float) -> Quantity | None:
    if math.isfinite(value):
        return None
    return Quantity("—", "not known") if math.isnan(value) else Quantity(f"{value:+}", "not finite")


def _exact(value: float) -> str:
    return f"{int(value):,}" if value == int(value) else f"{value:,}"


def _scaled(value: float, units: tuple[str, ...], gap: str) -> str:
    power = 0
    # 999.5 prints as 1000 in three digits: it belongs to the next unit.
    while abs(value) >= 999.5 and power < len(units) - 1:
        value, power = value / 1000, power + 1
    number = f"{value:.3g}" if abs(value) < 999.5 else f"{value:,.0f}"
    return f"{number}{gap}{units[power]}"
