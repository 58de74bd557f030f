"""Which way to train, in a sentence with its reason."""

from __future__ import annotations

import msgspec

from baffle.planning.forecast import Forecast, Way

_FAR = 1.5
"""Times as much from which a difference is worth a word."""
_LEAST = 1e-4
"""Share below which a number says no more: it rests on a cosine that nobody would see."""


class Limits(msgspec.Struct, frozen=True):
    """What a client's device can do; None is no limit."""

    memory: int | None = None
    """Bytes of arrays."""
    upload: int | None = None
    """Bytes a round."""
    backward: bool = True
    """Whether it can differentiate at all."""

    def broken_by(self, way: Way) -> tuple[str, ...]:
        """Return what of a way does not fit, in words."""
        broken: list[str] = []
        if way.differentiates and not self.backward:
            broken.append("differentiates")
        if self.memory is not None and way.memory is not None and way.memory > self.memory:
            broken.append(f"holds {size(way.memory)}")
        if self.upload is not None and way.upload.expected > self.upload:
            broken.append(f"uploads {size(way.upload.expected)} a round")
        return tuple(broken)

    def words(self) -> str:
        """Return what a client can do, in words, or nothing."""
        told = [] if self.memory is None else [f"hold {size(self.memory)}"]
        told += [] if self.upload is None else [f"upload {size(self.upload)} a round"]
        told += [] if self.backward else ["only run forward passes"]
        return "your clients can " + " and ".join(told) if told else ""


def size(count: float) -> str:
    """Return bytes in a unit that a person reads at a glance."""
    power = 0
    while float(f"{count:.3g}") >= 1000 and power < 5:
        count /= 1000
        power += 1
    return f"{count:.3g} {('B', 'kB', 'MB', 'GB', 'TB', 'PB')[power]}"


def advice(found: Forecast, limits: Limits) -> str:
    """Return the way that fits and costs least, and why.

    FedSGD on mini-batches of as many samples takes the exact gradient where this method has an estimate of it, and a
    step along an estimate is worth its cosine squared of one along the gradient (on a quadratic loss with the best
    rate). So that many rounds of FedSGD stand against one here.
    """
    own, *others = found.ways
    fitting = [way for way in others if not limits.broken_by(way)]
    unfit = limits.broken_by(own)
    can = limits.words()
    if not fitting and not unfit:
        return _forwards_only(found, limits, can)
    if not fitting:
        return _nothing(found, limits, can, unfit)
    best = fitting[0]
    reason = _compared(found, best)
    if unfit:
        unlike = ", which keeps no budget of privacy" if found.budget else ""
        why = f"this {' and '.join(unfit)}"
        return f"{can}: forward passes do not fit as they are set ({why}); use {_named(best)}{unlike}."
    so = can + ", and " if can else ""
    if found.budget:
        return f"{so}{reason}, but keeps no budget of privacy: use {_named(best)} where none is needed."
    if _work(found, best) > 1 / _FAR:
        return f"both fit; {reason}: forward passes cost little more here, so use them for their small reports."
    return f"{so}{reason}: use {_named(best)} wherever clients can run it."


def _forwards_only(found: Forecast, limits: Limits, can: str) -> str:
    if not found.ways[1:]:
        so = can + ": " if can else ""
        return f"{so}only forward passes can train this model, which can't be differentiated here."
    closest = min(found.ways[1:], key=lambda way: len(limits.broken_by(way)))
    why = f"{closest.name} {' and '.join(limits.broken_by(closest))}"
    own = found.ways[0]
    held = f"hold {size(own.memory)} and " if own.memory is not None else ""
    return f"{can}: only forward passes fit, which {held}upload {size(own.upload.expected)} a round ({why})."


def _nothing(found: Forecast, limits: Limits, can: str, unfit: tuple[str, ...]) -> str:
    own = found.ways[0]
    hints: list[str] = []
    if limits.upload is not None and own.upload.expected > limits.upload:
        hints.append("a larger batch or fewer bits make reports smaller")
    if limits.memory is not None and own.memory is not None and own.memory > limits.memory:
        hints.append("a smaller batch or model takes less memory")
    return f"{can}: nothing fits; even this {' and '.join(unfit)}. {'; '.join(hints).capitalize()}."


def _named(way: Way) -> str:
    return way.name.replace(", checkpointed", " with gradient checkpointing")


def _work(found: Forecast, way: Way) -> float:
    """Return the forward equivalents of `way` for the progress that one round here makes, over this round's."""
    own = found.ways[0]
    return (own.cosine or 0.0) ** 2 * way.forwards.expected / own.forwards.expected


def _compared(found: Forecast, way: Way) -> str:
    own = found.ways[0]
    if own.cosine is None:
        return "backpropagation comes further, by how much takes a measurement"
    upload = (own.cosine or 0.0) ** 2 * way.upload.expected / own.upload.expected
    work, sent = _times(_work(found, way)), _times(upload)
    less = " (less with FedAvg's local steps)" if upload > 1 else ""
    return f"backpropagation comes as far with {work} the forward passes and {sent} the upload{less}"


def _times(ratio: float) -> str:
    """Return a ratio in words."""
    if ratio >= 1:
        return f"{ratio:,.0f} times" if ratio >= 10 else f"{ratio:.2g} times"
    if ratio < _LEAST:
        return f"less than 1/{1 / _LEAST:,.0f} of"
    return f"1/{1 / ratio:,.0f} of" if ratio <= 0.1 else f"1/{1 / ratio:.2g} of"
