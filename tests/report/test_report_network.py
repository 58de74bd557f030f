import json
from pathlib import Path

import pytest

from baffle.report import write_report
from baffle.status import write_status

NOW = 1_795_262_610.75
UNLIKE = 'signed by <script>alert("1")</script> & \x1b[31m\u202e'
COLUMNS = [
    "Client",
    "State",
    "Version",
    "Since last report",
    "Latency",
    "Evaluation",
    "Upload",
    "Download",
    "Answered",
    "Late",
    "Duplicates",
    "Refused",
    "Certificate, days",
]


def row(client: int, **more: object) -> dict[str, object]:
    known = {
        "client": client,
        "state": "done",
        "version": 400,
        "last_report": NOW - 2.5,
        "latency": 0.214,
        "evaluation": 0.18,
        "up": 1_234_567,
        "down": 2_345_678,
        "answered": 12_118,
        "late": 3,
        "duplicate": 2,
        "certificate_days": 301,
    }
    return known | more


def write(folder: Path, **more: object) -> Path:
    told = {"time": NOW, "round": 400, "rounds": 400, "finished": True, "strangers": 7, "certificate_days": 200}
    write_status(folder, told | {"clients": [row(0)]} | more)
    return folder


def rows(words: list[str], first: str) -> list[str]:
    """Return the words of a table from the row of client `first` on."""
    kept = [word for word in words if word.strip()]
    after = kept.index("Certificate, days") + 1
    assert kept[after] == first
    return kept[after:]


def test_a_run_without_a_status_says_nothing_of_a_network(make_run, report):
    text, shown = report(make_run())
    assert "over the network" not in shown.text
    assert 'class="network"' not in text


def test_the_clients_of_a_finished_run_are_listed(make_run, report):
    _, shown = report(write(make_run()))
    words = [word for word in shown.words if word.strip()]
    start = words.index("Clients over the network")
    assert words[start:][:12] == [
        "Clients over the network",
        "As of",
        "2026-11-21 12:03:30 UTC",
        "Rounds",
        "400 of 400",
        "State",
        "finished",
        "Server's certificate",
        "200 days left",
        "Strangers' messages refused",
        "7",
        "Clients as the server saw them. Counts are of messages since it began.",
    ]
    assert words[start + 12 :][:13] == COLUMNS
    told = ["0", "done", "400", "2.5 s", "214 ms", "180 ms", "1.23 MB", "2.35 MB", "12.1k", "3", "2", "0", "301"]
    assert rows(shown.words, "0")[:13] == told
    assert {"1,234,567 bytes", "12,118 reports", "0.214 seconds", "301 days left"} <= set(shown.values("title"))
    assert "Refused last, and why." not in words
    assert "Version is the number of rounds in a client's weights." in shown.text


def test_a_run_that_did_not_finish_says_whom_it_waited_for(make_run, report):
    away = row(2, state="away", missing_for=12.25, refused=1, last_refusal="too late")
    never = {"client": 3, "state": "never seen"}
    more = {"finished": False, "attempt": 2, "rounds_a_minute": 35.25, "waiting_for": [2, 3], "rounds": None}
    _, shown = report(write(make_run(), clients=[away, never], expected=[2, 3, 4], **more))
    for fact in ("Rounds 400 Attempt", "Attempt 2", "State not finished", "Pace 35.2 rounds a minute"):
        assert fact in shown.text
    assert "Waiting for 2, 3" in shown.text
    assert "Never seen 3, 4" in shown.text
    told = rows(shown.words, "2")
    assert told[:2] == ["2", "away 12.2 s"]
    assert told[13:26] == ["3", "never seen", "—", "—", "—", "—", "0 B", "0 B", "0", "0", "0", "0", "—"]
    assert told[26:31] == ["Refused last, and why.", "Client", "Reason", "2", "too late"]


def test_what_clients_are_told_to_have_said_is_shown_not_obeyed(make_run, report):
    text, shown = report(write(make_run(), clients=[row(1, state="<b>", refused=1, last_refusal=UNLIKE)]))
    assert not shown.tags.keys() & {"script", "b"}
    assert 'signed by <script>alert("1")</script> & \\x1b[31m\\u202e' in shown.words
    assert "<b>" in shown.words
    assert not {c for c in text if not c.isprintable()} - {"\n"}


def test_many_clients_are_counted(make_run, report):
    clients = [row(client, last_refusal="no") for client in range(130)]
    _, shown = report(write(make_run(), clients=clients, finished=False, waiting_for=list(range(130))))
    assert shown.text.count("The first 100 of 130 clients; 30 are not listed here.") == 2
    assert "97, 98, 99 and 30 more" in shown.text
    assert shown.words.count("no") == 100


def test_before_anyone_joins_there_is_no_table(make_run, report):
    _, shown = report(write(make_run(), clients=[]))
    assert "No client has joined." in shown.words
    assert "Latency" not in shown.words


def test_each_run_has_its_own_and_ids_stay_unique(make_run, report):
    _, shown = report(write(make_run("a")), make_run("b"), write(make_run("c")))
    assert shown.words.count("Clients over the network") == 3  # two runs, and what it means
    assert len(shown.values("id")) == len(set(shown.values("id")))


@pytest.mark.parametrize("content", ["", '{"time": "<b>"}', "[]"])
def test_a_damaged_status_does_not_keep_the_page_from_being_made(make_run, report, content):
    folder = make_run()
    (folder / "status.json").write_text(content)
    _, shown = report(folder)
    assert "No status of clients over the network. It holds a status.json that can't be read: " in shown.text
    assert "b" not in shown.tags
    assert "91.37%" in shown.words


def test_the_page_is_the_same_whenever_it_is_made(make_run, tmp_path, monkeypatch):
    pytest.importorskip("matplotlib")
    folder = write(make_run())
    first = write_report([folder], tmp_path / "1.html")[0].read_bytes()
    monkeypatch.setattr("time.time", lambda: 2 * NOW)
    assert first == write_report([folder], tmp_path / "2.html")[0].read_bytes()
    assert json.loads((folder / "status.json").read_text())["time"] == NOW
