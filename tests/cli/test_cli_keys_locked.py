"""Keys under a passphrase from the command line: where it comes from, and that none is written or told."""

from __future__ import annotations

import getpass
import stat
import sys
from datetime import UTC, datetime
from pathlib import Path

import pytest

from baffle.certificates import is_locked, unlocked
from baffle.cli.passphrases import Passphrase
from baffle.engines.network.keyring import ClientKeys, ServerKeys
from baffle.errors import SettingsError

PASSPHRASE = "correct horse battery"
OTHER = "another passphrase"
NOW = datetime.now(UTC)


@pytest.fixture
def keys(command, monkeypatch):
    """Returns a function: arguments of `baffle keys` -> what it told; a file `secret` has the passphrase."""
    monkeypatch.delenv("BAFFLE_PASSPHRASE", raising=False)
    monkeypatch.delenv("BAFFLE_CA_PASSPHRASE", raising=False)
    for name, words in (("secret", PASSPHRASE), ("other", OTHER)):
        Path(name).write_text(f"{words}\nnot this line\n")
        Path(name).chmod(0o600)
    return lambda *arguments: command("keys", *arguments)


@pytest.fixture
def typed(monkeypatch):
    """Returns a function that puts a person at a terminal, who types these one after another; gives the prompts."""

    def person(*words: str) -> list[str]:
        prompts: list[str] = []
        answers = iter(words)
        monkeypatch.setattr(sys.stdin, "isatty", lambda: True, raising=False)
        monkeypatch.setattr(getpass, "getpass", lambda prompt: prompts.append(prompt) or next(answers))
        return prompts

    return person


def key_of(path: str) -> bytes:
    return Path(path).read_bytes()


MAKES = {
    "ca": ("ca", "--out", "new"),
    "server": ("server", "--ca", "fed", "--out", "new", "--address", "localhost"),
    "client": ("client", "--ca", "fed", "--out", "new", "--number", "3"),
    "server's request": ("server", "--request", "--out", "new", "--address", "localhost"),
    "client's request": ("client", "--request", "--out", "new", "--number", "3"),
}


@pytest.mark.parametrize("who", list(MAKES))
def test_all_new_keys_are_encrypted_with_the_first_line_of_a_file(who, keys) -> None:
    assert keys("ca", "--out", "fed").status == 0
    told = keys(*MAKES[who], "--passphrase-file", "secret")
    assert (told.status, told.error) == (0, "")
    found = list(Path("new").glob("*-key.pem"))
    assert found
    for path in found:
        assert is_locked(path.read_bytes())
        assert unlocked(path.read_bytes(), PASSPHRASE.encode())
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert PASSPHRASE not in told.out
    assert not any(PASSPHRASE.encode() in path.read_bytes() for path in Path("new").iterdir())


@pytest.mark.parametrize("source", ["file", "environment", "terminal"])
def test_an_encrypted_authority_issues_with_its_passphrase(source, keys, monkeypatch, typed) -> None:
    keys("ca", "--out", "fed", "--passphrase-file", "secret")
    flags: tuple[str, ...] = ()
    if source == "file":
        flags = ("--ca-passphrase-file", "secret")
    elif source == "environment":
        monkeypatch.setenv("BAFFLE_CA_PASSPHRASE", PASSPHRASE)
    else:
        prompts = typed(PASSPHRASE)
    told = keys(*MAKES["client"], *flags)
    assert (told.status, told.error) == (0, "")
    assert not is_locked(key_of("new/client-key.pem"))
    if source == "terminal":
        assert prompts == ["passphrase of fed/ca-key.pem: "]


@pytest.mark.parametrize("what", ["server", "client", "sign", "revoke"])
def test_without_the_authoritys_passphrase_nothing_is_issued(what, keys) -> None:
    keys("ca", "--out", "fed", "--passphrase-file", "secret")
    keys(*MAKES["client"], "--out", "c", "--ca-passphrase-file", "secret")
    keys("client", "--request", "--out", "r", "--number", "3")
    arguments = {
        "server": MAKES["server"],
        "client": MAKES["client"],
        "sign": ("sign", "--ca", "fed", "--out", "new", "r/request.pem"),
        "revoke": ("revoke", "--ca", "fed", "--number", "3"),
    }[what]
    for flags, words in [
        ((), ("ca-passphrase-file = None: is needed, fed/ca-key.pem is encrypted", "BAFFLE_CA_PASSPHRASE")),
        (("--ca-passphrase-file", "other"), ("ca = 'fed': holds ca-key.pem, which the passphrase does not open",)),
        (("--ca-passphrase-file", "nowhere"), ("nowhere: No such file",)),
    ]:
        told = keys(*arguments, *flags)
        assert told.status == 2
        assert told.error.count("\n") == 1
        for word in words:
            assert word in told.error
        assert OTHER not in told.error
    assert not Path("new").exists()
    assert not Path("fed/revoked.pem").exists()
    assert len(list(Path("fed/issued").iterdir())) == 2


def test_a_person_types_a_new_passphrase_twice(keys, typed) -> None:
    prompts = typed(PASSPHRASE, PASSPHRASE)
    assert keys("ca", "--out", "fed", "--encrypt").status == 0
    assert prompts == ["new passphrase for the authority's key: ", "the same again: "]
    assert unlocked(key_of("fed/ca-key.pem"), PASSPHRASE.encode())
    typed(PASSPHRASE, OTHER)
    told = keys("ca", "--out", "new", "--encrypt")
    assert told.status == 2
    assert "was typed in two ways: nothing is written" in told.error
    assert not Path("new").exists()


def test_a_new_passphrase_may_be_in_the_environment_but_only_when_asked_for(keys, monkeypatch) -> None:
    monkeypatch.setenv("BAFFLE_PASSPHRASE", PASSPHRASE)
    keys("ca", "--out", "fed", "--encrypt")
    assert unlocked(key_of("fed/ca-key.pem"), PASSPHRASE.encode())
    keys("ca", "--out", "plain")
    assert not is_locked(key_of("plain/ca-key.pem"))


@pytest.mark.parametrize(
    ("content", "words"),
    [("short\n", "passphrase = 'of 5 characters': must have at least 12"), ("\nsecond\n", "a first line of 1 to 1000")],
)
def test_a_passphrase_that_is_none_is_refused(content, words, keys) -> None:
    Path("secret").write_text(content)
    told = keys("ca", "--out", "fed", "--passphrase-file", "secret")
    assert told.status == 2
    assert words in told.error
    assert not Path("fed").exists()


def test_without_a_terminal_nothing_is_asked(keys) -> None:
    told = keys("ca", "--out", "fed", "--encrypt")
    assert told.status == 2
    assert "new keys are to be encrypted: name a file with --passphrase-file, set BAFFLE_PASSPHRASE" in told.error


def test_a_passphrase_that_others_can_read_is_warned_about(keys) -> None:
    Path("secret").chmod(0o644)
    told = keys("ca", "--out", "fed", "--passphrase-file", "secret")
    assert told.status == 0
    assert "secret can be read by other users of this machine: chmod 600 it" in told.error


# At use.


@pytest.fixture
def folders(keys) -> dict[str, Path]:
    keys("ca", "--out", "fed")
    keys("server", "--ca", "fed", "--out", "s", "--address", "localhost", "--passphrase-file", "secret")
    keys("client", "--ca", "fed", "--out", "c", "--number", "3", "--passphrase-file", "secret")
    return {"server": Path("s"), "client": Path("c")}


KINDS = {"server": ServerKeys, "client": ClientKeys}
each = pytest.mark.parametrize("kind", list(KINDS))


@each
def test_encrypted_keys_are_read_with_their_passphrase_asked_once(kind, folders) -> None:
    asked: list[Path] = []

    class Counted(Passphrase):
        def _given(self):
            asked.append(Path())
            return super()._given()

    found = KINDS[kind].read(folders[kind], NOW, Counted(Path("secret")))
    assert found.key_pem.startswith(b"-----BEGIN PRIVATE KEY-----")
    assert len(asked) == 1
    assert PASSPHRASE not in repr(found)
    assert "PRIVATE" not in repr(found)


@each
def test_encrypted_keys_without_their_passphrase_are_refused_in_words(kind, folders) -> None:
    name = f"{kind}-key.pem"
    with pytest.raises(SettingsError, match=rf"passphrase = None: is needed: {folders[kind]}/{name} is encrypted"):
        KINDS[kind].read(folders[kind], NOW)
    with pytest.raises(SettingsError, match=rf"passphrase-file = None: is needed, {folders[kind]}/{name} is encrypted"):
        KINDS[kind].read(folders[kind], NOW, Passphrase(None))
    with pytest.raises(
        SettingsError, match=f"keys = '{folders[kind]}': holds {name}, which the passphrase does not open"
    ):
        KINDS[kind].read(folders[kind], NOW, Passphrase(Path("other")))


@each
def test_keys_that_are_not_encrypted_need_no_passphrase(kind, folders, keys) -> None:
    del folders
    arguments = {"server": ("--address", "localhost"), "client": ("--number", "3")}[kind]
    keys(kind, "--ca", "fed", "--out", "plain", *arguments)
    assert KINDS[kind].read(Path("plain"), NOW, Passphrase(Path("nowhere"))).key_pem


def test_a_key_of_another_certificate_is_found_out_though_it_is_encrypted(folders, keys) -> None:
    keys("client", "--ca", "fed", "--out", "d", "--number", "4", "--passphrase-file", "secret")
    Path("c/client-key.pem").write_bytes(key_of("d/client-key.pem"))
    with pytest.raises(SettingsError, match=r"holds client-key.pem, which is not the key of the client.pem beside it"):
        ClientKeys.read(folders["client"], NOW, Passphrase(Path("secret")))


@pytest.mark.parametrize("command_of", ["serve", "join"])
def test_serve_and_join_say_what_is_missing(command_of, folders, command) -> None:
    del folders
    arguments = {"serve": ("serve", "--keys", "s"), "join": ("join", "localhost:1", "--keys", "c")}[command_of]
    for flags, words in [((), "set BAFFLE_PASSPHRASE"), (("--passphrase-file", "other"), "does not open")]:
        told = command(*arguments, *flags)
        assert told.status == 2
        assert words in told.error
        assert told.error.count("\n") == 1
