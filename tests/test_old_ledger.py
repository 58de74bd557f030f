"""A ledger from before there was privacy: its records lack the last fields, and still mean what they did."""

from __future__ import annotations

import base64
import zlib
from pathlib import Path

import msgspec
import pytest

from baffle import run as runs
from baffle.ledger import Reader
from baffle.parameters import digest
from federation import KERNELS

WRITTEN = zlib.decompress(
    base64.b64decode("""
eNrNln9UE1cWxxMiLCisKLgVEYw/Vyt6kjEzk6BCXH4oHou0VfRoEV9m3kAgydCZiSy6ICD4i6oQXdRWEQ8JkZ/VtXTF1ooYi5paVKCK+AOpv2gF
t7tYha64Mwapdk+P3fUPfX/MvDvn3Tv38733nvP+NCs8fF6YeCApEYku6j65nG0x0FoWikuALo5mtFy8/qpoyD6KZpIBQ7ITLRrAEfHOJZDltHrA
0Uzmz1srAQ0cA0kLSwAdtAdnrbw+u9J7VZEOJGcIj1IGkFAPiHjIFGt0NJHIFutACmTYUqDjTcBpaYMFvm8EulKa4eLpONoAdLXFcQxtTGLFZo2W
Y10tGtpoIO1qmejJKmaTGAh4e7jDLhPi6GJZDvIepQ6DARyfTPVOYX1oJnTaJLuob5XQSXzu2pWQyfp5W8TGkWaHU4nDaZ+e1vNoRr09uNXhWJ4M
tXHxXCwJCZDSH84KVkAGxMEMi+N78L0LA2cmFV0oBgYDBDpRKQVJ/oDAua4oEabYpKo3t61ZRuCb7ge4rvrQefLG3DxD14xJVWEdy1rNjG6eUhCI
NnIZVg4aWJpht2WZDUAPyyktw3JTHUlY2HiQBE0DJFatQctpgS7z6cZqNGj5yun7RHuavFmnXQFtIkeoUkcojRawjkB5/x1nH0EbWA4YOMsKoDPC
ft7nAlWwkD9GPp+U5P9Lqqwv1stkZeUrzReNlVQkAYbTEtqkJ8Lbg//R1zrvG2lGKGmfXa6nWS6WBfokHWTdLQRvsbnWPnuru7v70/82qxEEw3A5
AiBOoBoCIxBCSUEK4sppcJoGyuQkQFX8WwEUMgVBKlQKBFfJ5VABVSoNIkOxSYG9Ce0HP1/brX6oaekZLJ7A4uTQQL8OmVVCbYs+f/kLPp3C+Evq
/AKxSGST3r0d4BGWfLb54smCqGsBObsvbd+/aL/dZcrJPPTboA1LLm0ViZ0kYnF/jzu7u754Kk35osED+ufol/PZr0r+YN/fcMokcjJ5euaZxCUG
WgoMbDJkamoOf5JhvV5+5ZuAqcNzJJtv36u+uXzkxdIHu3tOeIbOXzzH3YmHC4tYOl+gFNuklR4px7lx6fqw4XUm4nxbPethKsmNbLopL/jx749m
bXZ59ZRCBls9PT1zt41ztbm2dXXJyimbv7hZjeMKkgIo/5IpcAXfCxAgCKJSYCpCRlIITuHYNBWBk4RMhSEySBFyjFIBklBhgNIocawqZuw549uW
ilJ977r1VZ3/bgu4+t6pyE9df28q/Oyt2YMiBaVmnzu+lFdKzPdDqrbMw7uEI2/tyStfbXaa3JaQU5oxcpLZr/Db5MrrywJfRimxPFHtVJ3zAqWG
bT5OitNLfqNS5d6tlPs1v/uSZjWqwKaRGhQqERkAvBAUKkPkEKByVElQKpVCBnC5TEmiGEEoEQjkiApRqTBUjuEKTKYhZOzByjePNtD1X7XjE4tH
zjN4LPn8vRHRt2pHBInGLxqReVSYHLRskolXyolX6tLjlhGrC6oNWZm+bd1O64MDHnrtDB0Q7PNx+J4FXlEtzi+jlPOqcP/7DdNfoJT3vqGNqfbG
/21yfAa2eLmELLrTPt5UcWjJTzERX1Z7orlpw648WjilGguUCJSTZv2lTKDkJ4cJ/2vjGbdb70q/8xYt5gLnpnZfPmyxLNibuHVNhU/PDwtfA0qx
g1L0LGVB3cqAY8tWpxceGVTfOe5iQ2KcW9YfD9V3RYwfkLhrE7lcoIRoaJ5A6WSTznHeErIzEhtZO3NN9q4aj+lVNW9/oImt607/c8vhTfZC8DrU
UvyE0ulZyqg3EgJcjn89M+4hGHZw26lati0icnCjvXAxW1HjVbfnjZO84+QyiZtAKbFJJ2Zu0R5h56/zH2segp2J8Qlvyb6vLrVuSTu56GjH44Ti
V0+ZJ87zND1byed5o83zdqw+nlZd/uge3fi1wTzvxlo/9d7A2vS0xUHGtFMKoaozNrYBgXeATbpTElIZdaDny2sXflo4tKIn3dmeele5sG7ZO1/M
sOjYqedf0wnd0t2E5sRmrYy9MDo/l2ma3jhu/ZiQ3rPx5aMbafOcz4BAqZmY0y5QOtukp9tDopYE3/3RZ+zEGx/D7rl+3ZzIubLTtfVaL2nP8G96
TSlD86/cwu1FyGXzD5i+q5cWz+xsbAveXuOZH5DsNiQoSOhdz6+u+AmULvxltsCtoGnDzH/unhDT/V1KQ1z0/k/HnFaL20dF77y5YP2Uqtegd0VC
74p/rXenyqdX7/gIuqXvuNPgFeFvv47drvvgBLv0XCq9adCJM4PP8yG+vxe9Q+D9nU26qqf2XxParlZnHlvKpR0ISrgkdzF5HxiVbNb5NUQ83gtf
PW9u7tbnJvVXyf3vSZsbhnttPiRXZFtWjPqbc4x3Xkeyltxw1zd71x+oO8INpIld0yqQu9qknTXd6mOROZoJUwzBGxdkppzZ6JvWdT6gd9C1I0M3
LN8/5tWTP38DoZp76kY/8D3t1KwWLhQkQZHKaRRKARyDBK7SoASiUBIoplDilAZRKgkFiREAl2lQOYEqSYgRchmiQFS4Rjm1fG392e+t39x4V7Iw
dFC4t1H30Y7tDy5vqU3Nm5sypanjP+neJo0=
""")
)
"""Three rounds of the small network, one of them tried again, by the release before."""
HEAD = "2eac86cfd0eba7d6e4530355440b4614756c9b9897f7dc8fc27d914a792dd5ed"
DIGEST = "9299dcfd83f5fa76ec79b5c248c56487fb288c4d6ca70b51c58de6c1024297b8"


@pytest.fixture
def old(tmp_path) -> Path:
    (tmp_path / "ledger").write_bytes(WRITTEN)
    return tmp_path


def test_its_records_have_fewer_fields_than_ours(old) -> None:
    header, *rounds = [msgspec.msgpack.decode(payload) for payload in Reader(old / "ledger")]
    assert "budget" not in header
    assert "privacy" not in header["algorithm"]
    assert not {"secure", "minimum"} & set(header["federation"])
    assert {len(record) for record in rounds} == {6}
    assert {len(record[0]) for record in rounds} == {14}
    assert {len(record[4]) for record in rounds if record[4] is not None} == {4}
    assert any(record[4] is None for record in rounds)


def test_it_verifies(old) -> None:
    header, rounds = runs.verify(old)
    assert rounds == 3
    assert header.budget is header.algorithm.privacy is None
    assert (header.federation.secure, header.federation.minimum) == (False, 2)
    reader = Reader(old / "ledger")
    assert [record.epsilon for record in list(runs._records(reader))[1:]] == [None] * (reader.records - 1)
    assert reader.head.hex() == HEAD


def test_it_is_replayed_to_the_same_weights(old) -> None:
    _, state = runs.replay(old, KERNELS)
    assert (state.round, state.size) == (3, 0.0)
    assert digest(state.parameters) == DIGEST
