from __future__ import annotations

import pytest

from baffle.exposure import NOTHING, views


def seen(*arguments, **settings) -> dict[str, tuple[str, str]]:
    return {view.who: (view.sees, view.bounded) for view in views(*arguments, **settings)}


@pytest.mark.parametrize(
    ("size", "server", "coalition"),
    [
        (0, "each round's sums", "below the threshold, sums over the others; from it on, each client's report"),
        (
            5,
            "each round's sums over groups of 5 clients or more",
            "below two thirds of a group of 5 clients, sums over the others; from it on, each client's report",
        ),
    ],
)
def test_a_server_sees_the_sums_of_groups_where_groups_are_summed(size, server, coalition) -> None:
    found = seen("masks", "none", 0.0, 1e-5, size)
    assert found["a server that follows the protocol"] == (server, NOTHING)
    assert found["a server with some clients"] == (coalition, NOTHING)


def test_who_sees_what_of_a_run_in_the_open_and_of_a_private_one() -> None:
    assert seen("none", "none", 0.0, 1e-5)["a server that lies"][0].startswith("each client's report")
    found = seen("masks", "shares", 4.0, 1e-5)
    assert found["a server that follows the protocol"] == (
        "each round's sums with noise in them",
        "ε = 4, δ = 1e-05",
    )
    assert found["another client"][1] == "ε = 4, δ = 1e-05"
