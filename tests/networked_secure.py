"""What tests of secure sums over a network share: keys, clients that are not as they should be, and checks of sums."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from functools import cache
from typing import Any

import numpy as np

from baffle import certificates, server
from baffle.certificates import Pair, Signer
from baffle.client import contributions
from baffle.engines.network.masker import Masker
from baffle.engines.network.roster import Roster
from baffle.messages import Round
from baffle.server import Summed
from federation import KERNELS, rounds_in
from networked import Net, net

NOW = datetime.now(UTC)


@cache
def authority() -> Pair:
    return certificates.authority("Ours", 30, NOW)


@cache
def signing(number: int) -> Pair:
    return certificates.signing(authority(), number, 20, NOW)


def keyed(number: int, kind: type[Masker] = Masker, **changes: Any) -> dict[str, Any]:
    """Return what a member with keys is made with."""
    pair = signing(number)
    signer = Signer.read(pair.key)
    masker = kind(
        number=number, signer=signer, certificate=pair.certificate, authority=authority().certificate, **changes
    )
    return {"certificate": pair.certificate, "sign": signer.sign, "masker": masker}


def odd(**acts: Callable[..., Any]) -> type[Masker]:
    """Return a client's part that is not as it should be."""
    return type("Odd", (Masker,), acts)


def roster(clients: int) -> Roster:
    return Roster(clients, authority().certificate)


def secured(made, folder, **changes):
    return net(made, folder, start=False, roster=roster(len(made.shares)), **changes)


def started(found: Net, *numbers: int) -> None:
    for number in numbers or range(len(found.made.shares)):
        found.start(number, **keyed(number))


def records(folder) -> list[Round]:
    return rounds_in(folder)


def ended(found: Net, digest: str, *numbers: int) -> None:
    """Check that clients have heard the end, and have the server's model."""
    for number in numbers or found.machines:
        machine = found.machines[number]
        machine.join()
        assert machine.error is None
        assert machine.digest == digest


def check(made, folder, tried: Round) -> None:
    """Check that a record's sum is that of the clients it names, at θ as the records before it have made it."""
    state = made.header().start({})
    for record in records(folder):
        if record.plan == tried.plan:
            break
        if record.aggregate is not None:
            state = server.apply(made.algorithm, state, record.plan, record.aggregate, KERNELS)
    clients = [made.clients()[number] for number in tried.answered]
    parts = contributions(tried.plan, state.parameters, clients, made.runtime, KERNELS)
    total = sum((one.samples * one.integers for one in parts), np.zeros(tried.plan.words, np.int64))
    summed = Summed(total, sum(one.samples for one in parts), dict.fromkeys(tried.answered, 1))
    outcome = server.advance(made.algorithm, state, tried.plan, summed, KERNELS)
    assert outcome.record.aggregate == tried.aggregate
    assert outcome.record.digest == tried.digest
