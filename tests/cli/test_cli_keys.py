"""`baffle keys`: what is written, who may read it, and what is said."""

from __future__ import annotations

import os
import stat
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from baffle import certificates
from baffle.certificates import Pair, Signer, verified

NOW = datetime.now(UTC)
DAY = timedelta(days=1)


def refused(told, *words: str) -> None:
    """Claim exit status 2 and one line in the tool's own words, with all of `words` in it."""
    assert told.status == 2
    assert told.out == ""
    assert told.error.startswith("baffle: error: "), told.error
    assert told.error.count("\n") == 1, told.error
    for word in words:
        assert word in told.error, told.error


@pytest.fixture
def keys(command):
    """Returns a function: arguments of `baffle keys` -> what it told."""
    return lambda *arguments: command("keys", *arguments)


@pytest.fixture
def fed(keys) -> Pair:
    """An authority in the folder `fed`."""
    assert keys("ca", "--out", "fed").status == 0
    return Pair(Path("fed/ca.pem").read_bytes(), Path("fed/ca-key.pem").read_bytes())


def names(folder: str) -> set[str]:
    return {path.name for path in Path(folder).iterdir()}


def save(pair: Pair, name: str) -> None:
    """Write a certificate as if it had been made at another time."""
    Path(name).parent.mkdir(exist_ok=True)
    Path(name).write_bytes(pair.certificate)


MAKES = {
    "ca": ("ca", "--out", "new"),
    "server": ("server", "--ca", "fed", "--out", "new", "--address", "localhost", "10.0.0.1"),
    "client": ("client", "--ca", "fed", "--out", "new", "--number", "3"),
}
FILES = {
    "ca": {"ca.pem", "ca-key.pem"},
    "server": {"ca.pem", "server.pem", "server-key.pem"},
    "client": {"ca.pem", "client.pem", "client-key.pem", "sign.pem", "sign-key.pem"},
}
whoever = pytest.mark.parametrize("who", list(MAKES))


# What is made.


@whoever
def test_a_folder_has_all_that_its_owner_needs_and_keys_are_the_owners(who, keys, fed) -> None:
    before = os.umask(0)
    try:
        told = keys(*MAKES[who])
    finally:
        os.umask(before)
    assert (told.status, told.error) == (0, "")
    assert names("new") == FILES[who]
    assert stat.S_IMODE(Path("new").stat().st_mode) == 0o700
    for path in Path("new").iterdir():
        secret = path.name.endswith("-key.pem")
        assert stat.S_IMODE(path.stat().st_mode) == (0o600 if secret else 0o644)
        assert (b"PRIVATE" in path.read_bytes()) == secret
        assert not secret or str(path) in told.out.split("secret ")[1]
    if who != "ca":
        assert Path("new/ca.pem").read_bytes() == fed.certificate


@whoever
@pytest.mark.usefixtures("fed")
def test_days_are_many_for_an_authority_and_a_year_for_others(who, keys) -> None:
    most = 3650 if who == "ca" else 365
    assert f"lasts       {most - 1} days, until " in keys(*MAKES[who]).out
    told = keys(*MAKES[who], "--days", 40, "--out", "short")
    assert "lasts       39 days, until " in told.out
    assert told.error == ""


@pytest.mark.usefixtures("fed")
def test_what_is_made_is_said(keys) -> None:
    assert "for         server, dialled at localhost, 10.0.0.1\n" in keys(*MAKES["server"]).out
    told = keys(*MAKES["client"], "--out", "c3").out
    assert "for         client 3, connects to servers\nissued by   Baffle federation\n" in told
    assert "for         client 3, signs its reports\nissued by   Baffle federation\n" in told
    assert "fingerprint" not in told
    told = keys("ca", "--out", "other", "--name", "Ward 7").out
    assert told.startswith("file        other/ca.pem\nfor         Ward 7, an authority: ")


def test_a_report_is_signed_and_checked_with_what_was_written(keys, fed) -> None:
    keys(*MAKES["client"])
    signature = Signer.read(Path("new/sign-key.pem").read_bytes()).sign(b"report")
    told = verified(Path("new/sign.pem").read_bytes(), fed.certificate, b"report", signature, datetime.now(UTC))
    assert told == 3


def test_a_folder_may_be_there_without_keys(keys) -> None:
    Path("new").mkdir()
    Path("new/notes.txt").write_text("mine")
    assert keys(*MAKES["ca"]).status == 0
    assert names("new") == FILES["ca"] | {"notes.txt"}


def test_the_authoritys_fingerprint_is_said_wherever_its_certificate_is(keys) -> None:
    """It is what `baffle serve` and `baffle join` say of an authority."""
    told = keys("ca", "--out", "fed").out
    said = f"fingerprint {certificates.fingerprint(Path('fed/ca.pem').read_bytes())}\n"
    assert f"issued by   itself\n{said}lasts       " in told
    keys(*MAKES["client"])
    assert keys("show", "new").out.count("fingerprint") == keys("show", "new/ca.pem").out.count(said) == 1
    assert said in keys("show", "new").out


# All or nothing.


@whoever
@pytest.mark.parametrize("there", ["ca-key.pem", "sign-key.pem", "ca.pem", "mine.pem"])
@pytest.mark.usefixtures("fed")
def test_nothing_is_overwritten(who, there, keys) -> None:
    Path("new").mkdir()
    Path("new", there).write_text("mine")
    refused(keys(*MAKES[who]), "out = 'new'", f"holds {there} already", "name another folder")
    assert names("new") == {there}
    assert Path("new", there).read_text() == "mine"


def test_a_key_is_named_before_a_certificate(keys, fed) -> None:
    refused(keys("ca", "--out", "fed"), "holds ca-key.pem already")
    assert Path("fed/ca-key.pem").read_bytes() == fed.key


def test_a_file_is_no_folder(keys) -> None:
    Path("new").write_text("mine")
    refused(keys(*MAKES["ca"]), "out = 'new'", "is a file")
    Path("there").symlink_to("nowhere")
    refused(keys("ca", "--out", "there"), "there: File exists")


@whoever
@pytest.mark.parametrize("there", [False, True], ids=["new", "empty"])
@pytest.mark.parametrize("step", ["fsync", "rename"])
@pytest.mark.usefixtures("fed")
def test_an_interrupted_command_leaves_nothing(step, there, who, keys, monkeypatch) -> None:
    place, name = (os, "fsync") if step == "fsync" else (Path, "rename")
    does = getattr(place, name)
    for last in range(len(FILES[who])):
        done = []

        def interrupted(*arguments, done=done, last=last):
            if len(done) == last:
                raise KeyboardInterrupt
            done.append(arguments)
            return does(*arguments)

        if there:
            Path("new").mkdir(exist_ok=True)
        with monkeypatch.context() as patched:
            patched.setattr(place, name, interrupted)
            assert keys(*MAKES[who]).status == 130
        assert len(done) == last
        assert names(".") == {"fed", "new"} if there else {"fed"}
        assert not there or names("new") == set()
        assert not list(Path("fed").glob("issued/*")), "what was not handed out is not on record"
    assert keys(*MAKES[who]).status == 0


@pytest.mark.usefixtures("fed")
def test_a_key_is_its_owners_before_a_byte_is_in_it(keys, monkeypatch) -> None:
    opened, seen = os.open, []

    def watched(path, flags, mode=0o777, **more):
        number = opened(path, flags, mode, **more)
        if str(path).endswith("-key.pem"):
            seen.append((Path(path).name, stat.S_IMODE(os.fstat(number).st_mode), os.fstat(number).st_size))
        return number

    monkeypatch.setattr(os, "open", watched)
    before = os.umask(0)
    try:
        keys(*MAKES["client"])
    finally:
        os.umask(before)
    assert sorted(seen) == [("client-key.pem", 0o600, 0), ("sign-key.pem", 0o600, 0)]


# Errors that a person makes.


@pytest.mark.parametrize(
    ("who", "flags", "words"),
    [
        ("ca", ("--days", "0"), ("days = 0", "must be between 1 and 36500")),
        ("server", ("--days", "-1"), ("days = -1", "must be between 1 and 36500")),
        ("client", ("--days", "99999"), ("days = 99999", "must be between 1 and 36500")),
        ("client", ("--days", "3651"), ("days = 3651", "the authority lasts until ", "at most 3649")),
        ("server", ("--days", "3651"), ("days = 3651", "the authority lasts until ", "at most 3649")),
        ("client", ("--number", "-1"), ("number = -1", "must be between 0 and")),
        ("server", ("--address", "a", "tcp/b:7447"), ("address = 'tcp/b:7447'", "host name", "without port or scheme")),
        ("server", ("--address", ""), ("address = ''", "host name")),
        ("ca", ("--name", ""), ("name = ''", "1 to 64")),
        ("client", ("--ca", "nowhere"), ("ca = 'nowhere'", "holds no ca.pem", "baffle keys ca --out DIR")),
        ("server", ("--ca", "fed/ca.pem"), ("ca = 'fed/ca.pem'", "holds no ca.pem")),
    ],
)
@pytest.mark.usefixtures("fed")
def test_a_wrong_setting_is_named_and_nothing_is_written(who, flags, words, keys) -> None:
    refused(keys(*MAKES[who], *flags), *words)
    assert names(".") == {"fed"}


@pytest.mark.parametrize("who", ["server", "client"])
@pytest.mark.usefixtures("fed")
def test_a_folder_that_can_not_issue(who, keys) -> None:
    assert keys(*MAKES["client"], "--out", "c").status == 0
    make = MAKES[who]
    refused(keys(*make, "--ca", "c"), "ca = 'c'", "holds no ca-key.pem")
    Path("c/ca-key.pem").write_bytes(Path("c/client-key.pem").read_bytes())
    refused(keys(*make, "--ca", "c"), "ca = 'Baffle federation'", "another key")
    Path("c/ca.pem").write_bytes(Path("c/client.pem").read_bytes())
    refused(keys(*make, "--ca", "c"), "ca = 'client-3'", "is not an authority")
    Path("c/ca.pem").write_text("-----BEGIN CERTIFICATE-----\n")
    refused(keys(*make, "--ca", "c"), "ca = 'ca.pem'", "is not a certificate")
    old = certificates.authority("Old", 10, NOW - 20 * DAY)
    Path("c/ca.pem").write_bytes(old.certificate)
    Path("c/ca-key.pem").write_bytes(old.key)
    refused(keys(*make, "--ca", "c"), "ca = 'Old'", "expired on ")
    assert names(".") == {"fed", "c"}


@pytest.mark.parametrize(
    "arguments",
    [
        (),
        ("ca",),
        ("server", "--ca", "fed", "--out", "new"),
        ("server", "--ca", "fed", "--out", "new", "--address"),
        ("client", "--ca", "fed", "--out", "new"),
        ("client", "--ca", "fed", "--out", "new", "--number", "three"),
        ("client", "--out", "new", "--number", "3"),
        ("show",),
    ],
)
@pytest.mark.usefixtures("fed")
def test_what_must_be_given(arguments, keys) -> None:
    told = keys(*arguments)
    assert (told.status, told.out) == (2, "")
    assert told.error.startswith("usage: baffle keys")
    assert names(".") == {"fed"}


@pytest.mark.parametrize("who", ["", *MAKES, "show"])
def test_help_says_what_there_is(who, keys) -> None:
    told = keys(*filter(None, [who]), "--help")
    assert (told.status, told.error) == (0, "")
    for words in {"": (*MAKES, "show"), "ca": ("[3650]", "--name"), "show": ("FILE-or-DIR",)}.get(
        who, ("[365]", "--ca")
    ):
        assert words in told.out


# Show.


@pytest.mark.usefixtures("fed")
def test_show_a_folder_file_by_file_without_its_keys(keys) -> None:
    keys(*MAKES["client"])
    told = keys("show", "new")
    assert (told.status, told.error) == (0, "")
    paths = [line.split()[1] for line in told.out.splitlines() if line.startswith("file")]
    assert paths == ["new/ca.pem", "new/client.pem", "new/sign.pem"]
    assert told.out == "\n".join(keys("show", path).out for path in paths)


@pytest.mark.parametrize(
    ("made", "days", "left", "words"),
    [
        (NOW - 20 * DAY, 10, "0 days", "expired on "),
        (NOW + 20 * DAY, 10, "29 days", "is a clock wrong?"),
        (NOW - 11 * DAY, 40, "28 days", "has 28 days left"),
        (NOW - 11 * DAY, 12.5, "1 day,", "has 1 day left"),
        (NOW - 10 * DAY, 41, "30 days", ""),
    ],
    ids=["expired", "early", "soon", "tomorrow", "in time"],
)
def test_show_warns(made, days, left, words, keys) -> None:
    whole = int(days)
    authority = certificates.authority("Ours", 3650, made)
    save(certificates.client(authority, 7, whole, made + (days - whole) * DAY), "c.pem")
    told = keys("show", "c.pem")
    assert told.status == 0
    assert "for         client 7, connects to servers\nissued by   Ours\n" in told.out
    assert f"lasts       {left}" in told.out
    assert told.error.startswith("baffle: WARNING: c.pem ") if words else told.error == ""
    assert words in told.error


@pytest.mark.usefixtures("fed")
def test_show_warns_of_a_stranger_beside_an_authority(keys) -> None:
    keys(*MAKES["client"])
    save(certificates.signing(certificates.authority("Baffle federation", 400, NOW), 3, 300, NOW), "new/sign.pem")
    assert keys("show", "new").error == "baffle: WARNING: new/sign.pem was not issued by ca.pem beside it\n"


@pytest.mark.usefixtures("fed")
def test_show_refuses_what_is_no_certificate(keys) -> None:
    refused(keys("show", "fed/ca-key.pem"), "path = 'fed/ca-key.pem'", "is not a certificate")
    refused(keys("show", "nowhere"), "nowhere: No such file")
    Path("empty").mkdir()
    refused(keys("show", "empty"), "path = 'empty'", "holds no certificate")
    Path("fed/ca.pem").write_bytes(bytes(2 << 20))
    refused(keys("show", "fed"), "path = 'fed/ca.pem'", "is larger than")
