import ast
import re
import sys
from pathlib import Path

import pytest

import baffle.report
from baffle.errors import DataError, MissingExtraError
from baffle.report import write_report


def test_three_files_are_written_and_returned(make_run, tmp_path):
    out = tmp_path / "new" / "folder" / "report.html"
    paths = write_report([make_run()], out)
    assert paths == (out, out.with_name("accuracy.png"), out.with_name("loss.png"))
    assert sorted(out.parent.iterdir()) == sorted(paths)


def test_the_same_folders_give_the_same_bytes(make_run, tmp_path):
    folders = [make_run("a"), make_run("b")]
    first = [path.read_bytes() for path in write_report(folders, tmp_path / "1.html")]
    assert first == [path.read_bytes() for path in write_report(folders, tmp_path / "2.html")]


def test_the_numbers_of_a_run_are_on_its_page(make_run, report):
    _, shown = report(make_run())
    for word in ("91.37%", "0.31", "40", "40.4k", "9.12 kB", "20.4 kB", "2 min 12 s", "412 MB", "c0ffeec0"):
        assert word in shown.words
    for exact in ("0.9137", "40,404 forward equivalents", "9,120 bytes", "412,316,860 bytes", "132.4 seconds"):
        assert exact in shown.values("title")
    for fact in ("26,730", "86.00%", "c0ffee" * 10, "decade" * 10, "398 of 400", "143", "51 kB", "optimizer.rate"):
        assert fact in shown.words


def test_the_page_needs_nothing_from_outside(make_run, report):
    text, shown = report(make_run("a"), make_run("b"), pictures=True)
    assert not re.search(r"https?:|//|@import|url\((?!#)", text.replace("<!--", ""))
    assert not shown.tags.keys() & {"script", "link", "iframe", "object", "img", "base", "form"}
    assert not [name for _, name, _ in shown.attributes if name.startswith("on") or name == "src"]
    ids = shown.values("id")
    assert len(ids) == len(set(ids))
    assert {target.removeprefix("#") for target in shown.values("href")} <= set(ids)


def test_what_comes_from_files_is_escaped(make_run, report):
    bad = "<script>alert('1')</script>&\""
    settings = f'dataset = """{bad}"""\nmodel = """{bad}"""\n"<b>" = """{bad}"""\n'
    text, shown = report(make_run("x<script>&\"'", settings=settings), make_run("<i>"), pictures=True)
    assert not shown.tags.keys() & {"script", "img", "b", "i"}
    assert "x<script>&\"'" in shown.words
    assert bad in shown.words
    assert "<script" not in text


def test_tables_and_pictures_can_be_read_aloud(make_run, report):
    _, shown = report(make_run("a"), make_run("b", settings="seed = 1"), pictures=True)
    assert shown.tags["table"] == shown.tags["caption"] == 6
    assert shown.tags["figure"] == shown.tags["figcaption"] == 2
    labels = [value for value in shown.values("aria-label") if " against " in value]
    assert len(labels) == 6
    assert {value for tag, name, value in shown.attributes if (tag, name) == ("th", "scope")} == {"col", "row"}
    assert shown.tags["h1"] == 1


def test_settings_that_differ_are_compared_and_marked(make_run, report):
    text, shown = report(make_run("a", settings="seed = 0\nrate = 1"), make_run("b", settings="seed = 7\nrate = 1"))
    assert "What differs" in shown.words
    assert shown.values("class").count("differs") == 2
    assert shown.values("aria-label").count("differs between the runs") == 2
    assert re.findall(r'class="differs">.*?<code>(.*?)</code>', text) == ["0", "7"]


def test_runs_alike_and_a_run_alone_mark_nothing(make_run, report):
    _, alike = report(make_run("a"), make_run("b"))
    assert "All runs have the same settings." in alike.words
    assert "differs" not in alike.values("class")
    _, alone = report(make_run("c"))
    assert "What differs" not in alone.words


def test_a_running_run_is_said_to_be_unfinished(make_run, report):
    _, shown = report(make_run(finished=False))
    assert "unfinished" in shown.words
    assert "90.00%" in shown.words
    assert "No table of clients. It has not written its summary yet." in shown.words


def test_a_hundred_clients_are_listed_and_the_others_counted(make_run, report):
    _, whole = report(make_run("a", clients=100))
    assert "not listed" not in whole.text
    _, cut = report(make_run("b", clients=1234))
    assert "The first 100 of 1,234 clients; 1,134 are not listed here." in cut.words
    assert {"242", "398 of 400"} <= set(cut.words)
    assert "243" not in cut.words


def test_the_best_of_several_runs_is_named(make_run, report):
    lost = '{"round": 0, "accuracy": 0.1}\n{"round": 10, "accuracy": NaN, "loss": Infinity}\n'
    _, shown = report(make_run("lost", metrics=lost, finished=False), make_run("good"))
    assert "91.37% accuracy after 40 rounds (best: good)" in shown.text
    assert "+inf" in shown.words


def test_runs_without_test_data_have_no_best(make_run, report):
    blind = '{"round": 0, "accuracy": null, "loss": null, "upload_bytes": 1500}\n'
    _, shown = report(make_run("a", metrics=blind, finished=False), make_run("b", metrics=blind, finished=False))
    assert "Accuracy not known after 0 rounds, for" in shown.text
    assert "1.5 kB of upload" in shown.text


@pytest.mark.parametrize("name", ["report", "report.png", "."])
def test_out_must_be_an_html_file(make_run, tmp_path, name):
    with pytest.raises(DataError, match=r"ends in \.html"):
        write_report([make_run()], tmp_path / name)


def test_nothing_is_written_when_a_run_is_bad(make_run, tmp_path):
    bad = make_run("bad", metrics='{"round": 0}\n{"round"\n{"round": 20}\n')
    with pytest.raises(DataError, match=r"bad.metrics\.jsonl: line 2: not JSON"):
        write_report([make_run("good"), bad], tmp_path / "out" / "report.html")
    assert not (tmp_path / "out").exists()


def test_without_matplotlib_the_extra_is_named(make_run, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(MissingExtraError, match=r"baffle\[train\]"):
        write_report([make_run()], tmp_path / "report.html")


def test_the_surface_is_one_function():
    assert baffle.report.__all__ == ["write_report"]


@pytest.mark.parametrize("source", sorted(Path(baffle.report.__path__[0]).glob("*.py")), ids=lambda path: path.name)
def test_only_errors_extras_and_the_status_are_imported_from_the_rest(source):
    nodes = list(ast.walk(ast.parse(source.read_text(encoding="utf-8"))))
    names = {node.module or "" for node in nodes if isinstance(node, ast.ImportFrom)}
    names |= {alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names}
    own = {name for name in names if name.startswith("baffle") and not name.startswith("baffle.report.")}
    assert own <= {"baffle.errors", "baffle.exposure", "baffle.extras", "baffle.status", "baffle.storage"}
    assert not {name.partition(".")[0] for name in names} & {"torch", "numpy"}
