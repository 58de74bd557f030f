"""What a run promises a client, held against what the client wants promised."""

from __future__ import annotations

from dataclasses import dataclass

from baffle import accounting, checks
from baffle.engines.network.channel import RefusedError
from baffle.errors import BaffleError, SettingsError
from baffle.header import Header
from baffle.mechanisms import Quantiser

_SLACK = 1e-6
"""By which an ε may differ, relatively, between two versions of what computes it."""


@dataclass(frozen=True, slots=True)
class Wanted:
    """The most that a run may spend of a client's privacy.

    Raises:
        SettingsError: a field is out of its range.
    """

    epsilon: float
    """ε, > 0."""
    delta: float = 1e-5
    """δ, above 0 and below 1."""

    def __post_init__(self) -> None:
        checks.positive("max-epsilon", self.epsilon)
        if not 0 < self.delta < 1:
            raise SettingsError("max-delta", self.delta, "must be above 0 and below 1")

    def refuse_less(self, header: Header) -> None:
        """Refuse a run that does not keep a client's data within this ε and δ.

        ε is computed here, from the mechanism in the header and the number of attempts that may ask a client: what the
        header says of itself is held against that. Every plan of the run follows from this mechanism, since a client
        makes its plans itself. Where the server is to add the noise, that it does so can't be checked.

        Raises:
            RefusedError: the run promises nothing or too little, or its noise does not keep what it promises.
        """
        budget, privacy = header.budget, header.algorithm.privacy
        if budget is None or privacy is None:
            raise RefusedError(f"the run promises no ε, and this client wants one of {self.epsilon:g} at most")
        if budget.epsilon > self.epsilon or budget.delta > self.delta:
            raise RefusedError(
                f"the run promises ε = {budget.epsilon:g}, δ = {budget.delta:g}, and this client wants at most "
                f"ε = {self.epsilon:g}, δ = {self.delta:g}"
            )
        mechanism, attempts = privacy.account(Quantiser(header.algorithm.bits).levels), budget.attempts
        try:
            spent = accounting.epsilon(mechanism, attempts, budget.delta)
        except BaffleError as error:
            raise RefusedError(f"what the run promises can't be checked: {error}") from None
        if not spent <= budget.epsilon * (1 + _SLACK):
            raise RefusedError(
                f"the run promises ε = {budget.epsilon:g}, and its noise leaves {spent:.4g} after the {attempts} "
                "attempts that may ask a client"
            )


__all__ = ["Wanted"]
