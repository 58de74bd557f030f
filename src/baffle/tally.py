"""What a run has cost so far, counted from its ledger's records alone."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from baffle.messages import Round, encode


@dataclass(slots=True)
class Tally:
    """Sums over the records added so far; arrays are int64 [clients] where not said otherwise."""

    samples: NDArray[np.int64]
    """That each client holds; 0 where that is not known."""
    sampled: NDArray[np.int64]
    answered: NDArray[np.int64]
    forwards: NDArray[np.float64]
    """Forward equivalents of each client that answered: forward passes over single samples, float64."""
    upload: NDArray[np.int64]
    """Bytes of each client's reports."""
    download: NDArray[np.int64]
    """Bytes of the plans each client was sent, and of every aggregate, which all need to stay in step."""

    @classmethod
    def of(cls, samples: Sequence[int]) -> Tally:
        """Return an empty tally of clients that hold so many samples."""
        sampled, answered, upload, download = np.zeros((4, len(samples)), np.int64)
        return cls(np.array(samples, np.int64), sampled, answered, np.zeros(len(samples)), upload, download)

    def add(self, record: Round) -> None:
        """Count one record."""
        cohort, answered = list(record.plan.cohort), list(record.answered)
        self.sampled[cohort] += 1
        self.answered[answered] += 1
        self.forwards[answered] += record.plan.forwards * drawn(self.samples[answered], record.plan.batch)
        self.upload[answered] += np.array(record.uploads, np.int64)
        self.download[cohort] += len(encode(record.plan))
        if record.aggregate is not None:
            self.download += len(encode(record.aggregate))

    def means(self) -> dict[str, float]:
        """Return forward equivalents and bytes for one client, on average."""
        return {
            "forward_equivalents": float(self.forwards.mean()),
            "upload_bytes": float(self.upload.mean()),
            "download_bytes": float(self.download.mean()),
        }

    def rows(self) -> list[dict[str, Any]]:
        """Return one row a client."""
        return [
            {
                "client": client,
                "samples": int(self.samples[client]),
                "sampled": int(self.sampled[client]),
                "answered": int(self.answered[client]),
                "left_out": int(self.sampled[client] - self.answered[client]),
                "forward_equivalents": float(self.forwards[client]),
                "upload_bytes": int(self.upload[client]),
                "download_bytes": int(self.download[client]),
            }
            for client in range(self.sampled.size)
        ]


def drawn(samples: NDArray[np.int64], batch: int) -> NDArray[np.float64]:
    """Return the share of a mini-batch of `batch` that clients fill, who draw all they hold where that is less."""
    return np.where(samples > 0, np.minimum(samples, batch), batch) / batch
