"""What reviewers of the BAFFLE paper (arXiv 2301.12195) asked, answered by runs.

    python benchmarks/questions.py [NUMBER ...] [--only TEXT] [--seeds N]
    python benchmarks/questions.py figures|tables

Without a number, lists the questions. Runs are kept in runs/questions and go on where they were when the script is
started again. Writes benchmarks/results/questions.json; `figures` draws docs/images from it, `tables` puts the tables
into docs/questions.md. Questions on MNIST need BAFFLE_MNIST, a folder of its IDX files.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from answers import kept, tables
from answers.asked import QUESTIONS, here

PAGE = Path(__file__).parents[1] / "docs" / "questions.md"
MEASURED = {
    "6": "time of K forwards over one forward and backward pass",
    "7": "memory of probes and of backpropagation",
    "10": "the constant of the error bound",
    "12": "processor time of a round",
}


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("questions", nargs="*", metavar="NUMBER")
    parser.add_argument("--only", default="", help="rows whose label has this text")
    parser.add_argument("--seeds", type=int, default=0, help="instead of the question's own number")
    given = parser.parse_args()
    if not given.questions:
        print("\n".join(f"{number:8} {title}" for number, title in titles().items()))
    for number in given.questions:
        answer(number, given.only, given.seeds)


def titles() -> dict[str, str]:
    """Return every question, by what it is asked for with."""
    found = MEASURED | {number: question.title for number, question in QUESTIONS.items()}
    return {number: found[number] for number in sorted(found, key=lambda number: kept.order((number, "")))}


def answer(number: str, only: str, seeds: int) -> None:
    """Do what was asked for."""
    if number == "tables":
        PAGE.write_text(tables.filled(PAGE.read_text(), kept.found()))
    elif number == "figures":
        from answers import figures

        print("\n".join(map(str, figures.draw(kept.found()))))
    elif number in QUESTIONS:
        train(number, only, seeds)
    elif number in MEASURED:
        measure(number, seeds)
    else:
        raise SystemExit(f"there is no question {number!r}; there are {', '.join(titles())}, figures and tables")


def measure(number: str, seeds: int) -> None:
    """Answer a question that is no table of runs."""
    if number == "6":
        from answers import time

        kept.keep("6", **time.answer())
    elif number == "7":
        from answers import memory

        kept.keep("7", **memory.answer())
    elif number == "10":
        from answers import error

        kept.keep("10", **error.answer(seeds or 3))
    elif number == "12":
        from answers import seconds

        kept.keep("12", **seconds.answer())


def train(number: str, only: str, seeds: int) -> None:
    """Run a question's rows, seed by seed, and put each on record."""
    question = QUESTIONS[number]
    for seed in range(seeds or question.seeds):
        for label in (label for label in question.rows if only in label):
            settings = question.settings(label)
            run = kept.curve(kept.folder_of(number, label, settings, seed), here(settings, seed))
            kept.keep_run(number, label, settings, seed, run)
            print(f"{number}  {label:44} seed {seed}  {100 * run['accuracy'][-1]:5.1f} %", flush=True)


if __name__ == "__main__":
    main()
