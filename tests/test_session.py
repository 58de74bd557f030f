from __future__ import annotations

import json
import tomllib

import msgspec
import numpy as np
import pytest

from baffle import Adam, BaffleError, DataError, SettingsError, Sgd
from baffle.messages import Round, encode
from baffle.metrics import Metrics
from baffle.tally import Tally, drawn
from federation import METHOD, Layered, Network, ledger_bytes, rounds_in, simulation

COSTS = ("round", "answered", "forward_equivalents", "upload_bytes", "download_bytes")


def rows(folder) -> list[dict]:
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def without_time(found) -> list[dict]:
    return [{name: value for name, value in row.items() if name != "seconds"} for row in found]


def records(folder) -> list[Round]:
    return rounds_in(folder)


# What a run leaves behind.


def test_the_folder_holds_what_the_page_says(tmp_path) -> None:
    result = simulation().run(7, out=tmp_path, settings={"model": "of mine", "rounds": 7})
    assert sorted(str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*") if path.is_file()) == [
        "ledger",
        "lock",
        "metrics.jsonl",
        "settings.toml",
        "snapshots/00000003.safetensors",
        "snapshots/00000006.safetensors",
        "snapshots/00000007.safetensors",
        "summary.json",
    ]
    assert tomllib.loads((tmp_path / "settings.toml").read_text()) == {"model": "of mine", "rounds": 7}
    summary = json.loads((tmp_path / "summary.json").read_text())
    assert summary == result.summary()
    assert summary["parameters"] == 27
    assert summary["ledger_digest"] == ledger_bytes(tmp_path)[-32:].hex()
    assert summary["digest"] == records(tmp_path)[-1].digest


def test_settings_of_a_simulation_are_written_in_full(tmp_path) -> None:
    simulation(weight="equal", quorum=0.7).run(2, out=tmp_path)
    settings = tomllib.loads((tmp_path / "settings.toml").read_text())
    told = msgspec.to_builtins(METHOD)
    assert told.pop("privacy") is None  # TOML has no word for nothing
    assert settings["algorithm"] == told
    assert settings["algorithm"]["batch"] == 5
    assert {name: settings[name] for name in ("clients", "rounds", "seed", "weight", "quorum")} == {
        "clients": 3,
        "rounds": 2,
        "seed": 1,
        "weight": "equal",
        "quorum": 0.7,
    }


def test_rows_stand_for_the_start_every_other_round_and_the_end(tmp_path) -> None:
    simulation().run(7, out=tmp_path)
    assert [row["round"] for row in rows(tmp_path)] == [0, 2, 4, 6, 7]


def test_costs_are_those_of_the_records(tmp_path) -> None:
    """A client's forwards, bytes up and bytes down, added up by hand from plans and reports."""
    made = simulation(sizes=(12, 12, 6, 3), participation=0.5)
    result = made.run(7, out=tmp_path)
    found = records(tmp_path)
    forwards = dict.fromkeys(range(4), 0)
    up, down = dict(forwards), dict(forwards)
    for record in found:
        aggregate = len(encode(record.aggregate))
        for client in range(4):
            down[client] += aggregate
        for client in record.plan.cohort:
            down[client] += len(encode(record.plan))
            forwards[client] += 24 if client == 3 else 40  # three samples where a batch has five
        for client, size in zip(record.answered, record.uploads, strict=True):
            up[client] += size
            assert 8 < size <= 8 + 64
    assert result.forward_equivalents == sum(forwards.values()) / 4
    assert forwards[3] > 0
    assert result.upload_bytes == sum(up.values()) / 4
    assert result.download_bytes == sum(down.values()) / 4
    assert [row["upload_bytes"] for row in result.clients] == list(up.values())
    assert [row["download_bytes"] for row in result.clients] == list(down.values())
    assert [row["forward_equivalents"] for row in result.clients] == list(forwards.values())
    assert [row["samples"] for row in result.clients] == [12, 12, 6, 3]
    last = rows(tmp_path)[-1]
    assert [last[name] for name in COSTS] == [
        7,
        2,
        result.forward_equivalents,
        result.upload_bytes,
        result.download_bytes,
    ]
    assert sum(row["sampled"] for row in result.clients) == 14
    assert all(row["left_out"] == 0 for row in result.clients)


def test_a_tally_counts_a_record_without_answers() -> None:
    """Nobody answered: the cohort was asked and sent a plan, and that is all."""
    made = simulation()
    header = made.header()
    from baffle import server

    plan = server.plan(METHOD, header.federation, header.start({}))
    tally = Tally.of((12, 12, 12))
    tally.add(Round(plan, (), (), ((0, "no answer"), (1, "no answer"), (2, "no answer")), None, None))
    size = len(encode(plan))
    assert tally.means() == {"forward_equivalents": 0.0, "upload_bytes": 0.0, "download_bytes": float(size)}
    assert [row["left_out"] for row in tally.rows()] == [1, 1, 1]


def test_who_holds_an_unknown_number_of_samples_is_counted_for_a_whole_batch() -> None:
    assert drawn(np.array([0, 1, 4, 5, 80]), 5).tolist() == [1.0, 0.2, 0.8, 1.0, 1.0]


def test_accuracy_is_of_the_averaged_weights(tmp_path) -> None:
    made = simulation()
    result = made.run(6, out=tmp_path)
    network, test = Network(), made.test
    logits = network.logits(result.parameters, test.inputs)
    assert result.accuracy == (logits.argmax(1) == test.targets).mean()
    assert result.loss == pytest.approx(network.loss(result.parameters, (test.inputs, test.targets)), rel=1e-12)
    assert (result.accuracy, result.loss) == (rows(tmp_path)[-1]["accuracy"], rows(tmp_path)[-1]["loss"])


def test_without_held_out_data_nothing_is_measured(tmp_path) -> None:
    result = simulation(test=None).run(3, out=tmp_path)
    assert (result.accuracy, result.accuracy_last, result.loss) == (None, None, None)
    assert all(row["accuracy"] is None and row["loss"] is None for row in rows(tmp_path))


def test_a_loss_that_is_not_finite_is_null_in_json(tmp_path) -> None:
    class Odd(Network):
        def evaluate(self, parameters, batches):
            return type(super().evaluate(parameters, batches))(float("inf"), float("nan"))

    simulation(runtime=Odd()).run(2, out=tmp_path)
    for text in (tmp_path / "metrics.jsonl", tmp_path / "summary.json"):
        assert "NaN" not in text.read_text()
        assert "Infinity" not in text.read_text()
    assert rows(tmp_path)[-1]["loss"] is None


def test_without_a_folder_nothing_is_written(tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    result = simulation().run(4)
    assert list(tmp_path.iterdir()) == []
    assert result.ledger_digest == ""
    assert result.rounds == 4


def test_progress_tells_of_every_round(tmp_path) -> None:
    shown = []
    simulation().run(5, out=tmp_path, progress=shown.append)
    assert [progress.round for progress in shown] == [0, 1, 2, 3, 4, 5]
    assert [progress.accuracy is not None for progress in shown] == [True, False, True, False, True, True]
    assert [progress.answered for progress in shown] == [0, 3, 3, 3, 3, 3]
    assert [progress.forward_equivalents for progress in shown] == [0, 40, 80, 120, 160, 200]


# Taking a run up again.


@pytest.fixture(scope="module")
def straight(tmp_path_factory):
    folder = tmp_path_factory.mktemp("straight")
    result = simulation().run(9, out=folder)
    return ledger_bytes(folder), rows(folder), result


@pytest.mark.parametrize("stops", [(3,), (0, 5), (1, 2, 3, 4, 5, 6, 7, 8), (9,)])
def test_a_run_in_parts_is_the_run_in_one(stops, tmp_path, straight) -> None:
    simulation().run(stops[0], out=tmp_path)
    for stop in (*stops[1:], 9):
        result = simulation().run(stop, out=tmp_path, resume=True)
    ledger, _, whole = straight
    assert ledger_bytes(tmp_path) == ledger
    assert (result.digest, result.ledger_digest) == (whole.digest, whole.ledger_digest)
    assert result.parameters.tobytes() == whole.parameters.tobytes()
    assert (result.accuracy, result.loss, result.clients) == (whole.accuracy, whole.loss, whole.clients)
    assert (result.forward_equivalents, result.upload_bytes, result.download_bytes) == (
        whole.forward_equivalents,
        whole.upload_bytes,
        whole.download_bytes,
    )


def test_rows_of_a_run_in_parts_are_those_of_the_run_in_one(tmp_path, straight) -> None:
    simulation().run(4, out=tmp_path)
    simulation().run(9, out=tmp_path, resume=True)
    assert without_time(rows(tmp_path)) == without_time(straight[1])
    seconds = [row["seconds"] for row in rows(tmp_path)]
    assert seconds == sorted(seconds)


def test_a_row_that_was_lost_is_measured_again_as_it_was(tmp_path, straight) -> None:
    """Stopped between the ledger's record and the curve's row."""
    simulation().run(4, out=tmp_path)
    lines = (tmp_path / "metrics.jsonl").read_text().splitlines(keepends=True)
    (tmp_path / "metrics.jsonl").write_text("".join(lines[:-1]))
    simulation().run(9, out=tmp_path, resume=True)
    assert without_time(rows(tmp_path)) == without_time(straight[1])


@pytest.mark.parametrize("tail", ["", '{"round": 4, "acc', '{"round": 4', "\0\0\0\0", '{"round": 6}\n{"ro'])
def test_a_torn_last_line_of_the_curve_is_dropped(tail, tmp_path, straight) -> None:
    simulation().run(4, out=tmp_path)
    path = tmp_path / "metrics.jsonl"
    lines = path.read_text().splitlines(keepends=True)
    path.write_text("".join(lines[:-1]) + (lines[-1] if tail.startswith('{"round": 6}') else "") + tail)
    simulation().run(9, out=tmp_path, resume=True)
    assert [row["round"] for row in rows(tmp_path)] == [row["round"] for row in straight[1]]
    assert [row["loss"] for row in rows(tmp_path)] == [row["loss"] for row in straight[1]]


@pytest.mark.parametrize("content", [b"nonsense\n", b'{"rou\n{"round": 2}\n', b"\xff\xfe\n", b'{"no": 1}\n', b"3\n"])
def test_a_curve_that_is_no_curve_is_named_with_its_line_and_the_ledger_stays(content, tmp_path) -> None:
    simulation().run(4, out=tmp_path)
    before = ledger_bytes(tmp_path)
    (tmp_path / "metrics.jsonl").write_bytes(content)
    with pytest.raises(DataError, match=r"metrics\.jsonl, line 1: no row of a curve"):
        simulation().run(9, out=tmp_path, resume=True)
    assert ledger_bytes(tmp_path) == before


def test_rows_after_the_last_record_are_dropped(tmp_path) -> None:
    path = tmp_path / "metrics.jsonl"
    path.write_text('{"round": 0, "seconds": 0.0}\n{"round": 2, "seconds": 1.5}\n{"round": 4, "seconds": 3.0}\n')
    metrics = Metrics(path)
    metrics.resume(3)
    assert [row["round"] for row in metrics.rows] == [0, 2]
    assert metrics.seconds == 1.5
    metrics.append({"round": 4, "seconds": 9.0})
    assert [json.loads(line)["seconds"] for line in path.read_text().splitlines()] == [0.0, 1.5, 9.0]


def test_a_missing_curve_begins_where_the_run_is(tmp_path, straight) -> None:
    simulation().run(4, out=tmp_path)
    (tmp_path / "metrics.jsonl").unlink()
    simulation().run(9, out=tmp_path, resume=True)
    assert [row["round"] for row in rows(tmp_path)] == [4, 6, 8, 9]
    assert ledger_bytes(tmp_path) == straight[0]


def test_seconds_go_on_from_where_they_were(tmp_path) -> None:
    simulation().run(2, out=tmp_path)
    lines = rows(tmp_path)
    lines[-1]["seconds"] = 1000.0
    (tmp_path / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    result = simulation().run(4, out=tmp_path, resume=True)
    assert 1000 < result.seconds < 1100


OTHER = {
    "another seed": ({"seed": 2}, "federation.key is another"),
    "another method": (
        {"method": msgspec.structs.replace(METHOD, forwards=45)},
        f"algorithm.forwards was {METHOD.forwards} and is 45",
    ),
    "another optimizer": (
        {"method": msgspec.structs.replace(METHOD, optimizer=Sgd(rate=0.06))},
        f"algorithm.optimizer.rate was {METHOD.optimizer.rate} and is 0.06",
    ),
    "another kind of optimizer": (
        {"method": msgspec.structs.replace(METHOD, optimizer=Adam(rate=METHOD.optimizer.rate))},
        "algorithm.optimizer is another",
    ),
    "more clients": ({"sizes": (12, 12, 12, 12)}, "federation.clients was 3 and is 4"),
    "other samples": ({"sizes": (12, 12, 11)}, "samples is another"),
    "another batch": (
        {"method": msgspec.structs.replace(METHOD, batch=4)},
        f"algorithm.batch was {METHOD.batch} and is 4",
    ),
    "another allocation": (
        {"method": msgspec.structs.replace(METHOD, allocation="variance")},
        "algorithm.allocation was 'equal' and is 'variance'",
    ),
    "other directions": (
        {"method": msgspec.structs.replace(METHOD, orthogonal=True)},
        "algorithm.orthogonal was False and is True",
    ),
    "other blocks": (
        {"method": msgspec.structs.replace(METHOD, blocks=("*",))},
        "algorithm.blocks was 'layers' and is ('*',)",
    ),
    "another quorum": ({"quorum": 0.6}, "federation.quorum was 0.5 and is 0.6"),
    "another share": ({"participation": 0.5}, "federation.participation was 1.0 and is 0.5"),
    "other weights": ({"weight": "equal"}, "federation.most_samples was 12 and is 1"),
}


@pytest.mark.parametrize("other", OTHER)
def test_a_run_is_not_resumed_with_other_settings_and_the_first_is_named(other, tmp_path) -> None:
    changed, told = OTHER[other]
    simulation().run(4, out=tmp_path, settings={"as": "begun"})
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    with pytest.raises(SettingsError, match="was begun with other settings, data or model: ") as caught:
        simulation(**changed).run(6, out=tmp_path, resume=True, settings={"as": "resumed"})
    assert caught.value.field == "resume"
    assert caught.value.rule.endswith(f": {told}")
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before


OTHER_COSTS = {"counted otherwise": Layered(told=0.9), "not counted": Network(), "the same": Layered()}


@pytest.mark.parametrize("other", OTHER_COSTS)
def test_a_resumed_run_keeps_the_costs_that_it_was_begun_with(other, tmp_path) -> None:
    """Another version may count another share of a pass; budgets, ledger and sums of forwards go on as they were."""
    method = msgspec.structs.replace(METHOD, forwards=100, allocation="adaptive")
    straight = simulation(method, runtime=Layered()).run(7, out=tmp_path / "straight")
    simulation(method, runtime=Layered()).run(4, out=tmp_path / "run")
    made = simulation(method, runtime=OTHER_COSTS[other])
    resumed = made.run(7, out=tmp_path / "run", resume=True)
    assert ledger_bytes(tmp_path / "run") == ledger_bytes(tmp_path / "straight")
    assert resumed.summary()["digest"] == straight.summary()["digest"]
    assert resumed.forward_equivalents == straight.forward_equivalents
    assert without_time(rows(tmp_path / "run")) == without_time(rows(tmp_path / "straight"))
    assert [block.cost for block in records(tmp_path / "run")[-1].plan.blocks] == [1.0, 9 / 21]
    costs = made.header().federation.costs
    assert (costs == (1.0, 9 / 21)) == (other == "the same")
    if other != "the same":  # begun with them, the run would be another one
        made.run(7, out=tmp_path / "anew")
        assert ledger_bytes(tmp_path / "anew") != ledger_bytes(tmp_path / "straight")


def test_forwards_that_were_enough_when_a_run_was_begun_are_enough_when_it_is_resumed(tmp_path) -> None:
    """Two whole probes, two of 9/21 and 12/21 once are 3.4 passes over 5 samples; four whole ones would be 20."""
    method = msgspec.structs.replace(METHOD, forwards=18)
    simulation(method, runtime=Layered()).run(2, out=tmp_path)
    assert simulation(method).run(4, out=tmp_path, resume=True).rounds == 4


def test_forwards_are_counted_by_what_probes_cost(tmp_path) -> None:
    """39 forwards on 5 samples are 7 whole probes, or 3 and 9 of 9/21 of a pass and what lies before those once."""
    method = msgspec.structs.replace(METHOD, forwards=39)
    for runtime, budgets, spent in (
        (Network(), [4, 3], 35.0),
        (Layered(), [3, 9], 5 * (3 + 9 * 9 / 21 + 12 / 21)),
    ):
        result = simulation(method, runtime=runtime).run(3, out=tmp_path / type(runtime).__name__)
        plan = records(tmp_path / type(runtime).__name__)[0].plan
        assert [block.budget for block in plan.blocks] == budgets
        assert result.forward_equivalents == pytest.approx(3 * spent, rel=1e-12)
        assert [row["forward_equivalents"] for row in result.clients] == pytest.approx([3 * spent] * 3)


def test_other_settings_are_refused_before_anything_is_cut_or_deleted(tmp_path) -> None:
    """Somebody names the wrong folder: its torn tail and its snapshots are not theirs to touch."""
    simulation(snapshot_every=1).run(4, out=tmp_path)
    with (tmp_path / "ledger").open("ab") as file:
        file.write(b"\1\0\0")  # a length, begun
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    with pytest.raises(
        SettingsError, match=r"was begun with other settings, data or model: federation\.key is another$"
    ):
        simulation(seed=2).run(6, out=tmp_path, resume=True)
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before


def test_how_often_is_measured_and_kept_may_change(tmp_path, straight) -> None:
    simulation().run(4, out=tmp_path)
    simulation(evaluate_every=1, snapshot_every=1).run(9, out=tmp_path, resume=True)
    assert ledger_bytes(tmp_path) == straight[0]
    assert [row["round"] for row in rows(tmp_path)] == [0, 2, 4, 5, 6, 7, 8, 9]


def test_fewer_rounds_than_were_done_leave_the_run_as_it_is(tmp_path) -> None:
    first = simulation().run(6, out=tmp_path)
    before = ledger_bytes(tmp_path)
    again = simulation().run(3, out=tmp_path, resume=True)
    assert (again.rounds, again.digest) == (6, first.digest)
    assert ledger_bytes(tmp_path) == before


@pytest.mark.parametrize("there", [False, True])
def test_where_there_is_no_run_there_is_nothing_to_resume(there, tmp_path) -> None:
    if there:
        (tmp_path / "notes.txt").write_text("mine")
    folder = tmp_path if there else tmp_path / "nowhere"
    with pytest.raises(SettingsError, match="holds no run"):
        simulation().run(3, out=folder, resume=True)
    assert [path.name for path in tmp_path.iterdir()] == (["notes.txt"] if there else [])


@pytest.mark.parametrize("left", [None, 0, 3, 8, 20])
def test_a_run_stopped_before_its_header_was_whole_begins_anew(left, tmp_path, straight) -> None:
    simulation().run(1, out=tmp_path / "other")
    folder = tmp_path / "run"
    folder.mkdir()
    (folder / "settings.toml").write_text("")
    if left is not None:
        (folder / "ledger").write_bytes(straight[0][:left])
    simulation().run(9, out=folder, resume=True)
    assert ledger_bytes(folder) == straight[0]
    assert without_time(rows(folder)) == without_time(straight[1])


def test_a_second_run_does_not_begin_in_a_runs_folder(tmp_path) -> None:
    simulation().run(2, out=tmp_path)
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    with pytest.raises(BaffleError, match="holds a run already"):
        simulation(seed=7).run(2, out=tmp_path)
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before


def test_the_result_names_its_tensors() -> None:
    result = simulation().run(1)
    tensors = result.tensors()
    assert {name: tensor.shape for name, tensor in tensors.items()} == {
        "first.weight": (4, 3),
        "first.bias": (3,),
        "second.weight": (3, 3),
        "second.bias": (3,),
    }
    np.testing.assert_array_equal(np.concatenate([t.ravel() for t in tensors.values()]), result.parameters)
