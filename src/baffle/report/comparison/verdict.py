"""Who wins on what, in sentences made from the numbers."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from baffle.report.comparison.entries import ACCURACY, COSTS, Comparison, Entry, Measure, rivals
from baffle.report.comparison.spread import Spread


def verdict(comparison: Comparison) -> tuple[str, ...]:
    """Return the comparison in sentences, the first one about costs at the first target.

    Costs are compared among experiments that reached the target with each seed. Where the values of the best and of the
    next lie within one another, it says that the seeds overlap; where evaluations lie so far apart that the order could
    be the other, it says that, too.
    """
    measures = [measure for measure in COSTS if comparison.timed or measure.key != "seconds"]
    told = [line for target in comparison.targets for line in _at(comparison.entries, target, measures)]
    return (*told, *_at_end(comparison.entries), *_chance(comparison.entries))


def _at(entries: Sequence[Entry], target: float, measures: Sequence[Measure]) -> Iterable[str]:
    able = [entry for entry in entries if entry.trials and entry.always_reached(target)]
    if not able:
        yield f"No experiment reaches {_figure(target)} with every seed."
    elif len(able) == 1:
        only = "Only " if len(entries) > 1 else ""
        costs = _listed([_cost(able[0], target, measure) for measure in measures])
        yield f"{only}{able[0].name} reaches {_figure(target)}{' with every seed,' if only else ''} after {costs}."
    else:
        yield from _winners(able, target, measures)
    yield from (_short_of(entry, target) for entry in entries if able and entry not in able)
    yield from (_roughly(entry, target) for entry in able if any(found.rough for found in entry.reached(target)))


def _cost(entry: Entry, target: float, measure: Measure) -> str:
    mean = measure.show(entry.to_reach(target, measure).mean).text
    words = {"rounds": "rounds", "forward_equivalents": "forwards", "upload_bytes": "of upload"}
    return f"{mean} {words.get(measure.key, 'of download' if measure.key == 'download_bytes' else '')}".strip()


def _winners(able: Sequence[Entry], target: float, measures: Sequence[Measure]) -> Iterable[str]:
    won: dict[str, list[str]] = {}
    alike: list[str] = []
    unsure: list[str] = []
    for measure in measures:
        fair = rivals(able, target, measure)
        means = {entry.name: entry.to_reach(target, measure).mean for entry in fair}
        if len(fair) < 2:
            continue
        first, second = sorted(fair, key=lambda entry: means[entry.name])[:2]
        if measure.show(means[first.name]).text == measure.show(means[second.name]).text:
            alike.append(measure.title.lower())
        elif means[first.name] < means[second.name]:  # neither is NaN
            won.setdefault(first.name, []).append(_lead(target, measure, first, second))
            if first.bounds(target, measure)[1] > second.bounds(target, measure)[0]:
                unsure.append(measure.title.lower())
    for name, leads in won.items():
        yield f"{name} reaches {_figure(target)} with the {_listed(leads)}."
    if alike:
        yield f"The best two are alike in {_listed(alike)} at {_figure(target)}."
    if unsure:
        yield f"Evaluations lie too far apart to be sure of the best two in {_listed(unsure)} at {_figure(target)}."


def _lead(target: float, measure: Measure, first: Entry, second: Entry) -> str:
    best, other = (entry.to_reach(target, measure) for entry in (first, second))
    overlap = "; the seeds overlap" if _overlap(best, other) else ""
    return (
        f"{measure.best} ({measure.show(best.mean).text}; next {second.name}, {measure.show(other.mean).text}{overlap})"
    )


def _overlap(one: Spread, other: Spread) -> bool:
    return len(one.values) + len(other.values) > 2 and one.low <= other.high and other.low <= one.high


def _roughly(entry: Entry, target: float) -> str:
    rough = next(found for found in entry.reached(target) if found.rough)
    return (
        f"{entry.name} reaches {_figure(target)} somewhere between its evaluations after {rough.before.round:g} and "
        f"{rough.after.round:g} rounds: `--evaluate-every` with fewer rounds tells where."
    )


def _short_of(entry: Entry, target: float) -> str:
    if not entry.runs:
        return f"{entry.name} did not finish."
    reached = len(entry.reached(target))
    if reached:
        return f"{entry.name} reaches {_figure(target)} with {reached} of {len(entry.trials)} seeds."
    rounds = max(run.outcome.rounds for run in entry.runs)
    return f"{entry.name} does not reach {_figure(target)} in {rounds:,} rounds."


def _at_end(entries: Sequence[Entry]) -> Iterable[str]:
    known = [entry for entry in entries if entry.runs and entry.at_end(ACCURACY).mean >= 0]
    ended = _ended(known)
    text = {entry.name: entry.at_end(ACCURACY).text(ACCURACY.show) + ended[entry.name] for entry in known}
    ranked = sorted((entry for entry in known if not entry.failed), key=lambda entry: -entry.at_end(ACCURACY).mean)
    if len(ranked) > 1:
        yield _best_two(ranked[0], ranked[1], text)
    # The seeds that a run was lost with are not in its mean.
    for entry in known if len(ranked) < 2 else [entry for entry in known if entry.failed]:
        yield f"{entry.name} ends with an accuracy of {text[entry.name]}."


def _best_two(first: Entry, second: Entry, text: Mapping[str, str]) -> str:
    best, next_one = first.at_end(ACCURACY), second.at_end(ACCURACY)
    if text[first.name] == text[second.name]:
        return f"{first.name} and {second.name} end with the same accuracy, {text[first.name]}."
    overlap = "; the seeds overlap" if _overlap(best, next_one) else ""
    return (
        f"{first.name} has the highest accuracy at the end: {text[first.name]}; "
        f"next {second.name}, {text[second.name]}{overlap}."
    )


def _ended(entries: Sequence[Entry]) -> dict[str, str]:
    """Return what has to be known beside each accuracy at the end: which seeds are in it, and after which rounds."""
    rounds = {entry.name: max(run.outcome.rounds for run in entry.runs) for entry in entries}
    unlike = len(set(rounds.values())) > 1
    told: dict[str, str] = {}
    for entry in entries:
        seeds = [f"{len(entry.runs)} of {len(entry.trials)} seeds"] if entry.failed else []
        after = [f"after {rounds[entry.name]:,} rounds"] if unlike else []
        told[entry.name] = f" ({', '.join(seeds + after)})" if seeds or after else ""
    return told


def _chance(entries: Sequence[Entry]) -> Iterable[str]:
    if len(entries) > 1 and all(len(entry.runs) <= 1 for entry in entries):
        yield "With one seed each, small differences may be chance."


def _figure(target: float) -> str:
    return f"{100 * target:.4g} %"


def _listed(parts: Sequence[str]) -> str:
    *most, last = parts
    return f"{', '.join(most)} and {last}" if most else last
