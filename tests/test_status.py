import json
import logging
from pathlib import Path

import pytest

from baffle.engines.network.hub import Hub
from baffle.engines.network.roster import Entry, Roster
from baffle.errors import SettingsError
from baffle.status import Client, Status, printable, read_both, read_status, write_status

NOW = 1_795_292_000.0
ROW = {
    "client": 2,
    "state": "away",
    "version": 118,
    "samples": 180,
    "software": "0.1.0",
    "last_heard": NOW - 13.0,
    "last_report": NOW - 14.5,
    "missing_for": 12.25,
    "latency": 0.214,
    "evaluation": 0.18,
    "up": 1_234_567,
    "down": 2_345_678,
    "answered": 117,
    "late": 1,
    "duplicate": 4,
    "refused": 3,
    "joined": 2,
    "last_refusal": "its signature does not verify",
    "certificate_days": 12,
}
STATUS = {
    "time": NOW,
    "round": 120,
    "finished": False,
    "attempt": 1,
    "asked": 4,
    "waiting_for": [2, 5],
    "rounds_a_minute": 35.25,
    "strangers": 7,
    "clients": [ROW],
    "rounds": 400,
    "started": NOW - 300.0,
    "listen": ["0.0.0.0:7447"],
    "certificate_days": 200,
    "pid": 4123,
}


def damaged(folder: Path, content: str | bytes) -> str:
    """Return the rule that a status.json of `content` breaks."""
    (folder / "status.json").write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(SettingsError) as caught:
        read_status(folder)
    assert (caught.value.field, caught.value.value) == ("folder", str(folder))
    return caught.value.rule


def test_what_is_written_is_read_field_by_field(tmp_path):
    write_status(tmp_path, STATUS)
    found = read_status(tmp_path)
    assert found == Status(**STATUS | {"waiting_for": (2, 5), "clients": (Client(**ROW),), "listen": ("0.0.0.0:7447",)})
    assert [path.name for path in tmp_path.iterdir()] == ["status.json"]


def test_the_object_comes_back_as_it_was_written(tmp_path):
    told = STATUS | {"later": {"x": [1, None, "é\x1b"]}}
    write_status(tmp_path, told)
    assert read_both(tmp_path)[1] == told
    assert list(read_both(tmp_path)[1]) == list(told)
    assert (tmp_path / "status.json").read_bytes().isascii()


def test_what_the_hub_tells_has_the_fields_that_are_read(tmp_path):
    hub = Hub(roster=Roster(3, None, entries={1: Entry(1, reason="late", refused=1)}), settings={}, kind=None)
    told = hub.status()
    write_status(tmp_path, told)
    found = read_status(tmp_path)
    assert set(told) <= set(Status.__struct_fields__)
    assert set(told["clients"][0]) == set(Client.__struct_fields__)
    assert found.clients == (Client(client=1, state="never seen", refused=1, last_refusal="late"),)
    assert found.time == told["time"]


def test_fields_of_later_versions_are_ignored_and_missing_ones_have_defaults(tmp_path):
    write_status(tmp_path, {"time": 5, "weather": "fair", "clients": [{"client": 0, "mood": 1}]})
    assert read_status(tmp_path) == Status(time=5.0, clients=(Client(client=0),))


def test_a_new_status_replaces_the_old_one_and_makes_its_folder(tmp_path):
    folder = tmp_path / "new" / "run"
    write_status(folder, STATUS)
    write_status(folder, {"time": NOW + 1})
    assert read_both(folder)[1] == {"time": NOW + 1}


def test_age_and_staleness():
    running, finished = Status(time=NOW), Status(time=NOW, finished=True)
    assert (running.age(NOW + 2.5), running.age(NOW - 1)) == (2.5, 0.0)
    assert [running.stale(NOW + seconds) for seconds in (0, 5, 5.5)] == [False, False, True]
    assert not finished.stale(NOW + 1e6)


def test_the_unseen_are_those_expected_awaited_or_listed_as_such():
    seen, waited = Client(client=1, state="ready"), Client(client=4, state="never seen")
    assert Status(time=NOW, clients=(seen, waited), waiting_for=(1, 7), expected=(0, 1, 4)).unseen() == [0, 4, 7]
    assert Status(time=NOW, clients=(seen,)).unseen() == []


@pytest.mark.parametrize("place", [".", "nowhere", "file"])
def test_where_there_is_none_it_is_said_who_writes_it(tmp_path, place):
    (tmp_path / "file").touch()
    with pytest.raises(SettingsError, match=r"holds no status: it is written by `baffle serve`$"):
        read_status(tmp_path / place)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ("", "Expecting value"),
        ('{"time": 1, "clients": [', "Expecting value"),
        (b"\xff", "'utf-8' codec can't decode"),
        ("[" * 200_000, "recursion"),
        ("[]", "Expected `object`, got `array`"),
        ("{}", "missing required field `time`"),
        ('{"time": null}', "Expected `float`, got `null` - at `$.time`"),
        ('{"time": NaN}', "NaN is no number"),
        ('{"time": 1e999}', "at `$.time`"),
        ('{"time": -1}', "at `$.time`"),
        ('{"time": 1e300}', "at `$.time`"),
        ('{"time": 1, "round": -1}', "at `$.round`"),
        ('{"time": 1, "clients": [{"client": "0"}]}', "Expected `int`, got `str` - at `$.clients[0].client`"),
        ('{"time": 1, "clients": [{"client": 0, "up": 1e400}]}', "at `$.clients[0].up`"),
        ('{"time": 1, "round": 1' + "0" * 5000 + "}", "4300"),
    ],
)
def test_a_damaged_one_is_refused_in_words(tmp_path, content, reason):
    rule = damaged(tmp_path, content)
    assert rule.startswith("holds a status.json that can't be read: ")
    assert reason in rule


def test_one_that_may_not_be_read_is_told_from_one_that_is_not_there(tmp_path):
    (tmp_path / "status.json").mkdir()
    with pytest.raises(SettingsError, match=r"holds a status\.json that can't be read: Is a directory$"):
        read_status(tmp_path)


def test_texts_can_be_printed_as_they_are(tmp_path):
    write_status(
        tmp_path, STATUS | {"listen": ["a\x1b[2J"], "clients": [ROW | {"last_refusal": "né \x9b\u202e\n\ud800"}]}
    )
    found, source = read_both(tmp_path)
    assert found.listen == ("a\\x1b[2J",)
    assert found.clients[0].last_refusal == "né \\x9b\\u202e\\n\\ud800"
    assert source["clients"][0]["last_refusal"] == "né \x9b\u202e\n\ud800"


def test_printable_leaves_alone_what_shows():
    assert printable("θ = 3 → «ok» <b> \\ [red]") == "θ = 3 → «ok» <b> \\ [red]"


def test_a_disk_that_refuses_is_told_once_and_never_raised(tmp_path, caplog):
    folder = tmp_path / "run"
    folder.write_text("a file")
    with caplog.at_level(logging.WARNING, "baffle"):
        for _ in range(3):
            write_status(folder, STATUS)
    assert [record.getMessage() for record in caplog.records] == [
        f"{folder}/status.json can't be written: File exists; the run goes on"
    ]


def test_a_full_disk_leaves_the_old_status_and_is_told_again_after_a_good_one(tmp_path, caplog, monkeypatch):
    write_status(tmp_path, {"time": 1})

    def full(path: Path, *_: object) -> int:
        path.write_bytes(b"{")
        raise OSError(28, "No space left on device")

    with caplog.at_level(logging.WARNING, "baffle"):
        for time in (2, 3):
            with monkeypatch.context() as patch:
                patch.setattr(Path, "write_text", full)
                write_status(tmp_path, {"time": 9})
                write_status(tmp_path, {"time": 9})
            assert [path.name for path in tmp_path.iterdir()] == ["status.json"]
            assert json.loads((tmp_path / "status.json").read_text()) == {"time": time - 1}
            write_status(tmp_path, {"time": time})
    assert [record.getMessage().rpartition("status.json ")[2] for record in caplog.records] == [
        "can't be written: No space left on device; the run goes on"
    ] * 2
