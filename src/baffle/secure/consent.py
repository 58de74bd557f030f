"""The consistency check: members sign which reports came, and tell no share before t have signed the same.

Source: Bonawitz et al. 2017, figure 4, round 3 ("ConsistencyCheck"). Of two sets for one slot, each needs t − c honest
signatures and an honest member signs one: 2(t − c) > n − c, that is c < 2t − n, keeps the second from ever having t.
"""

from __future__ import annotations

from baffle.certificates import Signer, signs
from baffle.errors import ReportError
from baffle.secure.epoch import Roster
from baffle.secure.messages import SIGNATURE, Consent, Request, Slot, ascending
from baffle.secure.pledge import cut

CONSENT = b"baffle-secure-consent-2\0"
"""Stands before a transcript when it is signed, so that it is a signature of nothing else."""


def consent_to(transcript: bytes, slot: Slot, number: int, signer: Signer) -> Consent:
    """Return a member's signature of a `transcript`, 32 bytes, for the server to relay."""
    return Consent(slot, number, signer.sign(CONSENT + transcript))


def refuse_false(roster: Roster, consent: Consent, transcript: bytes) -> None:
    """Raise ReportError unless the member of a consent has signed this transcript."""
    public = roster.signing[roster.place(consent.number)]
    if not signs(public, CONSENT + transcript, consent.signature):
        raise ReportError(f"the signature of member {consent.number} is not of the reports that came")


def refuse_unsigned(roster: Roster, request: Request, transcript: bytes) -> None:
    """Raise ReportError unless t members or more of those that reported have signed this transcript.

    Every signature that is there has to be right, so that a server can't have more of them checked than members are.
    """
    ascending(request.signers, "list of signers")
    if len(request.signatures) != SIGNATURE * len(request.signers):
        raise ReportError(f"{len(request.signatures)} bytes of signatures of {len(request.signers)} members")
    if not set(request.signers) <= set(request.reported):
        raise ReportError("somebody has signed whose report is not among those that came")
    if len(request.signers) < roster.terms.threshold:
        raise ReportError(f"{len(request.signers)} signatures where at least {roster.terms.threshold} are needed")
    for number, signature in zip(request.signers, cut(request.signatures, SIGNATURE), strict=True):
        refuse_false(roster, Consent(request.slot, number, signature), transcript)


__all__ = ["consent_to", "refuse_false", "refuse_unsigned"]
