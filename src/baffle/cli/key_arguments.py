"""The arguments of `baffle keys`."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from baffle.cli import keys, revoke, show_keys

_YEAR = 365


def add_keys(commands: Any) -> None:
    """Add `keys` and what it does."""
    text = "make, revoke and show the keys and certificates of a federation over a network"
    parser = _command(commands, "keys", None, text)
    does = parser.add_subparsers(required=True, metavar="WHAT")
    text = "make a federation's own authority, which issues all other certificates"
    parser = _command(does, "ca", keys.ca, text)
    _add_out(parser, 3650)
    parser.add_argument("--name", default="Baffle federation", metavar="NAME", help="what it is [Baffle federation]")
    _add_lock(parser)
    parser = _command(does, "server", keys.server, "make a server's key and certificate, or a request for it")
    _add_made(parser)
    text = "host names and IP addresses that clients dial"
    parser.add_argument("--address", nargs="+", required=True, metavar="HOST", help=text)
    text = "make a client's keys and certificates, to connect and to sign, or a request for them"
    parser = _command(does, "client", keys.client, text)
    _add_made(parser)
    parser.add_argument("--number", type=int, required=True, metavar="N", help="the client's number, from 0")
    parser = _command(does, "sign", keys.sign, "issue the certificates that a request asks for")
    parser.add_argument("request", type=Path, metavar="request.pem", help="made on the device, with --request")
    _add_out(parser, _YEAR)
    _add_ca(parser)
    _add_revoke(does)
    text = "say whom certificates are for, who issued them and how long they last; and what a request or list says"
    parser = _command(does, "show", show_keys.show, text)
    parser.add_argument("path", type=Path, metavar="FILE-or-DIR", help="a certificate, or a folder of them")


def add_passphrase(add: Any) -> None:
    """Add where the passphrase of keys that are used comes from."""
    add("--passphrase-file", type=Path, metavar="FILE", help="with the passphrase of encrypted keys in its first line")


def _command(commands: Any, name: str, command: Any, text: str) -> argparse.ArgumentParser:
    parser = commands.add_parser(name, help=text, description=f"{text[0].upper()}{text[1:]}.", allow_abbrev=False)
    parser.set_defaults(command=command)
    return parser


def _add_out(parser: argparse.ArgumentParser, days: int) -> None:
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="a folder without any keys yet")
    parser.add_argument("--days", type=int, default=days, metavar="N", help=f"how long it is valid [{days}]")


def _add_made(parser: argparse.ArgumentParser) -> None:
    """Add how keys are made, by an authority or on the device."""
    _add_out(parser, _YEAR)
    by = parser.add_mutually_exclusive_group(required=True)
    by.add_argument("--ca", type=Path, metavar="DIR", help="the authority's folder")
    by.add_argument("--request", action="store_true", help="make the keys here, and a request for `baffle keys sign`")
    _add_ca_passphrase(parser)
    _add_lock(parser)


def _add_ca(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--ca", type=Path, required=True, metavar="DIR", help="the authority's folder")
    _add_ca_passphrase(parser)


def _add_ca_passphrase(parser: argparse.ArgumentParser) -> None:
    text = "with the passphrase of the authority's key, if it is encrypted [BAFFLE_CA_PASSPHRASE, or a terminal]"
    parser.add_argument("--ca-passphrase-file", type=Path, metavar="FILE", help=text)


def _add_lock(parser: argparse.ArgumentParser) -> None:
    text = "encrypt the new keys with the passphrase in the first line of this file"
    parser.add_argument("--passphrase-file", type=Path, metavar="FILE", help=text)
    text = "encrypt the new keys with the passphrase in BAFFLE_PASSPHRASE, or typed at a terminal"
    parser.add_argument("--encrypt", action="store_true", help=text)


def _add_revoke(does: Any) -> None:
    parser = _command(does, "revoke", revoke.revoke, "revoke clients' certificates: sign a list of them for the server")
    _add_ca(parser)
    numbers = "clients, all of whose certificates so far are revoked"
    parser.add_argument("--number", type=int, nargs="+", default=[], metavar="N", help=numbers)
    files = "certificates, where the authority has no copy of them"
    parser.add_argument("--certificate", type=Path, nargs="+", default=[], metavar="FILE", help=files)
    out = "where the list goes as well, a file or the server's folder of keys [the authority's folder alone]"
    parser.add_argument("--out", type=Path, metavar="FILE", help=out)


__all__ = ["add_keys", "add_passphrase"]
