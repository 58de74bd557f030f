import math
from pathlib import Path

import pytest

from baffle.errors import DataError
from baffle.report.files import read_points, read_settings, read_summary


def write(folder: Path, content: str | bytes) -> Path:
    path = folder / "file"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def test_settings_are_text_under_dotted_names_in_the_files_order(tmp_path):
    path = write(
        tmp_path, 'b = "x y"\na = true\nrate = 1e-05\nlist = [1, "é"]\n[model]\nname = "lenet"\n[model.in]\nn = 2'
    )
    assert list(read_settings(path).items()) == [
        ("b", "x y"),
        ("a", "true"),
        ("rate", "1e-05"),
        ("list", '[1, "é"]'),
        ("model.name", "lenet"),
        ("model.in.n", "2"),
    ]


def test_points_come_by_round_and_the_later_line_counts(tmp_path):
    points = read_points(write(tmp_path, '{"round":0}\n{"round":20,"loss":1}\n\n{"round":10}\n{"round":20,"loss":2}\n'))
    assert [point.round for point in points] == [0, 10, 20]
    assert points[-1].loss == 2


def test_a_number_that_is_absent_null_or_nan_is_nan(tmp_path):
    (point,) = read_points(write(tmp_path, '{"round": 0, "loss": null, "seconds": NaN}\n'))
    assert math.isnan(point.accuracy)
    assert math.isnan(point.loss)
    assert math.isnan(point.seconds)


@pytest.mark.parametrize("torn", ['{"round": 1', '{"round": 1, "loss"', "{", "\x00\x00", b'{"a": "\xc3'])
def test_a_torn_last_line_is_ignored(tmp_path, torn):
    torn = torn if isinstance(torn, bytes) else torn.encode()
    assert [point.round for point in read_points(write(tmp_path, b'{"round": 0}\n' + torn))] == [0]


def test_a_last_line_without_newline_counts_when_it_is_whole(tmp_path):
    assert [point.round for point in read_points(write(tmp_path, '{"round": 0}\n{"round": 7}'))] == [0, 7]


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ('{"round": 10, "loss"', "not JSON"),
        ('{"round": 10, "loss": "low"}', "Expected `float`"),
        ('{"round": 10, "accuracy": true}', "Expected `float`"),
        ('{"round": "1"}', "Expected `int | float`"),
        ('{"loss": 1}', "missing required field `round`"),
        ("[1]", "Expected `object`"),
        ("[" * 100_000, ""),
        ('{"round": ' + "9" * 5000 + "}", ""),
    ],
)
def test_a_wrong_line_is_named(tmp_path, line, reason):
    path = write(tmp_path, '{"round": 0}\n' + line + '\n{"round": 20}\n')
    with pytest.raises(DataError) as caught:
        read_points(path)
    assert f"{path}: line 2: " in str(caught.value)
    assert reason in str(caught.value)


@pytest.mark.parametrize("content", ["", "\n", '{"rou'])
def test_a_run_without_metrics_is_refused(tmp_path, content):
    with pytest.raises(DataError, match="no metrics yet"):
        read_points(write(tmp_path, content))


def test_bad_toml_is_named_with_its_line(tmp_path):
    path = write(tmp_path, "a = 1\nb = = 2\n")
    with pytest.raises(DataError, match=r"file: not TOML: .*line 2"):
        read_settings(path)


def test_toml_that_is_not_utf8_is_refused(tmp_path):
    with pytest.raises(DataError, match="not TOML"):
        read_settings(write(tmp_path, b'a = "\xff"'))


def test_a_summary_is_read_with_its_clients(tmp_path):
    summary = read_summary(write(tmp_path, '{"rounds": 4, "clients": [{"client": 2, "samples": 9}], "other": 1}'))
    assert summary is not None
    assert (summary.rounds, summary.clients[0].client, summary.clients[0].samples) == (4, 2, 9)


def test_no_summary_is_none(tmp_path):
    assert read_summary(tmp_path / "summary.json") is None


@pytest.mark.parametrize(
    ("content", "line"), [('{"rounds": 4,\n"loss": }', 2), ('{"rounds": "x"}', 1), ('{"rounds": 1, "clients": 3}', 1)]
)
def test_a_wrong_summary_is_named(tmp_path, content, line):
    with pytest.raises(DataError, match=f"file: line {line}: "):
        read_summary(write(tmp_path, content))


def test_what_can_not_be_read_is_named(tmp_path):
    with pytest.raises(DataError, match=r"settings\.toml: No such file"):
        read_settings(tmp_path / "settings.toml")
    with pytest.raises(DataError, match="Is a directory"):
        read_points(tmp_path)
