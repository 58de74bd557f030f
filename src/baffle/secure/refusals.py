"""Why an aggregation is not finished, with names."""

from __future__ import annotations

from collections.abc import Iterable

from baffle.errors import ReportError


class ForgeryError(ReportError):
    """What members sent contradicts what they had sent before.

    Attributes:
        members: their numbers, ascending; each of them has certainly lied, or runs another program.
    """

    def __init__(self, members: Iterable[int], reason: str) -> None:
        self.members = tuple(sorted(members))
        super().__init__(f"{reason}: member {', '.join(map(str, self.members))}")


class AbandonedError(ReportError):
    """Too few reports or answers: this attempt can't be finished, and its reports stay sealed."""


class SpoiltError(ReportError):
    """No reports within the rules have this sum: one of its members sent what no report can be, and all may have."""


__all__ = ["AbandonedError", "ForgeryError", "SpoiltError"]
