"""The commands and their arguments."""

from __future__ import annotations

import argparse
import logging
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from baffle import __version__
from baffle.cli import compare, export, inspect, join, plan, serve, status, train
from baffle.cli.key_arguments import add_keys, add_passphrase
from baffle.cli.settings import add_settings
from baffle.errors import BaffleError


def entry() -> None:
    """Run the command in sys.argv and exit with its status."""
    sys.exit(main(sys.argv[1:]))


def main(arguments: Sequence[str]) -> int:
    """Run a command; return 0, 2 after an error that was told in words, or 130 when interrupted."""
    options = _parser().parse_args(arguments)
    logging.basicConfig(format="baffle: %(levelname)s: %(message)s", level=logging.WARNING, force=True)
    try:
        options.command(options)
    except BaffleError as error:
        return _fail(str(error))
    except OSError as error:
        return _fail(f"{error.filename or 'a file'}: {error.strerror or error}")
    except MemoryError as error:
        return _fail(f"there is not enough memory for these settings: {error}".rstrip(": "))
    except KeyboardInterrupt as error:
        print(f"\nbaffle: {str(error) or 'interrupted'}", file=sys.stderr)
        return 130
    return 0


def _fail(message: str) -> int:
    print(f"baffle: error: {message}", file=sys.stderr)
    return 2


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="baffle", description="Federated learning by forward passes alone.", allow_abbrev=False
    )
    parser.add_argument("--version", action="version", version=f"baffle {__version__}")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    _add_train(commands)
    _add_plan(commands)
    _add_compare(commands)
    _add_serve(commands)
    _add_join(commands)
    _add_status(commands)
    _add_folder(commands, "replay", inspect.replay, "rebuild the model from a run's ledger alone and compare digests")
    _add_folder(commands, "verify", inspect.verify, "check that every byte of a run's ledger is as it was written")
    report = _add_folder(
        commands, "report", inspect.report, "make one page with the curves of one or several runs", "+"
    )
    report.add_argument(
        "--out", type=Path, metavar="FILE", help="the page; by default report.html in the (first) folder"
    )
    _add_export(commands)
    add_keys(commands)
    return parser


def _add_folder(commands: Any, name: str, command: Any, text: str, count: str | None = None) -> argparse.ArgumentParser:
    parser = commands.add_parser(name, help=text, description=text[0].upper() + text[1:] + ".")
    parser.add_argument("folder", type=Path, nargs=count, metavar="DIR", help="a run's folder")
    parser.set_defaults(command=command)
    return parser


def _add_plan(commands: Any) -> None:
    text = "tell what a run will cost, beside backpropagation, without running it"
    parser = commands.add_parser(
        "plan",
        allow_abbrev=False,
        help=text,
        description=f"{text[0].upper()}{text[1:]}: forwards, bytes, memory, time. The settings are `baffle train`'s.",
    )
    parser.set_defaults(command=plan.plan)
    add = parser.add_argument
    add("experiment", type=Path, nargs="?", metavar="EXPERIMENT.toml", help="settings, one a line")
    add("--measure", type=float, default=10.0, metavar="S", help="to try rounds, in seconds; 0 tries none [10]")
    add("--memory-limit", metavar="SIZE", help="that a client's arrays may take, like 40MB [none]")
    add("--upload-limit", metavar="SIZE", help="that a client may send a round, like 1kB [none]")
    add("--no-backward", action="store_true", help="clients can't differentiate")
    samples = "samples of a mini-batch by backpropagation; 0 is as many as a probe sees [0]"
    add("--backward-batch", type=int, default=0, metavar="N", help=samples)
    add("--json", action="store_true", help="print it for programs, to the byte")
    add_settings(parser)


def _add_serve(commands: Any) -> None:
    text = "serve a run to clients that join over the network"
    parser = commands.add_parser(
        "serve",
        allow_abbrev=False,
        help=text,
        description=f"{text[0].upper()}{text[1:]}. Stopped or killed at any moment, the same command goes on with the "
        "run. Every setting is a line of TOML and a flag; a flag overrules the file.",
    )
    parser.set_defaults(command=serve.serve)
    add = parser.add_argument
    add("experiment", type=Path, nargs="?", metavar="EXPERIMENT.toml", help="settings, one a line")
    add("--listen", nargs="+", default=["127.0.0.1:7447"], metavar="HOST:PORT", help="addresses [127.0.0.1:7447]")
    add("--keys", type=Path, metavar="DIR", help="folder that `baffle keys server` made")
    add_passphrase(add)
    add("--insecure", action="store_true", help="no keys and no encryption: for tests, on loopback only")
    add("--wait", type=int, default=0, metavar="N", help="clients that must be there to begin a new run [all]")
    add("--deadline", type=float, default=60.0, metavar="S", help="that a cohort has to answer, in seconds [60]")
    add("--admit", metavar="NUMBERS", help="clients that may join, such as 0-4,7 [all with a certificate]")
    replay = "missed rounds beyond which a client gets a snapshot, in bytes [the size of a snapshot]"
    add("--replay", type=int, default=-1, metavar="BYTES", help=replay)
    most = "that a client counts for at most, however many it says it has [2^31]"
    add("--most-samples", type=int, default=1 << 31, metavar="N", help=most)
    add("--linger", type=float, default=30.0, metavar="S", help="to tell clients that the run is over, in seconds [30]")
    add("--no-report", action="store_true", help="do not make report.html at the end")
    reproducible = "secrets follow from the seed, as in a simulation: for tests and research, not private"
    add("--reproducible", action="store_true", help=reproducible)
    add_settings(parser)


def _add_join(commands: Any) -> None:
    text = "take part in a run that a server gives"
    parser = commands.add_parser(
        "join",
        allow_abbrev=False,
        help=text,
        description=f"{text[0].upper()}{text[1:]}, until it is over. Killed at any moment, or away for any time, the "
        "same command catches up and goes on.",
    )
    parser.set_defaults(command=join.join)
    add = parser.add_argument
    add("server", metavar="HOST:PORT", help="where it listens")
    add("--keys", type=Path, metavar="DIR", help="folder that `baffle keys client` made")
    add_passphrase(add)
    add("--insecure", action="store_true", help="no keys and no encryption: for tests, on loopback only")
    add("--number", type=int, metavar="N", help="the client's number with --insecure; else the certificate has it")
    add("--data", type=Path, metavar="FILE", help="the client's samples, .npz or .csv [its share of the experiment's]")
    add("--state", type=Path, metavar="DIR", help="where it keeps its state [baffle-client-NUMBER]")
    add("--save-every", type=float, default=60.0, metavar="S", help="least time between two saved states [60]")
    add("--secure-only", action="store_true", help="leave, rather than send a report that the server can read")
    add("--least-sum", type=int, default=2, metavar="N", help="fewest reports in a secure sum of this client's [2]")
    most = "leave, rather than take part in a run that does not keep this client's data within this epsilon [any run]"
    add("--max-epsilon", type=float, metavar="E", help=most)
    add("--max-delta", type=float, default=1e-5, metavar="D", help="that goes with it [1e-5]")
    reproducible = "batches and rounding follow from the experiment's seed: for tests and research"
    add("--reproducible", action="store_true", help=reproducible)
    add_settings(parser, join.OWN)


def _add_status(commands: Any) -> None:
    parser = _add_folder(commands, "status", status.status, "show where a served run is and how each client does")
    parser.add_argument("--json", action="store_true", help="print what the server wrote, and its age in seconds")


def _add_export(commands: Any) -> None:
    text = "write a model for clients that only run inference"
    parser = commands.add_parser(
        "export",
        allow_abbrev=False,
        help=text,
        description=f"{text[0].upper()}{text[1:]}: a folder of ONNX graphs whose chosen tensors are inputs, cut where "
        "each block begins. Train it with: baffle train --model DIR.",
    )
    parser.set_defaults(command=export.export)
    add = parser.add_argument
    add("source", type=Path, metavar="SOURCE", help="an ONNX file, a run's folder, or an EXPERIMENT.toml")
    add("--out", type=Path, metavar="DIR", help="the folder for clients")
    add("--plain", type=Path, metavar="FILE.onnx", help="one ONNX file with the weights in it, for any other use")
    patterns: dict[str, Any] = {"nargs": "+", "metavar": "PATTERN", "default": []}
    add("--train", help="float32 tensors that are trained; by default a PyTorch model's parameters", **patterns)
    add("--grid", help="int8 tensors that are trained in steps of their grid", **patterns)
    add("--int8", action="store_true", help="make int8 what is not trained, and what --grid names")
    add("--lora", type=int, default=0, metavar="RANK", help="train adapters of this rank beside linear layers [none]")
    add("--lora-on", nargs="+", metavar="PATTERN", default=["*"], help="those layers [all]")
    add("--lora-b-only", action="store_true", help="draw each adapter's A from --seed and train its B alone")
    add("--seed", type=int, default=0, metavar="SEED", help="of --lora-b-only [0]")
    add("--pruned", action="store_true", help="keep weights that are zero at zero, untrained")
    add("--blocks", default="layers", metavar="RULE", help="where to cut, as the setting of that name [layers]")
    add("--output", metavar="NAME", help="what the loss is made from [the first]")
    add("--free", type=int, default=32, metavar="SIZE", help="entries of free axes in samples made up for checks [32]")


def _add_train(commands: Any) -> None:
    text = "train a model over simulated clients"
    parser = commands.add_parser(
        "train",
        allow_abbrev=False,
        help=text,
        description=f"{text[0].upper()}{text[1:]}. Without arguments: scikit-learn's digits, an mlp, 10 clients. "
        "Every setting is a line of TOML and a flag; a flag overrules the file.",
    )
    parser.set_defaults(command=train.train)
    parser.add_argument("experiment", type=Path, nargs="?", metavar="EXPERIMENT.toml", help="settings, one a line")
    parser.add_argument(
        "--resume", type=Path, metavar="DIR", help="go on with the run in this folder; only --rounds may change"
    )
    parser.add_argument("--no-report", action="store_true", help="do not make report.html at the end")
    add_settings(parser)


def _add_compare(commands: Any) -> None:
    text = "run several experiments with several seeds, and make one page of how they compare"
    parser = commands.add_parser(
        "compare",
        allow_abbrev=False,
        help=text,
        description=f"{text[0].upper()}{text[1:]}: tables with mean and spread, curves, JSON and CSV. Stopped or "
        "killed, the same command with the same --out goes on. Every setting is a flag that overrules all experiments.",
    )
    parser.set_defaults(command=compare.compare)
    add = parser.add_argument
    told = "EXPERIMENT.toml, or the folder of a finished run; runs that differ by their seed alone are one experiment"
    add("experiments", type=Path, nargs="+", metavar="EXPERIMENT", help=told)
    add("--seeds", default="3", metavar="N", help='how many seeds, from 0, or which: "0,1,2"; "7," is seed 7 alone [3]')
    reached = "accuracies at which costs are compared, such as 0.8,0.9 [the highest round figure that all runs reach]"
    add("--target", action="append", default=[], metavar="ACCURACY", help=reached)
    add("--out", dest="folder", type=Path, metavar="DIR", help="where runs and page go [a new folder in runs/]")
    add("--jobs", type=int, default=1, metavar="N", help="runs at once; above 1, seconds are not comparable [1]")
    add("--list", action="store_true", help="only say which runs there are to do")
    add_settings(parser, compare.FIELDS)
