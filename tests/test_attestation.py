"""What is to be signed changes with everything that decides an answer, and with nothing else."""

from __future__ import annotations

import hashlib
import shutil
from pathlib import Path

import baffle
from baffle.attestation import Statement, code, statement
from baffle.bundle import Bundle

PACKAGE = Path(baffle.__file__).parent
GOLDEN = "3fc734ee9ea3d85977b7fd5f2c6c401f18973dcc76200bf64b80ee865cc77cbc"


def test_one_digest_of_three() -> None:
    told = {"model": "a", "code": "b", "plan": "c"}
    digests = {Statement(**(told | {name: "d"})).digest for name in told} | {Statement(**told).digest}
    assert len(digests) == 4
    # BLAKE2b-256 of {"model":"a","code":"b","plan":"c"}
    assert Statement(**told).digest == GOLDEN
    assert Statement(model="b", code="a", plan="c").digest not in digests


def test_model_and_plan_are_named(exported) -> None:
    bundle = Bundle.read(exported("mlp").folder)
    told = statement(bundle, b"plan")
    assert told.model == bundle.digest
    assert told.code == code()
    assert told.plan == hashlib.blake2b(b"plan", digest_size=32).hexdigest()
    assert told.plan != statement(bundle, b"plan ").plan


def test_any_change_of_the_code_shows(tmp_path) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(PACKAGE, copy, ignore=shutil.ignore_patterns("__pycache__"))
    assert code(copy) == code(PACKAGE)
    file = copy / "client.py"
    file.write_bytes(file.read_bytes() + b"\n")
    changed = code(copy)
    assert changed != code(PACKAGE)
    file.rename(copy / "customer.py")
    assert code(copy) not in (changed, code(PACKAGE))
