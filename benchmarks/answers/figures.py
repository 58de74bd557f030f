"""Plots of committed results, for docs/questions.md."""

# pyright: standard
from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from math import inf
from pathlib import Path
from statistics import fmean, median, stdev
from typing import Any

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from answers.reading import at, runs_of
from answers.tables import MARKS, answered, best_rates, mnist_curves, on_mnist
from baffle.report.palette import GRID, INK, LIGHT

IMAGES = Path(__file__).parents[2] / "docs" / "images"
STYLE = {
    "axes.edgecolor": INK,
    "axes.grid": True,
    "axes.labelcolor": INK,
    "axes.spines.right": False,
    "axes.spines.top": False,
    "axes.titlesize": 9.0,
    "font.size": 9.0,
    "grid.color": GRID,
    "legend.fontsize": 8.0,
    "legend.frameon": False,
    "text.color": INK,
    "xtick.color": INK,
    "ytick.color": INK,
}
METHODS = ("ours", "ours, batch 32", "paper's", "FedZO", "FedSGD", "FedAvg", "FedAvg, 100 steps")
"""In the order of their colours."""
GRID_POINTS = 60
SHARES = ("IID", "Dirichlet(1)", "Dirichlet(0.3)", "Dirichlet(0.1)")
PUBLISHED = 95.17
"""Percent on MNIST with the LeNet, IID, after 20 epochs, as arXiv 2301.12195 reports it."""
Points = Sequence[tuple[float, float]]


def draw(record: Mapping[str, Any]) -> Iterator[Path]:
    """Draw what there are results for, and yield the files."""
    made = {
        "groups": (groups, "9"),
        "sizes": (sizes, "5"),
        "error": (error, "10"),
        "bytes": (sent, "8"),
        "shares": (shares, "1-digits"),
        "shares-mnist": (shares_on_mnist, "1"),
        "long": (long, "long"),
    }
    for name, (figure, question) in made.items():
        if question in record:
            with matplotlib.rc_context(STYLE):
                path = IMAGES / f"questions-{name}.png"
                figure(record).savefig(path, dpi=160, facecolor="white", metadata={"Software": None})
            yield path


def panels(count: int, **options: Any) -> tuple[Figure, Sequence[Axes]]:
    """Return a figure with panels side by side."""
    figure = Figure(figsize=(3.4 * count, 2.9), layout="constrained")
    return figure, list(figure.subplots(1, count, squeeze=False, **options)[0])


def line(axes: Axes, colour: int, label: str, x: Sequence[float], heights: Sequence[Sequence[float]]) -> None:
    """Draw means with bars of one sample standard deviation."""
    bars = [stdev(some) if len(some) > 1 else 0.0 for some in heights]
    means = [fmean(some) for some in heights]
    axes.errorbar(
        x, means, bars, color=LIGHT[colour], label=label, marker="o", markersize=3.5, capsize=2.5, linewidth=1.4
    )


def groups(record: Mapping[str, Any]) -> Figure:
    """Question 9: accuracy against sets of directions."""
    rows = answered(record, "9")
    ways = list(dict.fromkeys(label.rpartition(", G")[0] for label in rows))
    figure, axes = panels(len(ways), sharey=True)
    for own, way in zip(axes, ways, strict=True):
        for colour, mark in enumerate(MARKS):
            counts = [int(label.rpartition(" ")[2]) for label in rows if label.startswith(f"{way}, G")]
            found = [
                [100 * (at(run, "round", mark) or 0.0) for run in runs_of(rows[f"{way}, G = {count}"])]
                for count in counts
            ]
            line(own, colour, f"round {mark}", counts, found)
        own.set(
            title=f"{way} forwards a client",
            xlabel="sets of directions, G",
            xscale="log",
            xticks=counts,
            xticklabels=counts,
        )
        own.minorticks_off()
    axes[0].set_ylabel("accuracy (%)")
    figure.legend(*axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=3)
    return figure


def sizes(record: Mapping[str, Any]) -> Figure:
    """Question 5: accuracy against weights, at each size's best rate."""
    figure, (axes,) = panels(1)
    for colour, (method, points) in enumerate(best_rates(answered(record, "5")).items()):
        line(
            axes,
            colour,
            method,
            [weights for weights, _, _ in points],
            [[100 * v for v in ends] for _, _, ends in points],
        )
    axes.set(xscale="log", xlabel="weights", ylabel="accuracy (%)")
    axes.legend()
    return figure


def error(record: Mapping[str, Any]) -> Figure:
    """Question 10: the error's ratio to √(n/K) through a run, a panel for each K."""
    found = record["10"]
    names = list(dict.fromkeys(label.rpartition(", K = ") for label in found["rows"]))
    figure, axes = panels(len({k for _, _, k in names}), sharey=True)
    for own, k in zip(axes, dict.fromkeys(k for _, _, k in names), strict=True):
        for colour, way in enumerate(way for way, _, some in names if some == k):
            row = found["rows"][f"{way}, K = {k}"]
            own.errorbar(
                range(len(found["rounds"])),
                row["mean"],
                row["deviation"],
                label=way,
                color=LIGHT[colour % len(LIGHT)],
                linestyle="--" if colour >= len(LIGHT) else "-",
                marker="o",
                markersize=3,
                linewidth=1.2,
                capsize=2,
            )
        own.set(title=f"K = {k}", xlabel="round", xticks=range(len(found["rounds"])), xticklabels=found["rounds"])
    axes[0].set_ylabel("relative error / √(n/K)")
    figure.legend(*axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=3)
    return figure


def sent(record: Mapping[str, Any]) -> Figure:
    """Questions 8 and 12: accuracy against bytes a client sends and processor seconds."""
    parts = {"digits": answered(record, "8"), "MNIST": mnist_curves(record)}
    figure, axes = panels(4, sharey=True)
    for place, (title, rows) in enumerate(parts.items()):
        left, right = axes[2 * place : 2 * place + 2]
        costs = record.get("12", {"rows": {}})["rows"].get(title, {})
        for method, row in rows.items():
            for number, run in enumerate(runs_of(row)):
                style = {"color": LIGHT[METHODS.index(method)], "linewidth": 1.0}
                heights = [100 * value for value in run["accuracy"]][1:]
                left.plot(run["upload_bytes"][1:], heights, label=None if number or place else method, **style)
                if method in costs:
                    right.plot([median(costs[method]) * count for count in run["round"][1:]], heights, **style)
        left.set(title=title, xlabel="bytes a client sends", xscale="log")
        right.set(title=title, xlabel="processor seconds of the simulation", xscale="log")
    axes[0].set_ylabel("accuracy (%)")
    figure.legend(loc="outside lower center", ncols=7)
    return figure


def shares(record: Mapping[str, Any]) -> Figure:
    """Question 1 on digits: accuracy against rounds, K = 100, a panel for each share of the data."""
    figure, axes = panels(len(SHARES), sharey=True)
    one_share_each(axes, answered(record, "1-digits"), "")
    axes[0].set_ylabel("accuracy (%)")
    figure.legend(*axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=4)
    return figure


def shares_on_mnist(record: Mapping[str, Any]) -> Figure:
    """Question 1 on MNIST: the same, a line of panels for each network."""
    figure = Figure(figsize=(3.4 * len(SHARES), 5.4), layout="constrained")
    axes = figure.subplots(2, len(SHARES), sharey=True, sharex="row", squeeze=False)
    for line_of, network in zip(axes, ("LeNet", "WRN-10-2"), strict=True):
        one_share_each(line_of, on_mnist(record), f"{network}, ", 60)
        line_of[0].set_ylabel(f"{network}: accuracy (%)")
    figure.legend(*axes[0][0].get_legend_handles_labels(), loc="outside lower center", ncols=5)
    return figure


def one_share_each(axes: Sequence[Axes], rows: Mapping[str, Any], network: str, most: float = inf) -> None:
    """Draw the methods' curves of a network, up to a round, a panel for each share of the data."""
    methods = ("K = 100, ours", "K = 100, paper's", "FedSGD", "FedAvg", "FedZO")
    for own, share in zip(axes, SHARES, strict=True):
        for colour, method in enumerate(methods):
            for number, run in enumerate(runs_of(rows.get(f"{network}{share}, {method}", {"runs": {}}))):
                points = [(turn, 100 * height) for turn, height in zip(run["round"], run["accuracy"], strict=True)]
                own.plot(
                    *zip(*(point for point in points if point[0] <= most), strict=True),
                    color=LIGHT[colour],
                    label=None if number else method,
                    linewidth=1.2,
                )
        own.set(title=share, xlabel="round")


def long(record: Mapping[str, Any]) -> Figure:
    """The long run: accuracy against rounds, forward equivalents and bytes that a client sends."""
    axes_of = {
        "round": "round",
        "forward_equivalents": "forward equivalents of a client",
        "upload_bytes": "bytes a client sends",
    }
    figure, axes = panels(len(axes_of), sharey=True)
    for colour, (method, row) in enumerate(answered(record, "long").items()):
        for number, run in enumerate(runs_of(row)):
            heights = [100 * value for value in run["accuracy"]][1:]
            for own, axis in zip(axes, axes_of, strict=True):
                label = None if number else method
                own.plot(run[axis][1:], heights, color=LIGHT[colour], label=label, linewidth=1.2)
    for own, (axis, title) in zip(axes, axes_of.items(), strict=True):
        own.axhline(PUBLISHED, color=INK, linestyle=":", linewidth=1.0, label="the paper's figure, at 32×32")
        own.set(xlabel=title, ylim=(85, 100), xscale="linear" if axis == "round" else "log")
    axes[0].set_ylabel("accuracy (%)")
    figure.legend(*axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=4)
    return figure
