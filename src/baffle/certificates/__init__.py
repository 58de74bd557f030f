"""A federation's own authority, the certificates it issues, and signatures that lead back to it."""

from __future__ import annotations

from baffle.certificates.issuing import SLACK as SLACK
from baffle.certificates.issuing import Pair, authority, client, server, signing
from baffle.certificates.names import addresses, client_number, who
from baffle.certificates.purpose import CONNECTS as CONNECTS
from baffle.certificates.purpose import SERVES as SERVES
from baffle.certificates.purpose import SIGNING as SIGNING
from baffle.certificates.purpose import purposes
from baffle.certificates.reading import utc
from baffle.certificates.signatures import REPORT as REPORT
from baffle.certificates.signatures import Signatory, Signer, signs, verified
from baffle.certificates.telling import About, about, fingerprint, issued

__all__ = [
    "About",
    "Pair",
    "Signatory",
    "Signer",
    "about",
    "addresses",
    "authority",
    "client",
    "client_number",
    "fingerprint",
    "issued",
    "purposes",
    "server",
    "signing",
    "signs",
    "utc",
    "verified",
    "who",
]
