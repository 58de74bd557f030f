"""Baselines by name, and which settings each has a use for."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any, cast

import msgspec

from baffle.baselines.centralised import Centralised
from baffle.baselines.evolution import EvolutionStrategies
from baffle.baselines.fedavg import FedAvg
from baffle.baselines.fedsgd import FedSgd
from baffle.baselines.fedzo import FedZo
from baffle.baselines.work import Method
from baffle.errors import SettingsError
from baffle.optimizers import Adam, ExponentialAverage, Sgd

BASELINES: dict[str, Method] = {
    "fedsgd": FedSgd(),
    "fedavg": FedAvg(),
    "fedadam": FedAvg.adam(),
    "fedzo": FedZo(),
    "es": EvolutionStrategies(),
    "centralised": Centralised(),
}
"""What `algorithm` may name besides Baffle's presets: settings of the method that are not given come from there."""
TITLES = {
    "fedsgd": "FedSGD",
    "fedavg": "FedAvg",
    "fedadam": "FedAdam",
    "fedzo": "FedZO",
    "es": "Evolution strategies",
    "centralised": "Centralised training",
}
OWN: dict[str, Any] = {
    "epochs": 0,
    "local_momentum": 0.0,
    "checkpointing": False,
    "directions": FedZo().directions,
    "population": EvolutionStrategies().population,
}
"""Settings of the method that only baselines have, as they stand where they are of no use."""
_KINDS = {"adam": Adam, "sgd": Sgd}
_ELSEWHERE = ("optimizer", "average", "anneal")
"""Fields whose settings have other names, or several."""
_ALWAYS = ("algorithm", "optimizer", "average", "schedule")
_SECTIONS = ("data", "model", "round", "run")
"""Sections of settings that baselines share with Baffle."""
_LEDGER = ("workers", "address")
_FEDERATION = ("participation", "quorum", "weight", "unavailable")


def plain(method: Method) -> dict[str, Any]:
    """Return the settings that are fields of a method by the same name."""
    fields = msgspec.structs.asdict(cast("msgspec.Struct", method))
    return {name: value for name, value in fields.items() if name not in _ELSEWHERE}


def made(source: Any) -> Method:
    """Return the method that settings describe, which are attributes of `source`.

    Raises:
        SettingsError: a setting is out of its range.
    """
    preset: Any = BASELINES[source.algorithm]
    kind = _KINDS[source.optimizer]
    return type(preset)(
        **{name: getattr(source, name) for name in plain(preset)},
        optimizer=kind(**{name: getattr(source, name) for name in kind.__struct_fields__}),
        average=ExponentialAverage(decay=source.average),
        anneal=source.rounds if source.schedule == "linear" else 0,
    )


def useful(method: Method, sections: Mapping[str, str]) -> list[str]:
    """Return the settings that bear on a baseline, of those that `sections` names with the section of each."""
    useless = set(_LEDGER) | set(_FEDERATION if isinstance(method, Centralised) else ())
    own = {*_ALWAYS, *plain(method), *method.optimizer.__struct_fields__}
    if isinstance(method, FedAvg) and method.epochs:
        own.remove("local_steps")
    return [name for name, section in sections.items() if name in own or (section in _SECTIONS and name not in useless)]


def refuse_useless(name: str, given: Mapping[str, Any], useful: Collection[str]) -> None:
    """Refuse settings that were given and have no bearing on a baseline.

    Raises:
        SettingsError: names the first one.
    """
    for setting, value in given.items():
        if setting not in useful:
            rule = f"is of no use to algorithm = '{name}'"
            if setting == "local_steps":
                rule += " with epochs"
            raise SettingsError(setting, value, rule)


def refuse_foreign(name: str, given: Mapping[str, Any]) -> None:
    """Refuse settings of baselines that were given to Baffle itself, unless they are the defaults.

    Raises:
        SettingsError: names the first one.
    """
    for setting, default in OWN.items():
        if given.get(setting, default) != default:
            raise SettingsError(setting, given[setting], f"is of no use to algorithm = '{name}', only to baselines")
