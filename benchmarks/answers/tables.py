"""The tables of docs/questions.md, from committed results."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from statistics import fmean, median
from typing import Any

from answers.asked import QUESTIONS
from answers.reading import at, ends, percent, reached, runs_of, spread

ACCURACY = Path(__file__).parents[1] / "results" / "accuracy.json"
MARKS = (20, 50, 100)
"""Rounds of question 9."""
TARGETS = (0.8, 0.9, 0.95)
Record = Mapping[str, Any]


PLACE = re.compile(r"(<!-- table (\S+) -->\n).*?(<!-- end -->)", re.DOTALL)


def filled(page: str, record: Record) -> str:
    """Return the page with the tables of what is on record between its marks."""

    def made(number: str) -> str:
        there = number.removesuffix("-wrn") in record
        return MAKERS[number](record) if there else f"*Not run: `python benchmarks/questions.py {number}`.*"

    return PLACE.sub(lambda place: f"{place[1]}\n{made(place[2])}\n\n{place[3]}", page)


def answered(record: Record, number: str) -> dict[str, Any]:
    """Return the rows of a question that there are runs of, with the settings that it has now, in its order."""
    rows, question = record.get(number, {"rows": {}})["rows"], QUESTIONS[number]
    now = {label: json.loads(json.dumps(question.settings(label))) for label in question.rows}
    return {
        label: rows[label] for label, settings in now.items() if label in rows and rows[label]["settings"] == settings
    }


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return a table in Markdown."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


def lenet(record: Record) -> str:
    """Question 1 on LeNet: after equal rounds, and after equal forwards."""
    rows = {label: row for label, row in on_mnist(record).items() if label.startswith("LeNet")}
    return at_marks(rows, (20, 40, 60), (76_800, 190_000))


def wide_resnet(record: Record) -> str:
    """Question 1 on WRN-10-2."""
    rows = {label: row for label, row in answered(record, "1").items() if label.startswith("WRN")}
    return at_marks(rows, (6, 15, 30), (96_000,))


def at_marks(found: Record, rounds: Sequence[int], forwards: Sequence[int]) -> str:
    """Return a table of accuracies after so many rounds, and after so many forwards."""
    rows = []
    for label, row in found.items():
        runs = runs_of(row)
        cells = [[at(run, "round", mark) for run in runs] for mark in rounds]
        cells += [[at(run, "forward_equivalents", mark, within=0.02) for run in runs] for mark in forwards]
        cost = runs[0]["forward_equivalents"][-1] / runs[0]["round"][-1]
        told = (percent(some) if None not in some else "" for some in cells)
        rows.append([label, str(len(runs)), f"{cost:,.0f}", *told])
    head = [
        *("run", "seeds", "forwards a round"),
        *(f"round {mark}" for mark in rounds),
        *(f"{mark:,} forwards" for mark in forwards),
    ]
    return table(head, rows)


def rates(record: Record) -> str:
    """Which rate each method has: rounds to two targets, and the end."""
    rows = []
    for label, row in answered(record, "rates").items():
        method, _, rate = label.rpartition(", ")
        (run,) = runs_of(row)
        needed = [reached(run, target, "round") for target in TARGETS[1:]]
        rows.append([method, rate, *("" if each is None else f"{each:.1f}" for each in needed), percent(ends(row))])
    return table(["method", "rate", *(f"rounds to {target:.0%}" for target in TARGETS[1:]), "the end"], rows)


def shared_out(record: Record) -> str:
    """Question 1 on digits: after equal rounds, and at the end, which is after equal forwards but for baselines."""
    rows = [
        [
            label,
            str(len(runs_of(row))),
            percent([at(run, "round", 20) or 0.0 for run in runs_of(row)]),
            percent(ends(row)),
        ]
        for label, row in answered(record, "1-digits").items()
    ]
    return table(["run", "seeds", "round 20", "the end"], rows)


KS = {"ours": "K = 100, ", "paper's": "K = 100, "}


def on_mnist(record: Record) -> dict[str, Any]:
    """Return question 1's rows, with those that other questions have had run for longer."""
    rows = {f"LeNet, IID, {KS.get(name, '')}{name}": row for name, row in mnist_curves(record).items()}
    return rows | answered(record, "1")


def ended(record: Record, number: str, first: str) -> str:
    """Return a table of accuracies at the end."""
    rows = answered(record, number)
    return table(
        [first, "accuracy", "runs"], [[name, percent(ends(row)), str(len(runs_of(row)))] for name, row in rows.items()]
    )


def guidelines(record: Record) -> str:
    """Question 2: with the averaged weights and with the last ones."""
    rows = answered(record, "2") | {f"LeNet, {name}": row for name, row in answered(record, "2-norm").items()}
    cells = [
        [
            name,
            percent([at(run, "round", 60) or 0.0 for run in runs_of(row)]),
            percent(ends(row)),
            percent(ends(row, "accuracy_last")),
        ]
        for name, row in rows.items()
    ]
    return table(["settings", "round 60, averaged", "the end, averaged", "the end, last weights"], cells)


def sizes(record: Record) -> str:
    """Question 5: the best of the rates tried."""
    found = best_rates(answered(record, "5"))
    rows = [
        [
            f"{weights:,}",
            *(
                f"{percent(points[place][2])} ({points[place][1]:g})" if len(points) > place else ""
                for points in found.values()
            ),
        ]
        for place, (weights, _, _) in enumerate(next(iter(found.values())))
    ]
    return table(["weights", *(f"{method} (rate)" for method in found)], rows)


def best_rates(rows: Record) -> dict[str, list[tuple[int, float, list[float]]]]:
    """Return for each method its weights, the rate that ended best, and what it ended with."""
    found: dict[str, dict[int, tuple[int, float, list[float]]]] = {}
    for label, row in rows.items():
        size, method, rate = label.replace(", 320", " 320").split(", ")
        weights = int(size.split(" ")[0].replace(",", ""))
        one = (weights, float(rate.split(" ")[1]), ends(row))
        best = found.setdefault(method, {}).get(weights, one)
        found[method][weights] = max(best, one, key=lambda each: fmean(each[2]))
    return {method: [points[weights] for weights in sorted(points)] for method, points in found.items()}


def times(record: Record) -> str:
    """Question 6: milliseconds, and over a forward and backward pass."""
    found = record["6"]["rows"]
    rows = []
    for network, ways in found.items():
        base = median(ways["forward and backward"])
        rows += [
            [network, way, f"{1e3 * median(turns):,.1f}", f"{median(turns) / base:.1f}"] for way, turns in ways.items()
        ]
    return table(["network", "what", "ms of processor time", "over forward and backward"], rows)


def memory(record: Record) -> str:
    """Question 7: MiB above the base."""
    found = record["7"]["rows"]
    ways = next(iter(found.values()))
    rows = [[way, *(f"{median(own[way]) / 2**20:.1f}" for own in found.values())] for way in ways]
    return table(["MiB above the base", *found], rows)


def costs(record: Record, title: str, rows: Record) -> str:
    """Questions 8 and 12: what a client sends and what a simulation computes until accuracy is reached."""
    head = ["method", *(f"kB to {target:.0%}" for target in TARGETS), *(f"s to {target:.0%}" for target in TARGETS)]
    seconds = record.get("12", {"rows": {}})["rows"].get(title, {})
    cells = []
    for method, row in rows.items():
        runs, cost = runs_of(row), median(seconds[method]) if method in seconds else None
        sent = [told([reached(run, target, "upload_bytes") for run in runs], 1e-3) for target in TARGETS]
        spent = [told([reached(run, target, "round") for run in runs], cost) if cost else "" for target in TARGETS]
        cells.append([method, *sent, *spent])
    return table(head, cells)


def told(values: Sequence[float | None], unit: float) -> str:
    """Return amounts in a unit, with as many digits as they are worth."""
    there = [None if value is None else value * unit for value in values]
    largest = max((value for value in there if value is not None), default=0.0)
    return spread(there, ",.0f" if largest >= 20 else ".2f" if largest < 2 else ".1f")


def mnist_curves(record: Record) -> dict[str, Any]:
    """Return the curves on MNIST: `accuracy.py goal`'s and question 8's."""
    goal = json.loads(ACCURACY.read_text())["goal, 14 pixels, 800 rounds"]["table"]
    kept = {"ours": goal["ours"]["runs"], "paper's": goal["paper's settings"]["runs"]}
    rows = {
        method: {
            "runs": {str(seed): {name: [row[name] for row in run] for name in run[0]} for seed, run in enumerate(runs)}
        }
        for method, runs in kept.items()
    }
    return rows | answered(record, "8-mnist")


def long(record: Record) -> str:
    """Return the long runs at some of their rounds."""
    marks = (120, 200, 400, 800, 1600, 2400, 3440)
    heights = (("averaged weights", "accuracy"), ("last weights", "accuracy_last"))
    rows = [
        [
            f"{label}, {title}",
            str(len(runs_of(row))),
            *(percent([at(run, "round", mark, height) or 0.0 for run in runs_of(row)]) for mark in marks),
        ]
        for label, row in answered(record, "long").items()
        for title, height in heights
    ]
    return table(["after rounds", "seeds", *(f"{mark:,}" for mark in marks)], rows)


def groups(record: Record) -> str:
    """Question 9."""
    rows = [
        [label, *(percent([at(run, "round", mark) or 0.0 for run in runs_of(row)]) for mark in MARKS)]
        for label, row in answered(record, "9").items()
    ]
    return table(["what is displaced, forwards a client", *(f"round {mark}" for mark in MARKS)], rows)


def error(record: Record) -> str:
    """Question 10."""
    found = record["10"]
    rows = [
        [label, *(f"{m:.2f} ± {d:.2f}" for m, d in zip(row["mean"], row["deviation"], strict=True))]
        for label, row in found["rows"].items()
        if label.endswith("= 200") or label.startswith("layers")
    ]
    return table(["probes", *(f"round {mark}" for mark in found["rounds"])], rows)


MAKERS: dict[str, Callable[[Record], str]] = {
    "1": lenet,
    "1-wrn": wide_resnet,
    "1-digits": shared_out,
    "2": guidelines,
    "3": lambda record: ended(record, "3", "asked in a round"),
    "4": lambda record: ended(record, "4", "clients"),
    "5": sizes,
    "6": times,
    "7": memory,
    "8": lambda record: costs(record, "digits", answered(record, "8")),
    "8-mnist": lambda record: costs(record, "MNIST", mnist_curves(record)),
    "9": groups,
    "10": error,
    "rates": rates,
    "long": long,
    "11": lambda record: ended(record, "11", "where the data are"),
}
