"""Whether accuracies can be compared: the same data, the same test."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from baffle.data.load import PAPER_SIZE
from baffle.errors import SettingsError
from baffle.report.comparison import Entry

_SAME = ("dataset", "image_size", "label_column")
_MODEL = ("model", "hidden", "activation", "norm", "pruned")


def check_task(entries: Sequence[Entry]) -> list[str]:
    """Return what a reader should be warned of, in sentences.

    Raises:
        SettingsError: two entries are of different data, so that their accuracies say nothing of one another.
    """
    if not entries:
        return []
    first, *others = entries
    for name in _SAME:
        for other in others:
            mine, theirs = _data(first.settings, name), _data(other.settings, name)
            if mine and theirs and mine != theirs:
                rule = f"is {mine} in {first.name}: accuracies compare on the same data alone"
                raise SettingsError(name, theirs, f"of {other.name} {rule}")
    return [*_unknown(entries), *_models(entries), *_seeds(entries), *_pooled(entries)]


def _data(settings: Mapping[str, str], name: str) -> str:
    """Return a setting; the default side of images as a number."""
    value = settings.get(name, "")
    if name == "label_column" and not settings.get("dataset", "").endswith(".csv"):
        return ""
    if name == "image_size" and value == "-1":
        return str(PAPER_SIZE) if settings.get("dataset") in ("mnist", "fashion") else "0"
    return value


def _unknown(entries: Sequence[Entry]) -> list[str]:
    return [
        f"{entry.name} does not say what data it is of, so that it may not be comparable."
        for entry in entries
        if len(entries) > 1 and "dataset" not in entry.settings
    ]


def _pooled(entries: Sequence[Entry]) -> list[str]:
    return [
        f"{entry.name} has all data in one place: its forwards and bytes are not those of a client, and not compared."
        for entry in entries
        if entry.pooled and len(entries) > 1
    ]


def _models(entries: Sequence[Entry]) -> list[str]:
    told = {entry.name: tuple(entry.settings.get(name) for name in _MODEL) for entry in entries}
    if len(set(told.values())) == 1:
        return []
    names = [name for i, name in enumerate(_MODEL) if len({values[i] for values in told.values()}) > 1]
    return [f"The models differ ({', '.join(names)}): what is compared is model and method together."]


def _seeds(entries: Sequence[Entry]) -> list[str]:
    if len({frozenset(trial.seed for trial in entry.trials) for entry in entries}) == 1:
        return []
    return ["Not all experiments have the same seeds."]
