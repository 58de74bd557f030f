"""What secure aggregation costs a client and the server in a round: milliseconds and bytes.

    python benchmarks/secure.py [--quick]

One process on one core, 8-bit slopes that weigh the same, t = ⌈2n/3⌉, one client in ten gone after it was asked. The
least processor time of several counts, without the way of messages. Set-up is once for an epoch: certificates checked,
keys agreed. Writes benchmarks/results/secure.json, but nothing with --quick.
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

import machine
import numpy as np

from baffle import certificates
from baffle.certificates import Signer
from baffle.certificates.signatures import signs
from baffle.messages import encode
from baffle.secure import Aggregation, Candidate, Member, Ring, Roster, Slot, Terms, consistent, usual_threshold

CLIENTS = (10, 50, 200)
SLOPES = (100, 1_000)
SLOT = Slot(0, 0)
SUBJECT = bytes(32)
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
    pairs = [certificates.signing(ca, one.number, 30, NOW) for one in candidates]
    signers = [Signer.read(pair.key) for pair in pairs]
    enrolments = [
        one.enrolment(signer, pair.certificate) for one, signer, pair in zip(candidates, signers, pairs, strict=True)
    ]

    def set_up(place: int) -> Member:
        return Member.of(candidates[place], Roster.of(terms, enrolments, ca.certificate, NOW))

    setting, first = least(1, lambda: set_up(0))
    roster = first.roster
    members = [first, *(Member.of(one, roster) for one in candidates[1:])]
    pledging, (first, pledge) = least(turns, lambda: members[0].pledge(SLOT, token_bytes))
    made = [(first, pledge), *(member.pledge(SLOT, token_bytes) for member in members[1:])]
    agreeing, (cohort, _) = least(turns, lambda: consistent(roster, {one.number: one for _, one in made}))
    assert len(cohort) == clients
    once = {"set-up": setting, "pledge": pledging, "consistent": agreeing}
    sizes = {
        "enrolment": len(encode(enrolments[0])),
        "roster": sum(len(encode(one)) for one in enrolments),
        "pledge": len(encode(pledge)),
        "state": len(first.stored()),
    }
    return [
        row(clients, slopes, turns, [m for m, _ in made], [p for _, p in made], signers, once, sizes)
        for slopes in SLOPES
    ]


def row(
    clients: int,
    slopes: int,
    turns: int,
    members: list[Member],
    pledges: list[Any],
    signers: list[Signer],
    once: dict[str, float],
    sizes: dict[str, int],
) -> dict[str, Any]:
    ring = Ring(clients, 1, 127)
    values = np.random.default_rng(0).integers(-127, 128, (clients, slopes))
    server = Aggregation.of(members[0].roster, SLOT, ring, slopes + 1, SUBJECT, tuple(pledges))
    cohort = server.cohort
    masking, _ = least(20 * turns, lambda: members[0].mask(SLOT, cohort, ring, values[0], 1, SUBJECT))
    gone = {number for number in cohort if number % 10 == 9}
    states = [
        member.mask(SLOT, cohort, ring, own, 1, SUBJECT)
        for member, own in zip(members, values, strict=True)
        if member.number not in gone
    ]
    reporting, server = whole([masked for _, masked in states], lambda state, masked: state.report(masked), server)
    server = server.close()
    signing, (first, consent) = least(turns, lambda: states[0][0].confirm(server.closing(), signers[0]))
    asked = [first, *(member for member, _ in states[1 : server.roster.terms.threshold])]
    consents = [consent, *(one.confirm(server.closing(), signers[one.number])[1] for one in asked[1:])]
    confirming, server = whole(consents, lambda state, consent: state.consent(consent), server)
    requesting, requests = least(turns, lambda: [server.request(one.number) for one in asked])
    encoding, _ = least(turns, lambda: [encode(request) for request in requests])
    unmasking, (_, answer) = least(turns, lambda: afresh(lambda: first.unmask(requests[0])))
    answers = [answer, *(one.unmask(request)[1] for one, request in zip(asked[1:], requests[1:], strict=True))]
    checking, server = whole(answers, lambda state, answer: state.answer(answer), server)
    finishing, sums = least(turns, server.sums)
    kept = [number for number in cohort if number not in gone]
    assert (sums.slopes == values[kept].sum(0)).all()
    times = once | {
        "mask": masking,
        "sign": signing,
        "unmask": unmasking,
        "server: reports": reporting,
        "server: signatures": confirming,
        "server: requests": requesting,
        "server: requests, encoded": encoding,
        "server: answers": checking,
        "server: sums": finishing,
        "server: round": sum((once["consistent"], reporting, confirming, requesting, encoding, checking, finishing)),
    }
    lengths = sizes | {
        "plain": len(ring.pack(values[0].astype(ring.word))),
        "masked": len(encode(states[0][1])),
        "closing": len(encode(server.closing())),
        "signature": len(encode(consents[0])),
        "request": len(encode(requests[0])),
        "answer": len(encode(answer)),
    }
    lengths["up"] = lengths["pledge"] + lengths["masked"] + lengths["signature"] + lengths["answer"]
    lengths["down"] = lengths["closing"] + lengths["request"]
    found = {"clients": clients, "slopes": slopes, "bits": ring.bits, "threshold": len(asked)}
    print(f"\n{clients} clients, {slopes} slopes of {ring.bits} bits, t = {len(asked)}")
    for unit, table in (("ms", times), ("bytes", lengths)):
        for name, value in table.items():
            print(f"  {name:<24}{value:>12,.2f} {unit}" if unit == "ms" else f"  {name:<24}{value:>12,} {unit}")
    return found | {"ms": {name: round(value, 3) for name, value in times.items()}, "bytes": lengths}


def afresh(what: Callable[[], Made]) -> Made:
    """Return what is made where no signature was ever looked at, as on a client's machine."""
    signs.cache_clear()
    return what()


def whole(messages: list[Any], take: Callable[[Any, Any], Any], state: Any) -> tuple[float, Any]:
    """Return the milliseconds that a server takes for all of these messages, and its state afterwards."""
    signs.cache_clear()
    began = time.process_time()
    for message in messages:
        state = take(state, message)
    return 1e3 * (time.process_time() - began), state


def least(turns: int, what: Callable[[], Made]) -> tuple[float, Made]:
    """Return the least milliseconds of some turns, and what the last made."""
    times: list[float] = []
    for _ in range(turns):
        began = time.process_time()
        made = what()
        times.append(time.process_time() - began)
    return 1e3 * min(times), made


if __name__ == "__main__":
    main()
