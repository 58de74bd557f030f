"""One page and two pictures from the folders of one or several runs."""

from __future__ import annotations

from baffle.report.writing import write_report

__all__ = ["write_report"]
