"""What rounds cost in differential privacy: randomised quantisation beside shares of Gaussian noise.

    python benchmarks/privacy.py

K = 100 slopes a round, every client in every round, neighbours: one client's data replaced, δ = 1e-5. Both mechanisms
send sums of the same width, and the Gaussian gets the mean slope with no more mean square error than randomised
quantisation does at slopes of 0: its scale is the largest at which sums wrap with a probability of 1e-6 a round or
less, its noise what rounding, at most a quarter of a squared quantum, leaves of that error.

- "alone": randomised quantisation against who sees each client's answer. Does not depend on how many clients there are.
- "sum": against who sees the sum only; holds whatever the other clients' slopes are.
- "sum, others at an end": the same, computed exactly, if all other clients' slopes are at one end of their bound. What
  other slopes hide was larger in every small case that was searched; it is not proved to be so, hence no guarantee.
- "Gaussian, each": shares of discrete Gaussian noise where each slope is bounded by c, so that the norm is up to c√K.
- "Gaussian, norm": the same where the norm is bounded by c√K/4, which normal slopes of deviation c/4 have.
- "wide": the two before it with sums of 20 bits; the difference is what a narrower ring costs.

Nothing here is trained, and nothing is timed: figures are the same on every machine up to rounding. Writes
benchmarks/results/privacy.json.
"""

from __future__ import annotations

import json
import math
from fractions import Fraction
from pathlib import Path

import numpy as np

from baffle.accounting import Curve, epsilon
from baffle.mechanisms.discrete_gaussian import DiscreteGaussian, moved
from baffle.mechanisms.rqm import RandomisedQuantiser

SLOPES, DELTA, WRAPPING = 100, 1e-5, 1e-6
WIDE = 20
"""Bits of a sum in which rounding is of no account."""
ROUNDS, CLIENTS = (100, 1000), (10, 50, 200)
QUANTISERS = (
    RandomisedQuantiser(16, 0.42, 1.0),
    RandomisedQuantiser(16, 0.1, 10.0),
    RandomisedQuantiser(16, 0.1, 100.0),
)


def variance(quantiser: RandomisedQuantiser) -> float:
    """Mean square error of one slope of 0, in c²."""
    decoded = quantiser.slopes(np.arange(quantiser.levels), np.ones(()))
    return float(quantiser.probabilities(np.zeros(())) @ decoded**2)


def gaussian(error: float, clients: int, bits: int) -> tuple[DiscreteGaussian, float]:
    """Share and quanta a bound c of the Gaussian with a mean square error in c² and sums in so many bits."""
    best = None
    for step in range(-80, 8 * bits):
        quanta = 2 ** (step / 8)
        left = error * quanta**2 - 0.25  # rounding adds a quarter at most
        if left < 0.25:
            continue
        noise = DiscreteGaussian(Fraction(left).limit_denominator(1000))
        if noise.wrapping(math.ceil(quanta), SLOPES, clients, bits) > WRAPPING:
            break
        best = noise, quanta
    if best is None:
        raise SystemExit(f"no Gaussian of mean square error {error} fits {bits} bits with {clients} clients")
    return best


def costs(curve: Curve) -> list[float]:
    return [float(f"{epsilon(curve, rounds, DELTA):.4g}") for rounds in ROUNDS]


def of_shares(noise: DiscreteGaussian, norm: float, clients: int) -> Curve:
    distance = moved(norm, SLOPES)
    return Curve(lambda orders: np.array([noise.divergence(order, distance, SLOPES, clients) for order in orders]))


def at_an_end(quantiser: RandomisedQuantiser, clients: int) -> Curve:
    others = [[end] * (clients - 1) for end in (-1.0, 1.0)]
    return Curve(
        lambda orders: SLOPES * np.max([quantiser.divergences(orders, others=some) for some in others], axis=0)
    )


def compare(quantiser: RandomisedQuantiser, clients: int) -> dict[str, object]:
    bits = (clients * (quantiser.levels - 1)).bit_length()
    error = variance(quantiser)
    noise, quanta = gaussian(error, clients, bits)
    fine, many = gaussian(error, clients, WIDE)
    root = math.sqrt(SLOPES)
    return {
        "levels": quantiser.levels,
        "keep": quantiser.keep,
        "extension": quantiser.extension,
        "clients": clients,
        "bits of a sum": bits,
        "error of a mean slope / c": float(f"{math.sqrt(error / clients):.4g}"),
        "quanta of a bound": float(f"{quanta:.4g}"),
        "deviation of a share": float(f"{math.sqrt(noise.variance):.4g}"),
        "epsilon": {
            "alone": costs(Curve(lambda orders: SLOPES * quantiser.local(orders))),
            "sum": costs(Curve(lambda orders: SLOPES * quantiser.summed(orders, clients))),
            "sum, others at an end": costs(at_an_end(quantiser, clients)),
            "Gaussian, each": costs(of_shares(noise, quanta * root, clients)),
            "Gaussian, norm": costs(of_shares(noise, quanta * root / 4, clients)),
            "Gaussian, each, wide": costs(of_shares(fine, many * root, clients)),
            "Gaussian, norm, wide": costs(of_shares(fine, many * root / 4, clients)),
        },
    }


def main() -> None:
    rows = [compare(quantiser, clients) for quantiser in QUANTISERS for clients in CLIENTS]
    for row in rows:
        print(", ".join(f"{name} {value}" for name, value in row.items() if name != "epsilon"))
        for name, values in row["epsilon"].items():
            told = "   ".join(f"{at:5} rounds: ε = {value:10.4g}" for at, value in zip(ROUNDS, values, strict=True))
            print(f"    {name:22} {told}")
    settings = {"slopes": SLOPES, "delta": DELTA, "rounds": ROUNDS, "neighbours": "one client's data replaced"}
    path = Path(__file__).parent / "results" / "privacy.json"
    path.write_text(json.dumps({"settings": settings, "rows": rows}, indent=1, ensure_ascii=False) + "\n")


if __name__ == "__main__":
    main()
