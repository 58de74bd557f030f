"""Who wins on what, in sentences made from the numbers."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from baffle.report.comparison.entries import ACCURACY, COSTS, Comparison, Entry, Measure
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
        means = {entry.name: entry.to_reach(target, measure).mean for entry in able}
        first, second = sorted(able, key=lambda entry: means[entry.name])[:2]
        if means[first.name] == means[second.name]:
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
    spreads = {entry.name: entry.at_end(ACCURACY) for entry in entries if entry.runs}
    known = sorted((name for name in spreads if spreads[name].mean >= 0), key=lambda name: -spreads[name].mean)
    if not known:
        return
    text = {name: spreads[name].text(ACCURACY.show) for name in known}
    if len(known) == 1:
        yield f"{known[0]} ends with an accuracy of {text[known[0]]}."
        return
    first, second = known[:2]
    if spreads[first].mean == spreads[second].mean:
        yield f"{first} and {second} end with the same accuracy, {text[first]}."
        return
    overlap = "; the seeds overlap" if _overlap(spreads[first], spreads[second]) else ""
    yield f"{first} has the highest accuracy at the end: {text[first]}; next {second}, {text[second]}{overlap}."


def _chance(entries: Sequence[Entry]) -> Iterable[str]:
    if len(entries) > 1 and all(len(entry.runs) <= 1 for entry in entries):
        yield "With one seed each, small differences may be chance."


def _figure(target: float) -> str:
    return f"{100 * target:.4g} %"


def _listed(parts: Sequence[str]) -> str:
    *most, last = parts
    return f"{', '.join(most)} and {last}" if most else last
