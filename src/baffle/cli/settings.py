"""Settings of an experiment as flags of the command line."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import Any, cast, get_args

from baffle.experiment import FIELDS, Experiment, about, check, defaults

_SECTIONS = {
    "data": "data and clients",
    "model": "model and machine",
    "method": "method (defaults as in algorithm = 'baffle')",
    "round": "rounds",
    "privacy": "privacy (docs/privacy.md)",
    "run": "run",
}


def add_settings(parser: argparse.ArgumentParser, fields: Sequence[str] = Experiment.__struct_fields__) -> None:
    """Add a flag for each of the settings `fields`."""
    shown = defaults("baffle", {})
    groups: dict[str, Any] = {}
    for field in fields:
        told = about(field)
        if told.section not in groups:
            groups[told.section] = parser.add_argument_group(_SECTIONS[told.section])
        default = shown[field] if field in shown else _default(field)
        groups[told.section].add_argument(
            "--" + field.replace("_", "-"),
            dest=field,
            metavar=_metavar(field),
            default=argparse.SUPPRESS,
            help=f"{told.text}{told.unit and f', in {told.unit}'} [{_text(default)}]".replace("%", "%%"),
        )


def flags_of(options: argparse.Namespace) -> dict[str, Any]:
    """Return the settings that were given as flags.

    Raises:
        SettingsError: one is of another type or out of range.
    """
    given = {name: value for name, value in vars(options).items() if name in Experiment.__struct_fields__}
    return {name: check(name, value, text=True) for name, value in given.items()}


def _default(field: str) -> Any:
    names = Experiment.__struct_fields__
    return Experiment.__struct_defaults__[names.index(field) - len(names)]


def _metavar(field: str) -> str:
    kind = get_args(FIELDS[field])[0]
    choices = get_args(kind) if getattr(kind, "__origin__", None) is not tuple else ()
    return "|".join(choices) if choices and all(isinstance(c, str) for c in choices) else field.upper()


def _text(value: Any) -> str:
    if isinstance(value, tuple):
        return ",".join(map(str, cast("tuple[object, ...]", value)))
    return f"{value:g}" if isinstance(value, float) else str(value) or "none"
