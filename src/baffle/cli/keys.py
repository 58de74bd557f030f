"""`baffle keys`: an authority, and the keys and certificates of servers and clients."""

from __future__ import annotations

import argparse
import logging
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from pathlib import Path

from baffle import certificates
from baffle.certificates import SOON as SOON
from baffle.certificates import Asked, Pair, WrongPassphraseError
from baffle.cli.issued import recorded
from baffle.cli.key_files import CA, CA_KEY, REQUEST, read, refuse, write
from baffle.cli.passphrases import Passphrase
from baffle.cli.show_keys import told
from baffle.errors import SettingsError

log = logging.getLogger("baffle")


def ca(options: argparse.Namespace) -> None:
    """Make an authority."""
    refuse(options.out)
    lock = _lock(options, "the authority's key")
    made = certificates.authority(options.name, options.days, _now())
    write(options.out, {CA: made.certificate, CA_KEY: lock(made.key)})
    told(options.out / CA)
    print(f"secret      {options.out / CA_KEY}: who has it can admit anyone; keep it off servers and clients")


def server(options: argparse.Namespace) -> None:
    """Make a server's key and certificate, or a request for it."""
    refuse(options.out)
    lock = _lock(options, "the server's key")
    secret = f"secret      {options.out / 'server-key.pem'}: for this server alone"
    if options.request:
        own = certificates.ask_server(options.address)
        write(options.out, {REQUEST: own.request, "server-key.pem": lock(own.link)})
        _requested(options.out, secret)
        return
    issuer = issuer_of(options)
    made = certificates.server(issuer, options.address, options.days, _now())
    files = {CA: issuer.certificate, "server.pem": made.certificate, "server-key.pem": lock(made.key)}
    _issue(options, files)
    print(f"{secret}; the folder has all that it needs")
    _keep_apart(options.ca, options.out)


def client(options: argparse.Namespace) -> None:
    """Make a client's keys and certificates, one pair to connect, one to sign, or a request for them."""
    refuse(options.out)
    lock = _lock(options, f"the keys of client {options.number}")
    both = f"{options.out / 'client-key.pem'}, {options.out / 'sign-key.pem'}"
    secret = f"secret      {both}: for client {options.number} alone"
    if options.request:
        own = certificates.ask_client(options.number)
        files = {REQUEST: own.request, "client-key.pem": lock(own.link), "sign-key.pem": lock(own.signs)}
        write(options.out, files)
        _requested(options.out, secret)
        return
    issuer, now = issuer_of(options), _now()
    connects = certificates.client(issuer, options.number, options.days, now)
    signs = certificates.signing(issuer, options.number, options.days, now)
    files = {
        CA: issuer.certificate,
        "client.pem": connects.certificate,
        "sign.pem": signs.certificate,
        "client-key.pem": lock(connects.key),
        "sign-key.pem": lock(signs.key),
    }
    _issue(options, files)
    print(f"{secret}; the folder has all that it needs")


def sign(options: argparse.Namespace) -> None:
    """Issue the certificates that a request asks for."""
    refuse(options.out)
    try:
        asked = certificates.asked(read(options.request))
    except SettingsError as error:
        raise SettingsError("request", str(options.request), error.rule) from None
    issuer = issuer_of(options)
    _issue(options, {CA: issuer.certificate, **_granted(issuer, asked, options.days)})
    print(f"request     {asked.fingerprint}: is that what the device said?")
    print(f"next        copy the files in {options.out}, none of them secret, into the folder with the keys")
    if asked.number is None:
        _keep_apart(options.ca, options.out)


def issuer_of(options: argparse.Namespace) -> Pair:
    """Return the authority in the folder that --ca names.

    Raises:
        SettingsError: there is none, or its key is encrypted and the passphrase missing or wrong.
    """
    folder: Path = options.ca
    for name in (CA, CA_KEY):
        if not (folder / name).is_file():
            raise SettingsError("ca", str(folder), f"holds no {name}; make it with: baffle keys ca --out DIR")
    passphrase = Passphrase(options.ca_passphrase_file, "ca-passphrase-file", "BAFFLE_CA_PASSPHRASE")
    certificate, key = read(folder / CA), read(folder / CA_KEY)
    if certificates.is_locked(key):
        try:
            key = certificates.unlocked(key, passphrase(folder / CA_KEY))
        except WrongPassphraseError as error:
            raise SettingsError("ca", str(folder), f"holds {CA_KEY}, which {error}") from None
    return Pair(certificate, key)


def _granted(issuer: Pair, asked: Asked, days: int) -> dict[str, bytes]:
    """Return the certificates that a request asks for, by their files' names."""
    now = _now()
    if asked.number is None or asked.signs is None:
        return {"server.pem": certificates.issue_server(issuer, asked.addresses, asked.link, days, now)}
    return {
        "client.pem": certificates.issue_client(issuer, asked.number, asked.link, days, now),
        "sign.pem": certificates.issue_signing(issuer, asked.number, asked.signs, days, now),
    }


def _issue(options: argparse.Namespace, files: Mapping[str, bytes]) -> None:
    """Write a folder with new certificates, of which the authority keeps copies."""
    made = [name for name in files if name != CA and not name.endswith("-key.pem")]
    with recorded(options.ca, [files[name] for name in made]):
        write(options.out, files)
    for name in made:
        told(options.out / name)


def _requested(folder: Path, secret: str) -> None:
    told(folder / REQUEST)
    print(secret)
    print(f"next        have {folder / REQUEST} signed: baffle keys sign; put what comes back into {folder}")


def _keep_apart(authority: Path, folder: Path) -> None:
    """Say that the authority's key must not come to the server, and warn where it would come along."""
    print(
        f"authority   {authority / CA_KEY}: never on the server; who holds it can make clients of its own, and with "
        "them open any secure sum"
    )
    one, other = authority.resolve(), folder.resolve()
    if one.is_relative_to(other) or other.is_relative_to(one):
        log.warning("%s and %s are one in the other: a copy of both takes the authority's key along", authority, folder)


def _lock(options: argparse.Namespace, made: str) -> Callable[[bytes], bytes]:
    """Return what encrypts new keys, where that is asked for; else it leaves them as they are."""
    if options.passphrase_file is None and not options.encrypt:
        return lambda key: key
    passphrase = Passphrase(options.passphrase_file).new(made)
    return lambda key: certificates.locked(key, passphrase)


def _now() -> datetime:
    return datetime.now(UTC)


__all__ = ["ca", "client", "issuer_of", "server", "sign"]
