"""The comparison's arithmetic and sentences, by hand."""

from __future__ import annotations

import csv
import io
import json
from math import isnan, nan

import pytest

from baffle.report.comparison import Comparison, Entry, Trial, chosen_target, listings, verdict
from baffle.report.comparison.charts import accuracy_chart
from baffle.report.comparison.entries import COSTS, MEMORY, differing
from baffle.report.comparison.files import as_csv, as_json
from baffle.report.comparison.spread import Spread
from baffle.report.comparison.targets import reached
from baffle.report.quantities import percent, size
from baffle.report.records import Point
from baffle.trials.task import check_task
from comparisons import curve, entry

ROUNDS, FORWARDS, UPLOAD, _, SECONDS = COSTS


@pytest.mark.parametrize(
    ("values", "mean", "deviation", "text"),
    [
        ((), nan, nan, "—"),
        ((0.5,), 0.5, nan, "50.00%"),
        ((0.5, 0.7), 0.6, 0.02**0.5, "60.00% (50.00% to 70.00%)"),
        ((0.1, 0.2, 0.6), 0.3, 0.07**0.5, "30.00% ± 26.46%"),
        ((0.2, 0.2, 0.2), 0.2, 0.0, "20.00%"),
    ],
)
def test_mean_and_spread(values, mean, deviation, text) -> None:
    spread = Spread(values)
    assert spread.mean == pytest.approx(mean, nan_ok=True)
    assert spread.deviation == pytest.approx(deviation, nan_ok=True, abs=1e-15)
    assert spread.text(percent) == text


def test_a_spread_that_no_reader_could_see_is_not_shown() -> None:
    assert Spread((20_001.0, 20_002.0)).text(size) == "20 kB"


def point(done: int, accuracy: float) -> Point:
    return Point(
        done,
        accuracy=accuracy,
        forward_equivalents=10.0 * done,
        upload_bytes=3.0 * done,
        download_bytes=7.0 * done,
        seconds=0.5 * done,
    )


def test_a_target_between_two_evaluations_is_interpolated() -> None:
    found = reached([point(0, 0.1), point(20, 0.5), point(40, 0.9)], 0.6)
    assert found is not None
    assert found.at.round == pytest.approx(25)
    assert found.at.forward_equivalents == pytest.approx(250)
    assert found.at.upload_bytes == pytest.approx(75)
    assert found.at.download_bytes == pytest.approx(175)
    assert found.at.seconds == pytest.approx(12.5)
    assert (found.before.round, found.after.round) == (20, 40)


@pytest.mark.parametrize(
    ("accuracies", "target", "expected"),
    [
        ([0.5, 0.9], 0.5, 0),
        ([0.1, 0.5], 0.5, 20),
        ([0.1, 0.5], 0.51, None),
        ([0.1, 0.6, 0.2, 0.9], 0.6, 20),
        ([0.1, nan, 0.5], 0.3, 20),
        ([nan, nan], 0.3, None),
        ([], 0.3, None),
    ],
    ids=["at once", "at an evaluation", "never", "the first time", "over a gap", "nothing known", "no curve"],
)
def test_when_a_target_is_reached(accuracies, target, expected) -> None:
    found = reached([point(20 * i, accuracy) for i, accuracy in enumerate(accuracies)], target)
    assert (None if found is None else found.at.round) == (None if expected is None else pytest.approx(expected))


def test_a_target_is_a_mean_over_the_seeds_that_reached_it(make_run) -> None:
    fast, slow = curve(0.1, 0.5, 0.9), curve(0.1, 0.3, 0.5)
    made = entry(make_run, "a", [fast, slow])
    assert made.to_reach(0.5, ROUNDS).values == pytest.approx((10, 20))
    assert made.to_reach(0.5, UPLOAD).mean == pytest.approx(3420)
    assert made.to_reach(0.7, ROUNDS).values == pytest.approx((15,))
    assert (made.always_reached(0.5), made.always_reached(0.7)) == (True, False)


def test_a_trial_that_failed_did_not_reach_anything(make_run) -> None:
    made = entry(make_run, "a", [curve(0.1, 0.9)], failed="diverged")
    assert made.to_reach(0.5, ROUNDS).values == (5,)
    assert not made.always_reached(0.5)
    (outcomes,) = listings(Comparison((made,)))
    assert outcomes.rows[0].cells[0].text == "1 of 2"


def test_without_a_target_the_highest_round_figure_that_all_reach_is_taken(make_run) -> None:
    high, low = entry(make_run, "a", [curve(0.1, 0.96)]), entry(make_run, "b", [curve(0.1, 0.55)])
    assert chosen_target((high, low)) == (0.5,)
    assert chosen_target((high,)) == (0.95,)
    assert chosen_target((entry(make_run, "c", [curve(0.1, 0.11)]), high)) == (0.95,)
    assert chosen_target((Entry("d", {}, (Trial("0", None, "failed"),)),)) == ()
    assert chosen_target(()) == ()


def test_who_wins_on_what_is_said_from_the_numbers(make_run) -> None:
    """a has 50 % in round 10 for 1,000 forwards, b in round 5 for 2,500."""
    first = entry(make_run, "a", [curve(0.1, 0.5, 0.9)], cost=100)
    second = entry(make_run, "b", [curve(0.1, 0.9, 0.9)], cost=500)
    told = verdict(Comparison((first, second), (0.5,)))
    assert told[0].startswith("b reaches 50 % with the fewest rounds (5; next a, 10)")
    assert "a reaches 50 % with the fewest forwards (1,000; next b, 2,500)." in told
    assert told[-2:] == (
        "a and b end with the same accuracy, 90.00%.",
        "With one seed each, small differences may be chance.",
    )


def test_seeds_that_overlap_are_said_to(make_run) -> None:
    first = entry(make_run, "a", [curve(0.1, 0.5), curve(0.1, 0.9)])
    second = entry(make_run, "b", [curve(0.1, 0.8), curve(0.1, 0.85)])
    told = verdict(Comparison((first, second)))
    assert told == (
        "b has the highest accuracy at the end: 82.50% (80.00% to 85.00%); "
        "next a, 70.00% (50.00% to 90.00%); the seeds overlap.",
    )


def test_an_experiment_that_lost_seeds_is_not_crowned_for_the_others(make_run) -> None:
    lost = entry(make_run, "a", [curve(0.1, 0.95)], failed="diverged")
    whole, low = entry(make_run, "b", [curve(0.1, 0.9)] * 2), entry(make_run, "c", [curve(0.1, 0.8)] * 2)
    told = verdict(Comparison((lost, whole, low)))
    assert told == (
        "b has the highest accuracy at the end: 90.00%; next c, 80.00%.",
        "a ends with an accuracy of 95.00% (1 of 2 seeds).",
    )
    (outcomes,) = listings(Comparison((lost, whole, low)))
    assert [row.cells[1].best for row in outcomes.rows] == [False, True, False]
    assert verdict(Comparison((lost, whole))) == (
        "a ends with an accuracy of 95.00% (1 of 2 seeds).",
        "b ends with an accuracy of 90.00%.",
    )


def test_runs_that_ended_after_other_rounds_are_said_to_have(make_run) -> None:
    long, short = entry(make_run, "a", [curve(0.1, 0.6, 0.9)]), entry(make_run, "b", [curve(0.1, 0.6)])
    assert verdict(Comparison((long, short)))[0] == (
        "a has the highest accuracy at the end: 90.00% (after 20 rounds); next b, 60.00% (after 10 rounds)."
    )


def test_numbers_that_look_the_same_are_called_alike(make_run) -> None:
    first, second = (
        entry(make_run, name, [curve(0.1, end)], cost=100) for name, end in (("a", 0.9001), ("b", 0.90012))
    )
    told = verdict(Comparison((first, second), (0.5,)))
    assert told[0] == "The best two are alike in rounds, forwards, upload, download and time at 50 %."
    rows = listings(Comparison((first, second), (0.5,)))[1].rows
    assert all(cell.best for row in rows for cell in row.cells[1:])


def test_one_place_with_all_data_is_not_held_against_a_client(make_run) -> None:
    """Its forwards are those of all clients together, and nobody counted how the data came there."""
    pool = entry(make_run, "pool", [curve(0.1, 0.9)], cost=1000, settings={"algorithm": "centralised"})
    client = entry(make_run, "fedsgd", [curve(0.1, 0.5, 0.9)], cost=100, settings={"algorithm": "fedsgd"})
    other = entry(make_run, "ours", [curve(0.1, 0.5, 0.9)], cost=200, settings={"algorithm": "baffle"})
    told = " ".join(verdict(Comparison((pool, client), (0.5,))))
    assert "pool reaches 50 % with the fewest rounds (5; next fedsgd, 10)" in told
    assert "forwards" not in told
    assert "upload" not in told
    told = " ".join(verdict(Comparison((pool, client, other), (0.5,))))
    assert "fedsgd reaches 50 % with the fewest forwards (1,000; next ours, 2,000)" in told
    rows = listings(Comparison((pool, client, other), (0.5,)))[1].rows
    assert [row.cells[2].best for row in rows] == [False, True, False]
    assert check_task([pool, client])[-1].startswith("pool has all data in one place")
    assert not any("in one place" in line for line in check_task([pool]))


def test_evaluations_too_far_apart_to_tell_an_order_are_said_to_be(make_run) -> None:
    """Both have 50 % within the first ten rounds, a after half of them by the line, b at their end."""
    first, second = entry(make_run, "a", [curve(0.1, 0.9)]), entry(make_run, "b", [curve(0.1, 0.5)])
    told = verdict(Comparison((first, second), (0.5,)))
    assert "fewest rounds (5; next b, 10)" in told[0]
    unsure = "rounds, forwards, upload, download and time at 50 %."
    assert told[1] == f"Evaluations lie too far apart to be sure of the best two in {unsure}"
    rough = "reaches 50 % somewhere between its evaluations after 0 and 10 rounds: `--evaluate-every` with fewer rounds"
    assert told[2:4] == (f"a {rough} tells where.", f"b {rough} tells where.")


def test_an_order_that_evaluations_prove_is_not_doubted(make_run) -> None:
    first, second = entry(make_run, "a", [curve(0.1, 0.5, 0.9)]), entry(make_run, "b", [curve(0.1, 0.2, 0.5)])
    told = " ".join(verdict(Comparison((first, second), (0.5,))))
    assert "fewest rounds (10; next b, 20)" in told
    assert "too far apart" not in told
    assert "b reaches 50 % somewhere" not in told
    assert "a reaches 50 % somewhere between its evaluations after 0 and 10 rounds" in told


def test_what_is_not_reached_is_said_with_how_far_the_run_went(make_run) -> None:
    able, short = entry(make_run, "a", [curve(0.1, 0.9)]), entry(make_run, "b", [curve(0.1, 0.4, 0.45)])
    comparison = Comparison((able, short), (0.8,))
    told = verdict(comparison)
    assert told[0].startswith("Only a reaches 80 % with every seed, after 8.8 rounds, 884 forwards, ")
    assert told[1] == "b does not reach 80 % in 20 rounds."
    assert listings(comparison)[1].rows[1].note == "not reached in 20 rounds"
    assert verdict(Comparison((short,), (0.8,)))[0] == "No experiment reaches 80 % with every seed."
    some = entry(make_run, "c", [curve(0.1, 0.9), curve(0.1, 0.2)])
    assert "c reaches 80 % with 1 of 2 seeds." in verdict(Comparison((able, some), (0.8,)))


def test_seconds_of_runs_at_once_win_nothing(make_run) -> None:
    first, second = entry(make_run, "a", [curve(0.1, 0.9)]), entry(make_run, "b", [curve(0.1, 0.5, 0.9)])
    assert "least time" in " ".join(verdict(Comparison((first, second), (0.5,))))
    shared = Comparison((first, second), (0.5,), timed=False)
    assert "least time" not in " ".join(verdict(shared))
    assert [cell.best for cell in listings(shared)[1].rows[0].cells] == [False, True, True, True, True, False]


def test_curves_are_means_with_the_range_at_rounds_that_all_seeds_have(make_run) -> None:
    made = entry(make_run, "a", [curve(0.1, 0.5, 0.9), curve(0.3, 0.6)])
    (line,) = accuracy_chart(Comparison((made,), (0.4,))).series
    assert [(p.round, p.accuracy) for p in line.points] == [(0, pytest.approx(0.2)), (10, pytest.approx(0.55))]
    assert line.band == ((0.1, 0.3), (0.5, 0.6))
    (alone,) = accuracy_chart(Comparison((entry(make_run, "b", [curve(0.1, 0.5)]),))).series
    assert alone.band == ()


def test_differing_settings_leave_seed_and_folder_out(make_run) -> None:
    first = entry(make_run, "a", [curve(0.1)], settings={"rate": "1", "model": "mlp"})
    second = entry(make_run, "b", [curve(0.1)], settings={"rate": "2", "model": "mlp", "new": "x"})
    assert differing((first, second)) == ("rate", "new")
    assert differing((first,)) == ()


def test_json_and_csv_have_the_numbers(make_run) -> None:
    made = entry(make_run, "a", [curve(0.1, 0.5, 0.9), curve(0.1, 0.3, 0.5)], failed="diverged")
    comparison = Comparison((made,), (0.5, 0.95), ("A remark.",))
    told = json.loads(as_json(comparison))
    (found,) = told["experiments"]
    assert told["targets"] == [0.5, 0.95]
    assert told["remarks"] == ["A remark."]
    assert found["failed"] == [{"seed": "2", "reason": "diverged"}]
    assert found["at_end"]["accuracy"] == {
        "n": 2,
        "mean": pytest.approx(0.7),
        "deviation": pytest.approx(0.08**0.5),
        "low": 0.5,
        "high": 0.9,
    }
    assert found["to_target"][0]["rounds"]["mean"] == pytest.approx(15)
    assert (found["to_target"][1]["reached"], found["to_target"][1]["of"]) == (0, 3)
    assert found["to_target"][1]["rounds"]["mean"] is None
    assert found["runs"][0]["to_target"][0]["between"] == [0, 10]
    assert found["runs"][0]["to_target"][1]["between"] is None
    assert found["runs"][0]["to_target"][1]["seconds"] is None
    (line,) = csv.DictReader(io.StringIO(as_csv(comparison)))
    assert (line["experiment"], line["seeds"], line["failed"], line["reached_0.5"]) == ("a", "3", "1", "2")
    assert float(line["rounds_to_0.5"]) == pytest.approx(15)
    assert line["rounds_to_0.95"] == ""


def test_memory_that_is_not_known_is_not_a_number(make_run) -> None:
    made = entry(make_run, "a", [curve(0.1)], memory=None)
    assert isnan(made.at_end(MEMORY).mean)
    assert as_csv(Comparison(())) == "\n"
