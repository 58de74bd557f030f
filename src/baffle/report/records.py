"""What a run folder's JSON holds, as typed records. A number that is absent or null is NaN: not known."""

from __future__ import annotations

from dataclasses import dataclass

UNKNOWN = float("nan")


@dataclass(frozen=True, slots=True)
class Point:
    """One line of `metrics.jsonl`: where the run stood after `round` rounds.

    The costs are cumulative means for one client.
    """

    round: int | float
    """Whole, but where it was interpolated."""
    accuracy: float = UNKNOWN
    """Of the averaged weights, 0 to 1."""
    accuracy_last: float = UNKNOWN
    """Of the plain weights, 0 to 1."""
    loss: float = UNKNOWN
    forward_equivalents: float = UNKNOWN
    upload_bytes: float = UNKNOWN
    download_bytes: float = UNKNOWN
    seconds: float = UNKNOWN


@dataclass(frozen=True, slots=True)
class Client:
    """What one client did over the whole run; counts are rounds."""

    client: int
    samples: int = 0
    sampled: int = 0
    answered: int = 0
    left_out: int = 0
    upload_bytes: float = UNKNOWN
    download_bytes: float = UNKNOWN


@dataclass(frozen=True, slots=True)
class Summary:
    """A run's outcome: `summary.json`, or the last point of a run that has none yet."""

    rounds: int
    accuracy: float = UNKNOWN
    loss: float = UNKNOWN
    forward_equivalents: float = UNKNOWN
    upload_bytes: float = UNKNOWN
    download_bytes: float = UNKNOWN
    seconds: float = UNKNOWN
    peak_memory_bytes: float = UNKNOWN
    parameters: float = UNKNOWN
    """How many weights the model trains."""
    digest: str = ""
    """Of the final plain weights, hexadecimal."""
    ledger_digest: str = ""
    clients: tuple[Client, ...] = ()


def standing(point: Point) -> Summary:
    """Return what is known of a run whose last line is `point`."""
    return Summary(
        rounds=int(point.round),
        accuracy=point.accuracy,
        loss=point.loss,
        forward_equivalents=point.forward_equivalents,
        upload_bytes=point.upload_bytes,
        download_bytes=point.download_bytes,
        seconds=point.seconds,
    )
