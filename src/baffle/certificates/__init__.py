"""A federation's own authority, the certificates it issues and revokes, and signatures that lead back to it."""

from __future__ import annotations

from baffle.certificates.issuing import SLACK as SLACK
from baffle.certificates.issuing import (
    Pair,
    authority,
    client,
    issue_client,
    issue_server,
    issue_signing,
    server,
    signing,
)
from baffle.certificates.names import addresses, client_number, who
from baffle.certificates.passphrases import WrongPassphraseError, is_locked, locked, unlocked
from baffle.certificates.purpose import CONNECTS as CONNECTS
from baffle.certificates.purpose import SERVES as SERVES
from baffle.certificates.purpose import SIGNING as SIGNING
from baffle.certificates.purpose import purposes
from baffle.certificates.reading import utc
from baffle.certificates.requests import Asked, Own, ask_client, ask_server, asked
from baffle.certificates.revocations import MOST_LIST as MOST_LIST
from baffle.certificates.revocations import Revocations, read_revocations, revoked
from baffle.certificates.signatures import REPORT as REPORT
from baffle.certificates.signatures import Signatory, Signer, signs, verified
from baffle.certificates.telling import SOON as SOON
from baffle.certificates.telling import About, about, fingerprint, issued, serial_number

__all__ = [
    "About",
    "Asked",
    "Own",
    "Pair",
    "Revocations",
    "Signatory",
    "Signer",
    "WrongPassphraseError",
    "about",
    "addresses",
    "ask_client",
    "ask_server",
    "asked",
    "authority",
    "client",
    "client_number",
    "fingerprint",
    "is_locked",
    "issue_client",
    "issue_server",
    "issue_signing",
    "issued",
    "locked",
    "purposes",
    "read_revocations",
    "revoked",
    "serial_number",
    "server",
    "signing",
    "signs",
    "unlocked",
    "utc",
    "verified",
    "who",
]
