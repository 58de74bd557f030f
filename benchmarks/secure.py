"""What secure aggregation costs a client and the server in a round: milliseconds and bytes.

    python benchmarks/secure.py [--quick]

One process on one core, 8-bit slopes that weigh the same, t = ⌈2n/3⌉, one client in ten gone after it was asked. The
least time of several counts. A client's pledge is made whole; those of the others have polynomials of degree 0, which
are dealt at once and cost the server and the holders what any others do. Set-up is once for an epoch: certificates
checked, keys agreed. Writes benchmarks/results/secure.json, but nothing with --quick.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from secrets import token_bytes
from typing import Any, TypeVar
from unittest.mock import patch

import machine
import numpy as np

from baffle import certificates
from baffle.certificates import Signer
from baffle.messages import encode
from baffle.secure import Aggregation, Candidate, Member, Ring, Roster, Slot, Terms, consistent, usual_threshold

CLIENTS = (10, 50, 200)
SLOPES = (100, 1_000)
SLOT = Slot(0, 0)
GOAL = 1.0
"""Most milliseconds of masking, among 50 and for 1,000 slopes."""
NOW = datetime(2030, 6, 15, tzinfo=UTC)

Made = TypeVar("Made")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--quick", action="store_true", help="10 and 50 clients, a turn of each, nothing written")
    quick = parser.parse_args().quick
    machine.pin(machine.cores()[0])
    print(machine.told())
    rows: list[dict[str, Any]] = []
    for clients in CLIENTS[:2] if quick else CLIENTS:
        rows += measured(clients, 1 if quick else 5)
    if not quick:
        path = Path(__file__).parent / "results" / "secure.json"
        path.write_text(json.dumps({"machine": machine.describe(), "rows": rows}, indent=1) + "\n")
    (found,) = (row["ms"]["mask"] for row in rows if (row["clients"], row["slopes"]) == (50, 1_000))
    print(f"masking 1,000 slopes among 50: {found:.2f} ms, goal {GOAL} ms: {'met' if found <= GOAL else 'missed'}")


def measured(clients: int, turns: int) -> list[dict[str, Any]]:
    """Measure, print and return the rows of one federation."""
    ca = certificates.authority("Benchmark", 365, NOW)
    terms = Terms(bytes(8), 0, 0, usual_threshold(clients), 2)
    candidates = [Candidate.draw(number, terms, token_bytes) for number in range(clients)]
    enrolments = [
        one.enrolment(Signer.read(pair.key), pair.certificate)
        for one in candidates
        for pair in [certificates.signing(ca, one.number, 30, NOW)]
    ]

    def set_up(place: int) -> Member:
        return Member.of(candidates[place], Roster.of(terms, enrolments, ca.certificate, NOW))

    setting, first = least(1, lambda: set_up(0))
    roster = first.roster
    members = [first, *(Member.of(one, roster) for one in candidates[1:])]
    pledging, (first, pledge) = least(1 if clients > 100 else turns, lambda: members[0].pledge(SLOT, token_bytes))
    with patch("baffle.secure.pledge.split", lambda _, count, secret: [secret] * count):
        made = [(first, pledge), *(member.pledge(SLOT, token_bytes) for member in members[1:])]
        dealing, _ = least(turns, lambda: members[0].pledge(SLOT, token_bytes))
    agreeing, (cohort, _) = least(turns, lambda: consistent(roster, {one.number: one for _, one in made}))
    assert len(cohort) == clients
    once = {"set-up": setting, "pledge": pledging, "pledge without Shamir": dealing, "consistent": agreeing}
    sizes = {
        "enrolment": len(encode(enrolments[0])),
        "roster": sum(len(encode(one)) for one in enrolments),
        "pledge": len(encode(pledge)),
        "state": len(first.stored()),
    }
    return [row(clients, slopes, turns, [m for m, _ in made], [p for _, p in made], once, sizes) for slopes in SLOPES]


def row(
    clients: int,
    slopes: int,
    turns: int,
    members: list[Member],
    pledges: list[Any],
    once: dict[str, float],
    sizes: dict[str, int],
) -> dict[str, Any]:
    ring = Ring(clients, 1, 127)
    values = np.random.default_rng(0).integers(-127, 128, (clients, slopes))
    server = Aggregation.of(members[0].roster, SLOT, ring, slopes + 1, tuple(pledges))
    cohort = server.cohort
    masking, _ = least(20 * turns, lambda: members[0].mask(SLOT, cohort, ring, values[0], 1))
    gone = {number for number in cohort if number % 10 == 9}
    states = [
        member.mask(SLOT, cohort, ring, own, 1)
        for member, own in zip(members, values, strict=True)
        if member.number not in gone
    ]
    began = time.perf_counter()
    for _, masked in states:
        server = server.report(masked)
    reporting = 1e3 * (time.perf_counter() - began)
    server = server.close()
    asked = states[: server.roster.terms.threshold]
    requesting, request = least(turns, lambda: server.request(0))
    unmasking, (_, answer) = least(turns, lambda: states[0][0].unmask(request))
    checking, _ = least(turns, lambda: server.answer(answer))
    for member, _ in asked:
        server = server.answer(member.unmask(server.request(member.number))[1])
    finishing, sums = least(1, server.sums)
    kept = [number for number in cohort if number not in gone]
    assert (sums.slopes == values[kept].sum(0)).all()
    times = once | {
        "mask": masking,
        "unmask": unmasking,
        "server: reports": reporting,
        "server: a request": requesting,
        "server: an answer": checking,
        "server: sums": finishing,
        "server: round": reporting + len(asked) * (requesting + checking) + finishing,
    }
    lengths = sizes | {
        "plain": len(ring.pack(values[0].astype(ring.word))),
        "masked": len(encode(states[0][1])),
        "request": len(encode(request)),
        "answer": len(encode(answer)),
    }
    lengths["up"] = lengths["pledge"] + lengths["masked"] + lengths["answer"]
    found = {"clients": clients, "slopes": slopes, "bits": ring.bits, "threshold": len(asked)}
    print(f"\n{clients} clients, {slopes} slopes of {ring.bits} bits, t = {len(asked)}")
    for unit, table in (("ms", times), ("bytes", lengths)):
        for name, value in table.items():
            print(f"  {name:<24}{value:>12,.2f} {unit}" if unit == "ms" else f"  {name:<24}{value:>12,} {unit}")
    return found | {"ms": {name: round(value, 3) for name, value in times.items()}, "bytes": lengths}


def least(turns: int, what: Callable[[], Made]) -> tuple[float, Made]:
    """Return the least milliseconds of some turns, and what the last made."""
    times: list[float] = []
    for _ in range(turns):
        began = time.perf_counter()
        made = what()
        times.append(time.perf_counter() - began)
    return 1e3 * min(times), made


if __name__ == "__main__":
    main()
