"""`python -m baffle`."""

from __future__ import annotations

from baffle.cli import entry

if __name__ == "__main__":
    entry()
