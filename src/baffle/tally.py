"""What a run has cost so far, counted from its ledger's records alone."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from baffle.messages import Round, encode


@dataclass(slots=True)
class Tally:
    """Sums over the records added so far; arrays are int64 [clients] where not said otherwise."""

    sampled: NDArray[np.int64]
    answered: NDArray[np.int64]
    forwards: NDArray[np.float64]
    """Forward equivalents of each client that answered: forward passes over single samples, float64."""
    upload: NDArray[np.int64]
    """Bytes of each client's reports."""
    download: NDArray[np.int64]
    """Bytes of the plans each client was sent, and of every aggregate, which all need to stay in step."""

    @classmethod
    def of(cls, clients: int) -> Tally:
        """Return an empty tally."""
        sampled, answered, upload, download = np.zeros((4, clients), np.int64)
        return cls(sampled, answered, np.zeros(clients), upload, download)

    def add(self, record: Round) -> None:
        """Count one record."""
        cohort, answered = list(record.plan.cohort), list(record.answered)
        self.sampled[cohort] += 1
        self.answered[answered] += 1
        self.forwards[answered] += record.plan.forwards
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

    def rows(self, samples: tuple[int, ...]) -> list[dict[str, Any]]:
        """Return one row a client, given how many samples each holds."""
        return [
            {
                "client": client,
                "samples": samples[client],
                "sampled": int(self.sampled[client]),
                "answered": int(self.answered[client]),
                "left_out": int(self.sampled[client] - self.answered[client]),
                "forward_equivalents": float(self.forwards[client]),
                "upload_bytes": int(self.upload[client]),
                "download_bytes": int(self.download[client]),
            }
            for client in range(self.sampled.size)
        ]
