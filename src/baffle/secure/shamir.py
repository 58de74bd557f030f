"""Shares of a secret (Shamir 1979) modulo a prime below 2¹²⁸: any t of n tell it, fewer tell nothing.

    p = 2¹²⁸ − 159      f(x) = s + a_1 x + ... + a_{t−1} x^{t−1} mod p,   a_k random      the share of index x is f(x)

Python's integers are not constant-time: who measures a member's processor may learn of the secrets that it handles.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from math import prod
from operator import mul

from baffle import checks
from baffle.errors import SettingsError

SECRET = 16
"""Bytes of a secret, and of a share."""
PRIME = (1 << 128) - 159
"""p, the largest prime below 2¹²⁸: a random 16 bytes are a secret but for one time in 10³⁶."""

Random = Callable[[int], bytes]
"""So many bytes that nobody can predict: `secrets.token_bytes`."""


def draw(random: Random) -> bytes:
    """Return a secret, 16 bytes: uniform among the numbers below p."""
    while int.from_bytes(secret := random(SECRET), "big") >= PRIME:
        pass
    return secret


def split(threshold: int, count: int, secret: bytes, random: Random) -> list[bytes]:
    """Return `count` shares of a `secret` of 16 bytes, of which any `threshold` tell it; the i-th has index i + 1.

    Costs t · n modular products.

    Raises:
        SettingsError: a secret of another length or not below p, or not 1 ≤ threshold ≤ count.
    """
    value = int.from_bytes(secret, "big")
    if len(secret) != SECRET or value >= PRIME:
        raise SettingsError("secret", f"{len(secret)} bytes", f"must be {SECRET} bytes, a number below 2**128 - 159")
    checks.within("threshold", threshold, 1, count)
    coefficients = [int.from_bytes(draw(random), "big") for _ in range(threshold - 1)]
    return [_at(x, coefficients, value).to_bytes(SECRET, "big") for x in range(1, count + 1)]


def _at(x: int, coefficients: Sequence[int], constant: int) -> int:
    """Return the polynomial's value at x by Horner's rule; coefficients from the highest power down, to that of x."""
    value = 0
    for one in coefficients:
        value = (value * x + one) % PRIME
    return (value * x + constant) % PRIME


@dataclass(frozen=True, slots=True)
class Combiner:
    """Tells many secrets from shares of the same t indices.

    s = Σ_j λ_j f(x_j) mod p,   λ_j = Π_{m≠j} x_m / (x_m − x_j)
    """

    weights: tuple[int, ...]
    """λ_j, in the order of the indices."""

    @classmethod
    def of(cls, indices: Iterable[int]) -> Combiner:
        """Return what combines shares of these indices, all different and 1 or more, below p."""
        indices = tuple(indices)
        if len(set(indices)) != len(indices) or not 1 <= min(indices, default=0) <= max(indices) < PRIME:
            raise SettingsError("indices", indices, "must be one or more, all different and 1 or more")
        whole = prod(indices) % PRIME
        # λ_j = Π_m x_m / (x_j Π_{m≠j} (x_m − x_j))
        divisors = [one * prod(other - one for other in indices if other != one) % PRIME for one in indices]
        return cls(tuple(whole * inverse % PRIME for inverse in _inverses(divisors)))

    def __call__(self, shares: Sequence[bytes]) -> bytes:
        """Return what these `shares`, 16 bytes each in the order of the indices, tell: a number below p, 16 bytes."""
        if len(shares) != len(self.weights) or any(len(share) != SECRET for share in shares):
            raise SettingsError("shares", len(shares), f"must be {len(self.weights)} of {SECRET} bytes")
        values = [int.from_bytes(share, "big") for share in shares]
        return (sum(map(mul, self.weights, values)) % PRIME).to_bytes(SECRET, "big")


def _inverses(values: Sequence[int]) -> list[int]:
    """Return 1/v mod p of each value, with one inversion (Montgomery 1987, section 10.3.1)."""
    before = [1]
    for value in values:
        before.append(before[-1] * value % PRIME)
    inverse, found = pow(before[-1], -1, PRIME), [0] * len(values)
    for at in reversed(range(len(values))):
        found[at] = inverse * before[at] % PRIME
        inverse = inverse * values[at] % PRIME
    return found


__all__ = ["PRIME", "SECRET", "Combiner", "Random", "draw", "split"]
