"""Privacy and secure sums from the command line: what is kept, what is said, and what is refused in words."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

pytest.importorskip("torch")
pytest.importorskip("dp_accounting")

from baffle import extras
from baffle.errors import MissingExtraError
from baffle.messages import Round, decode
from baffle.run import Reader


def summary() -> dict[str, object]:
    return json.loads(Path("run/summary.json").read_text())


def records() -> list[Round]:
    return [decode(data, Round) for data in list(Reader(Path("run/ledger")))[1:]]


PRIVATE = ("--mechanism", "gaussian", "--epsilon", 8, "--rounds", 4)


def in_words(told, *words: str) -> None:
    assert told.status == 2
    assert told.error.startswith("baffle: error: ")
    assert told.error.count("\n") == 1
    for word in words:
        assert word in told.error
    assert not Path("run/ledger").exists()


@pytest.mark.parametrize(
    "flags",
    [
        (),
        ("--quantile", 0.5),
        ("--secure", "ideal", "--mechanism", "shares", "--colluding", 1),
        ("--mechanism", "rqm", "--clients", 3),
        ("--delta", 1e-7),
    ],
    ids=["gaussian", "adapts", "shares", "rqm", "delta"],
)
def test_what_was_spent_is_kept_and_never_more_than_was_promised(flags, train) -> None:
    told = train(*PRIVATE, "--evaluate-every", 2, *flags)
    assert (told.status, told.error) == (0, "")
    spent = [record.epsilon for record in records()]
    assert len(spent) == 4
    assert spent == sorted(set(spent))
    assert spent[0] > 0
    assert 4 < spent[-1] <= 8  # an attempt more than four is paid for
    assert summary()["epsilon"] == spent[-1]
    assert summary()["delta"] == (1e-7 if "--delta" in flags else 1e-5)
    rows = [json.loads(line) for line in Path("run/metrics.jsonl").read_text().splitlines()]
    assert [(row["round"], row["epsilon"]) for row in rows] == [(0, None), (2, spent[1]), (4, spent[3])]
    settings = Path("run/settings.toml").read_text()
    assert "epsilon = 8.0" in settings


def test_a_private_run_is_verified_replayed_and_taken_up(train, command) -> None:
    assert train(*PRIVATE, "--quantile", 0.5).status == 0
    before = summary()
    assert command("verify", "run").status == 0
    assert command("replay", "run").status == 0
    assert command("train", "--resume", "run", "--no-report").status == 0
    again = summary()
    assert (again["epsilon"], again["ledger_digest"]) == (before["epsilon"], before["ledger_digest"])


def test_a_budget_that_is_spent_ends_the_run_in_words(train) -> None:
    """More rounds than the promise was made for are another promise, and another run."""
    assert train(*PRIVATE, "--unavailable", 0.6, "--quorum", 1.0, "--rounds", 30).status == 0
    spent = [record.epsilon for record in records()]
    assert summary()["rounds"] < 30
    assert spent[-1] <= 8
    assert len(spent) == 31  # a fiftieth more than the rounds


def test_secure_sums_give_the_model_of_a_run_in_the_open(train) -> None:
    flags = ("--precision", "float64", "--rounds", 3)
    found = {}
    for secure in ("none", "ideal", "masks"):
        assert train(*flags, "--secure", secure, out=f"run-{secure}").status == 0
        found[secure] = json.loads(Path(f"run-{secure}/summary.json").read_text())
    assert len({one["digest"] for one in found.values()}) == 1
    assert found["masks"]["upload_bytes"] > found["none"]["upload_bytes"]
    assert found["none"]["epsilon"] is None


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (("--epsilon", 8), ("mechanism = 'none'", "must be gaussian, shares or rqm where epsilon is given")),
        (("--mechanism", "gaussian"), ("epsilon = 0.0", "must be above 0 where a mechanism is given")),
        ((*PRIVATE, "--weight", "samples"), ("weight = 'samples'", "must be 'equal'")),
        ((*PRIVATE, "--mechanism", "shares"), ("mechanism = 'shares'", "needs secure sums")),
        ((*PRIVATE, "--mechanism", "rqm", "--bits", 8), ("bits = 8", "must be at most 5")),
        ((*PRIVATE, "--mechanism", "rqm", "--quantile", 0.5), ("quantile = 0.5", "must be 0 with rqm")),
        ((*PRIVATE, "--mechanism", "rqm", "--allocation", "adaptive"), ("allocation = 'adaptive'",)),
        ((*PRIVATE, "--delta", 0), ("delta = ", "> 0")),
        ((*PRIVATE, "--mechanism", "laplace"), ("mechanism = 'laplace'", "must be one of none, gaussian")),
        (
            (*PRIVATE, "--mechanism", "shares", "--secure", "masks", "--colluding", 3),
            ("colluding = 3", "must be below 3"),
        ),
        (("--secure", "masks", "--minimum", 5), ("minimum = 5", "must be at most 4")),
        (("--secure", "masks", "--minimum", 1), ("minimum = ", ">= 2")),
        (("--secure", "masks", "--groups", 4), ("groups = 4", "must be 1 where sums are secure")),
        (("--secure", "ideal", "--engine", "ray"), ("engine = 'ray'", "must be 'local'")),
    ],
    ids=lambda value: " ".join(map(str, value[-2:])) if isinstance(value, tuple) and str(value[0])[:2] == "--" else "",
)
def test_what_does_not_go_together_is_refused_in_words(flags, words, train) -> None:
    in_words(train(*flags), *words)


def test_a_package_that_is_missing_is_named_with_its_extra(train, monkeypatch) -> None:
    truly = extras.require

    def require(name: str, of: str):
        if name.split(".")[0] == "dp_accounting":
            raise MissingExtraError("dp_accounting", of)
        return truly(name, of)

    monkeypatch.setattr(extras, "require", require)
    in_words(train(*PRIVATE), "dp_accounting is not installed", "baffle[private]")
