"""Who sees what of a client's data, as a run's settings have it (docs/privacy.md)."""

from __future__ import annotations

from dataclasses import dataclass

NOTHING = "nothing"


@dataclass(frozen=True, slots=True)
class View:
    """What somebody sees, and what that tells of one client's data at most."""

    who: str
    sees: str
    bounded: str
    """By what; "nothing" where it isn't."""


def views(secure: str, mechanism: str, epsilon: float, delta: float, sum_size: int = 0) -> tuple[View, ...]:
    """Return what everybody sees of a run over a network with keys.

    Args:
        secure: "none", "masks" or "ideal".
        mechanism: "none", "gaussian", "shares" or "rqm".
        epsilon: ε, 0 without a mechanism.
        delta: δ.
        sum_size: fewest clients of a group that is summed by itself; 0 sums a whole cohort in one.
    """
    promise = f"ε = {epsilon:g}, δ = {delta:g}" if mechanism != "none" else NOTHING
    sums = {"none": "sums", "gaussian": "noised sums"}.get(mechanism, "sums with noise in them")
    server = _of_server(secure, mechanism, sum_size)
    hidden = mechanism == "shares" or mechanism == "rqm"
    return (
        View("an eavesdropper", "sizes and times of encrypted messages", "TLS"),
        View("another client", f"each round's {sums}, and the model", promise),
        View("whoever gets the ledger", f"each round's {sums}, who took part, and the model", promise),
        View("a server that follows the protocol", server, promise if hidden else NOTHING),
        View("a server that lies", _of_liar(secure), NOTHING),
        View("a server with some clients", _of_coalition(secure, mechanism, sum_size), promise if hidden else NOTHING),
    )


def _of_server(secure: str, mechanism: str, size: int) -> str:
    what = {"none": "", "gaussian": " before its noise", "shares": " with noise in them", "rqm": " with noise in them"}
    if secure == "none":
        return "each client's report" + what[mechanism]
    sums = f"each round's sums over groups of {size} clients or more" if size else "each round's sums"
    return sums + what[mechanism]


def _of_liar(secure: str) -> str:
    if secure == "none":
        return "each client's report, on a model and with a noise of its choice"
    return "sums of many honest clients, all asked the same, on a model of its choice"


def _of_coalition(secure: str, mechanism: str, size: int) -> str:
    if secure == "none":
        return "each client's report"
    noise = ", and the noise of as many as `colluding` says" if mechanism == "shares" else ""
    whose = f"two thirds of a group of {size} clients" if size else "the threshold"
    return f"below {whose}, sums over the others; from it on, each client's report{noise}"


UNPROTECTED = (
    "the sums and the model themselves; who took part, and when; what is true of many clients alike; a round that a "
    "client spoils with false slopes (rules that find those need single reports)"
)
"""What no setting hides or prevents."""
