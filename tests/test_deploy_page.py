"""docs/deploy.md and its unit files: what they tell people to type is what the commands understand."""

from __future__ import annotations

import re
import shlex
import tomllib
from pathlib import Path

import pytest

from baffle.cli.main import _parser
from baffle.data import load
from baffle.data.own import load_own
from baffle.experiment import read
from baffle.keys import Key

ROOT = Path(__file__).parent.parent
PAGE = (ROOT / "docs" / "deploy.md").read_text("utf-8")
UNITS = sorted((ROOT / "examples" / "deploy").glob("*.service"))
TEN = PAGE.partition("## 1. ")[2].partition("\n## 2. ")[0]


def blocks(text: str, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)


def commands(text: str) -> list[str]:
    return [line for block in blocks(text, "sh") for line in block.splitlines() if line.strip()]


def baffles(line: str) -> list[list[str]]:
    """Return the arguments of each `baffle` in a line of shell, once round each loop."""
    parts = shlex.shlex(line.replace("$n", "1"), posix=True, punctuation_chars=True)
    parts.whitespace_split = True
    found: list[list[str]] = []
    inside, before = False, ";"
    for word in parts:
        if (word == "baffle" and before in (";", "do")) or word.endswith("/bin/baffle"):
            found.append([])
            inside = True
        elif set(word) <= set("();<>|&"):
            inside = False
        elif inside:
            found[-1].append(word)
        before = word
    return found


def inline() -> list[str]:
    """Return the whole commands in the page's text."""
    return re.findall(r"`((?:sudo -u baffle )?\S*baffle (?:status|verify|replay|export) [^`]+)`", PAGE)


TYPED = [arguments for line in [*commands(PAGE), *inline()] for arguments in baffles(line)]
STARTED = [line.removeprefix("ExecStart=") for line in PAGE.splitlines() if line.startswith("ExecStart=")]


@pytest.mark.parametrize("arguments", TYPED, ids=" ".join)
def test_what_is_to_be_typed_can_be_parsed(arguments):
    assert callable(_parser().parse_args(arguments).command)


def test_ten_commands_are_enough():
    assert len(commands(TEN)) <= 10
    said = [arguments[0] for line in commands(TEN) for arguments in baffles(line)]
    assert said == ["keys", "keys", "keys", "export", "serve", "join", "status"]


def test_the_authority_is_not_on_the_server():
    authority, server, client, status = blocks(TEN, "sh")
    assert "keys ca" in authority
    for others in (server, client, status):
        assert "authority" not in others
        assert "baffle keys" not in others
    carried = [line for line in authority.splitlines() if "scp" in line]
    assert carried
    assert not any("authority" in line for line in carried)
    assert "baffle serve" in server


@pytest.mark.parametrize("unit", UNITS, ids=lambda unit: unit.name)
def test_a_unit_starts_what_can_be_parsed_and_the_page_shows_it(unit):
    text = unit.read_text("utf-8")
    assert text in blocks(PAGE, "ini")
    (start,) = re.findall(r"^ExecStart=/opt/baffle/bin/baffle (.*)$", text, re.MULTILINE)
    assert callable(_parser().parse_args(shlex.split(start)).command)


def test_every_unit_of_the_page_is_an_example():
    assert len(STARTED) == len(UNITS) == 2


def test_folders_of_the_page_are_named_alike():
    parsed = {arguments[0]: _parser().parse_args(arguments) for line in commands(TEN) for arguments in baffles(line)}
    experiment = read(read_toml_text(), {})
    assert parsed["status"].folder == Path(experiment.out)
    assert str(parsed["serve"].experiment) == str(parsed["export"].source) == "experiment.toml"
    assert parsed["join"].model == str(parsed["export"].out)
    assert parsed["serve"].wait == 0, "the run begins when all are there, as the page says"


def read_toml_text():
    (block,) = blocks(TEN, "toml")
    return tomllib.loads(block)


def test_the_files_to_try_with_are_what_server_and_clients_read(tmp_path, monkeypatch):
    pytest.importorskip("sklearn")
    monkeypatch.chdir(tmp_path)
    (block,) = blocks(PAGE, "python")
    exec(compile(block, "docs/deploy.md", "exec"), {})
    split = load(read_toml_text()["dataset"], key=Key.root(0))
    assert len(split.test) == 397
    for n in range(2):
        own = load_own(
            Path(f"client-{n}.npz"),
            classes=split.train.classes,
            class_names=split.train.class_names,
            shape=split.train.shape,
        )
        assert len(own) >= 600


def headings(text: str) -> set[str]:
    """Return the anchors of a page's sections."""
    found = re.findall(r"^##+ (.*)$", text, re.M)
    return {re.sub(r"[^a-z0-9 -]", "", head.lower()).replace(" ", "-") for head in found}


def test_every_place_in_the_page_is_there():
    assert set(re.findall(r"\]\(#([^)]+)\)", PAGE)) <= headings(PAGE)
    for name, place in re.findall(r"\]\(([a-z]+\.md)(?:#([^)]+))?", PAGE):
        text = (ROOT / "docs" / name).read_text("utf-8")
        assert not place or place in headings(text), f"{name}#{place}"
