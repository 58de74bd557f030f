"""`baffle join`."""

from __future__ import annotations

import argparse
import logging
import secrets
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from baffle import checks
from baffle.cli.daemon import until_told_to_stop
from baffle.cli.key_warnings import warn_of_end
from baffle.cli.passphrases import Passphrase
from baffle.cli.settings import flags_of
from baffle.cli.show import size
from baffle.errors import SettingsError

if TYPE_CHECKING:
    from baffle.engines.network.home import Home
    from baffle.engines.network.keyring import ClientKeys
    from baffle.engines.network.masker import Masker

OWN = ("model", "runtime", "data_dir", "label_column", "device", "threads", "chunk", "memory")
"""Settings that a client may choose for itself."""
_TELL = 30.0
"""Seconds between two lines about how far the client is."""

log = logging.getLogger("baffle")


def join(options: argparse.Namespace) -> None:
    """Take part in the run of a server until it is over."""
    if options.data is not None and not options.data.is_file():
        raise SettingsError("data", str(options.data), "is no file")
    with until_told_to_stop("stopped; the same command goes on"):
        _join(options)


def _join(options: argparse.Namespace) -> None:
    from baffle.engines.network.channel import Channel, server_at
    from baffle.engines.network.diagnose import why
    from baffle.engines.network.home import Home
    from baffle.engines.network.keyring import ClientKeys
    from baffle.engines.network.member import Member
    from baffle.engines.network.promise import Wanted
    from baffle.engines.network.standing import Standing
    from baffle.engines.network.zenoh import ZenohClient
    from baffle.joining import equip
    from baffle.kernels import fastest

    if options.secure_only and options.insecure:
        raise SettingsError("secure-only", True, "needs keys, and --insecure is without")
    checks.at_least("least-sum", options.least_sum, 2)
    passphrase = Passphrase(options.passphrase_file)
    keys = None if options.insecure else ClientKeys.read(_keys(options.keys), datetime.now(UTC), passphrase)
    number = _number(options, None if keys is None else keys.number)
    own = flags_of(options)
    wanted = None if options.max_epsilon is None else Wanted(options.max_epsilon, options.max_delta)
    session = secrets.token_bytes(8)
    with Home(options.state or Path(f"baffle-client-{number}")) as home:
        private = home.private()
        masker = _masker(keys, options.least_sum, home)
        with ZenohClient(options.server, keys, session.hex(), number=number) as line:
            channel = Channel(
                ask=line.ask,
                number=number,
                sign=(lambda _: b"") if keys is None else keys.signer.sign,
                server_of=None if keys is None else server_at(options.server, keys.ca_pem),
                why=lambda: "" if line.connected else why(options.server, keys, datetime.now(UTC)),
                session=session,
            )
            member = Member(
                channel=channel,
                standing=Standing(home=home, kernels=fastest(), save_seconds=options.save_every),
                equip=lambda welcome: equip(
                    welcome, number, private, own, data=options.data, reproducible=options.reproducible
                ),
                certificate=b"" if keys is None else keys.sign_certificate,
                masker=masker,
                secure=options.secure_only,
                wanted=wanted,
                told=_Teller(),
            )
            if keys is not None:
                warn_of_end(keys)
            log.info("joining %s as client %d", options.server, number)
            member.run()


def _masker(keys: ClientKeys | None, minimum: int, book: Home) -> Masker | None:
    """Return what takes part in secure sums, where there are keys for it."""
    from baffle import certificates
    from baffle.engines.network.masker import Masker
    from baffle.engines.network.revoked import Revoked

    if keys is None:
        return None
    revoked = Revoked.read(keys.revoked, keys.ca_pem)
    return Masker(
        number=keys.number,
        signer=keys.signer,
        certificate=keys.sign_certificate,
        authority=keys.ca_pem,
        minimum=minimum,
        book=book,
        revoked=lambda certificate: revoked.has(certificates.serial_number(certificate)),
    )


class _Teller:
    """Says now and then how far the client is."""

    def __init__(self) -> None:
        self._last = 0.0

    def __call__(self, where: Any) -> None:
        if time.monotonic() - self._last >= _TELL:
            self._last = time.monotonic()
            log.info(
                "round %d, %d answered, %s up, %s down", where.round, where.answered, size(where.up), size(where.down)
            )


def _keys(folder: Path | None) -> Path:
    if folder is None:
        raise SettingsError(
            "keys", None, "name with --keys a folder that `baffle keys client` made, or say --insecure for tests"
        )
    return folder


def _number(options: argparse.Namespace, certified: int | None) -> int:
    if certified is not None:
        if options.number not in (None, certified):
            raise SettingsError("number", options.number, f"is {certified} in the certificate; leave it out")
        return certified
    if options.number is None:
        raise SettingsError("number", None, "must be given with --insecure, from 0")
    checks.at_least("number", options.number, 0)
    return int(options.number)
