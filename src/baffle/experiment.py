"""A run's settings: one frozen object, read from TOML and flags, checked when it is read, printed in full."""

from __future__ import annotations

import difflib
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, TypeAlias, get_args, get_type_hints

import msgspec
from msgspec import Meta

from baffle.algorithms import Baffle
from baffle.allocation import Rule
from baffle.baselines import presets
from baffle.baselines.presets import BASELINES
from baffle.baselines.work import Method
from baffle.budget import Target
from baffle.directions import Gaussian, Rademacher, Sparse
from baffle.errors import SettingsError
from baffle.estimators import CentralDifference, CentredDifference, ForwardDifference
from baffle.optimizers import Adam, ExponentialAverage, Sgd

PRESETS: dict[str, Baffle] = {"baffle": Baffle(), "paper": Baffle.paper(), "grid": Baffle.grid()}
"""What `algorithm` may name: every setting of the method that is not given comes from there."""
ESTIMATORS = {"forward": ForwardDifference, "central": CentralDifference, "centred": CentredDifference}
LAWS = {"gaussian": Gaussian, "rademacher": Rademacher, "sparse": Sparse}
OPTIMIZERS = {"adam": Adam, "sgd": Sgd}

Share: TypeAlias = Annotated[float, Meta(gt=0, le=1)]
BelowOne: TypeAlias = Annotated[float, Meta(ge=0, lt=1)]
Positive: TypeAlias = Annotated[float, Meta(gt=0)]
NotNegative: TypeAlias = Annotated[float, Meta(ge=0)]
_MOST = (1 << 63) - 1
Whole: TypeAlias = Annotated[int, Meta(ge=0, le=_MOST)]
Number: TypeAlias = Annotated[int, Meta(ge=1, le=_MOST)]


@dataclass(frozen=True, slots=True)
class About:
    """What a person is told of a setting."""

    section: str
    text: str
    unit: str = ""


class Experiment(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Everything that a run depends on. Each field is a line of TOML and a flag of the command line.

    Build one with `read`, which fills the method's settings from a preset.
    """

    dataset: Annotated[
        str, About("data", "digits, mnist, fashion, cifar10, cifar100, or the path of an .npz or .csv file")
    ] = "digits"
    data_dir: Annotated[
        str, About("data", "folder that holds the data set's files; empty means a cache folder, filled by a download")
    ] = ""
    image_size: Annotated[
        int,
        Meta(ge=-1),
        About(
            "data",
            "side to which images are resized; 0 leaves them, -1 is the data set's own (32 for mnist and fashion)",
            "pixels",
        ),
    ] = -1
    label_column: Annotated[str, About("data", "column of a .csv file that holds the label")] = "label"
    client_column: Annotated[str, About("data", "column or array that names each sample's client")] = "client"
    clients: Annotated[Number, About("data", "how many there are; with partition = 'owner' the data say")] = 10
    partition: Annotated[
        Literal["iid", "dirichlet", "shards", "owner"],
        About(
            "data",
            "how samples are shared out: at random, with label proportions drawn "
            "for each client, in runs of one label, or as the data say",
        ),
    ] = "iid"
    alpha: Annotated[Positive, About("data", "concentration of partition = 'dirichlet'; small is uneven")] = 0.3
    shards: Annotated[Number, About("data", "runs of one label that each client holds with partition = 'shards'")] = 2

    model: Annotated[
        str,
        About(
            "model",
            "mlp, lenet, wrn, module:function of your own, called as function(shape, classes), "
            "or a folder that `baffle export` made",
        ),
    ] = "mlp"
    runtime: Annotated[
        Literal["torch", "onnx"],
        About("model", "what evaluates losses: PyTorch, or ONNX Runtime, as always with an exported model"),
    ] = "torch"
    pruned: Annotated[bool, About("model", "keep weights of your own model that are zero at zero, untrained")] = False
    hidden: Annotated[tuple[Number, ...], About("model", "widths of the mlp's hidden layers", "units")] = (32,)
    activation: Annotated[Literal["hardswish", "relu", "selu", "gelu"], About("model", "of the built-in models")] = (
        "hardswish"
    )
    norm: Annotated[
        Literal["auto", "group", "none"],
        About("model", "of the built-in models; auto is group for wrn, none for the others"),
    ] = "auto"
    precision: Annotated[
        Literal["float32", "float64"],
        About("model", "in which losses are evaluated; float64 makes them independent of batching"),
    ] = "float32"
    device: Annotated[str, About("model", "cpu, cuda, cuda:1, ...; auto takes a GPU where there is one")] = "auto"
    threads: Annotated[
        int,
        Meta(ge=0, le=1024),
        About("model", "processor threads that evaluate probes; 0 is one for small models, else one for each core"),
    ] = 0
    chunk: Annotated[Number, About("model", "most samples in one forward pass; bounds memory", "samples")] = 256
    memory: Annotated[Number, About("model", "most activations of probes that are evaluated together", "MiB")] = 64

    algorithm: Annotated[
        Literal["baffle", "paper", "grid", "fedsgd", "fedavg", "fedadam", "fedzo", "es", "centralised"],
        About(
            "method",
            "Baffle with our defaults, the paper's, or ours for weights on a grid; or a baseline; "
            "it decides what is not given",
        ),
    ] = "baffle"
    forwards: Annotated[
        Number,
        About("method", "that a client spends in a round, all local steps together", "forward passes over one sample"),
    ]
    estimator: Annotated[Literal["forward", "central", "centred"], About("method", "how losses become slopes")]
    scale: Annotated[Positive, About("method", "size of a displacement: sigma", "parameter units")]
    law: Annotated[Literal["gaussian", "rademacher", "sparse"], About("method", "what directions are drawn from")]
    odds: Annotated[int, Meta(ge=1, le=128), About("method", "of each sign in a sparse direction", "256ths")]
    batch: Annotated[
        Whole,
        About("method", "a client's mini-batch, which all probes of a step see; 0 lets the method choose", "samples"),
    ]
    allocation: Annotated[
        Rule,
        About(
            "method",
            "how blocks share the forwards: adaptive to the slopes seen, at equal prices, or for the least variance",
        ),
    ]
    orthogonal: Annotated[
        bool, About("method", "whether blocks whose budget comes near their size get orthogonal directions")
    ]
    blocks: Annotated[
        Literal["whole", "layers"] | tuple[str, ...],
        About("method", "what is displaced together: the whole vector, one of the layers, or patterns of tensor names"),
    ]
    groups: Annotated[
        Number,
        About("method", "sets of directions: 1 shares one among all clients, the cohort's size gives each its own"),
    ]
    bits: Annotated[int, Meta(ge=2, le=32), About("method", "of a slope on the wire", "bits")]
    bound: Annotated[Positive, About("method", "largest slope reported in the first round")]
    spread: Annotated[
        NotNegative,
        About("method", "largest slope reported later, in recent root mean squares; 0 keeps the first round's"),
    ]
    local_steps: Annotated[Number, About("method", "SGD steps that a client takes on its own in a round")]
    local_rate: Annotated[Positive, About("method", "learning rate of those steps")]
    local_momentum: Annotated[BelowOne, About("method", "of those steps, with fedavg and fedadam")]
    epochs: Annotated[
        Whole, About("method", "of a client in a round, with fedavg and fedadam; 0 takes local_steps instead")
    ]
    checkpointing: Annotated[
        bool, About("method", "compute activations twice, to keep fewer, with methods that backpropagate")
    ]
    directions: Annotated[Number, About("method", "of a local step, with fedzo")]
    population: Annotated[int, Meta(ge=2, le=1 << 20), About("method", "members of a round, in pairs, with es")]
    clip: Annotated[NotNegative, About("method", "largest entry of the gradient estimate; 0 is none")]
    optimizer: Annotated[Literal["adam", "sgd"], About("method", "of the server")]
    rate: Annotated[Positive, About("method", "learning rate of the server")]
    momentum: Annotated[BelowOne, About("method", "of sgd")]
    beta1: Annotated[BelowOne, About("method", "of adam's first moment")]
    beta2: Annotated[BelowOne, About("method", "of adam's second moment")]
    eps: Annotated[Positive, About("method", "added to adam's denominator")]
    weight_decay: Annotated[NotNegative, About("method", "times the weights, added to the gradient")]
    average: Annotated[
        BelowOne, About("method", "decay of the weights' exponential average, for evaluation; 0 is none")
    ]
    schedule: Annotated[Literal["constant", "linear"], About("method", "of the learning rate over the rounds")]

    participation: Annotated[Share, About("round", "share of the clients asked")] = 1.0
    quorum: Annotated[Share, About("round", "share of those asked that must answer")] = 0.5
    weight: Annotated[Literal["samples", "equal"], About("round", "what a client counts for")] = "samples"
    unavailable: Annotated[BelowOne, About("round", "chance that a client asked does not answer")] = 0.0

    secure: Annotated[
        Literal["none", "masks", "ideal"],
        About(
            "privacy",
            "whether the server sees sums alone: not, by masks that cancel out, or (in a simulation) as if somebody "
            "trusted added reports up",
        ),
    ] = "none"
    minimum: Annotated[
        int, Meta(ge=2, le=_MOST), About("privacy", "fewest reports of which a secure sum is opened", "clients")
    ] = 2
    sum_size: Annotated[
        Whole,
        About(
            "privacy",
            "fewest clients of a group that is summed by itself, to bound what one can spoil; 0 sums a cohort in one",
            "clients",
        ),
    ] = 0
    mechanism: Annotated[
        Literal["none", "gaussian", "shares", "rqm"],
        About(
            "privacy",
            "what hides a client's data in sums: nothing, the server's noise, noise in clients' shares (secure sums), "
            "or randomised quantisation",
        ),
    ] = "none"
    epsilon: Annotated[NotNegative, About("privacy", "budget that no client exceeds; needs a mechanism")] = 0.0
    delta: Annotated[float, Meta(gt=0, lt=1), About("privacy", "chance that goes with epsilon")] = 1e-5
    slope_size: Annotated[
        Positive,
        About("privacy", "largest root mean square of a client's slopes in a private run; the first if it adapts"),
    ] = 1.0
    quantile: Annotated[
        BelowOne,
        About("privacy", "share of the clients whose slopes the bound leaves alone; 0 keeps it as slope_size says"),
    ] = 0.0
    colluding: Annotated[Whole, About("privacy", "whose noise the server may know", "clients")] = 0

    engine: Annotated[
        Literal["local", "ray"],
        About("run", "what evaluates probes: this process, or the workers of a Ray cluster, with the same ledger"),
    ] = "local"
    workers: Annotated[int, Meta(ge=0, le=4096), About("run", "of the Ray cluster; 0 is one for each core")] = 0
    address: Annotated[
        str, About("run", "of a Ray cluster, host:port or auto; empty starts one on this machine for the run")
    ] = ""
    rounds: Annotated[Whole, About("run", "how many", "rounds")] = 400
    seed: Annotated[int, Meta(ge=0, le=_MOST), About("run", "of everything random")] = 0
    initial: Annotated[
        Literal["key", "model"],
        About(
            "run",
            "where first weights come from: the seed, the same on every machine, or the model (always so for your own)",
        ),
    ] = "key"
    evaluate_every: Annotated[Number, About("run", "between evaluations on held-out data", "rounds")] = 20
    snapshot_every: Annotated[Number, About("run", "between snapshots", "rounds")] = 50
    out: Annotated[str, About("run", "folder of the run; empty means a new one in runs/")] = ""

    def target(self) -> Target | None:
        """Return what the run promises each client, or None.

        Raises:
            SettingsError: the settings of privacy do not go together.
        """
        if self.mechanism == "none":
            if self.epsilon:
                raise SettingsError("mechanism", "none", "must be gaussian, shares or rqm where epsilon is given")
            return None
        if not self.epsilon:
            raise SettingsError("epsilon", self.epsilon, "must be above 0 where a mechanism is given")
        if self.weight != "equal":
            raise SettingsError("weight", self.weight, "must be 'equal' in a private run: a heavy client would show")
        return Target(
            mechanism=self.mechanism,
            epsilon=self.epsilon,
            delta=self.delta,
            rounds=max(1, self.rounds),
            size=self.slope_size,
            quantile=self.quantile,
            colluding=self.colluding,
        )

    def baffle(self) -> Baffle:
        """Return the method.

        Raises:
            SettingsError: a setting is out of its range, or `algorithm` is a baseline.
        """
        if self.algorithm in BASELINES:
            rule = "keeps no ledger: `baffle train` alone runs it, in one process, and metrics.jsonl is the record"
            raise SettingsError("algorithm", self.algorithm, rule)
        return Baffle(
            estimator=ESTIMATORS[self.estimator](scale=self.scale),
            law=_pick(LAWS[self.law], self),
            optimizer=_pick(OPTIMIZERS[self.optimizer], self),
            average=ExponentialAverage(decay=self.average),
            anneal=self.rounds if self.schedule == "linear" else 0,
            **{name: getattr(self, name) for name in _PLAIN},
        )

    def baseline(self) -> Method | None:
        """Return the method where it is a baseline.

        Raises:
            SettingsError: a setting is out of its range.
        """
        return presets.made(self) if self.algorithm in BASELINES else None

    def told(self) -> dict[str, Any]:
        """Return the settings that bear on the run, as `read` takes them."""
        own, values = self.baseline(), msgspec.to_builtins(self)
        names = presets.useful(own, _SECTIONS) if own else [name for name in values if name not in presets.OWN]
        return {name: values[name] for name in names}


_PLAIN = (
    "forwards",
    "batch",
    "blocks",
    "allocation",
    "orthogonal",
    "groups",
    "bits",
    "bound",
    "spread",
    "local_steps",
    "local_rate",
    "clip",
)
"""Settings that are fields of Baffle by the same name."""
FIELDS: dict[str, Any] = get_type_hints(Experiment, include_extras=True)
"""Every setting's type, with its range and description."""


_SECTIONS = {
    name: part.section for name, kind in FIELDS.items() for part in get_args(kind)[1:] if isinstance(part, About)
}


def about(name: str) -> About:
    """Return what a person is told of a setting."""
    return next(part for part in get_args(FIELDS[name])[1:] if isinstance(part, About))


def _pick(kind: type[Any], source: object) -> Any:
    """Return a `kind` whose fields are `source`'s of the same names."""
    return kind(**{name: getattr(source, name) for name in kind.__struct_fields__})


def defaults(preset: str, given: Mapping[str, Any]) -> dict[str, Any]:
    """Return the method's settings as a preset has them; a scale or rate goes with its estimator or optimizer.

    `given` are the settings that the user chose: another estimator than the preset's comes with its own scale.
    """
    if preset in BASELINES:
        baseline = BASELINES[preset]
        optimizer = _variant("optimizer", OPTIMIZERS, baseline.optimizer, given)
        return defaults("baffle", {}) | presets.plain(baseline) | {"average": baseline.average.decay} | optimizer
    method = Baffle.grid(given.get("odds", Sparse().odds)) if preset == "grid" else PRESETS[preset]
    found: dict[str, Any] = {name: getattr(method, name) for name in _PLAIN}
    found |= {**presets.OWN, "average": method.average.decay, "schedule": "constant"}
    return (
        found
        | _variant("law", LAWS, method.law, given)
        | _variant("estimator", ESTIMATORS, method.estimator, given)
        | _variant("optimizer", OPTIMIZERS, method.optimizer, given)
    )


def _variant(
    setting: str, kinds: Mapping[str, type[msgspec.Struct]], own: msgspec.Struct, given: Mapping[str, Any]
) -> dict[str, Any]:
    """Return the settings of all `kinds`; those of the preset's `own`, or of another one that is given, go first."""
    chosen = kinds.get(given.get(setting, _tag(own)), type(own))
    values: dict[str, Any] = {}
    for kind in kinds.values():
        values |= msgspec.structs.asdict(kind())
    return values | msgspec.structs.asdict(own if isinstance(own, chosen) else chosen()) | {setting: _tag(own)}


def _tag(kind: msgspec.Struct) -> str:
    return str(kind.__struct_config__.tag)


def read(*sources: Mapping[str, Any]) -> Experiment:
    """Return the experiment that `sources` describe, later ones overruling earlier ones.

    Raises:
        SettingsError: names the setting, its value and the rule.
    """
    given: dict[str, Any] = {}
    for source in sources:
        given |= {name: check(name, value) for name, value in source.items()}
    preset = given.get("algorithm", "baffle")
    experiment = Experiment(**(defaults(preset, given) | _private(given) | given))
    if (baseline := experiment.baseline()) is not None:
        presets.refuse_useless(preset, given, presets.useful(baseline, _SECTIONS))
        return experiment
    experiment.baffle()
    experiment.target()
    presets.refuse_foreign(preset, given)
    return experiment


def check(name: str, value: object, *, text: bool = False) -> Any:
    """Return a setting's value in its own type; with `text`, `value` is a string from the command line.

    Raises:
        SettingsError: there is no such setting, or the value is of another type or out of range.
    """
    if name not in FIELDS:
        near = difflib.get_close_matches(name, FIELDS, n=1)
        raise SettingsError(name, value, "is no setting" + (f"; did you mean {near[0]}?" if near else ""))
    try:
        if text and (name == "hidden" or (name == "blocks" and value not in ("whole", "layers"))):
            value = [part for part in str(value).split(",") if part]
        return msgspec.convert(value, FIELDS[name], strict=not text)
    except msgspec.ValidationError as error:
        raise SettingsError(name, value, _rule(name, str(error))) from None


def _private(given: Mapping[str, Any]) -> dict[str, Any]:
    """Return defaults of a private run that are others than of a run in the open."""
    match given.get("mechanism", "none"):
        case "none":
            return {}
        case "rqm":
            return {"weight": "equal", "bits": 4, "allocation": "equal"}
        case _:
            return {"weight": "equal"}


_WORDS = {
    "Expected `int`": "must be a whole number",
    "Expected `bool`": "must be true or false",
    "Expected `float`": "must be a number",
    "Expected `str`": "must be a text",
    "Expected `array`": "must be a list",
    " - at `$": " at `",
    "`": "",
}
"""msgspec's words, and ours."""


def _rule(name: str, told: str) -> str:
    """Return msgspec's message as a rule; for a choice, the choices."""
    if name == "blocks":
        return "must be whole, layers, or a list of patterns of tensor names"
    kind = get_args(FIELDS[name])[0]
    choices = get_args(kind) if getattr(kind, "__origin__", None) is Literal else ()
    if choices:
        return "must be one of " + ", ".join(choices)
    for theirs, ours in _WORDS.items():
        told = told.replace(theirs, ours)
    return told


def read_toml(path: Path) -> dict[str, Any]:
    """Return the settings in a TOML file, not yet checked.

    Raises:
        SettingsError: the file can't be read, or is no TOML.
    """
    try:
        with path.open("rb") as file:
            return tomllib.load(file)
    except OSError as error:
        raise SettingsError("experiment", str(path), f"can't be read: {error.strerror}") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise SettingsError("experiment", str(path), f"is no TOML: {error}") from None
