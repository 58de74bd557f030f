"""`baffle serve`."""

from __future__ import annotations

import argparse
import logging
import os
import threading
import time
from collections.abc import Callable, Collection, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, cast

import msgspec

from baffle import certificates, checks
from baffle.cli.daemon import until_told_to_stop
from baffle.cli.key_warnings import warn_of_authority, warn_of_end
from baffle.cli.passphrases import Passphrase
from baffle.cli.settings import flags_of
from baffle.cli.show import Display, make_report, show_result
from baffle.data import Dataset
from baffle.engines.network.dialogue import Kind
from baffle.errors import SettingsError
from baffle.experiment import Experiment, read, read_toml
from baffle.progress import Result
from baffle.simulation import Simulation
from baffle.storage import FolderLock

_SILENT = 20.0
"""Seconds without any client after which the server says what a client needs."""

log = logging.getLogger("baffle")


def serve(options: argparse.Namespace) -> None:
    """Serve a run to clients that join over the network; a run that is there already goes on."""
    checks.positive("deadline", options.deadline)
    _numbers(options.admit)
    experiment = read(read_toml(options.experiment) if options.experiment else {}, flags_of(options))
    out = Path(experiment.out) if experiment.out else _folder(options.experiment)
    with until_told_to_stop(f"stopped; the same command goes on with {out}"), FolderLock(out):
        result = _served(options, experiment, out)
    show_result(result, out)
    if not options.no_report:
        make_report(out)


def _folder(experiment: Path | None) -> Path:
    return Path("runs") / f"served-{experiment.stem if experiment else 'digits'}"


def _served(options: argparse.Namespace, experiment: Experiment, out: Path) -> Result:
    from baffle.engines.network.addresses import refuse_unservable
    from baffle.engines.network.hub import Hub
    from baffle.engines.network.keyring import ServerKeys
    from baffle.engines.network.revoked import Revoked
    from baffle.engines.network.roster import Roster
    from baffle.engines.network.zenoh import MOST_CLIENTS, ZenohServer
    from baffle.serving import Service

    passphrase = Passphrase(options.passphrase_file)
    keys = None if options.insecure else ServerKeys.read(_keys(options.keys), datetime.now(UTC), passphrase)
    refuse_unservable(options.listen, keys)
    simulation = _assembled(experiment, options.reproducible)
    settings = experiment.told() | {"out": str(out)}
    admitted = _numbers(options.admit)
    about = {
        "expected": [n for n in range(len(simulation.shares)) if admitted is None or n in admitted],
        "rounds": experiment.rounds,
        "started": time.time(),
        "listen": options.listen,
        "pid": os.getpid(),
    }
    roster = Roster(
        len(simulation.shares),
        None if keys is None else keys.ca_pem,
        admitted,
        certificate=b"" if keys is None else keys.certificate_pem,
    )
    if keys is not None:
        warn_of_authority(keys)
        warn_of_end(keys)
        roster.revoked = Revoked.read(keys.revoked, keys.ca_pem)
    hub = Hub(
        roster=roster,
        settings=settings,
        kind=_kind(simulation),
        deadline=options.deadline,
        until=None if keys is None else certificates.about(keys.certificate_pem, datetime.now(UTC)).ends,
        told=_status(out, about, keys),
    )
    service = Service(
        simulation=simulation,
        hub=hub,
        out=out,
        reproducible=options.reproducible,
        least=options.wait,
        replay=options.replay,
        most_samples=options.most_samples,
        linger=options.linger,
        held=True,
    )
    with hub, ZenohServer(options.listen, keys, hub.receive, hub.gone, clients=min(roster.clients, MOST_CLIENTS)):
        log.info("listening at %s%s", ", ".join(options.listen), "" if keys else ", without keys: for tests only")
        _explain_silence(hub, options.listen, keys)
        with Display(experiment, simulation.runtime.layout.size, len(simulation.shares), out) as display:
            return service.run(experiment.rounds, settings=settings, progress=display.update)


def _keys(folder: Path | None) -> Path:
    if folder is None:
        raise SettingsError(
            "keys", None, "name with --keys a folder that `baffle keys server` made, or say --insecure for tests"
        )
    return folder


def _assembled(experiment: Experiment, reproducible: bool) -> Simulation:
    """Return the model and the held-out data; how the server would share its data out matters in simulation alone."""
    from baffle.assembly import simulation_of

    return simulation_of(experiment if reproducible else msgspec.structs.replace(experiment, partition="iid"))


def _kind(simulation: Simulation) -> Kind:
    data = cast("Dataset", simulation.shares[0].data)
    return Kind(data.shape, data.classes, data.class_names)


def _status(out: Path, about: Mapping[str, Any], keys: Any) -> Callable[[dict[str, Any]], None]:
    from baffle.status import write_status

    def told(status: dict[str, Any]) -> None:
        now = datetime.now(UTC)
        days = None if keys is None else certificates.about(keys.certificate_pem, now).days
        write_status(out, {**about, **status, "certificate_days": days})

    return told


def _explain_silence(hub: Any, listen: list[str], keys: Any) -> None:
    """Say once what a client needs to get here, if none has come by then."""
    from baffle.engines.network.diagnose import idle

    def tell() -> None:
        if not hub.roster.entries and not hub.roster.strangers:
            log.warning("no client has come in %.0f s. %s", _SILENT, idle(listen, keys, datetime.now(UTC)))

    timer = threading.Timer(_SILENT, tell)
    timer.daemon = True
    timer.start()


def _numbers(text: str | None) -> Collection[int] | None:
    """Return the numbers in a text like 0-4,7; None for none."""
    if text is None:
        return None
    found: set[int] = set()
    try:
        for part in text.split(","):
            first, _, last = part.partition("-")
            found |= set(range(int(first), int(last or first) + 1))
    except ValueError:
        found = set()
    if not found or min(found) < 0:
        raise SettingsError("admit", text, "must be numbers and ranges of them, such as 0-4,7")
    return frozenset(found)
