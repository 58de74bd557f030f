"""`make lowest` tests with the lowest versions that pyproject.toml admits, and not by chance with others."""

from __future__ import annotations

import os
import re
import tomllib
from importlib import metadata
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PINNED = dict(
    line.split("==") for line in (ROOT / "constraints-lowest.txt").read_text().splitlines() if not line.startswith("#")
)
TESTED = ["numpy", "cryptography", "msgspec", "safetensors", "numba", "rich", "tomli-w"]


def floors() -> dict[str, str]:
    """Return the lowest version of each package that users need, by name; PyTorch apart."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"]
    needed = [
        *project["dependencies"],
        *(one for name in extras if name not in ("dev", "docs") for one in extras[name]),
    ]
    found = dict(re.fullmatch(r"([a-z-]+)>=([0-9.]+)(?:,<\d+)?", one).groups() for one in needed)
    return {name: version for name, version in found.items() if name != "torch"}


def numbers(version: str) -> list[int]:
    whole = [int(part) for part in version.split(".")]
    return whole[: max((place + 1 for place, part in enumerate(whole) if part), default=0)]


@pytest.mark.parametrize(("name", "version"), floors().items())
def test_what_is_pinned_is_what_is_admitted(name, version) -> None:
    assert numbers(PINNED[name]) == numbers(version)


@pytest.mark.skipif(
    "BAFFLE_LOWEST" not in os.environ, reason="only where `make lowest` has installed the lowest versions"
)
@pytest.mark.parametrize("name", TESTED)
def test_the_lowest_version_is_what_is_installed(name) -> None:
    assert metadata.version(name) == PINNED[name]
