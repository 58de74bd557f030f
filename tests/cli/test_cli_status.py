from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from datetime import UTC, datetime
from pathlib import Path

import pytest

import baffle
from baffle.status import write_status

NOW = datetime(2026, 11, 21, 12, 3, 30, tzinfo=UTC).timestamp()


@pytest.fixture(autouse=True)
def clock(monkeypatch):
    """Stops the clock, in UTC."""
    monkeypatch.setenv("TZ", "UTC")
    time.tzset()
    monkeypatch.setattr("baffle.cli.status.time.time", lambda: NOW)
    yield
    monkeypatch.undo()
    time.tzset()


def row(client: int, **more: object) -> dict[str, object]:
    known = {
        "client": client,
        "state": "ready",
        "version": 120,
        "last_report": NOW - 2.0,
        "missing_for": None,
        "latency": 0.214,
        "evaluation": 0.18,
        "up": 1_234_567,
        "down": 2_345_678,
        "answered": 118,
        "late": 1,
        "duplicate": 2,
        "refused": 0,
        "last_refusal": "",
        "certificate_days": 300,
    }
    return known | more


def write(**more: object) -> dict[str, object]:
    """Write a status into the folder `run` and return it."""
    unseen = {"version": None, "last_report": None, "latency": None, "up": 0, "down": 0, "answered": 0, "late": 0}
    reason = "its signature does not verify"
    told = {
        "time": NOW - 1.0,
        "round": 120,
        "rounds": 400,
        "finished": False,
        "attempt": 1,
        "asked": 4,
        "waiting_for": [2, 3],
        "rounds_a_minute": 35.21,
        "strangers": 2,
        "listen": ["0.0.0.0:7447"],
        "certificate_days": 200,
        "pid": 4123,
        "clients": [
            row(0),
            row(1, state="busy", latency=12.5, certificate_days=12),
            row(2, state="away", missing_for=12.1, last_report=NOW - 300, refused=3, last_refusal=reason),
            row(3, state="never seen", duplicate=0, certificate_days=None, **unseen),
        ],
    }
    told |= more
    write_status(Path("run"), told)
    return told


HEADING = """\
run         run
round       120 of 400, attempt 1
pace        35.2 rounds a minute
waiting for clients 2, 3 (2 of 4 have answered)
server      0.0.0.0:7447, process 4123
certificate 200 days left
strangers   2 messages of no client refused
status      1 s old

"""
WIDE = """\
client  state       version  last report  latency  evaluation        up      down  answered  late  duplicates  refused  certificate
     0  ready           120      2 s ago   214 ms      180 ms  1.235 MB  2.346 MB       118     1           2        0        300 d
     1  busy            120      2 s ago     12 s      180 ms  1.235 MB  2.346 MB       118     1           2        0       12 d !
     2  away 12 s       120    5 min ago   214 ms      180 ms  1.235 MB  2.346 MB       118     1           2        3        300 d
     3  never seen        -            -        -           -       0 B       0 B         0     0           0        0            -
"""  # noqa: E501
NARROW = """\
client  state       last report  latency        up      down  answered  refused
     0  ready           2 s ago   214 ms  1.235 MB  2.346 MB       118        0
     1  busy            2 s ago     12 s  1.235 MB  2.346 MB       118        0
     2  away 12 s     5 min ago   214 ms  1.235 MB  2.346 MB       118        3
     3  never seen            -        -       0 B       0 B         0        0
no room for: version, evaluation, late, duplicates, certificate
"""
NOTES = """
never seen: client 3
! certificates that end soon: client 1 (12 d); make new ones with `baffle keys`
client 2, refused last: its signature does not verify
"""


@pytest.mark.parametrize(("columns", "table"), [("160", WIDE), ("80", NARROW), (None, WIDE)])
def test_a_run_is_told_in_the_room_that_there_is(command, monkeypatch, columns, table) -> None:
    write()
    if columns is None:
        monkeypatch.delenv("COLUMNS")
    else:
        monkeypatch.setenv("COLUMNS", columns)
    told = command("status", "run")
    assert (told.status, told.error) == (0, "")
    assert told.out == HEADING + table + NOTES


def test_no_table_is_wider_than_its_terminal_until_nothing_more_can_go(command, monkeypatch) -> None:
    write()
    for columns in range(36, 140):
        monkeypatch.setenv("COLUMNS", str(columns))
        lines = command("status", "run").out.splitlines()
        table = lines[lines.index("") + 1 :][:5]
        assert table[0].startswith("client  state  ")
        assert max(map(len, table)) <= columns
    assert command("status", "run").out == HEADING + WIDE + NOTES


def test_json_is_the_servers_object_and_the_age(command) -> None:
    told = write(later=["é", {"x": 1.5}])
    shown = command("status", "run", "--json")
    assert (shown.status, shown.error) == (0, "")
    assert json.loads(shown.out) == told | {"age": 1.0}
    assert shown.out.isascii()
    assert shown.out.count("\n") == 1


@pytest.mark.parametrize(
    ("more", "line"),
    [
        ({"time": NOW}, "status      0 s old"),
        ({"time": NOW + 60}, "status      0 s old"),
        ({"time": NOW - 5}, "status      5 s old"),
        ({"time": NOW - 20}, "status      20 s old: the server is not running, or busy since 12:03:10"),
        (
            {"time": NOW - 3 * 86_400},
            "status      3 d old: the server is not running, or busy since 2026-11-18 12:03:30",
        ),
        ({"time": NOW - 600, "finished": True}, "status      finished 10 min ago"),
        ({"attempt": 0}, "round       120 of 400"),
        ({"rounds": None}, "round       120, attempt 1"),
        ({"rounds_a_minute": 0.0}, "pace        0.0 rounds a minute"),
        ({"asked": 0, "waiting_for": []}, "waiting for nobody: no round is open"),
        ({"waiting_for": []}, "waiting for nobody: all 4 have answered"),
        ({"waiting_for": [7]}, "waiting for client 7 (3 of 4 have answered)"),
        ({"certificate_days": 1}, "certificate 1 day left !"),
        (
            {"certificate_days": 29},
            "! certificates that end soon: the server (29 d), client 1 (12 d); make new ones with `baffle keys`",
        ),
        ({"strangers": 1}, "strangers   1 message of no client refused"),
        (
            {"inbox": {"messages": 8, "peak_messages": 9, "peak_bytes": 2_000_000, "dropped": 1}},
            "inbox       8 waiting, 9 (2 MB) at most; 1 message of clients and 0 of strangers dropped",
        ),
        (
            {"inbox": {"dropped_strangers": 3}},
            "inbox       0 waiting, 0 (0 B) at most; 0 messages of clients and 3 of strangers dropped",
        ),
        ({"clients": [row(1, dropped=2)]}, "client 1: 2 messages dropped, more than it may send"),
        ({"expected": list(range(30))}, f"never seen: clients {', '.join(map(str, range(3, 23)))} and 7 more"),
        ({"listen": ["a:1", "b:2"], "time": NOW - 6}, "server      a:1, b:2"),
    ],
)
def test_a_heading_says_how_it_is(command, more, line) -> None:
    write(**more)
    assert line in command("status", "run").out.splitlines()


def test_a_finished_run_waits_for_nobody(command) -> None:
    write(finished=True, clients=[row(0, state="done")])
    told = command("status", "run").out
    assert "waiting" not in told
    assert "pace" not in told
    assert "process" not in told
    assert "\n     0  done " in told


def test_before_anyone_joins_there_is_no_table(command) -> None:
    write(clients=[], waiting_for=[], asked=0, expected=[0, 1], strangers=0, certificate_days=None, listen=[])
    told = command("status", "run").out
    assert told.endswith("status      1 s old\n\nnever seen: clients 0, 1\n")
    assert "client  state" not in told
    assert "certificate" not in told


def test_nothing_that_a_terminal_obeys_gets_through(command) -> None:
    reason = "\x1b[2J\x9b31m\x07\r\n[red]x[/] :boom: \u202eolleh\ud800 né"
    write(listen=["h\x1b]0;t\x07:1"], clients=[row(2, state="re\x1bady", refused=1, last_refusal=reason)])
    told = command("status", "run").out
    assert "refused last: \\x1b[2J\\x9b31m\\x07\\r\\n[red]x[/] :boom: \\u202eolleh\\ud800 né\n" in told
    assert "server      h\\x1b]0;t\\x07:1" in told
    assert not {c for c in told if not c.isprintable()} - {"\n"}


def test_a_long_reason_is_cut_and_whole_as_json(command) -> None:
    write(clients=[row(2, last_refusal="x" * 1000)])
    assert f"refused last: {'x' * 297}...\n" in command("status", "run").out
    assert "x" * 1000 in command("status", "run", "--json").out


def test_where_the_output_takes_ascii_alone_the_rest_is_escaped(tmp_path) -> None:
    write_status(tmp_path, {"time": NOW, "clients": [row(2, state="prêt", last_refusal="θ né"), row(3, latency=None)]})
    told = subprocess.run(
        [sys.executable, "-m", "baffle", "status", str(tmp_path)],
        env=os.environ | {"PYTHONPATH": str(Path(baffle.__file__).parents[1]), "PYTHONIOENCODING": "ascii"},
        capture_output=True,
        timeout=60,
        check=True,
    )
    assert told.stdout.endswith(b"client 2, refused last: \\u03b8 n\\xe9\n")
    assert b"     2  pr\\xeat " in told.stdout


def test_a_folder_with_an_odd_name_is_named(command) -> None:
    folder = Path(os.fsdecode(b"a\x1b\xff"))
    write_status(folder, {"time": NOW})
    assert command("status", folder).out.startswith("run         a\\x1b\\udcff\n")


@pytest.mark.parametrize("more", [(), ("--json",)])
def test_what_is_no_status_is_refused_in_a_line(command, more) -> None:
    told = command("status", "nowhere", *more)
    assert (told.status, told.out) == (2, "")
    assert told.error == "baffle: error: folder = 'nowhere': holds no status: it is written by `baffle serve`\n"
    Path("run").mkdir()
    Path("run/status.json").write_text('{"time": 1, "round": "\\u001b"}')
    told = command("status", "run", *more)
    assert (told.status, told.out) == (2, "")
    assert told.error == (
        "baffle: error: folder = 'run': holds a status.json that can't be read: "
        "Expected `int`, got `str` - at `$.round`\n"
    )


def test_the_command_says_what_it_does(command) -> None:
    told = command("status", "--help")
    assert told.status == 0
    assert "Show where a served run is and how each client does." in told.out
    assert "--json" in told.out
