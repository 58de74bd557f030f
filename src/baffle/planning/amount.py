"""A figure that is foreseen."""

from __future__ import annotations

import msgspec


class Amount(msgspec.Struct, frozen=True):
    """What is expected, between what can't be gone below and what can't be exceeded; exact where these are equal."""

    least: float
    expected: float
    most: float

    @classmethod
    def of(cls, value: float) -> Amount:
        """Return an exact amount."""
        return cls(value, value, value)

    @property
    def exact(self) -> bool:
        """Whether it can't come out otherwise."""
        return self.least == self.most

    def times(self, factor: float) -> Amount:
        """Return the amount `factor` ≥ 0 times."""
        return Amount(self.least * factor, self.expected * factor, self.most * factor)
