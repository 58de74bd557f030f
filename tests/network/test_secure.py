"""Secure sums between a server and clients that are threads: the sums of the local engine, whatever goes wrong."""

from __future__ import annotations

from datetime import UTC, datetime
from functools import cache
from typing import Any

import pytest

from federation import simulation
from networked import Net, net

pytest.importorskip("Crypto")

from baffle import certificates
from baffle.certificates import Pair, Signer
from baffle.engines.network.masker import Masker
from baffle.engines.network.roster import Roster
from baffle.messages import Round
from baffle.run import Reader, decode

NOW = datetime.now(UTC)


@cache
def authority() -> Pair:
    return certificates.authority("Ours", 30, NOW)


@cache
def signing(number: int) -> Pair:
    return certificates.signing(authority(), number, 20, NOW)


def keyed(number: int, **changes: Any) -> dict[str, Any]:
    """Return what a member with keys is made with."""
    pair = signing(number)
    signer = Signer.read(pair.key)
    masker = Masker(
        number=number, signer=signer, certificate=pair.certificate, authority=authority().certificate, **changes
    )
    return {"certificate": pair.certificate, "sign": signer.sign, "masker": masker}


def roster(clients: int) -> Roster:
    return Roster(clients, authority().certificate)


def secured(made, folder, **changes):
    return net(made, folder, start=False, roster=roster(len(made.shares)), **changes)


def started(found: Net, *numbers: int) -> None:
    for number in numbers or range(len(found.made.shares)):
        found.start(number, **keyed(number))


def records(folder) -> list[Round]:
    return [decode(data, Round) for data in list(Reader(folder / "ledger"))[1:]]


def test_the_ledger_is_the_local_engines(tmp_path):
    made = simulation(secure="masks")
    with secured(made, tmp_path) as found:
        started(found)
        result = found.serve(4)
        for machine in found.machines.values():
            machine.join()
            assert machine.digest == result.digest
    local = simulation(secure="masks").run(4, out=tmp_path / "local")
    assert result.ledger_digest == local.ledger_digest
    open_run = simulation().run(4)
    assert result.digest == open_run.digest
