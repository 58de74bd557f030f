from dataclasses import replace

from baffle.report.charts import ABSCISSAE, accuracy_chart, loss_chart
from baffle.report.runs import read_runs

ROUNDS, FORWARDS, UPLOAD = ABSCISSAE


def test_a_run_alone_shows_its_plain_weights_too(make_run):
    chart = accuracy_chart(read_runs([make_run()]))
    assert [line.name for line in chart.series] == ["averaged weights", "plain weights"]
    assert [line.read(line.points[-1]) for line in chart.series] == [0.9, 0.86]
    assert chart.series[0].stroke != chart.series[1].stroke


def test_several_runs_have_a_line_each(make_run):
    runs = read_runs([make_run("a"), make_run("b")])
    for chart in (accuracy_chart(runs), loss_chart(runs)):
        assert [line.name for line in chart.series] == ["a", "b"]
        assert chart.series[0].stroke != chart.series[1].stroke


def test_an_axis_is_logarithmic_when_final_values_are_over_two_decades_apart(make_run):
    near = accuracy_chart(read_runs([make_run("a", cost=1.0), make_run("b", cost=100.0)]))
    far = accuracy_chart(read_runs([make_run("c", cost=1.0), make_run("d", cost=100.5)]))
    assert [near.is_log_x(axis) for axis in ABSCISSAE] == [False, False, False]
    assert [far.is_log_x(axis) for axis in ABSCISSAE] == [False, True, False]


def test_only_a_positive_loss_over_two_decades_is_logarithmic(make_run):
    (run,) = read_runs([make_run()])
    low, high = replace(run.points[0], loss=0.01, accuracy=0.001), replace(run.points[1], loss=1.1, accuracy=0.9)
    for points, expected in [((low, high), True), ((replace(low, loss=0.0), high), False), ((high,), False)]:
        assert loss_chart([replace(run, points=points)]).is_log_y() is expected
        assert accuracy_chart([replace(run, points=points)]).is_log_y() is False


def test_a_description_tells_where_each_line_ends(make_run):
    chart = accuracy_chart(read_runs([make_run("a"), make_run("b", cost=1000.0)]))
    assert chart.describe(ROUNDS) == "accuracy against rounds. a: 90.00% at 40; b: 90.00% at 40."
    assert "a: 90.00% at 4,040; b: 90.00% at 40k" in chart.describe(FORWARDS)
    assert "at 9.12 kB" in chart.describe(UPLOAD)


def test_a_description_of_many_lines_is_cut(make_run):
    runs = read_runs([make_run(f"run-{index}") for index in range(11)])
    assert "; and 3 more, see the table of runs." in accuracy_chart(runs).describe(ROUNDS)
