"""Limits that other machines, other versions or people count on, as numbers: with one, behaviour changes."""

from __future__ import annotations

import pytest

from baffle import Baffle, accounting, budget, messages, serving
from baffle.directions import Rademacher
from baffle.engines.network import hub, inbox, roster, standing
from baffle.estimators import CentralDifference, CentredDifference, ForwardDifference
from baffle.mechanisms import GaussianPrivacy, RandomisedPrivacy, private
from baffle.mechanisms.clip_norm import AdaptiveBound
from baffle.optimizers import Adam, ExponentialAverage, Sgd
from baffle.secure import member as secure_member


@pytest.mark.parametrize(
    ("value", "limit"),
    [
        (accounting.MOST_ROUNDS, 1 << 40),
        (budget.COARSE, 1e-3),
        (private.MOST_SLOPES, 1 << 28),
        (private.MOST_SLOPES, messages.MOST_SLOPES),
        (private.MOST_SHARES, 1000),
        (serving.MOST_SAMPLES, 1 << 31),
        (secure_member.MOST_HELD, 64),
        (secure_member.AHEAD, 8),
        (hub.GRACE, 1.0),
        (inbox.Limits().messages, 8),
        (inbox.Limits().size, 2 << 20),
        (inbox.Limits().strangers_messages, 256),
        (inbox.Limits().strangers_size, 8 << 20),
        (inbox.Limits().all_messages, 16_384),
        (inbox.Limits().all_size, 32 << 20),
        (AdaptiveBound().quantile, 0.5),
        (AdaptiveBound().rate, 0.2),
        (AdaptiveBound().deviation, 0.0),
        (hub.SETTLE, 5.0),
        (standing.Standing.__dataclass_fields__["save_seconds"].default, 60.0),
    ],
)
def test_a_limit_is_what_it_was(value, limit) -> None:
    assert value == limit
    assert type(value) is type(limit)


@pytest.mark.parametrize(
    ("kind", "defaults"),
    [
        (ForwardDifference, {"scale": 1e-3}),
        (CentralDifference, {"scale": 1e-2}),
        (CentredDifference, {"scale": 1e-2}),
        (Sgd, {"rate": 1e-2, "momentum": 0.0, "weight_decay": 0.0}),
        (Adam, {"rate": 1e-2, "beta1": 0.9, "beta2": 0.99, "eps": 1e-8, "weight_decay": 0.0}),
        (ExponentialAverage, {"decay": 0.995}),
        (GaussianPrivacy, {"size": 1.0, "quantile": 0.0, "rate": 0.2, "shares": 0}),
        (RandomisedPrivacy, {"size": 1.0, "summed": 0, "shares": 0}),
        (
            Baffle,
            {
                "forwards": 3200,
                "batch": 0,
                "estimator": CentredDifference(1e-2),
                "law": Rademacher(),
                "blocks": "layers",
                "allocation": "adaptive",
                "orthogonal": True,
                "groups": 1,
                "bits": 8,
                "bound": 16.0,
                "spread": 6.0,
                "local_steps": 1,
                "local_rate": 0.1,
                "clip": 0.3,
                "optimizer": Adam(rate=2e-2, beta1=0.5),
                "average": ExponentialAverage(),
                "anneal": 0,
                "privacy": None,
            },
        ),
    ],
)
def test_a_default_is_what_it_was(kind, defaults) -> None:
    """A run that somebody began without saying more goes on with these."""
    names = kind.__struct_fields__[-len(kind.__struct_defaults__) :]
    found = [value() if isinstance(value, type(lambda: 0)) else value for value in kind.__struct_defaults__]
    assert dict(zip(names, found, strict=True)) == defaults


def test_the_latency_told_is_of_the_latest_32_reports(monkeypatch) -> None:
    entry = roster.Entry(0, called=0.0)
    for seconds in [1000.0] * 40 + [1.0] * 15 + [2.0] + [3.0] * 16:
        monkeypatch.setattr(roster.time, "monotonic", lambda seconds=seconds: seconds)
        entry.counts((0, 1), 5)
    assert len(entry.latencies) == 32
    assert sorted(entry.latencies)[15:17] == [2.0, 3.0]
    assert entry.row(None, 0.0)["latency"] == 2.5
    assert entry.answered == 72
