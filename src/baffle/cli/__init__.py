"""The command line: the only place that parses text, prints and exits."""

from __future__ import annotations

from baffle.cli.main import entry, main

__all__ = ["entry", "main"]
